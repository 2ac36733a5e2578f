"""One server, 1 to 50 sidecars: how soon they are ready, how soon bytes are durable, what each of them costs.

Every sidecar is a real process with a home of its own. All start at once, then each agent appends 4 KiB a
second; all get SIGTERM at once, and every last byte has to be in the bucket.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import threading
import time
from dataclasses import dataclass, field

from benchmarks import gauges
from benchmarks.agent import Agent
from benchmarks.bed import BUCKET, Bed, Place, seconds, table
from benchmarks.counting import Wiretap
from benchmarks.ports import free_port
from tests.processes import Sidecar, environ_of
from tests.servers import client

LOG = "projects/-w/session.jsonl"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a smoke test: 1 and 2 sidecars, 2 s")
    parser.add_argument("--counts", default="1,10,25,50", help="how many, comma-separated")
    parser.add_argument("--seconds", type=float, default=30.0, help="of work for each count (default 30)")


def run(options: argparse.Namespace) -> int:
    if options.quick:
        options.counts, options.seconds = "1,2", 2.0
    random.seed(1)
    rows = []
    for count in (int(one) for one in options.counts.split(",")):
        with Bed() as bed, Wiretap(bed.server.endpoint) as tap, _Pods(bed, tap, count) as pods:
            rows.append(pods.live(options.seconds))
    columns = (
        "sidecars",
        "all ready s",
        "written to durable s: median, p99, most",
        "CPU % each",
        "MiB each (Pss)",
        "requests/s",
        "all ended s",
    )
    table("Sidecars on one server", columns, rows)
    print(
        "Each agent appends 4 KiB a second; one of them in turn asks for durable at once. CPU is in time of "
        "one core. All that was written was found in the bucket after the end.\n"
    )
    return 0


@dataclass
class _Pods:
    bed: Bed
    tap: Wiretap
    count: int
    pods: list[tuple[Place, Sidecar]] = field(default_factory=list)
    agents: list[Agent] = field(default_factory=list)

    def __enter__(self) -> _Pods:
        self._stack = contextlib.ExitStack()
        self._began = time.monotonic()
        for number in range(self.count):
            place = self.bed.place(user=f"user-{number}", endpoint=self.tap.endpoint)
            agent = Agent(place.home, seed=number)
            self.agents.append(agent)
            agent.append(LOG, 100_000)
            for note in range(20):
                agent.append(f"plans/{note}.md", 1000)
            sidecar = Sidecar(environ_of(place.settings), place.directory / "log", free_port(), free_port())
            self.pods.append((place, self._stack.enter_context(sidecar)))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def live(self, lasting_seconds: float) -> tuple[object, ...]:
        """From the start of all to the end of all."""
        for _, sidecar in self.pods:
            sidecar.wait_for("/readyz", seconds=300)
        ready = time.monotonic() - self._began
        for _, sidecar in self.pods:
            sidecar.call("POST", "/v1/sync?wait=durable&timeout=25")
        self.tap.take()
        cpu, began = self._cpu_seconds(), time.monotonic()
        waits = self._work(lasting_seconds)
        lasted = time.monotonic() - began
        percent = (self._cpu_seconds() - cpu) / lasted / self.count * 100
        pss = sum(gauges.pss_kib(pid) for pid in self._pids()) / 1024 / self.count
        rate = self.tap.take().count / lasted
        ended = self._end()
        latency = ", ".join(seconds(waits))
        return (
            self.count,
            f"{ready:.1f}",
            latency,
            f"{percent:.2f}",
            f"{pss:.0f}",
            f"{rate:.1f}",
            f"{ended:.1f}",
        )

    def _work(self, lasting_seconds: float) -> list[float]:
        """Every second each agent writes; meanwhile one after the other asks for durable."""
        until = time.monotonic() + lasting_seconds
        waits: list[float] = []
        asking = threading.Thread(target=self._ask, args=(until, waits))
        asking.start()
        while time.monotonic() < until:
            next_at = time.monotonic() + 1.0
            for agent in self.agents:
                agent.append(LOG, 4096)
            time.sleep(max(0.0, next_at - time.monotonic()))
        asking.join()
        return waits

    def _ask(self, until: float, waits: list[float]) -> None:
        while time.monotonic() < until:
            _, sidecar = random.choice(self.pods)
            began = time.monotonic()
            status, body = sidecar.call("POST", "/v1/sync?wait=durable&timeout=25")
            if status != 200:
                raise RuntimeError(f"not durable: {status} {body}")
            waits.append(time.monotonic() - began)
            time.sleep(0.2)

    def _end(self) -> float:
        began = time.monotonic()
        for _, sidecar in self.pods:
            assert sidecar.process
            sidecar.process.send_signal(signal.SIGTERM)
        for _, sidecar in self.pods:
            assert sidecar.process
            if code := sidecar.process.wait(120):
                raise RuntimeError(f"exit {code}: {sidecar.text()[-500:]}")
        ended = time.monotonic() - began
        self._check()
        return ended

    def _check(self) -> None:
        """After the end all is in the objects."""
        with contextlib.closing(client(self.bed.server)) as s3:
            for place, _ in self.pods:
                key = f"user_data/{place.user}/.claude/{LOG}"
                stored = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
                if stored != (place.home / LOG).read_bytes():
                    raise RuntimeError(f"{key} is not what {place.user} wrote")

    def _pids(self) -> list[int]:
        return [sidecar.process.pid for _, sidecar in self.pods if sidecar.process]

    def _cpu_seconds(self) -> float:
        return sum(gauges.cpu_seconds(pid) for pid in self._pids())
