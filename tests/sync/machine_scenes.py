"""Small situations, and for each of them every point of one operation at which something else can happen.

What the random machine finds by luck in a long run, this finds each time: an edit, a crash, another writer
or a lost answer exactly between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.sync.machine import LOGS, MEANWHILE, SETTINGS, Life, World, world_in
from tests.sync.memory_store import Fate

LOG = LOGS[0]


@dataclass(frozen=True)
class Scene:
    """``prepare`` brings about the situation of the first pod; ``operation`` is what is cut into."""

    prepare: Callable[[World, Life, Life], None]
    operation: str


def _both_synced(world: World, a: Life, b: Life) -> None:
    world.append(a, LOG, 2)
    world.edit(a, SETTINGS)
    world.start(a)
    world.wait(100)
    world.start(b)


def _first(world: World, a: Life, b: Life) -> None:
    world.append(a, LOG, 2)
    world.edit(a, SETTINGS)


def _grown(world: World, a: Life, b: Life) -> None:
    _both_synced(world, a, b)
    world.append(a, LOG)
    world.edit(a, SETTINGS)


def _united(world: World, a: Life, b: Life) -> None:
    """The object holds more than the file of the first pod."""
    _both_synced(world, a, b)
    world.append(b, LOG)
    world.backup(b)
    world.append(a, LOG)
    world.backup(a)
    world.wait(100)
    world.append(a, LOG)


def _rewound(world: World, a: Life, b: Life) -> None:
    _both_synced(world, a, b)
    world.append(b, LOG)
    world.backup(b)
    world.rewind(a, LOG, 1, more=1)


def _contested(world: World, a: Life, b: Life) -> None:
    _both_synced(world, a, b)
    for pod in (b, a):
        world.append(pod, LOG)
        world.edit(pod, SETTINGS)
        world.wait(100)
    world.backup(b)


def _behind(world: World, a: Life, b: Life) -> None:
    """The first pod lacks what the second one wrote, and wrote nothing."""
    _both_synced(world, a, b)
    world.append(b, LOG)
    world.edit(b, SETTINGS)
    world.backup(b)
    world.wait(100)


def _diverged(world: World, a: Life, b: Life) -> None:
    _contested(world, a, b)
    world.append_lines(a, LOG, [b"same"])


def _fresh(world: World, a: Life, b: Life) -> None:
    """The first pod is new; the second one filled the area."""
    world.append(b, LOG, 2)
    world.append(b, LOGS[1])
    world.edit(b, SETTINGS)
    world.start(b)
    world.wait(100)


def _ledger_lost(world: World, a: Life, b: Life) -> None:
    _contested(world, a, b)
    world.lose_ledger(a)


def _stale(world: World, a: Life, b: Life) -> None:
    """Somebody put an earlier version back over what the first pod wrote; the second one is gone."""
    _both_synced(world, a, b)
    world.append(a, LOG)
    world.backup(a)
    world.replace_pod(1)
    stale = world.truth.ever[LOG][0]
    world.bucket.put(world.keys.object(LOG), stale.body)


def _at_work(world: World, a: Life, b: Life) -> None:
    """The first pod's sidecar runs, with something in the journal and something new."""
    _both_synced(world, a, b)
    world.run(a)
    world.append(a, LOG)
    world.edit(a, SETTINGS)
    world.flush(a)
    world.append(a, LOG)
    world.edit(a, SETTINGS)


def _folded(world: World, a: Life, b: Life) -> None:
    """A checkpoint found what the journal holds in the objects: the next one removes it."""
    _at_work(world, a, b)
    world.flush(a)
    world.backup(a)


def _united_and_at_work(world: World, a: Life, b: Life) -> None:
    _at_work(world, a, b)
    world.append(b, LOG)
    world.edit(b, SETTINGS)
    world.backup(b)


def _rewound_at_work(world: World, a: Life, b: Life) -> None:
    _at_work(world, a, b)
    world.flush(a)
    world.rewind(a, LOG, 1, more=1)


def _taken_back(world: World, a: Life, b: Life) -> None:
    """What the first pod flushed is gone from its home again, which is what the objects hold."""
    _both_synced(world, a, b)
    lines, settings = a.content(LOG) or b"", a.content(SETTINGS) or b""
    world.run(a)
    world.append(a, LOG)
    world.edit(a, SETTINGS)
    world.flush(a)
    world.rewind(a, LOG, lines.count(b"\n"))
    world.put_in(a, SETTINGS, settings)


