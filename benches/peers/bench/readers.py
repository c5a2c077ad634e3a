"""Whether outputs hold the rows of the database: counts and sums of both tables, by readers that are not ours."""

import duckdb

from .servers import MariaDb

# An expression for the server, and one for DuckDB, where text may come as bytes.
SUMS = {
    "ar_cdr": ["COUNT(*)", "SUM(id)", "SUM(duration)", "SUM(income)", "SUM(cost)", "SUM(from_source_cdr_id)",
               "SUM(LENGTH(exported_internal_telephone_number))", "COUNT(imported_info)", "MIN(calldate)", "MAX(calldate)"],
    "ar_source_cdr": ["COUNT(*)", "SUM(id)", "SUM(ar_cdr_provider_id)", "COUNT(content)", "MIN(calldate)", "MAX(calldate)"],
}  # fmt: skip


def sums_of_table(server: MariaDb, database: str, table: str) -> list[str]:
    return server.sql(f"SELECT {', '.join(SUMS[table])} FROM {table}", database).split("\t")


def sums_of_parquet(table: str, files: str) -> list[str]:
    select = ", ".join(SUMS[table]).replace("LENGTH(", "octet_length(").replace("telephone_number))", "telephone_number::BLOB))")
    row = duckdb.sql(f"SELECT {select} FROM read_parquet('{files}', hive_partitioning = false)").fetchone()
    return [str(value).removesuffix(".000000") for value in row]
