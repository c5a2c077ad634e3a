"""The parts of the comparison."""

import shutil
import subprocess
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb

from . import readers
from .measure import Cost, fresh, measure, median, shell, size
from .ours import Site
from .results import Section, mib, seconds
from .servers import OURS, TABLES, WORK, Garage, MariaDb, Sshd
from .tools import Job, all_peers, first_line


@dataclass
class Scale:
    """How much of everything."""

    rounds: int
    export_days: int = 20
    export_calls: int = 100_000
    days: int = 1_000
    calls_a_day: int = 200
    changed_calls: int = 100_000
    big_days: tuple[int, ...] = (1_000_000, 2_000_000, 10_000_000)
    restore_days: int = 5
    sweep_days: int = 40


QUICK = Scale(rounds=1, export_days=4, export_calls=10_000, days=60, changed_calls=10_000,
              big_days=(50_000, 100_000, 500_000), restore_days=2, sweep_days=8)  # fmt: skip

FIRST = date(2026, 1, 1)


def export(scale: Scale) -> Section:
    """Goals 1, 2 and a part of 6."""
    section = Section("First export of both tables")
    server = MariaDb("export")
    server.application("billing")
    as_csv = server.fill("billing", str(FIRST), scale.export_days, scale.export_calls)
    rows = {table: server.rows("billing", table) for table in TABLES}
    truth = [readers.sums_of_table(server, "billing", table) for table in TABLES]
    section.say(
        f"{rows['ar_cdr']:,} rows of `ar_cdr` and {rows['ar_source_cdr']:,} of `ar_source_cdr` in {scale.export_days} days, "
        f"{mib(as_csv)} as CSV, from the project's generator."
    )
    site = Site("export", server, "billing")
    peers = [peer for peer in all_peers() if peer.version != "not installed"]
    measured: dict[str, list[Cost]] = {"ours": []} | {peer.name: [] for peer in peers}
    for number in range(scale.rounds):
        site.begin_anew()
        measured["ours"].append(site.measure("run"))
        if number == 0:
            ours = [readers.sums_of_parquet(table, f"{site.vault}/{table}/*/*.parquet") for table in TABLES]
            same("ours", ours, truth)
        for peer in peers:
            job = Job(server, "billing", FIRST, scale.export_days, fresh(WORK / "outputs" / peer.name))
            cost = measure(peer.command(job), server=server.pid, cwd=WORK, log=WORK / f"{peer.name}.log")
            cost.output = size(job.out)
            measured[peer.name].append(cost)
            if number == 0 and peer.name != "wire":
                same(peer.name, peer.sums(job), truth)
            shutil.rmtree(job.out)
    names = {"ours": "**cdrvault run**, a file a day, verified and synced"} | {peer.name: peer.about for peer in peers}
    section.costs(measured, "ours", names)
    mine = median(measured["ours"])
    limits = {"connectorx": 0.65, "duckdb": 0.30, "dump": 0.9, "outfile": 0.6}
    for name, limit in limits.items():
        section.goal(1, f"wall time of the first export, against {name}", mine.wall / median(measured[name]).wall, limit)
    total = sum(rows.values())
    section.say(
        f"CPU of the server per million rows: {seconds(mine.server / total * 1e6)} for ours, "
        f"{seconds(median(measured['dump']).server / total * 1e6)} for `mariadb-dump`."
    )
    section.goal(6, "CPU of the server per exported row, against `mariadb-dump`",
                 mine.server / median(measured["dump"]).server, 1.0)  # fmt: skip

    sizes = []
    for table in TABLES:
        own = sum(file.stat().st_size for file in site.vault.glob(f"{table}/*/*.parquet"))
        out = fresh(WORK / "outputs" / "same-files")
        for file in site.vault.glob(f"{table}/*/*.parquet"):
            # The same rows in the same order, without our `__raw`, which holds nothing here.
            duckdb.sql(
                f"COPY (SELECT * EXCLUDE __raw FROM read_parquet('{file}', hive_partitioning = false)) "
                f"TO '{out}/{file.name}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3)"
            )
        theirs = size(out)
        sizes.append([f"`{table}`", mib(own), mib(theirs), f"{own / theirs:.2f}"])
        section.goal(2, f"size of `{table}`, against DuckDB's zstd(3) of the same files a day", own / theirs, 0.92)
    section.say("The same rows and files a day, written by DuckDB with zstd(3):")
    section.table(["", "ours", "DuckDB", "ratio"], sizes)
    server.stop()
    return section


