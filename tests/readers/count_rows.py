"""Counts the rows of each dataset of a vault by DuckDB, pyarrow and Polars, with Hive partitioning: count_rows.py VAULT"""

import sys

import duckdb
import polars
import pyarrow.dataset

vault = sys.argv[1]
for dataset in ("ar_cdr", "ar_source_cdr"):
    files = f"{vault}/{dataset}/**/*.parquet"
    query = f"SELECT count(*), count(DISTINCT day) FROM read_parquet('{files}', hive_partitioning = true)"
    [(rows, days)] = duckdb.sql(query).fetchall()
    arrow = pyarrow.dataset.dataset(f"{vault}/{dataset}", format="parquet", partitioning="hive")
    assert arrow.count_rows() == rows, (dataset, rows, arrow.count_rows())
    assert "day" in arrow.schema.names
    frame = polars.scan_parquet(files, hive_partitioning=True)
    frame = frame.select(polars.len().alias("rows"), polars.col("day").drop_nulls().n_unique().alias("days")).collect()
    assert (frame["rows"][0], frame["days"][0]) == (rows, days), (dataset, rows, days, frame)
    print(dataset, rows)
