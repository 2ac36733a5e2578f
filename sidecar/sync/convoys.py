"""Small files on their way up in company: read together, sent one after another, noted together.

A small file costs its thread a tenth of a millisecond of Python between a dozen system calls, and each call
gives the interpreter's lock away. Sixty threads that do so side by side spend more on handing it over than on
the work. So a thread reads a few files in one turn, and the ledger's lines go in as many writes as it takes.
What is sent is what was read, under the condition of the mark that was known before; a file that changes
meanwhile is the next round's, as one that changes on its way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from sidecar.errors import HomeError
from sidecar.home.batches import in_turn
from sidecar.home.entries import FileStat
from sidecar.sync.at_hand import AtHand
from sidecar.sync.marks import Mark
from sidecar.sync.shipped import Shipped
from sidecar.sync.snapshots import MEMORY_BYTES, Snapshot
from sidecar.sync.transfers import Convoy, Job
from sidecar.sync.whole_files import Shipment, read_ahead, ship
from sidecar.sync.workspace import Workspace


class Ship(Protocol):
    def __call__(self, workspace: Workspace, stat: FileStat, *, contested: bool) -> Shipped: ...


# A larger file takes longer on the wire than in Python.
SMALL_BYTES = 128 * 1024
MOST_FILES = 8
# What is left makes so many companies for each thread: the last ones are small, and all threads end together.
PER_THREAD = 2


def jobs(
    workspace: Workspace, stats: Sequence[FileStat], contested: frozenset[str], at_hand: AtHand
) -> Iterator[Job[Shipped] | Convoy[Shipped]]:
    """How to ship `stats`, in this order. What arrived is `at_hand`."""
    at = 0
    while at < len(stats):
        most = min(MOST_FILES, (len(stats) - at) // (PER_THREAD * workspace.settings.concurrency))
        few: list[FileStat] = []
        while len(few) < most and stats[at + len(few)].size <= SMALL_BYTES:
            few.append(stats[at + len(few)])
        if len(few) > 1:
            yield _convoy(workspace, few, contested, at_hand)
        else:
            few = [stats[at]]
            yield alone(workspace, stats[at], contested, ship)
        at += len(few)


def alone(workspace: Workspace, stat: FileStat, contested: frozenset[str], ship: Ship) -> Job[Shipped]:
    """One file by itself, by `whole_files.ship` or `transcripts.ship`."""
    return Job(stat.path, _weight(stat), lambda: ship(workspace, stat, contested=stat.path in contested))


def _weight(stat: FileStat) -> int:
    """What a file's body takes in memory while it is sent."""
    return min(stat.size, MEMORY_BYTES) * 2


def _convoy(
    workspace: Workspace, stats: Sequence[FileStat], contested: frozenset[str], at_hand: AtHand
) -> Convoy[Shipped]:
    def arrived(path: str, mark: Mark, body: Snapshot) -> None:
        workspace.ledger.note(path, mark)
        at_hand.keep(path, body.sha256, body.read(0, body.size))

    ready: dict[str, Shipment | None] = {}

    def read_all() -> None:
        for stat in stats:
            with suppress(HomeError):  # read once more when its turn comes, and told then
                ready[stat.path] = read_ahead(workspace, stat.path, SMALL_BYTES, arrived)

    def job(stat: FileStat) -> Job[Shipped]:
        def work() -> Shipped:
            shipment = ready.pop(stat.path, None)
            return ship(workspace, stat, contested=stat.path in contested, ready=shipment)

        return Job(stat.path, _weight(stat), work)

    return Convoy(tuple(map(job, stats)), lambda: in_turn(workspace.home, len(stats), read_all))