def same(name: str, found: list, expected: list):
    if found != expected:
        raise SystemExit(f"{name} holds other rows than the database:\n{found}\n{expected}")


def days(scale: Scale) -> Section:
    """Goal 4."""
    section = Section(f"A vault of {scale.days:,} days")
    server = MariaDb("days")
    server.application("billing")
    server.fill("billing", str(FIRST), scale.days, scale.calls_a_day, scale.changed_calls)
    last = FIRST + timedelta(days=scale.days - 1)
    site = Site("days", server, "billing")
    first = site.measure("run")
    # For an hour after a registration, each run sweeps all days.
    after = site.measure("run")
    site.age()
    measured: dict[str, list[Cost]] = {"changed": [], "alone": [], "idle": []}
    for _ in range(scale.rounds):
        for table, column in (("ar_cdr", "duration"), ("ar_source_cdr", "ar_physical_format_id")):
            server.sql(f"UPDATE {table} SET {column} = {column} + 1 WHERE calldate >= '{last}'", "billing")
        server.settle("billing")
        server.announce("billing", str(last))
        measured["changed"].append(site.measure("run"))
        measured["idle"].append(site.measure("run"))
        # The same rows by a pipeline that knows of no other day.
        server.sql("DROP DATABASE IF EXISTS alone", "")
        server.application("alone")
        for table in TABLES:
            server.sql(f"INSERT INTO alone.{table} SELECT * FROM billing.{table} WHERE calldate >= '{last}'")
        server.settle("alone")
        alone = Site("alone", server, "alone")
        measured["alone"].append(alone.measure("run"))
    # Without its state, a run compares the sums of all days.
    shutil.rmtree(site.home / "state")
    sweep = site.measure("run")
    section.say(
        f"{scale.calls_a_day} calls a day, {scale.changed_calls:,} in the last one, which changes in both tables and is "
        f"announced. No sweep is due. The first run took {seconds(first.wall)}; one of the hour after it, which sweeps all days, "
        f"{seconds(after.wall)}; the same after a loss of the state directory, {seconds(sweep.wall)}."
    )
    names = {"changed": "one changed day", "alone": "the first export of that day alone", "idle": "no change"}
    section.costs(measured, "changed", names)
    changed, only, idle = (median(measured[name]) for name in ("changed", "alone", "idle"))
    section.goal(4, f"a run with one changed day among {scale.days:,}, against the export of that day alone",
                 changed.wall / only.wall, 1.5)  # fmt: skip
    section.goal(4, "CPU seconds of a run with no change", idle.cpu, 0.3)
    server.stop()
    return section


def memory(scale: Scale) -> Section:
    """Goals 3 and 8."""
    section = Section("Large days")
    found: list[tuple[int, int, Cost]] = []
    for calls in scale.big_days:
        server = MariaDb("memory")
        server.application("billing")
        server.fill("billing", str(FIRST), 1, calls)
        rows = sum(server.rows("billing", table) for table in TABLES)
        site = Site("memory", server, "billing")
        costs = []
        for _ in range(min(scale.rounds, 3)):
            site.begin_anew()
            costs.append(site.measure("run"))
        found.append((calls, rows, median(costs)))
        server.stop()
    section.say("One day of so many calls, both tables, from an empty vault.")
    section.table(
        ["calls", "rows", "wall", "per million rows", "CPU", "CPU of the server", "RSS"],
        [[f"{calls:,}", f"{rows:,}", seconds(cost.wall), seconds(cost.wall / rows * 1e6), seconds(cost.cpu),
          seconds(cost.server), mib(cost.rss)] for calls, rows, cost in found],
    )  # fmt: skip
    for calls, _, cost in found:
        section.goal(3, f"RSS at {calls:,} calls a day, in MB", cost.rss / 1e6, 300)
    (_, few, small), (_, many, large) = found[0], found[-1]
    section.goal(8, f"seconds per row at {scale.big_days[-1]:,} calls, against {scale.big_days[0]:,}",
                 (large.wall / many) / (small.wall / few), 1.1)  # fmt: skip
    return section


