"""Compares a vault with the database, value by value: compare_vault.py SOCKET VAULT [--without-id]

The database is read by PyMySQL, as bytes; the vault by pyarrow. Nothing of cdrvault takes part.
Exit status 1 and the first differences when they differ."""

import datetime
import decimal
import glob
import os
import sys

import pymysql
import pyarrow.parquet as pq

socket, vault = sys.argv[1], sys.argv[2]
without_id = "--without-id" in sys.argv

connection = pymysql.connect(unix_socket=socket, user="root", database="asterisell", charset="utf8mb4",
                             conv=dict(pymysql.converters.encoders), use_unicode=False)
cursor = connection.cursor()
cursor.execute("SET SESSION sql_mode='ALLOW_INVALID_DATES', time_zone='+00:00', character_set_results=NULL")


def cbor_map(cell):
    """The small part of CBOR (RFC 8949) that a __raw cell uses."""
    at = 0

    def head():
        nonlocal at
        byte = cell[at]
        at += 1
        major, small = byte >> 5, byte & 31
        if small < 24:
            return major, small
        size = 1 << (small - 24)
        value = int.from_bytes(cell[at:at + size], "big")
        at += size
        return major, value

    def string(wanted):
        nonlocal at
        major, length = head()
        assert major == wanted
        value = cell[at:at + length]
        at += length
        return value

    major, count = head()
    assert major == 5
    pairs = {}
    for _ in range(count):
        name = string(3).decode()
        pairs[name] = string(2)
    return pairs


def stored_datetime(value):
    """The bytes that the binary protocol has for an invalid date: length, year, month, day, time."""
    if not value or value[0] == 0:
        return b"0000-00-00 00:00:00"
    year = value[1] | value[2] << 8
    rest = list(value[5:8]) if value[0] >= 7 else [0, 0, 0]
    return b"%04d-%02d-%02d %02d:%02d:%02d" % (year, value[3], value[4], *rest)


def vault_value(field, value, raw):
    if value is None:
        if raw is not None and field in raw:
            kept = raw[field]
            return stored_datetime(kept) if field in DATES else kept
        return None
    if isinstance(value, bool):
        return b"%d" % value
    if isinstance(value, int):
        return b"%d" % value
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S").encode().rjust(19, b"0")
    if isinstance(value, datetime.date):
        return value.strftime("%Y-%m-%d").encode().rjust(10, b"0")
    if isinstance(value, decimal.Decimal):
        return format(value, "f").encode()
    if isinstance(value, float):
        return value
    raise TypeError(f"{field}: {type(value)}")


def database_value(value, like):
    return float(value) if value is not None and isinstance(like, float) else value


failures = []
counted = 0
for table in ("ar_cdr", "ar_source_cdr"):
    cursor.execute("SELECT column_name, data_type FROM information_schema.columns WHERE table_schema='asterisell' "
                   f"AND table_name='{table}' AND extra NOT LIKE '%%GENERATED%%' ORDER BY ordinal_position")
    described = [(name.decode(), kind.decode()) for name, kind in cursor.fetchall()]
    columns = [name for name, _ in described]
    DATES = {name for name, kind in described if kind in ("datetime", "timestamp")}
    wanted = [name for name in columns if not (without_id and table == "ar_cdr" and name == "id")]
    cursor.execute(f"SELECT {', '.join('`%s`' % name for name in wanted)} FROM {table}")
    in_database = list(cursor.fetchall())
    in_vault = []
    for path in sorted(glob.glob(os.path.join(vault, table, "*", "*.parquet"))):
        file = pq.ParquetFile(path)
        day = os.path.basename(os.path.dirname(path)).removeprefix("day=")
        rows = file.read()
        data = {name: rows.column(name).to_pylist() for name in wanted + ["__raw"]}
        for row in range(rows.num_rows):
            raw = data["__raw"][row]
            raw = cbor_map(raw) if raw is not None else None
            in_vault.append(tuple(vault_value(name, data[name][row], raw) for name in wanted))
            when = in_vault[-1][wanted.index("calldate")]
            if day != "__HIVE_DEFAULT_PARTITION__" and not when.decode().startswith(day):
                failures.append(f"{path}: a call of {when} is in the file of {day}")
    in_database = [tuple(database_value(d, v) for d, v in zip(row, in_vault[0] if in_vault else row))
                   for row in in_database]
    key = lambda row: tuple(b"" if v is None else b"\1" + (v if isinstance(v, bytes) else repr(v).encode()) for v in row)
    in_database.sort(key=key)
    in_vault.sort(key=key)
    counted += len(in_vault)
    if len(in_database) != len(in_vault):
        failures.append(f"{table}: {len(in_database)} rows in the database, {len(in_vault)} in the vault")
    for left, right in zip(in_database, in_vault):
        if left != right:
            which = [(n, l, r) for n, l, r in zip(wanted, left, right) if l != r]
            failures.append(f"{table}: column, database, vault: {which[:5]}")
            break
    # Sums of every numeric column, by the database and by the columns as stored.
    for name, kind in described:
        if name in wanted and kind in ("tinyint", "smallint", "mediumint", "int", "bigint"):
            cursor.execute(f"SELECT SUM(`{name}`) FROM {table}")
            by_server = int(cursor.fetchone()[0] or 0)
            by_us = sum(int(row[wanted.index(name)] or 0) for row in in_vault)
            if by_server != by_us:
                failures.append(f"{table}.{name}: sum {by_server} in the database, {by_us} in the vault")
if failures:
    print("\n".join(failures[:20]))
    sys.exit(1)
print(f"{counted} rows are equal")
