"""Shows column d of each row of ar_source_cdr as DuckDB reads it, with its type: wide_decimals.py VAULT"""

import glob
import sys

import duckdb

for path in sorted(glob.glob(f"{sys.argv[1]}/ar_source_cdr/**/*.parquet", recursive=True)):
    query = f"SELECT CAST(calldate AS DATE), typeof(d), d FROM read_parquet('{path}') ORDER BY id"
    for day, kind, value in duckdb.sql(query).fetchall():
        print(day, kind, value)
