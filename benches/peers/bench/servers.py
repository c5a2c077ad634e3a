"""The servers that the comparison starts and stops: MariaDB, sshd, Garage."""

import atexit
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

from .measure import end, fresh, size

REPOSITORY = Path(__file__).resolve().parents[3]
WORK = Path(os.environ["PEERS_WORK"])
TARGET = Path(os.environ["PEERS_TARGET"])
OURS = TARGET / "release" / "cdrvault"
GENERATE = TARGET / "release" / "examples" / "generate"
TABLES = ("ar_cdr", "ar_source_cdr")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class MariaDb:
    """A server with the application's tables, as Debian sets it up but for the size of its buffer pool."""

    PASSWORD = "bench"

    def __init__(self, name: str, pool: str = "8G"):
        self.directory = fresh(WORK / "servers" / name)
        self.port, self.socket = free_port(), self.directory / "socket"
        data = self.directory / "data"
        user = ["--user=root"] if os.geteuid() == 0 else []
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", *user, f"--datadir={data}", "--skip-test-db",
             "--auth-root-authentication-method=normal"],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with open(self.directory / "log", "wb") as log:
            self.process = subprocess.Popen(
                ["mariadbd", "--no-defaults", *user, f"--datadir={data}", f"--socket={self.socket}", f"--port={self.port}",
                 "--bind-address=127.0.0.1", "--skip-name-resolve", f"--pid-file={self.directory / 'pid'}",
                 f"--innodb-buffer-pool-size={pool}", "--innodb-log-file-size=1G", "--secure-file-priv=",
                 "--character-set-server=utf8mb4", "--max-allowed-packet=64M", f"--tmpdir={self.directory}"],
                stdout=log, stderr=log,
            )  # fmt: skip
        atexit.register(self.stop)
        for _ in range(600):
            if self.process.poll() is not None:
                raise SystemExit(f"mariadbd does not start: see {self.directory / 'log'}")
            if subprocess.run(self.client("-e", "SELECT 1"), capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        self.sql(
            f"CREATE USER bench@'127.0.0.1' IDENTIFIED BY '{self.PASSWORD}';"
            "GRANT ALL ON *.* TO bench@'127.0.0.1' WITH GRANT OPTION;"
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def url(self, database: str) -> str:
        return f"mysql://bench@127.0.0.1:{self.port}/{database}"

    def client(self, *arguments: str) -> list[str]:
        return ["mariadb", "--no-defaults", "-uroot", f"--socket={self.socket}", *arguments]

    def tcp(self) -> str:
        """How a tool of the command line comes in: the same way as everybody."""
        return f"--protocol=tcp -h127.0.0.1 -P{self.port} -ubench -p{self.PASSWORD}"

    def sql(self, sql: str, database: str = "") -> str:
        arguments = ["-N", "-B", *([database] if database else [])]
        done = subprocess.run(self.client(*arguments), input=sql.encode(), capture_output=True)
        if done.returncode:
            raise SystemExit(f"{sql[:300]}: {done.stderr.decode()}")
        return done.stdout.decode().strip()

    def application(self, database: str):
        """The application's tables, empty."""
        self.sql(f"DROP DATABASE IF EXISTS {database}; CREATE DATABASE {database}")
        self.sql((REPOSITORY / "tests/fixtures/schema.sql").read_text(), database)

    def fill(self, database: str, first: str, days: int, calls: int, last: int | None = None) -> int:
        """Calls of the project's generator; the bytes that they take as CSV."""
        csv = fresh(WORK / "csv")
        subprocess.run([GENERATE, first, str(days), str(calls), str(last or calls), csv], check=True)
        for table in TABLES:
            self.sql(
                f"LOAD DATA INFILE '{csv / table}.csv' INTO TABLE {table} CHARACTER SET binary "
                "FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"' ESCAPED BY '\\\\';",
                database,
            )
        total = size(csv)
        shutil.rmtree(csv)
        self.settle(database)
        return total

    def settle(self, database: str):
        """Nothing is left to write or to purge, and everything is in the buffer pool."""
        for table in TABLES:
            self.sql(f"ANALYZE TABLE {table}; SELECT SUM(LENGTH(CONCAT_WS('', calldate, id))) FROM {table}", database)
        for _ in range(600):
            dirty = self.sql("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'").split()[1]
            history = self.sql("SHOW GLOBAL STATUS LIKE 'Innodb_history_list_length'").split()[1]
            if int(dirty) == 0 and int(history) < 10:
                return
            self.sql("SET GLOBAL innodb_max_dirty_pages_pct = 0")
            time.sleep(0.5)

    def rows(self, database: str, table: str = "ar_cdr") -> int:
        return int(self.sql(f"SELECT COUNT(*) FROM {table}", database))

    def forget_events(self, database: str):
        """So that the next run is again the first one."""
        self.sql("DELETE FROM ar_daily_status_change; DELETE FROM ar_daily_status_job", database)

    def announce(self, database: str, day: str):
        """What the application does when it has rated a day."""
        self.sql(
            f"INSERT IGNORE INTO ar_daily_status_change SELECT '{day}', id FROM ar_daily_status_job", database
        )

    def stop(self):
        end(self.process)
        shutil.rmtree(self.directory, ignore_errors=True)


class Sshd:
    """Lets in who runs this, by one key."""

    def __init__(self):
        self.directory = fresh(WORK / "servers" / "sshd")
        self.port = free_port()
        for key in ("host", "identity"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.directory / key], check=True)
        shutil.copy(self.directory / "identity.pub", self.directory / "authorized")
        host = (self.directory / "host.pub").read_text()
        (self.directory / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host}")
        config = self.directory / "config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.directory}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {self.directory}/authorized\nStrictModes no\nPasswordAuthentication no\n"
            "PermitRootLogin yes\n"
        )
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        program = shutil.which("sshd")
        self.process = subprocess.Popen([program, "-D", "-e", "-f", config], stderr=open(self.directory / "log", "wb"))
        atexit.register(self.stop)
        wait_for(self.port)

    def command(self) -> str:
        """As `rsync -e` wants it."""
        d = self.directory
        return f"ssh -F none -p {self.port} -i {d}/identity -o UserKnownHostsFile={d}/known_hosts -o BatchMode=yes"

    def stop(self):
        end(self.process)


