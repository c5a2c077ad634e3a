"""What one command costs: wall time, CPU on both sides, memory."""

import os
import shutil
import signal
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass, fields
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    wall: float
    """Seconds."""
    cpu: float
    """CPU seconds of the command and everything it started."""
    rss: int
    """Bytes: the highest sum of its processes' resident sets, or the highest one of them if that is more."""
    server: float
    """CPU seconds of the server meanwhile."""
    output: int = 0
    """Bytes that are there afterwards."""


def median(costs: list[Cost]) -> Cost:
    """Of each figure by itself: no round is dropped."""
    return Cost(*(statistics.median(getattr(cost, field.name) for cost in costs) for field in fields(Cost)))


def spread(costs: list[Cost]) -> float:
    """How far the slowest round is from the fastest, as a part of the median."""
    walls = [cost.wall for cost in costs]
    return (max(walls) - min(walls)) / statistics.median(walls)


def measure(command: list[str], *, server: int = 0, cwd: Path, stdin: Path | None = None, env=None, log: Path) -> Cost:
    """Runs a command, which must end well. Its output goes to `log`."""
    os.sync()
    before = cpu_of(server)
    with open(log, "wb") as said, open(stdin or os.devnull, "rb") as given:
        started = time.perf_counter()
        child = subprocess.Popen(
            command, cwd=cwd, stdin=given, stdout=said, stderr=said, env=env, start_new_session=True
        )
        watch = Watch(child.pid)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    watch.stop()
    if child.returncode != 0:
        tail = log.read_bytes()[-2000:].decode(errors="replace")
        raise SystemExit(f"{command} ended with {child.returncode}:\n{tail}")
    # The process of a connection ends just after what it served.
    time.sleep(0.2)
    return Cost(wall, usage.ru_utime + usage.ru_stime, max(watch.sum, watch.one), cpu_of(server) - before)


def shell(script: str) -> list[str]:
    return ["bash", "-euo", "pipefail", "-c", script]


def cpu_of(pid: int) -> float:
    """User and system time of a process that lives, and of its children that ended."""
    if not pid:
        return 0.0
    numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, numbers[11:15])) / TICKS


class Watch(threading.Thread):
    """Looks at the memory of a session's processes, 50 times a second."""

    def __init__(self, session: int):
        super().__init__(daemon=True)
        self.session, self.done = session, threading.Event()
        self.sum, self.one = 0, 0
        self.start()

    def run(self):
        while not self.done.wait(0.02):
            processes = [found for entry in os.listdir("/proc") if entry.isdigit() and (found := self.memory(entry))]
            self.sum = max([self.sum, sum(now for now, _ in processes)])
            # `getrusage` cannot say it: what it knows of a child begins with our own memory.
            self.one = max([self.one, *(most for _, most in processes)])

    def memory(self, pid: str):
        """What a process of the session has now, and the most that it ever had."""
        try:
            if os.getsid(int(pid)) != self.session:
                return None
            status = Path(f"/proc/{pid}/status").read_text()
            now, most = (int(status.split(f"{name}:", 1)[1].split(None, 1)[0]) * 1024 for name in ("VmRSS", "VmHWM"))
            return now, most
        except (OSError, IndexError):
            return None  # It ended meanwhile.

    def stop(self):
        self.done.set()
        self.join()


def size(path: Path) -> int:
    """Bytes of the files at or below a path, each hard link once."""
    if path.is_file():
        return path.stat().st_size
    seen, total = set(), 0
    for root, _, names in os.walk(path):
        for name in names:
            about = os.lstat(os.path.join(root, name))
            if (about.st_dev, about.st_ino) not in seen:
                seen.add((about.st_dev, about.st_ino))
                total += about.st_size
    return total


def fresh(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def end(process: subprocess.Popen, patience: float = 60):
    """Stops a server of ours."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
