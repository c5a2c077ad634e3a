"""A day of a table as Asterisell's database has it, read by the database's own means and no code of cdrvault."""

import datetime
import sqlite3

import pymysql
import pymysql.cursors

INTEGERS = {"tinyint", "smallint", "mediumint", "int", "integer", "bigint"}
TEXTS = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum"}
BYTES = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
CLOCKS = {"datetime", "date"}
DECIMALS = {"decimal", "numeric"}


class MariaDb:
    """A table of a MariaDB, through its socket as root."""

    def __init__(self, socket, database, table):
        self.table = table
        self.connection = pymysql.connect(
            unix_socket=socket, user="root", database=database, charset="utf8mb4", cursorclass=pymysql.cursors.SSCursor
        )
        types = self._rows(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = DATABASE() "
            f"AND table_name = '{table}' ORDER BY ordinal_position"
        )
        self.types = {name: kind.lower() for name, kind in types}
        keys = self._rows(
            "SELECT column_name FROM information_schema.key_column_usage WHERE table_schema = DATABASE() "
            f"AND table_name = '{table}' AND constraint_name = 'PRIMARY' ORDER BY ordinal_position"
        )
        self.key = [name for (name,) in keys]

    def _rows(self, sql):
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def rows(self, columns, day):
        """Yields the rows of a day in the order of the key: integers, Decimal, and bytes for all that is text."""
        chosen = ", ".join(self._exact(name) for name in columns)
        order = ", ".join(f"`{name}`" for name in self.key)
        with self.connection.cursor() as cursor:
            cursor.execute(f"SELECT {chosen} FROM `{self.table}` WHERE {_range(day)} ORDER BY {order}")
            while some := cursor.fetchmany(10_000):
                for row in some:
                    yield tuple(_bytes(value) for value in row)

    def _exact(self, name):
        # The conversion of text to the connection's character set is what could hide a difference.
        if self.types[name] in INTEGERS | DECIMALS:
            return f"`{name}`"
        return f"CAST(`{name}` AS BINARY)"

    def sums(self, columns, day):
        """The sum of each column as an integer or Decimal, None where all are NULL."""
        chosen = ", ".join(f"SUM(`{name}`)" for name in columns)
        (row,) = self._rows(f"SELECT {chosen} FROM `{self.table}` WHERE {_range(day)}")
        return list(row)


class Sqlite:
    """A table of a SQLite file."""

    def __init__(self, path, table):
        self.table = table
        self.connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        info = list(self.connection.execute(f"PRAGMA table_info({table})"))
        self.types = {name: kind.split("(")[0].lower() for _, name, kind, *_ in info}
        self.key = [name for _, name, _, _, _, key in sorted(info, key=lambda column: column[5]) if key]
        self.connection.text_factory = bytes

    def rows(self, columns, day):
        """As MariaDb.rows."""
        chosen = ", ".join(f'"{name}"' for name in columns)
        order = ", ".join(f'"{name}"' for name in self.key)
        yield from self.connection.execute(f"SELECT {chosen} FROM {self.table} WHERE {_range(day)} ORDER BY {order}")

    def sums(self, columns, day):
        """As MariaDb.sums."""
        chosen = ", ".join(f'SUM("{name}")' for name in columns)
        return list(self.connection.execute(f"SELECT {chosen} FROM {self.table} WHERE {_range(day)}").fetchone())


def _range(day):
    if day is None:
        return "1 = 1"
    # The wall clock of the host: text, never converted.
    return f"calldate >= '{day} 00:00:00' AND calldate < '{day + datetime.timedelta(days=1)} 00:00:00'"


def _bytes(value):
    return value.encode() if isinstance(value, str) else value
