"""A fleet comes back after an outage, to a store that takes so many requests a second and refuses the rest.

Real ``ConnectedUser`` objects, each with a home and a ledger of its own, in one process; only the watch is
replaced, because a machine has few of the kernel's. In front of the real server a proxy answers 503 above
the limit. Every sidecar has 4 KiB to flush, and its checkpoint comes at a random moment after the outage.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from benchmarks.agent import Agent
from benchmarks.bed import Bed, table
from sidecar.area.store import Store
from sidecar.home.telling import Telling
from sidecar.logs import log
from sidecar.settings import Settings
from sidecar.sync import flushing, initial
from sidecar.sync.claude_sync_manager import OUTAGE_SECONDS
from sidecar.sync.connected_user import ConnectedUser
from sidecar.sync.drain import Drain
from sidecar.sync.observers import Observers
from sidecar.sync.pace import Pace
from sidecar.sync.results import BackupResult
from tests import faults
from tests.fault_proxy import Exchange, FaultProxy

LOG = "projects/-w/session.jsonl"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a smoke test: 10 sidecars, 2 s of outage")
    parser.add_argument("--sidecars", type=int, default=200)
    parser.add_argument("--rate", type=int, default=50, help="requests a second that the store takes")
    parser.add_argument("--outage-seconds", type=float, default=30.0)
    parser.add_argument("--pace", type=float, help="as if the outage had stretched the delays this much")
    parser.add_argument("--limit-seconds", type=float, default=240.0, help="give up after this")
    parser.add_argument("--checkpoints-within", type=float, default=60.0, help="seconds after the outage")


def run(options: argparse.Namespace) -> int:
    if options.quick:
        options.sidecars, options.outage_seconds, options.checkpoints_within = 10, 2.0, 5.0
    random.seed(1)
    log.setLevel(logging.ERROR)
    initial.WAIT_FOR_OTHERS_SECONDS = 0.0
    with Bed() as bed, FaultProxy(bed.server.endpoint) as proxy:
        return asyncio.run(_Fleet(bed, proxy, options).come_back())


@dataclass
class Gate:
    """Takes `rate` requests a second and answers 503 to the others; remembers when it did what."""

    rate: int
    taken: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    _tokens: float = 0.0
    _at: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, exchange: Exchange) -> None:
        with self._lock:
            now = time.monotonic()
            self._tokens = min(float(self.rate), self._tokens + (now - self._at) * self.rate)
            self._at = now
            passes = self._tokens >= 1
            self._tokens -= passes
            (self.taken if passes else self.refused).append(now)
        (faults.pass_on() if passes else faults.throttle())(exchange)


class ToldWatch:
    """Stands for the watch: the fleet says itself that something changed, which then means everything."""

    fallback = fallback_reason = ""
    longest_seconds = 0.0
    alive = True

    def __init__(self) -> None:
        self.telling = Telling()

    @classmethod
    def start(cls, *ignored: Any) -> ToldWatch:
        return cls()

    def take(self) -> None:
        return None

    def stop(self) -> None:
        return None


class _Fleet:
    def __init__(self, bed: Bed, proxy: FaultProxy, options: argparse.Namespace) -> None:
        self._options, self._proxy = options, proxy
        self._settings = _settings(bed, proxy)
        self._store = Store.connect(self._settings, outage_seconds=OUTAGE_SECONDS)
        self._durable: dict[str, float] = {}
        self._checkpointed: dict[str, float] = {}
        self._written = False

    async def come_back(self) -> int:
        options = self._options
        setattr(flushing, "Watch", ToldWatch)  # noqa: B010
        users = [self._user(f"user-{number}") for number in range(options.sidecars)]
        for some in (users[at : at + 20] for at in range(0, len(users), 20)):
            await asyncio.gather(*(user.first_sync() for user in some))
            await asyncio.gather(*(user.flush() for user in some))
        self._proxy.down()
        for user in users:
            Agent(self._settings.home_of(user.user_id)).append(LOG, 4096)
            user.changed()
        self._written = True
        await asyncio.sleep(options.outage_seconds)
        gate = Gate(options.rate)
        self._proxy.on("*", gate, times=None)
        for user in users:
            user.flushing.pace = Pace(options.pace) if options.pace else user.flushing.pace
        self._proxy.up()
        back_at = time.monotonic()
        await self._watch_them(users, back_at)
        self._print(gate, back_at)
        for user in users:
            await user.close()
        return 0 if len(self._durable) == len(users) else 1

    def _user(self, user_id: str) -> ConnectedUser:
        async def connected(_: str) -> Store:
            return self._store

        def flushed(result: BackupResult) -> None:
            if self._written and result.durable:
                self._durable.setdefault(user_id, time.monotonic())

        def checkpointed(result: BackupResult) -> None:
            flushed(result)
            if self._written and result.durable:
                self._checkpointed.setdefault(user_id, time.monotonic())

        observers = Observers(flushed=flushed, checkpointed=checkpointed)
        return ConnectedUser(user_id, self._settings, connected, observers, lambda: None, Drain(30.0))

    async def _watch_them(self, users: list[ConnectedUser], back_at: float) -> None:
        checkpoints = [asyncio.create_task(self._checkpoint(user)) for user in users]
        while len(self._durable) < len(users) or len(self._checkpointed) < len(users):
            if time.monotonic() - back_at > self._options.limit_seconds:
                break
            await asyncio.sleep(0.1)
        for task in checkpoints:
            task.cancel()
        await asyncio.gather(*checkpoints, return_exceptions=True)

    async def _checkpoint(self, user: ConnectedUser) -> None:
        await asyncio.sleep(random.uniform(0, self._options.checkpoints_within))
        while not (await user.back_up()).durable:
            await asyncio.sleep(5)

    def _print(self, gate: Gate, back_at: float) -> None:
        options, rows = self._options, []
        ends = [*self._durable.values(), *self._checkpointed.values()]
        step = max(1.0, round((max(ends, default=back_at) - back_at) / 30))
        for number in range(int((max(ends, default=back_at) - back_at) / step) + 1):
            begin, end = back_at + number * step, back_at + (number + 1) * step
            taken = sum(begin <= at < end for at in gate.taken) / step
            refused = sum(begin <= at < end for at in gate.refused) / step
            share = sum(at < end for at in self._durable.values()) / options.sidecars
            done = sum(at < end for at in self._checkpointed.values()) / options.sidecars
            bar = "#" * round(share * 20)
            rows.append(
                (f"{end - back_at:.0f}", f"{taken:.0f}", f"{refused:.0f}", f"{share:.0%}", f"{done:.0%}", bar)
            )
        title = f"{options.sidecars} sidecars after {options.outage_seconds:g} s, {options.rate} requests/s"
        if options.pace:
            title += f", delays stretched {options.pace:g} times"
        columns = ("second", "taken/s", "refused/s", "durable", "checkpointed", "")
        table(title, columns, rows)
        last = max(self._durable.values(), default=back_at) - back_at
        middle = sorted(self._durable.values())[len(self._durable) // 2] - back_at if self._durable else 0.0
        print(
            f"Durable: {len(self._durable)} of {options.sidecars}; half after {middle:.1f} s, the last "
            f"after {last:.1f} s. Checkpoints: {len(self._checkpointed)}. "
            f"Requests: {len(gate.taken)} taken, {len(gate.refused)} refused.\n"
        )


def _settings(bed: Bed, proxy: FaultProxy) -> Settings:
    place = bed.place(endpoint=proxy.endpoint)
    homes = str(place.directory / "homes" / "{user_id}" / ".claude")
    with contextlib.suppress(FileExistsError):
        (place.directory / "homes").mkdir()
    return replace(place.settings, home=homes, user_id=None)
