"""Counts the rows of each dataset of a vault by DuckDB, with Hive partitioning: count_rows.py VAULT"""

import sys

import duckdb

vault = sys.argv[1]
for dataset in ("ar_cdr", "ar_source_cdr"):
    query = f"SELECT count(*), count(day) FROM read_parquet('{vault}/{dataset}/**/*.parquet', hive_partitioning = true)"
    [(rows, _)] = duckdb.sql(query).fetchall()
    print(dataset, rows)
