#!/usr/bin/env python3
"""Counts what a vault holds as anybody would who has DuckDB and no cdrvault.

    duckdb_vault.py VAULT

Prints JSON: {"rows": N, "datasets": {"ar_cdr": {"rows": N, "days": {"2026-01-15": N, ...}}}}. `rows` is of one glob over the
whole vault: it counts a call twice if anything but live objects is named `.parquet`.
"""

import json
import pathlib
import sys

import duckdb


def main(vault):
    vault = pathlib.Path(vault)
    report = {"rows": 0, "datasets": {}}
    if next(vault.glob("**/*.parquet"), None):
        report["rows"] = count(vault, "count(*)")[0][0]
    for directory in sorted(vault.iterdir()):
        if directory.name.startswith(".") or not next(directory.glob("**/*.parquet"), None):
            continue
        days = dict(count(directory, "day::VARCHAR, count(*)", "GROUP BY ALL ORDER BY ALL"))
        report["datasets"][directory.name] = {"rows": sum(days.values()), "days": days}
    print(json.dumps(report, indent=1))


def count(directory, what, group=""):
    glob = str(directory / "**" / "*.parquet").replace("'", "''")
    source = f"read_parquet('{glob}', hive_partitioning = true, union_by_name = true)"
    return duckdb.sql(f"SELECT {what} FROM {source} {group}").fetchall()


if __name__ == "__main__":
    main(*sys.argv[1:])
