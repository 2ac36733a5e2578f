"""What the kernel says of a process that runs: CPU and memory."""

from __future__ import annotations

import time
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Of all its threads, those that ended too."""
    clock = (~pid << 3) | 2  # the scheduler's clock of that process: clock_getcpuclockid(3)
    return time.clock_gettime(clock)


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
