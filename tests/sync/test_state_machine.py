"""Pods, agents, an outside writer and every fault that can be made, at random: no promise breaks.

The default is short and always the same. For a long run give ``SYNC_MACHINE_EXAMPLES`` (and
``SYNC_MACHINE_STEPS``), with ``--hypothesis-seed=…`` to choose the seed and ``--timeout=0``; a failure prints
the steps that lead to it, made as few as possible. Each of them is a method of `tests.sync.machine.World`.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.sync.machine import LOGS, MEANWHILE, PATHS, WHOLE, Life, World
from tests.sync.machine_points import Events, installed
from tests.sync.machine_scenes import SCENES, all_cuts, cuts, play
from tests.sync.memory_store import Fate, Lie

EXAMPLES = int(os.environ.get("SYNC_MACHINE_EXAMPLES", "40"))
STEPS = int(os.environ.get("SYNC_MACHINE_STEPS", "30"))
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

POD = st.integers(0, 2)
LOG = st.sampled_from(LOGS)
FILE = st.sampled_from(WHOLE)
PATH = st.sampled_from(PATHS)
FATES = st.lists(st.sampled_from(Fate), min_size=1, max_size=6)
# In the middle of an operation: (number of the point, what, a path).
EVENTS = st.lists(
    st.tuples(
        st.integers(1, 70),
        st.sampled_from(("crash", "crash", "crash", *MEANWHILE)),
        st.integers(0, len(PATHS) - 1),
    ),
    max_size=3,
)


class SyncMachine(RuleBasedStateMachine):
    """Any order of everything."""

    @initialize(
        tiny=st.booleans(),
        opaque=st.booleans(),
        missing=st.sampled_from([404, 412]),
        packs=st.booleans(),
        batch_bytes=st.sampled_from([None, 100]),
        pods=st.sampled_from([2, 2, 3]),
        deletions=st.sampled_from(["keep", "keep", "mirror"]),
    )
    def begin(
        self,
        tiny: bool,
        opaque: bool,
        missing: int,
        packs: bool,
        batch_bytes: int | None,
        pods: int,
        deletions: str,
    ) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="machine-", dir=MEMORY))
        self.points = installed(tiny_blocks=tiny, small_packs=packs, batch_bytes=batch_bytes)
        self.points.__enter__()
        self.world = World(
            self.place,
            pods=pods,
            tiny_blocks=tiny,
            opaque_etags=opaque,
            missing_answer=missing,
            deletions=deletions,
        )

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.world.settle()
        finally:
            self.world.close()
            self.points.__exit__(None, None, None)
            shutil.rmtree(self.place, ignore_errors=True)

    @invariant()
    def no_promise_is_broken(self) -> None:
        if hasattr(self, "world"):
            self.world.assert_unbroken()

    def pod(self, number: int) -> Life:
        return self.world.pods[number % len(self.world.pods)]

    def events(self, pod: int, drawn: list[tuple[int, str, int]]) -> Events:
        events: Events = {}
        for point, what, path in drawn:
            events.setdefault(point, []).append(
                lambda w=what, p=path: self.world.happen(self.pod(pod), w, PATHS[p])
            )
        return events

    # -- the agents

    @rule(pod=POD, path=LOG, count=st.integers(1, 3), torn=st.booleans())
    def append(self, pod: int, path: str, count: int, torn: bool) -> None:
        self.world.append(self.pod(pod), path, count, torn=torn)

    @rule(pod=POD, path=LOG)
    def append_what_both_write(self, pod: int, path: str) -> None:
        self.world.append_lines(self.pod(pod), path, [b"same"])

    @rule(pod=POD, path=LOG)
    def repeat(self, pod: int, path: str) -> None:
        self.world.repeat(self.pod(pod), path)

    @rule(pod=POD, path=LOG, size=st.sampled_from([1, 300]))
    def use_tool(self, pod: int, path: str, size: int) -> None:
        self.world.use_tool(self.pod(pod), path, size)

    @rule(pod=POD, path=LOG, keep=st.integers(0, 5), more=st.integers(0, 2))
    def rewind(self, pod: int, path: str, keep: int, more: int) -> None:
        self.world.rewind(self.pod(pod), path, keep, more=more)

    @rule(pod=POD, path=FILE, in_place=st.booleans())
    def edit(self, pod: int, path: str, in_place: bool) -> None:
        self.world.edit(self.pod(pod), path, in_place=in_place)

    @rule(pod=POD, path=FILE)
    def revert(self, pod: int, path: str) -> None:
        self.world.revert(self.pod(pod), path)

    @rule(pod=POD, path=PATH)
    def delete(self, pod: int, path: str) -> None:
        self.world.delete(self.pod(pod), path)

    @rule(pod=POD, path=PATH)
    def touch(self, pod: int, path: str) -> None:
        self.world.touch(self.pod(pod), path)

    # -- the outside writer

    @rule(path=PATH)
    def outside_put(self, path: str) -> None:
        self.world.outside_put(path)

    @rule(path=PATH, copy=st.booleans())
    def outside_stale(self, path: str, copy: bool) -> None:
        self.world.outside_stale(path, copy=copy)

    @rule(path=PATH)
    def outside_cut(self, path: str) -> None:
        self.world.outside_cut(path)

    @rule(path=FILE)
    def outside_in_place(self, path: str) -> None:
        self.world.outside_in_place(path)

    @rule(path=PATH)
    def outside_delete(self, path: str) -> None:
        self.world.outside_delete(path)

    @rule(choice=st.integers(0, 2))
    def outside_manifest(self, choice: int) -> None:
        self.world.outside_manifest(choice)

    # -- pods and faults

    @rule(pod=POD)
    def lose_ledger(self, pod: int) -> None:
        self.world.lose_ledger(self.pod(pod))

    @rule(pod=POD, whole=st.booleans())
    def lose_home(self, pod: int, whole: bool) -> None:
        life = self.pod(pod)
        self.world.lose_home(life) if whole else self.world.empty_home(life)

    @rule(pod=POD)
    def replace_pod(self, pod: int) -> None:
        self.world.replace_pod(pod % len(self.world.pods))

    @rule(pod=POD, fates=FATES)
    def trouble(self, pod: int, fates: list[Fate]) -> None:
        self.world.trouble(self.pod(pod), fates)

    @rule(pod=POD, path=PATH, lie=st.sampled_from([None, *Lie]))
    def lie(self, pod: int, path: str, lie: Lie | None) -> None:
        lies: dict[str, Any] = {self.world.keys.object(path): lie} if lie else {}
        self.pod(pod).store.lies = lies

    @precondition(lambda self: self.world.truth.account.entries)
    @rule(pod=POD, number=st.integers(0, 20), lie=st.sampled_from([Lie.LACKING, Lie.TWICE]))
    def lie_about_the_journal(self, pod: int, number: int, lie: Lie) -> None:
        """An entry is not seen yet, or twice; lines that come late come out of order."""
        keys = sorted(self.world.truth.account.entries)
        self.world.truth.disordered.update(LOGS)
        self.pod(pod).store.lies = {keys[number % len(keys)]: lie}

    @precondition(lambda self: self.world.bucket.late)
    @rule()
    def deliver(self) -> None:
        self.world.bucket.deliver()

    @rule(seconds=st.sampled_from([0.01, 5, 61, 4000]))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    @rule(pod=POD, seconds=st.sampled_from([-7200, -30, 0, 30, 7200]))
    def skew(self, pod: int, seconds: int) -> None:
        self.pod(pod).skew_ns = seconds * 10**9

    # -- the sidecar

    @rule(pod=POD, drawn=EVENTS, live=st.booleans())
    def start(self, pod: int, drawn: list[tuple[int, str, int]], live: bool) -> None:
        self.world.start(self.pod(pod), self.events(pod, drawn), live=live)

    @rule(pod=POD, drawn=EVENTS)
    def merge(self, pod: int, drawn: list[tuple[int, str, int]]) -> None:
        self.world.merge(self.pod(pod), self.events(pod, drawn))

    @rule(pod=POD, drawn=EVENTS)
    def backup(self, pod: int, drawn: list[tuple[int, str, int]]) -> None:
        self.world.backup(self.pod(pod), self.events(pod, drawn))

    @rule(pod=POD)
    def backup_undisturbed(self, pod: int) -> None:
        self.world.wait(1)
        self.world.backup(self.pod(pod))

    @rule(pod=POD, drawn=EVENTS)
    def run(self, pod: int, drawn: list[tuple[int, str, int]]) -> None:
        self.world.run(self.pod(pod), self.events(pod, drawn))

    @rule(pod=POD)
    def halt(self, pod: int) -> None:
        self.world.halt(self.pod(pod))

    @rule(pod=POD, drawn=EVENTS, paths=st.none() | st.frozensets(PATH))
    def flush(self, pod: int, drawn: list[tuple[int, str, int]], paths: frozenset[str] | None) -> None:
        if self.pod(pod).session is None:
            self.world.run(self.pod(pod))
        self.world.flush(self.pod(pod), self.events(pod, drawn), paths=paths)

    @rule(pod=POD, path=LOG)
    def append_and_flush(self, pod: int, path: str) -> None:
        if self.pod(pod).session is None:
            self.world.run(self.pod(pod))
        self.world.append(self.pod(pod), path)
        self.world.flush(self.pod(pod))

    @rule(pod=POD, turns=st.lists(st.integers(1, 12), max_size=8), drawn=EVENTS)
    def flush_beside_a_checkpoint(
        self, pod: int, turns: list[int], drawn: list[tuple[int, str, int]]
    ) -> None:
        if self.pod(pod).session is None:
            self.world.run(self.pod(pod))
        self.world.flush_beside_a_checkpoint(self.pod(pod), turns, self.events(pod, drawn))

    @rule(pod=POD)
    def go_on(self, pod: int) -> None:
        self.world.go_on(self.pod(pod))

    @rule(pod=POD, drawn=EVENTS)
    def drain(self, pod: int, drawn: list[tuple[int, str, int]]) -> None:
        self.world.drain(self.pod(pod), self.events(pod, drawn))

    @rule()
    def look(self) -> None:
        self.world.look()


def _sample(cuts_of_scene: list[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    """As many as there are examples; the same ones each time, from all over the operation."""
    return random.Random(0).sample(cuts_of_scene, min(EXAMPLES // 2, len(cuts_of_scene)))


@pytest.mark.parametrize("name", SCENES)
def test_whatever_happens_at_a_point_of_an_operation_breaks_no_promise(name: str) -> None:
    scene, place = SCENES[name], Path(tempfile.mkdtemp(prefix="scenes-", dir=MEMORY))
    try:
        for point, what, path in _sample(list(all_cuts(cuts(scene, place / "whole")))):
            tiny = (point + len(what)) % 2 == 0
            play(
                scene, place / f"{point}-{what}-{tiny}-{path == LOGS[0]}", point, what, path, tiny_blocks=tiny
            )
    finally:
        shutil.rmtree(place, ignore_errors=True)


TestSync = SyncMachine.TestCase
TestSync.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    derandomize="SYNC_MACHINE_EXAMPLES" not in os.environ,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
