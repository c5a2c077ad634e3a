"""Both tables by DuckDB's mysql extension into Parquet: HOST PORT USER PASSWORD DATABASE DIRECTORY."""

import sys
from importlib.resources import files

import duckdb

host, port, user, password, database, out = sys.argv[1:]
extension = files("duckdb_extension_mysql_scanner") / "extensions" / f"v{duckdb.__version__}" / "mysql_scanner.duckdb_extension"
connection = duckdb.connect(config={"allow_unsigned_extensions": True})
connection.load_extension(str(extension))
connection.sql(
    f"ATTACH 'host={host} port={port} user={user} password={password} database={database}' AS billing (TYPE mysql, READ_ONLY)"
)
for table in ("ar_cdr", "ar_source_cdr"):
    connection.sql(
        f"COPY (FROM billing.{table}) TO '{out}/{table}.parquet' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3)"
    )