def restore(scale: Scale) -> Section:
    """Goal 5."""
    section = Section("Restore into MariaDB")
    server = MariaDb("restore")
    server.application("billing")
    server.fill("billing", str(FIRST), scale.restore_days, scale.export_calls)
    rows = server.rows("billing")
    truth = server.sql("CHECKSUM TABLE ar_cdr", "billing").split()[1]
    site = Site("restore", server, "billing")
    site.measure("run")
    dump, csv = WORK / "restore.sql", WORK / "restore.csv"
    subprocess.run(
        shell(f"mariadb-dump --no-defaults {server.tcp()} --single-transaction --quick billing ar_cdr > {dump}"), check=True
    )
    csv.unlink(missing_ok=True)
    WORK.chmod(0o777)
    server.sql(f"SELECT * FROM ar_cdr INTO OUTFILE '{csv}' CHARACTER SET binary", "billing")
    commands = {
        "ours": [str(OURS), "restore", "--vault", str(site.vault), "--flow", "ar_cdr", "--into", server.url("target"),
                 "--password-file", str(site.home / "password")],
        "dump": shell(f"mariadb --no-defaults {server.tcp()} target < {dump}"),
        "load": shell(f"mariadb --no-defaults {server.tcp()} target -e \"LOAD DATA INFILE '{csv}' INTO TABLE ar_cdr CHARACTER SET binary\""),
    }  # fmt: skip
    measured: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(scale.rounds):
        for name, command in commands.items():
            server.application("target")
            server.settle("target")
            measured[name].append(measure(command, server=server.pid, cwd=site.home, log=WORK / f"restore-{name}.log"))
            if server.sql("CHECKSUM TABLE ar_cdr", "target").split()[1] != truth:
                raise SystemExit(f"{name} restored other rows")
    names = {"ours": "**cdrvault restore**, read again and compared", "dump": "`mariadb < dump.sql`", "load": "`LOAD DATA INFILE`"}
    section.say(f"{rows:,} rows of `ar_cdr` in {scale.restore_days} days, into an empty table.")
    section.costs(measured, "ours", names)
    section.goal(5, "restore, against `mariadb < dump.sql`", median(measured["ours"]).wall / median(measured["dump"]).wall, 0.75)
    dump.unlink()
    csv.unlink()
    server.stop()
    return section


def sweep(scale: Scale) -> Section:
    """The rest of goal 6."""
    section = Section("The nightly sweep")
    server = MariaDb("sweep")
    server.application("billing")
    server.fill("billing", str(FIRST), scale.sweep_days, scale.export_calls)
    site = Site("sweep", server, "billing")
    measured: dict[str, list[Cost]] = {"export": [], "sweep": []}
    for _ in range(min(scale.rounds, 3)):
        site.begin_anew()
        measured["export"].append(site.measure("run"))
        shutil.rmtree(site.home / "state")
        measured["sweep"].append(site.measure("run"))
    section.say(f"{scale.sweep_days} days of {scale.export_calls:,} calls, both tables: all of them compared by sums, and exported.")
    section.costs(measured, "export")
    ratio = median(measured["sweep"]).server / median(measured["export"]).server
    section.goal(6, f"CPU of the server for a sweep over {scale.sweep_days} days, against exporting them", ratio, 0.6)
    server.stop()
    return section


