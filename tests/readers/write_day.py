#!/usr/bin/env python3
"""Writes a day of a table as a Parquet file with pyarrow, so that compare_day.py can be tested without cdrvault.

    write_day.py (--socket PATH --database NAME | --sqlite FILE) --table TABLE --day YYYY-MM-DD FILE.parquet
"""

import datetime
import sys

import pyarrow as pa
import pyarrow.parquet as pq

import compare_day
import tables

WIDTHS = {"tinyint": pa.int8(), "smallint": pa.int16(), "int": pa.int32(), "bigint": pa.int64()}


def main():
    options = compare_day.arguments()
    if options.sqlite:
        table = tables.Sqlite(options.sqlite, options.table)
    else:
        table = tables.MariaDb(options.socket, options.database, options.table)
    rows = list(table.rows(list(table.types), options.day))
    columns = {}
    for index, (name, kind) in enumerate(table.types.items()):
        columns[name] = pa.array([parse(kind, row[index]) for row in rows], arrow_type(kind))
    columns["__raw"] = pa.nulls(len(rows), pa.binary())
    pq.write_table(pa.table(columns), options.file)


def parse(kind, value):
    if value is not None and kind in tables.CLOCKS:
        return datetime.datetime.fromisoformat(value.decode())
    return value.decode() if value is not None and kind in tables.TEXTS else value


def arrow_type(kind):
    if kind in tables.TEXTS:
        return pa.string()
    if kind in tables.BYTES:
        return pa.binary()
    return pa.timestamp("us") if kind in tables.CLOCKS else WIDTHS[kind]


if __name__ == "__main__":
    sys.exit(main())
