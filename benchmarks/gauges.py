"""What the kernel says of a process that runs: CPU and memory, from /proc."""

from __future__ import annotations

import os
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Of all its threads, those that ended too; in ticks of ten milliseconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def threads_cpu_seconds(pid: int) -> float:
    """Of its living threads, to the microsecond."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def rss_kib(pid: int) -> int:
    """Resident now."""
    return _line(Path(f"/proc/{pid}/status"), "VmRSS:")


def anonymous_kib(pid: int) -> int:
    """Resident now and not a file's: what another process of the same image does not share."""
    return _line(Path(f"/proc/{pid}/status"), "RssAnon:")


def peak_kib(pid: int) -> int:
    """Resident at the most, ever."""
    return _line(Path(f"/proc/{pid}/status"), "VmHWM:")


def pss_kib(pid: int) -> int:
    """Resident now, each shared page divided among those that share it."""
    return _line(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def _line(file: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(name))
