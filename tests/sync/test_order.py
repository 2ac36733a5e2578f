"""The order of a transcript's lines: what somebody had read comes before what he wrote then, everywhere.

`Journalling` is the protocol without files and requests, so that thousands of worlds with three pods and more
fit into a second; `tests.sync.machine` holds the real one to the same.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.area.journal import Lines
from sidecar.sync import merge, unfold
from sidecar.sync.bodies import Bytes
from tests.sync.machine import LOGS, World, world_in
from tests.sync.machine_journal import lines_of
from tests.sync.test_unfold import entries_of, laid

LOG = LOGS[0]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_in(tmp_path, pods=3) as made:
        yield made


OPERATIONS = (
    "append",
    "append_what_all_write",
    "flush",
    "merge",
    "merge_and_die",
    "merge_beside_an_append",
    "back_up",
    "lose_ledger",
    "be_replaced",
)


def text(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


class Writing:
    """A pod: its home, how much of that its ledger calls durable, and the ledger's name as a writer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.home: list[bytes] = []
        self.durable = 0


class Journalling:
    """Pods of one user with one transcript. ``behind``: for each line, what its writer had in front of it.

    `names`: under which names ledgers write, as nobody chooses them.
    """

    def __init__(self, count: int, names: list[int]) -> None:
        self._names = [f"w{number}" for number in names]
        self.pods = [Writing(self._names.pop()) for _ in range(count)]
        self.object: list[bytes] = []
        self.journal: dict[str, list[Lines]] = {}
        self.behind: dict[bytes, set[bytes]] = {}
        self.made: Counter[bytes] = Counter()
        self.flushed: Counter[bytes] = Counter()

    # -- the agent

    def append(self, pod: Writing) -> None:
        self._write(pod, b"%d" % len(self.behind))
        self.behind[pod.home[-1]] = {line for line in pod.home[:-1] if line in self.behind}

    def append_what_all_write(self, pod: Writing) -> None:
        self._write(pod, b"same")

    def _write(self, pod: Writing, line: bytes) -> None:
        self.made[line] += 1
        pod.home.append(line)

    # -- the sidecar

    def flush(self, pod: Writing) -> None:
        old, new = pod.home[: pod.durable], pod.home[pod.durable :]
        if not new:
            return
        seen, counts = Counter(old), {}
        for number, line in enumerate(new):
            seen[line] += 1
            if seen[line] > 1:
                counts[number] = seen[line]
        base = hashlib.sha256(text(old)).hexdigest()
        record = Lines("p", len(text(old)), base, text(new), 0, 0o600, counts)
        self.journal.setdefault(pod.name, []).append(record)
        pod.durable = len(pod.home)
        self.flushed |= Counter(pod.home)

    def merge(self, pod: Writing) -> None:
        was_durable = pod.durable == len(pod.home)
        self.merge_and_die(pod)
        if was_durable:
            pod.durable = len(pod.home)

    def merge_and_die(self, pod: Writing) -> None:
        """Killed before the ledger notes that the journal has these lines."""
        pod.home += self.lacking(pod.home)
        pod.home = self.unfolded(pod.home)

    def merge_beside_an_append(self, pod: Writing) -> None:
        """What comes was found out before the agent's line, and stands behind it."""
        before = list(pod.home)
        after = self.unfolded(before + self.lacking(before))
        self.append(pod)
        pod.home += after[len(before) :]

    def back_up(self, pod: Writing) -> None:
        union = merge.unite(Bytes(text(self.object)), Bytes(text(pod.home)), len(text(pod.home)))
        sides = {"remote": text(self.object), "local": text(pod.home)}
        data = b"".join(sides[span.side][span.offset :][: span.length] for span in union.spans)
        self.object = data.split(b"\n")[:-1]
        pod.durable = len(pod.home)
        self.flushed |= Counter(pod.home)
        held = Counter(identity for _, _, identity in merge.lines(Bytes(data), 0, len(data)))
        for records in self.journal.values():
            while records and unfold.contained(records[0], held):
                records.pop(0)

    # -- what happens to pods

    def lose_ledger(self, pod: Writing) -> None:
        pod.name, pod.durable = self._names.pop(), 0

    def be_replaced(self, pod: Writing) -> None:
        self.lose_ledger(pod)
        pod.home = self.unfolded(self.object)
        pod.durable = len(pod.home)

    # -- what comes of it

    def lacking(self, home: list[bytes]) -> list[bytes]:
        """The lines of the object that `home` has not, in their order."""
        have, other = Bytes(text(home)), Bytes(text(self.object))
        spans = merge.missing_lines(have, have.size, other, other.size, side="remote")
        return [line for span in spans for line in lines_of(bytes(other.read(span.offset, span.length)))]

    def unfolded(self, lines: list[bytes]) -> list[bytes]:
        entries = [
            entry for name, records in self.journal.items() for entry in entries_of(name, list(records))
        ]
        return laid(text(lines), entries)

    def check(self) -> None:
        durable = self.unfolded(self.object)
        assert not self.flushed - Counter(durable), "a line is missing"
        for lines in [durable, *(pod.home for pod in self.pods)]:
            assert not Counter(lines) - self.made, "a line stands more often than it was written"
            seen: set[bytes] = set()
            for line in lines:
                assert self.behind.get(line, set()) <= seen, (
                    f"{line!r} in front of what it goes on from: {lines}"
                )
                seen.add(line)


