"""What the running sidecar does with an appended line: a flush, which no peer has a word for."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from benchmarks import workloads
from benchmarks.arena import Arena, Defect, Sample
from benchmarks.counting import Traffic, Wiretap
from benchmarks.peers import USER, ClaudeSidecar
from sidecar.settings import Settings
from tests.processes import Sidecar, environ_of

NAME = "claude-sidecar run"


class Flush(ClaudeSidecar):
    """``run`` on a copy of the arena's home: one line is appended, and ``POST /v1/sync`` waits for it.

    One flush before it is not counted. CPU and memory are the sidecar's in the time of the flush.
    """

    name = NAME

    def measure(
        self, arena: Arena, endpoint: str, tap: Wiretap | None = None
    ) -> tuple[Sample, Traffic | None]:
        site = arena.empty_site(self)
        home = site.state / "home"
        shutil.copytree(arena.home, home)
        settings = Settings(
            bucket=site.bucket,
            user_id=USER,
            home=str(home),
            state_dir=site.state / "state",
            aws={**site.environ, "AWS_ENDPOINT_URL": endpoint},
        )
        with Sidecar(environ_of(settings), site.state / "log") as sidecar:
            sidecar.wait_for("/readyz", seconds=120)
            self._flush(sidecar, home, 1)
            if tap:
                tap.take()
            assert sidecar.process
            cpu_before, began = _cpu_seconds(sidecar.process.pid), time.monotonic()
            self._flush(sidecar, home, 2)
            wall = time.monotonic() - began
            cpu = _cpu_seconds(sidecar.process.pid) - cpu_before
            sample = Sample(wall, cpu, peak_kib(sidecar.process.pid))
            traffic = tap.take() if tap else None
        arena.drop(site)
        return sample, traffic

    def _flush(self, sidecar: Sidecar, home: Path, number: int) -> None:
        workloads.append(home, number)
        status, body = sidecar.call("POST", "/v1/sync?wait=durable")
        if status != 200 or not body.get("durable"):
            raise Defect(f"the flush answered {status}: {body}")


def peak_kib(pid: int) -> int:
    """The most memory that the process held, ever."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def _cpu_seconds(pid: int) -> float:
    """With the scheduler's precision; the clock's ticks are ten milliseconds long."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
