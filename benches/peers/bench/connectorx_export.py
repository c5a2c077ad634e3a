"""Both tables by ConnectorX into Arrow, and by pyarrow into Parquet: HOST PORT USER PASSWORD DATABASE DIRECTORY."""

import sys

import connectorx
import pyarrow.parquet as parquet

host, port, user, password, database, out = sys.argv[1:]
for table in ("ar_cdr", "ar_source_cdr"):
    url = f"mysql://{user}:{password}@{host}:{port}/{database}"
    rows = connectorx.read_sql(
        url, f"SELECT * FROM {table}", partition_on="id", partition_num=2, return_type="arrow"
    )
    parquet.write_table(rows, f"{out}/{table}.parquet", compression="zstd", compression_level=3)
