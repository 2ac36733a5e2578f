"""The wanted objects of an area on their way into the home: out of packs, and one by one.

What a pack cannot give (it is damaged, gone, or the home changed meanwhile) comes from its object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct, field

from sidecar.errors import HomeFull, SidecarError
from sidecar.logs import log
from sidecar.sync import arrivals
from sidecar.sync.arrivals import Arrival, Wanted
from sidecar.sync.prefetch import Prefetch
from sidecar.sync.progress import Progress, Watcher
from sidecar.sync.results import Unsynced
from sidecar.sync.transfers import Done, Job, concerns_all, run_jobs
from sidecar.sync.unpacking import by_pack, unpack
from sidecar.sync.workspace import Workspace

_MEMORY_PER_PACK_BYTES = 16 * 1024 * 1024

# What begins the name of a pack's job: no path begins so.
_PACK = "/"

Arrivals = list[Arrival | None]


class Tally(Struct):
    """What a restore moved so far, and what it could not."""

    files: int = 0
    bytes: int = 0
    packed: int = 0
    not_restored: list[Unsynced] = field(default_factory=list)
    skipped: list[Unsynced] = field(default_factory=list)
    error: SidecarError | None = None
    full: bool = False
    cut_off: bool = False

    @property
    def halted(self) -> bool:
        """True where nothing more can come."""
        return self.cut_off or self.full or (self.error is not None and concerns_all(self.error))


class Bringing:
    """Brings `wanted` into the home and counts it in `tally`."""

    def __init__(
        self,
        workspace: Workspace,
        wanted: list[Wanted],
        tally: Tally,
        watcher: Watcher,
        stop: Callable[[], bool],
    ) -> None:
        self._workspace = workspace
        self._wanted = wanted
        self._tally = tally
        self._watcher = watcher
        self._stop = stop
        self._total = sum(item.info.size for item in wanted)
        self._seen_files = self._seen_bytes = 0

    def run(self, prefetch: Prefetch) -> None:
        packs = by_pack(self._wanted)
        pack_of = {item.path: name for name, items in packs.items() for item in items}
        jobs: dict[str, tuple[Job[Arrivals], list[Wanted]]] = {}
        for item in self._wanted:  # the most urgent first; a pack comes when the first of its files is due
            pack = pack_of.get(item.path)
            if pack is None:
                jobs[item.path] = self._job(item), [item]
            elif _PACK + pack not in jobs:
                jobs[_PACK + pack] = self._pack_job(prefetch, pack, packs[pack]), packs[pack]
        rest = self._run(jobs)
        if rest:
            self._run({item.path: (self._job(item), [item]) for item in rest})

    def _pack_job(self, prefetch: Prefetch, name: str, items: list[Wanted]) -> Job[Arrivals]:
        return Job(
            _PACK + name, _MEMORY_PER_PACK_BYTES, lambda: unpack(self._workspace, prefetch, name, items)
        )

    def _job(self, item: Wanted) -> Job[Arrivals]:
        weight = min(item.info.size, arrivals.MEMORY_PER_FILE_BYTES)
        return Job(item.path, weight, lambda: [arrivals.bring(self._workspace, item)])

    def _run(self, jobs: dict[str, tuple[Job[Arrivals], list[Wanted]]]) -> list[Wanted]:
        """Returns what must come from its object yet."""
        rest: list[Wanted] = []
        ends = run_jobs(
            (job for job, _ in jobs.values()),
            workers=self._workspace.settings.concurrency,
            stop=lambda: self._stop() or self._tally.full,
        )
        for done in ends:
            items = jobs[done.job.name][1]
            rest += self._count(done, items)
            self._watcher(
                Progress("restore", self._seen_files, len(self._wanted), self._seen_bytes, self._total)
            )
        return rest

    def _count(self, done: Done[Arrivals], items: list[Wanted]) -> Iterable[Wanted]:
        tally = self._tally
        if not done.started:
            reason = "not begun: the restore ended before it"
            tally.not_restored += [Unsynced(item.path, reason, item.info.size) for item in items]
            tally.cut_off |= not tally.full
            return ()
        if done.value is None:
            self._count_error(done, items)
            return ()
        rest = []
        for item, arrival in zip(items, done.value, strict=True):
            if arrival is None:
                rest.append(item)
            else:
                tally.packed += done.job.name.startswith(_PACK)
                self._count_arrival(item, arrival)
        return rest

    def _count_arrival(self, item: Wanted, arrival: Arrival) -> None:
        tally = self._tally
        self._seen_files += 1
        self._seen_bytes += item.info.size
        tally.files += arrival.moved
        tally.bytes += arrival.bytes
        if arrival.conflict:
            log.warning("Conflict on %s: the local version is kept under conflicts/", item.path)
        if arrival.problem:
            tally.not_restored.append(Unsynced(item.path, arrival.problem, item.info.size))

    def _count_error(self, done: Done[Arrivals], items: list[Wanted]) -> None:
        error, tally = done.error, self._tally
        if not isinstance(error, SidecarError):
            raise error if error else RuntimeError("a job ended with neither value nor error")
        missing = items
        if done.job.name.startswith(_PACK):  # of a pack, some may have come
            missing = [item for item in items if self._workspace.ledger.mark(item.path) is None]
            tally.files += len(items) - len(missing)
            tally.packed += len(items) - len(missing)
            tally.bytes += sum(item.info.size for item in items) - sum(item.info.size for item in missing)
        tally.not_restored += [Unsynced(item.path, error.message, item.info.size) for item in missing]
        if isinstance(error, HomeFull):
            if not tally.full:  # each worker meets it
                log.warning("The home's volume is full: %s", error)
            tally.full = True
        elif concerns_all(error):
            tally.error = error
        else:
            log.warning("Not restored: %s", error)