def _unheard_of(world: World, a: Life, b: Life) -> None:
    """The same, and the answer to the flush was lost."""
    _both_synced(world, a, b)
    settings = a.content(SETTINGS) or b""
    world.run(a)
    world.append(a, LOG)
    world.edit(a, SETTINGS)
    world.trouble(a, [Fate.LOST])
    world.flush(a)
    world.rewind(a, LOG, 1, more=1)
    world.put_in(a, SETTINGS, settings)


def _left_behind(world: World, a: Life, b: Life) -> None:
    """The second pod died and left a journal; the first one knows nothing of it."""
    _both_synced(world, a, b)
    world.run(b)
    world.append(b, LOG, 2)
    world.edit(b, SETTINGS)
    world.flush(b)
    world.append(b, LOG)
    world.flush(b)
    world.replace_pod(1)
    world.wait(100)
    world.run(a)
    world.append(a, LOG)


def _inherited(world: World, a: Life, b: Life) -> None:
    """What a dead pod left is in the first one's home, and found in the objects once."""
    _left_behind(world, a, b)
    world.merge(a)
    world.backup(a)


def _left_behind_for_a_new_pod(world: World, a: Life, b: Life) -> None:
    _left_behind(world, a, b)
    world.replace_pod(0)


SCENES = {
    "a flush": Scene(_at_work, "flush"),
    "a flush after a rewind": Scene(_rewound_at_work, "flush"),
    "a checkpoint of a journal": Scene(_at_work, "backup"),
    "a checkpoint of a journal that others went past": Scene(_united_and_at_work, "backup"),
    "a checkpoint after a flushed rewind": Scene(_rewound_at_work, "backup"),
    "a checkpoint after what was flushed was taken back": Scene(_taken_back, "backup"),
    "a restore after what was flushed was taken back": Scene(_taken_back, "merge"),
    "a flush after what arrived unheard of was taken back": Scene(_unheard_of, "flush"),
    "a checkpoint after what arrived unheard of was taken back": Scene(_unheard_of, "backup"),
    "a checkpoint that removes entries": Scene(_folded, "backup"),
    "a checkpoint that removes a dead pod's entries": Scene(_inherited, "backup"),
    "a restore of a dead pod's journal into a live home": Scene(_left_behind, "merge"),
    "a restore of a dead pod's journal": Scene(_left_behind_for_a_new_pod, "start"),
    "the end of a pod": Scene(_at_work, "drain"),
    "the first backup": Scene(_first, "start"),
    "a backup of what grew": Scene(_grown, "backup"),
    "a backup after a union": Scene(_united, "backup"),
    "a backup after a rewind": Scene(_rewound, "backup"),
    "a backup of what both changed": Scene(_contested, "backup"),
    "a restore into a new pod": Scene(_fresh, "start"),
    "a restore into a live pod that is behind": Scene(_behind, "merge"),
    "a restore into a live pod that went its own way": Scene(_diverged, "merge"),
    "a restore after the ledger was lost": Scene(_ledger_lost, "start"),
    "a restore over a copy that was put back": Scene(_stale, "merge"),
}


def cuts(scene: Scene, place: Path) -> int:
    """How many points the operation of `scene` has."""
    with world_in(place) as world:
        scene.prepare(world, *world.pods)
        getattr(world, scene.operation)(world.pods[0])
        points = world.last_points
        world.settle()
        return points


def play(
    scene: Scene, place: Path, point: int | str, what: str, path: str, *, tiny_blocks: bool = False
) -> None:
    """The scene with one thing happening at one point; no promise may break, then or later."""
    with world_in(place, tiny_blocks=tiny_blocks) as world:
        scene.prepare(world, *world.pods)
        pod = world.pods[0]
        events = {point: [lambda: world.happen(pod, what, path)]}
        getattr(world, scene.operation)(pod, events)
        world.assert_unbroken()
        world.settle()


def all_cuts(points: int) -> Iterator[tuple[int, str, str]]:
    for point in range(1, points + 1):
        for what in MEANWHILE:
            for path in (LOG, SETTINGS):
                if path == LOG or what not in ("crash", "append", "torn", "rewind", "outage"):
                    yield point, what, path
