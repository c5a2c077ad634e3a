#!/usr/bin/env python3
"""Compares a day of a table with a Parquet file, value by value, using nothing of cdrvault.

    compare_day.py (--socket PATH --database NAME | --sqlite FILE) --table TABLE --day YYYY-MM-DD [--without id] FILE.parquet

Checks the names of the columns, the number of rows, the sum of every numeric column (with pyarrow and with DuckDB), and each
value of each row; text byte by byte. `--without` leaves a column out, and then the order of rows does not matter. Exit status:
0 equal, 1 different (the first differences are printed), 2 the comparison could not be made.
"""

import argparse
import collections
import datetime
import decimal
import itertools
import sys
import traceback

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import raw_column
import tables

SHOWN = 10
BATCH = 20_000
MISSING = object()


def main():
    options = arguments()
    if options.sqlite:
        table = tables.Sqlite(options.sqlite, options.table)
    else:
        table = tables.MariaDb(options.socket, options.database, options.table)
    parquet = pq.ParquetFile(options.file).read()

    differences = list(itertools.islice(compare(options, table, parquet), SHOWN))
    for difference in differences:
        print(difference)
    if not differences:
        print(f"{parquet.num_rows} rows, {len(table.types)} columns: equal")
    return 1 if differences else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--socket")
    parser.add_argument("--database")
    parser.add_argument("--sqlite")
    parser.add_argument("--table", required=True)
    parser.add_argument("--day", type=datetime.date.fromisoformat)
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("file")
    options = parser.parse_args()
    if not options.sqlite and not (options.socket and options.database):
        parser.error("--sqlite, or --socket and --database")
    return options


def compare(options, table, parquet):
    """Yields the differences as text."""
    expected, found = list(table.types), [name for name in parquet.column_names if name != "__raw"]
    if sorted(expected) != sorted(found):
        yield f"columns: the table has {expected}, the file {found}"
        return
    columns = [name for name in expected if name not in options.without]
    yield from compare_sums(options, table, parquet, columns)

    key = [(name, "ascending") for name in table.key]
    stored = file_rows(parquet.sort_by(key), columns, table.types)
    truth = table.rows(columns, options.day)
    yield from compare_sets(truth, stored, columns) if options.without else compare_rows(truth, stored, columns)


def compare_sums(options, table, parquet, columns):
    numeric = [name for name in columns if table.types[name] in tables.INTEGERS | tables.DECIMALS]
    if not numeric:
        return
    chosen = ", ".join(f'CAST(sum("{name}") AS VARCHAR)' for name in numeric)
    by_duckdb = duckdb.sql(f"SELECT {chosen} FROM parquet").fetchall()[0]
    for name, truth, duck in zip(numeric, table.sums(numeric, options.day), by_duckdb):
        arrow = pc.sum(parquet.column(name)).as_py()
        for reader, value in (("pyarrow", arrow), ("DuckDB", duck)):
            same = value is None if truth is None else value is not None and decimal.Decimal(value) == truth
            if not same:
                yield f"sum of {name}: {truth} in the table, {value} in the file ({reader})"


def compare_rows(truth, stored, columns):
    for number, (left, right) in enumerate(itertools.zip_longest(truth, stored, fillvalue=MISSING)):
        if left is MISSING or right is MISSING:
            yield f"row {number}: " + ("not in the table" if left is MISSING else f"not in the file: {left}")
            return
        if left == right:
            continue
        for name, here, there in zip(columns, left, right):
            if here != there:
                yield f"row {number}, {name}: {here!r} in the table, {there!r} in the file"


def compare_sets(truth, stored, columns):
    counts = collections.Counter(truth)
    counts.subtract(stored)
    for row, count in counts.items():
        if count:
            where = "table" if count > 0 else "file"
            yield f"{abs(count)} times more in the {where}: {dict(zip(columns, row))}"


def file_rows(parquet, columns, types):
    """Yields the rows of the file as the table gives them: integers, Decimal, and bytes for all that is text."""
    convert = [converter(types[name], parquet.schema.field(name).type) for name in columns]
    for batch in parquet.to_batches(max_chunksize=BATCH):
        values = [
            [None if value is None else function(value) for value in as_python(batch.column(name))]
            for name, function in zip(columns, convert)
        ]
        raw = batch.column("__raw").to_pylist() if "__raw" in batch.schema.names else [None] * batch.num_rows
        for row, cell in zip(zip(*values), raw):
            yield row if cell is None else with_raw(row, columns, raw_column.decode(cell))


def with_raw(row, columns, kept):
    return tuple(kept.get(name, value) for name, value in zip(columns, row))


def as_python(column):
    # Bytes, not str: an invalid byte must show up as a difference, not as an exception.
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    return column.to_pylist()


def converter(sql_type, arrow_type):
    if sql_type in tables.INTEGERS:
        return check(int)
    if sql_type in tables.DECIMALS:
        return check(decimal.Decimal)
    if sql_type in tables.TEXTS | tables.BYTES:
        return check(bytes)
    if sql_type in tables.CLOCKS:
        if getattr(arrow_type, "tz", None) is not None:
            sys.exit(f"a {sql_type} was stored with a time zone: {arrow_type}")
        return clock
    print(f"no comparison is written for the type {sql_type}", file=sys.stderr)
    raise SystemExit(2)


def check(kind):
    def unchanged(value):
        # True == 1 in Python: a Boolean column must not pass for a TINYINT.
        return value if type(value) is kind else (value, type(value).__name__)

    return unchanged


def clock(value):
    return value.isoformat(sep=" ").encode() if isinstance(value, datetime.datetime) else value.isoformat().encode()


if __name__ == "__main__":
    try:
        status = main()
    except Exception:
        # Python's own status for this is 1, which here means "different".
        traceback.print_exc()
        status = 2
    sys.exit(status)