CONTRARY = [
    *[(0, "append"), (0, "flush"), (1, "merge"), (2, "merge"), (1, "append"), (1, "flush"), (0, "merge")],
    *[(2, "append"), (2, "merge"), (0, "append"), (1, "append"), (2, "flush"), (1, "flush"), (0, "merge")],
    (0, "flush"),
]
"""Each pod has a line of the next one behind its own."""


@given(
    pods=st.integers(2, 4),
    names=st.permutations(range(64)),
    steps=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(OPERATIONS)), max_size=50),
)
@settings(max_examples=400)
@example(2, list(range(64)), [(0, "append"), (0, "flush"), (1, "merge"), (1, "append"), (1, "flush")])
@example(
    3,
    list(range(64)),
    CONTRARY,
)
def test_what_a_pod_had_read_comes_before_what_it_wrote_then_whoever_journalled_both(
    pods: int, names: list[int], steps: list[tuple[int, str]]
) -> None:
    world = Journalling(pods, names)
    for number, step in steps[:50]:
        getattr(world, step)(world.pods[number % pods])
        world.check()


def test_a_session_that_went_from_pod_to_pod_comes_back_as_it_was_written(world: World) -> None:
    """None of them lived to its first checkpoint, and their names stand in no order."""
    for _ in range(4):
        pod = world.pods[0]
        world.run(pod)
        world.append(pod, LOG, 2)
        world.flush(pod)
        written = pod.content(LOG)
        world.replace_pod(0)
    assert world.look().content(LOG) == written


def test_lines_that_three_pods_laid_on_in_contrary_orders_come_in_the_order_of_each(world: World) -> None:
    a, b, c = world.pods
    for pod in (a, b, c):
        world.run(pod)
    world.append(a, LOG)
    world.flush(a)
    world.merge(b)
    world.merge(c)
    world.append(b, LOG)
    world.flush(b)
    world.merge(a)
    world.append(c, LOG)
    world.merge(c)  # behind a line that is not durable: both go into one entry
    world.append(a, LOG)
    world.append(b, LOG)
    world.flush(c)
    world.flush(b)
    world.merge(a)
    world.flush(a)
    world.settle()


def test_a_pod_that_never_had_a_session_settles_its_parts_in_their_order(world: World) -> None:
    """Those who wrote it are gone; what each of them journalled goes on from the one before."""
    a, b, _ = world.pods
    world.run(b)
    world.append(b, LOGS[1])
    world.flush(b)
    world.run(a)  # it knows that there are others
    for _ in range(3):
        b = world.pods[1]
        world.run(b)
        world.append(b, LOG, 2)
        world.flush(b)
        written = b.content(LOG)
        world.replace_pod(1)
    world.wait(100)
    world.backup(a)
    assert world.bucket.objects[world.keys.object(LOG)].body == written
    world.settle()


def test_a_part_of_a_session_waits_for_somebody_who_is_at_work_on_it(world: World) -> None:
    a, b, c = world.pods
    world.run(c)
    world.append(c, LOGS[1])
    world.flush(c)
    world.run(a)
    world.run(b)
    world.append(b, LOG)
    world.flush(b)
    world.merge(c)
    world.append(c, LOG)
    world.flush(c)
    world.replace_pod(2)
    world.wait(61)
    world.append(b, LOG)
    world.flush(b)
    world.backup(a)
    assert world.keys.object(LOG) not in world.bucket.objects
    world.settle()
