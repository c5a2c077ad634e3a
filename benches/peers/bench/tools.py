"""The peers: each exports both tables in the fastest way that its own manual gives."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Callable

from . import readers
from .measure import shell
from .servers import TABLES, MariaDb


@dataclass
class Job:
    """What is to be exported, and where to."""

    server: MariaDb
    database: str
    first: date
    days: int
    out: Path

    def each_day(self):
        for number in range(self.days):
            day = self.first + timedelta(days=number)
            yield day, f"calldate >= '{day}' AND calldate < '{day + timedelta(days=1)}'"


@dataclass
class Peer:
    name: str
    about: str
    command: Callable[[Job], list[str]]
    """What is measured."""
    sums: Callable[[Job], list]
    """The sums of what it wrote, to be compared with the database's."""
    version: str


def all_peers() -> list[Peer]:
    duckdb, connectorx, pyarrow = (version_of_package(name) for name in ("duckdb", "connectorx", "pyarrow"))
    client, dumper, server = (first_line(name, "--version") for name in ("mariadb", "mariadb-dump", "mariadbd"))
    return [
        Peer("wire", "`mariadb --quick` to /dev/null: the server and the wire alone", wire, lambda job: [], client),
        Peer("dump", "`mariadb-dump --single-transaction` piped to `zstd -3`", dump, sums_of_dump,
             f"{dumper}, {first_line('zstd', '--version').strip('* ')}"),
        Peer("outfile", "`SELECT INTO OUTFILE`, a file a day, as upstream's backup does", outfile, sums_of_outfile, server),
        Peer("connectorx", "ConnectorX (2 partitions) to Arrow, pyarrow to zstd(3) Parquet, a file a table",
             python("connectorx_export"), sums_of_parquet, f"connectorx {connectorx}, pyarrow {pyarrow}"),
        Peer("duckdb", "DuckDB's mysql extension, `COPY` to zstd(3) Parquet, a file a table",
             python("duckdb_export"), sums_of_parquet, f"duckdb {duckdb}"),
        Peer("mydumper", "mydumper, 2 threads, compressed", mydumper, sums_of_mydumper, first_line("mydumper", "--version")),
        Peer("odbc2parquet", "odbc2parquet, zstd(3), a file a table", odbc2parquet, sums_of_parquet,
             first_line("odbc2parquet", "--version")),
    ]  # fmt: skip


def wire(job: Job) -> list[str]:
    selects = "; ".join(f"SELECT * FROM {table}" for table in TABLES)
    return shell(f"mariadb --no-defaults {job.server.tcp()} --quick -N -e '{selects}' {job.database} > /dev/null")


def dump(job: Job) -> list[str]:
    return shell(
        f"mariadb-dump --no-defaults {job.server.tcp()} --single-transaction --quick {job.database} {' '.join(TABLES)}"
        f" | zstd -q -3 -o {job.out}/dump.sql.zst"
    )


def outfile(job: Job) -> list[str]:
    job.out.chmod(0o777)
    form = "FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"' ESCAPED BY '\\\\'"
    statements = [
        f"SELECT * FROM {table} WHERE {condition} INTO OUTFILE '{job.out}/{table}-{day}.csv' CHARACTER SET utf8mb4 {form};"
        for day, condition in job.each_day()
        for table in TABLES
    ]
    script = job.out.parent / "outfile.sql"
    script.write_text("\n".join(statements))
    return shell(f"mariadb --no-defaults {job.server.tcp()} {job.database} < {script}")


def python(module: str) -> Callable[[Job], list[str]]:
    def command(job: Job) -> list[str]:
        script = Path(__file__).parent / f"{module}.py"
        return [sys.executable, str(script), "127.0.0.1", str(job.server.port), "bench", job.server.PASSWORD, job.database,
                str(job.out)]  # fmt: skip

    return command


def mydumper(job: Job) -> list[str]:
    # With `database.table` and no `-B` it waits for ever.
    return shell(
        f"mydumper -h 127.0.0.1 -P {job.server.port} -u bench -p {job.server.PASSWORD} -B {job.database}"
        f" -T {','.join(TABLES)} --threads 2"
        f" --rows 200000 --compress --outputdir {job.out}"
    )


def odbc2parquet(job: Job) -> list[str]:
    driver = next(Path("/usr/lib").glob("*/odbc/libmaodbc.so"))
    connection = (
        f"Driver={driver};Server=127.0.0.1;Port={job.server.port};User=bench;Password={job.server.PASSWORD};"
        f"Database={job.database};CHARSET=utf8mb4;NO_CACHE=1;FORWARDONLY=1"
    )
    return shell(" && ".join(
        f"odbc2parquet -q query --column-compression-default zstd --column-compression-level-default 3"
        f" --connection-string '{connection}' --column-length-limit 10000 {job.out}/{table}.parquet"
        f" 'SELECT * FROM {table}'"
        for table in TABLES
    ))  # fmt: skip


def sums_of_parquet(job: Job) -> list:
    return [readers.sums_of_parquet(table, f"{job.out}/{table}*.parquet") for table in TABLES]


def sums_of_dump(job: Job) -> list:
    return loaded(job, f"zstd -dcq {job.out}/dump.sql.zst")


def sums_of_mydumper(job: Job) -> list:
    tables = sorted(job.out.glob(f"{job.database}.ar_*.sql.gz"), key=lambda file: "-schema" not in file.name)
    return loaded(job, f"zcat {' '.join(map(str, tables))}")


def loaded(job: Job, script: str) -> list:
    """The sums of SQL, loaded into a database of its own."""
    job.server.sql("DROP DATABASE IF EXISTS loaded; CREATE DATABASE loaded")
    client = " ".join(job.server.client("loaded"))
    subprocess.run(shell(f"({script}) | {client}"), check=True)
    sums = [readers.sums_of_table(job.server, "loaded", table) for table in TABLES]
    job.server.sql("DROP DATABASE loaded")
    return sums


def sums_of_outfile(job: Job) -> list:
    job.server.application("loaded")
    for table in TABLES:
        for file in sorted(job.out.glob(f"{table}-*.csv")):
            job.server.sql(
                f"LOAD DATA INFILE '{file}' INTO TABLE {table} CHARACTER SET utf8mb4 "
                "FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"' ESCAPED BY '\\\\'",
                "loaded",
            )
    sums = [readers.sums_of_table(job.server, "loaded", table) for table in TABLES]
    job.server.sql("DROP DATABASE loaded")
    return sums


def version_of_package(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def first_line(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    return (done.stdout or done.stderr).splitlines()[0].strip()
