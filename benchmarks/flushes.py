"""What the running sidecar does with an appended line: a flush, which no peer has a word for."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import gauges, workloads
from benchmarks.arena import Arena, Defect, Sample
from benchmarks.counting import Traffic, Wiretap
from benchmarks.peers import USER, ClaudeSidecar
from benchmarks.ports import free_port
from sidecar.settings import Settings
from tests.processes import Sidecar, command, environ_of

NAME = "claude-sidecar run"


class Flush(ClaudeSidecar):
    """``run`` on a copy of the arena's home: one line is appended, and ``POST /v1/sync`` waits for it.

    One flush before it is not counted. CPU and memory are the sidecar's in the time of the flush.
    """

    name = NAME

    def measure(
        self, arena: Arena, endpoint: str, tap: Wiretap | None = None
    ) -> tuple[Sample, Traffic | None]:
        with self.running(arena, endpoint) as (sidecar, home):
            self._flush(sidecar, home, 1)
            if tap:
                tap.take()
            assert sidecar.process
            pid = sidecar.process.pid
            cpu_before, began = gauges.cpu_seconds(pid), time.monotonic()
            self._flush(sidecar, home, 2)
            wall = time.monotonic() - began
            cpu = gauges.cpu_seconds(pid) - cpu_before
            return Sample(wall, cpu, gauges.peak_kib(pid)), tap.take() if tap else None

    @contextlib.contextmanager
    def running(self, arena: Arena, endpoint: str, *, hooked: bool = False) -> Iterator[tuple[Sidecar, Path]]:
        """A sidecar that is ready, and its own copy of the arena's home.

        `hooked`: the first backup is made by the init hook, in a process before it, as in a pod.
        """
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
        if hooked and (hook := command(environ_of(settings), "restore")).returncode:
            raise Defect(f"the init hook failed: {hook.stderr}")
        with Sidecar(environ_of(settings), site.state / "log", free_port(), free_port()) as sidecar:
            try:
                sidecar.wait_for("/readyz", seconds=120)
            except AssertionError as error:
                raise Defect(f"the sidecar did not get ready: {error}") from error
            yield sidecar, home
        arena.drop(site)

    def _flush(self, sidecar: Sidecar, home: Path, number: int) -> None:
        workloads.append(home, number)
        status, body = sidecar.call("POST", "/v1/sync?wait=durable")
        if status != 200 or not body.get("durable"):
            raise Defect(f"the flush answered {status}: {body}")