def delivery(scale: Scale) -> Section:
    """Goal 7."""
    section = Section("Delivery of a vault to S3 and by rsync")
    server, garage, sshd = MariaDb("delivery"), Garage(), Sshd()
    server.application("billing")
    server.fill("billing", str(FIRST), scale.days, scale.calls_a_day, scale.changed_calls)
    measured: dict[str, list[Cost]] = {"s3": [], "rclone": [], "rsync": [], "plain": [], "safe": []}
    # Nothing is removed before the end: ext4 looks long for an inode where many were freed in the last minutes.
    place, sites = fresh(WORK / "outputs" / "delivery"), []
    for number in range(scale.rounds):
        bucket = garage.bucket(f"ours-{number}")
        remote = fresh(place / f"remote-{number}")
        s3 = f"""
[sink.bucket.s3]
url = "s3://{bucket}/vault"
endpoint = "{garage.endpoint}"
region = "garage"
access-key-id = "{garage.key}"
secret-access-key = {{ file = "s3.secret" }}
"""
        ssh = sshd.directory
        rsync = f"""
[sink.mirror.rsync]
mirror = "vault"
to = "{first_line('id', '-un')}@127.0.0.1:{remote}/ours"
ssh = {{ port = {sshd.port}, identity-file = "{ssh}/identity", known-hosts = "{ssh}/known_hosts" }}
"""
        server.forget_events("billing")
        site = Site(f"delivery-{number}", server, "billing", s3 + rsync, '"vault"')
        sites.append(site)
        secret = site.home / "s3.secret"
        secret.write_text(garage.secret)
        secret.chmod(0o600)
        site.measure("run")
        site.age()
        site.measure("run")
        pipeline = (site.home / "pipeline.toml").read_text()
        for name, sinks, at in (("s3", '"vault", "bucket"', garage), ("rsync", '"vault", "mirror"', sshd)):
            (site.home / "pipeline.toml").write_text(pipeline.replace('sinks = ["vault"]', f"sinks = [{sinks}]"))
            cost = site.measure("run", server=at.process.pid)
            measured[name].append(cost)
        rclone = WORK / "rclone.conf"
        rclone.write_text(
            f"[garage]\ntype = s3\nprovider = Other\nendpoint = {garage.endpoint}\nregion = garage\n"
            f"access_key_id = {garage.key}\nsecret_access_key = {garage.secret}\n"
        )
        theirs = garage.bucket(f"rclone-{number}")
        # What we deliver: neither the spool nor the lock.
        copied = fresh(place / f"vault-{number}")
        subprocess.run(["cp", "-a", f"{remote}/ours/.", copied], check=True)
        for name, at, command in (
            ("rclone", garage, f"rclone --config {rclone} copy {copied} garage:{theirs}"),
            ("plain", sshd, f"rsync -a -e '{sshd.command()}' {copied}/ 127.0.0.1:{remote}/plain/"),
            ("safe", sshd, f"rsync -a --checksum --fsync -e '{sshd.command()}' {copied}/ 127.0.0.1:{remote}/safe/"),
        ):
            cost = measure(shell(command), server=at.process.pid, cwd=WORK, log=WORK / f"{name}.log")
            cost.output = size(copied)
            measured[name].append(cost)
        if number == 0:
            subprocess.run(["rclone", "--config", rclone, "check", copied, f"garage:{theirs}"], check=True, capture_output=True)
            for name in ("plain", "safe"):
                subprocess.run(["diff", "-r", copied, remote / name], check=True, capture_output=True)
            for table in TABLES:
                local = readers.sums_of_parquet(table, f"{site.vault}/{table}/*/*.parquet")
                same("rsync", [readers.sums_of_parquet(table, f"{remote}/ours/{table}/*/*.parquet")], [local])
            out = fresh(place / "from-s3")
            subprocess.run(["rclone", "--config", rclone, "copy", f"garage:{bucket}/vault", out], check=True)
            for table in TABLES:
                local = readers.sums_of_parquet(table, f"{site.vault}/{table}/*/*.parquet")
                same("s3", [readers.sums_of_parquet(table, f"{out}/{table}/*/*.parquet")], [local])
    files = sum(1 for path in copied.rglob("*") if path.is_file())
    section.say(
        f"The vault of {scale.days:,} days, {files:,} files, {mib(size(copied))}, to a sink that is new: to "
        "Garage on this machine, and through sshd on this machine. Ours compares checksums at both ends afterwards."
    )
    names = {"s3": "**cdrvault run**, a new `s3` sink", "rclone": "`rclone copy`", "rsync": "**cdrvault run**, a new `rsync` sink",
             "plain": "`rsync -a`", "safe": "`rsync -a --checksum --fsync`: synced, and not compared"}  # fmt: skip
    section.costs(measured, "s3", names)
    section.goal(7, "S3 upload, against `rclone copy`", median(measured["s3"]).wall / median(measured["rclone"]).wall, 1.2)
    section.goal(7, "rsync delivery, against `rsync -a`", median(measured["rsync"]).wall / median(measured["plain"]).wall, 1.2)
    server.stop()
    garage.stop()
    sshd.stop()
    for directory in (place, *(site.home for site in sites)):
        shutil.rmtree(directory)
    return section


PARTS = {part.__name__: part for part in (export, days, memory, restore, sweep, delivery)}
