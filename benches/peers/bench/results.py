"""What was found, as Markdown."""

import os
import platform
import subprocess
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from .measure import Cost, median, spread
from .servers import OURS, REPOSITORY

# Before anything is written: what is measured does not change by its results.
COMMIT = subprocess.run(
    ["git", "-C", REPOSITORY, "describe", "--always", "--dirty"], capture_output=True, text=True
).stdout.strip()


@dataclass
class Goal:
    number: int
    text: str
    found: float
    limit: float

    @property
    def reached(self) -> bool:
        return self.found <= self.limit


@dataclass
class Section:
    title: str
    lines: list[str] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    def say(self, *lines: str):
        self.lines += [*lines, ""]

    def table(self, head: list[str], rows: list[list[str]]):
        self.lines.append("| " + " | ".join(head) + " |")
        self.lines.append("|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|")
        self.lines += ["| " + " | ".join(row) + " |" for row in rows]
        self.lines.append("")

    def costs(self, measured: dict[str, list[Cost]], base: str, names: dict[str, str] | None = None):
        """A row for each command, with its wall time as a multiple of one of them."""
        reference = median(measured[base]).wall
        rows = []
        for name, costs in measured.items():
            cost = median(costs)
            rows.append([
                (names or {}).get(name, name), seconds(cost.wall), f"{spread(costs):.0%}", f"{cost.wall / reference:.2f}",
                seconds(cost.cpu), seconds(cost.server), mib(cost.rss), mib(cost.output) if cost.output else "-",
            ])  # fmt: skip
        self.table(["", "wall", "spread", "times ours", "CPU", "CPU of the server", "RSS", "output"], rows)

    def goal(self, number: int, text: str, found: float, limit: float):
        self.goals.append(Goal(number, text, found, limit))


def seconds(value: float) -> str:
    return f"{value:.2f} s"


def mib(value: float) -> str:
    return f"{value / 1e6:.1f} MB"


def write(path: Path, sections: list[Section], rounds: int, quick: bool, versions: list[tuple[str, str]]):
    goals = sorted((goal for section in sections for goal in section.goals), key=lambda goal: goal.number)
    text = [
        "# Results",
        "",
        f"Written by `benches/peers/run{' --quick' if quick else ''}` on {date.today()}. Each figure is the median of {rounds} "
        "rounds (three at most for large days and the sweep), in which the commands took turns; no round is left out. *Spread* is "
        "the distance between the slowest and the fastest round, as a part of the median. *CPU* is that of the command and of what it starts, *RSS* the highest sum of "
        "its processes. MB are 10^6 bytes. That the outputs hold the same rows was checked by counts and sums, read by others "
        "than us.",
        "",
        "Outputs of the peers are not synced to the disk, verified or described anywhere; ours are. The peers export whole tables "
        "where that is faster for them, ours are a file a day.",
        "",
    ]
    if quick:
        text += ["**The data were small: see that everything works, and take no ratio from here.**", ""]
    if goals:
        text += ["## Goals", "", "| | goal | limit | found | |", "|---|---|---:|---:|---|"]
        for goal in goals:
            limit = f"{goal.limit:g}" if goal.limit < 100 else f"{goal.limit:.0f}"
            text.append(
                f"| {goal.number} | {goal.text} | {limit} | {goal.found:.2f} | {'reached' if goal.reached else '**missed**'} |"
            )
        text.append("")
    for section in sections:
        text += [f"## {section.title}", "", *section.lines]
    text += ["## Machine and versions", "", *machine(), ""]
    text += ["| | version |", "|---|---|", *(f"| {name} | {version} |" for name, version in versions), ""]
    path.write_text("\n".join(text))


def machine() -> list[str]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        platform.machine(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) >> 20
    system = Path("/etc/os-release").read_text().split('PRETTY_NAME="')[1].split('"')[0]
    ours = subprocess.run([OURS, "--version"], capture_output=True, text=True).stdout.strip()
    return [
        f"{os.cpu_count()} cores ({model}), {memory} GiB, {system}, Linux {platform.release()}. "
        f"{ours}, commit {COMMIT}. The database, every server and every client were on this machine."
    ]
