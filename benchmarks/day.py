"""One user's working day in a few seconds: an agent's writes from a seed, on a clock that jumps.

Everything that asks something of the bucket is the product itself: restore, flush, checkpoint, end mark. Only
the waiting between them is left out, so the counted requests are those of a day.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from benchmarks.agent import Agent
from sidecar.area.keys import AreaKeys
from sidecar.area.store import Store
from sidecar.area.traffic import Flow
from sidecar.settings import Settings
from sidecar.sync.flusher import Flusher
from sidecar.sync.initial import backup_home, initial_sync
from sidecar.sync.workspace import Workspace

HOURS = 8
KIB, MIB = 1024, 1024 * 1024
_TURNS_IN_A_SESSION = 25


@dataclass(frozen=True)
class Profile:
    """How a user works: turns a day, spread over so many pods, one after another."""

    name: str
    turns: int
    pods: int


@dataclass(frozen=True)
class Mode:
    """How the sidecar is set: ``delay_seconds`` None is interval mode, without the journal."""

    name: str
    delay_seconds: float | None
    interval_seconds: float = 300.0


@dataclass
class Spent:
    """Requests and bytes of bodies by operation, as `sidecar.area.traffic` counts them."""

    flows: dict[str, Flow] = field(default_factory=dict)

    def add(self, flows: Mapping[str, Flow]) -> None:
        """What a store, or another day, has asked."""
        for name, flow in flows.items():
            old = self.flows.get(name, Flow())
            self.flows[name] = Flow(
                old.requests + flow.requests,
                old.bytes_sent + flow.bytes_sent,
                old.bytes_received + flow.bytes_received,
            )

    def requests(self, *names: str) -> int:
        return sum(self.flows[name].requests for name in names if name in self.flows)

    @property
    def sent_bytes(self) -> int:
        return sum(flow.bytes_sent for flow in self.flows.values())

    @property
    def received_bytes(self) -> int:
        return sum(flow.bytes_received for flow in self.flows.values())


def history(home: Path, transcripts: int, transcript_bytes: int, files: int) -> None:
    """What a user has from before: old sessions, and small files of configuration and memory."""
    agent = Agent(home, seed=7)
    for number in range(transcripts):
        agent.fill(f"projects/-w/old-{number}.jsonl", transcript_bytes)
    for number in range(files):
        agent.replace(f"skills/{number // 10}/{number}.md", 2 * KIB)


def first_backup(settings: Settings) -> Spent:
    """What the bucket is asked when a home meets an empty area."""
    spent, store = Spent(), Store.connect(settings)
    with Workspace.open(settings, store, settings.user_id or "", live=False) as workspace:
        assert initial_sync(workspace).action == "uploaded"
    spent.add(store.requests)
    return spent


def start(settings: Settings) -> Spent:
    """What the init container asks for a new pod: a restore into an empty home."""
    spent, store = Spent(), Store.connect(settings)
    with Workspace.open(settings, store, settings.user_id or "", live=False) as workspace:
        assert initial_sync(workspace).action == "restored"
    spent.add(store.requests)
    return spent


def idle(settings: Settings, rounds: int) -> Spent:
    """`rounds` checkpoints of a restored home in which nothing changes."""
    spent, store = Spent(), Store.connect(settings)
    with Workspace.open(settings, store, settings.user_id or "", live=True) as workspace:
        for _ in range(rounds):
            assert backup_home(workspace).durable
    spent.add(store.requests)
    return spent


def work(pod: Callable[[], Settings], profile: Profile, mode: Mode, seed: int) -> Spent:
    """A day of `profile`: `pod` gives the settings of a new pod with an empty disk."""
    chance, spent = random.Random(seed), Spent()
    for number in range(profile.pods):
        settings = replace(pod(), sync_delay_seconds=mode.delay_seconds)
        spent.add(start(settings).flows)
        store = Store.connect(settings)
        store.probe_conditions(AreaKeys(settings.prefix, settings.user_id or "").own)
        with Workspace.open(settings, store, settings.user_id or "", live=True) as workspace:
            agent = Agent(workspace.home.root, seed=seed * 100 + number)
            writes = _writes(agent, chance, number, profile)
            _live(workspace, Flusher(workspace), sorted(writes, key=lambda one: one[0]), mode)
        spent.add(store.requests)
    return spent


Write = tuple[float, Callable[[], object]]


def _writes(agent: Agent, chance: random.Random, pod: int, profile: Profile) -> Iterator[Write]:
    """When an agent writes what: the same steps as `Agent.turn`, at the times that a model and tools take."""
    seconds = HOURS * 3600 / profile.pods
    turns = sorted(chance.uniform(0, seconds) for _ in range(profile.turns // profile.pods))
    for number, begun in enumerate(turns):
        at = begun
        log = f"projects/-w/pod-{pod}-{number // _TURNS_IN_A_SESSION}.jsonl"
        yield at, lambda log=log: agent.append(log, 700)
        for _ in range(3):
            at += chance.uniform(2, 15)
            name = f"{log.removesuffix('.jsonl')}/tool-results/{chance.getrandbits(40):x}.txt"
            yield at, lambda name=name: agent.append(name, 3000)
            yield at, lambda log=log: agent.append(log, 1500)
            at += chance.uniform(1, 10)
            yield at, lambda log=log: agent.append(log, 2500)
        at += chance.uniform(2, 20)
        yield at, lambda log=log: agent.append(log, 1500)
        yield at, lambda: agent.replace(".claude.json", 12_000)


def _live(workspace: Workspace, flusher: Flusher, writes: list[Write], mode: Mode) -> None:
    """Writes, flushes and checkpoints in the order of their times; then the end."""
    never = float("inf")
    flush_at, checkpoint_at = never, mode.interval_seconds
    for at, write in writes:
        while min(flush_at, checkpoint_at) <= at:
            if flush_at <= checkpoint_at:
                assert flusher.flush().durable
                flush_at = never
            else:
                assert backup_home(workspace).durable
                checkpoint_at += mode.interval_seconds
        write()
        if mode.delay_seconds is not None:
            flush_at = min(flush_at, at + mode.delay_seconds)
    if mode.delay_seconds is not None:
        assert flusher.flush().durable
    assert backup_home(workspace).durable
    if mode.delay_seconds is not None:
        flusher.say_ended()
