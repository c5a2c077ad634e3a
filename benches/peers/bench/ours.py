"""Our side: a pipeline file and the commands on it."""

import json
import shutil
from pathlib import Path

from .measure import Cost, fresh, measure, size
from .servers import OURS, WORK, MariaDb


class Site:
    """A directory with a pipeline that has the default settings."""

    def __init__(self, name: str, server: MariaDb, database: str, more: str = "", sinks: str = '"vault"', since: str = ""):
        self.home = fresh(WORK / "sites" / name)
        self.server, self.database = server, database
        password = self.home / "password"
        password.write_text(server.PASSWORD)
        password.chmod(0o600)
        since = f', since = "{since}"' if since else ""
        (self.home / "pipeline.toml").write_text(
            f"""name = "{name}"
timezone = "Europe/Rome"
state = "state"

[database.billing]
url = "{server.url(database)}"
password = {{ file = "password" }}

[sink.vault.local]
path = "vault"
{more}
[flow.ar_cdr]
source.ar-cdr = {{ database = "billing"{since} }}
transforms = ["incremental", "parquet"]
sinks = [{sinks}]

[flow.ar_source_cdr]
source.ar-source-cdr = {{ database = "billing"{since} }}
transforms = ["incremental", "parquet"]
sinks = [{sinks}]
"""
        )

    @property
    def vault(self) -> Path:
        return self.home / "vault"

    def begin_anew(self):
        """As if it had never run."""
        shutil.rmtree(self.vault, ignore_errors=True)
        shutil.rmtree(self.home / "state", ignore_errors=True)
        self.server.forget_events(self.database)

    def age(self):
        """As it is an hour after the registration, and sooner than a day after the last sweep: none is due."""
        path = self.home / "state" / "state.json"
        state = json.loads(path.read_text())
        for flow in state["flows"].values():
            flow["full-until"] = None
        path.write_text(json.dumps(state))

    def command(self, verb: str, *more: str) -> list[str]:
        return [str(OURS), verb, str(self.home / "pipeline.toml"), *more]

    def measure(self, verb: str, *more: str, server: int = 0) -> Cost:
        """The server is the database's, unless another one is named."""
        command = self.command(verb, *more)
        cost = measure(command, server=server or self.server.pid, cwd=self.home, log=self.home / "log")
        cost.output = size(self.vault)
        return cost