class Garage:
    """An S3 server of one node."""

    def __init__(self):
        self.directory = fresh(WORK / "servers" / "garage")
        self.port, rpc = free_port(), free_port()
        (self.directory / "config.toml").write_text(
            f'metadata_dir = "{self.directory}/metadata"\ndata_dir = "{self.directory}/data"\ndb_engine = "sqlite"\n'
            f'replication_factor = 1\nrpc_bind_addr = "127.0.0.1:{rpc}"\nrpc_public_addr = "127.0.0.1:{rpc}"\n'
            f'rpc_secret = "{secrets.token_hex(32)}"\n\n[s3_api]\ns3_region = "garage"\n'
            f'api_bind_addr = "127.0.0.1:{self.port}"\n'
        )
        log = open(self.directory / "log", "wb")
        self.process = subprocess.Popen([*self.garage(), "server"], stdout=log, stderr=log)
        atexit.register(self.stop)
        wait_for(self.port)
        node = self.run("node", "id", "-q").split("@")[0]
        self.run("layout", "assign", "-z", "dc1", "-c", "50G", node.strip())
        self.run("layout", "apply", "--version", "1")
        said = self.run("key", "create", "bench").splitlines()
        value = lambda name: next(line.split(":", 1)[1].strip() for line in said if line.startswith(name))
        self.key, self.secret = value("Key ID"), value("Secret key")
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def garage(self) -> list[str]:
        return ["garage", "-c", str(self.directory / "config.toml")]

    def run(self, *arguments: str) -> str:
        return subprocess.run([*self.garage(), *arguments], check=True, capture_output=True, text=True).stdout

    def bucket(self, name: str) -> str:
        self.run("bucket", "create", name)
        self.run("bucket", "allow", "--read", "--write", "--owner", name, "--key", self.key)
        return name

    def stop(self):
        end(self.process)
        shutil.rmtree(self.directory, ignore_errors=True)


def wait_for(port: int):
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port}")
