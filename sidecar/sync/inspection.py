"""Comparing a home with its area: both sides are read and hashed, with bounded memory; nothing is changed.

It runs beside a sidecar at work: the ledger is looked at without its lock, and everything that seems to
differ is looked at once more with everything fresh, so that what merely moved meanwhile is not reported.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from sidecar.sync import shape_inspection
from sidecar.sync.findings import STALE, Finding
from sidecar.sync.pack_inspection import PackExamined, Packs
from sidecar.sync.path_inspection import PathExamined, PathInspection
from sidecar.sync.progress import Progress, Watcher, nobody
from sidecar.sync.transfers import Job, run_jobs
from sidecar.sync.verification import sample
from sidecar.sync.views import Sides, View

# What one comparison holds: blocks, and of a transcript that differs 16 bytes a line and a spool.
_WEIGHT_BYTES = 16 * 1024 * 1024


class ManifestSeen(Struct, frozen=True):
    """``entries``: the files that it knows. ``stale``: objects of which it knows another version, or none."""

    generation: int
    entries: int
    stale: int
    directories: int = 0
    links: int = 0


class Inspection(Struct, frozen=True):
    """``read`` of ``paths`` paths and ``packs_read`` of ``packs`` packs were read, ``bytes`` in all.

    ``manifest``: None where there is none that counts. ``ledger``: what there was of one, as half a sentence.
    """

    findings: tuple[Finding, ...]
    paths: int
    read: int
    bytes: int
    ledger: str
    manifest: ManifestSeen | None = None
    packs: int = 0
    packs_read: int = 0


def inspect(
    sides: Sides,
    *,
    fraction: float = 1.0,
    seed: str = "",
    spool_directory: Path,
    watcher: Watcher = nobody,
) -> Inspection:
    """Compare every path of home, ledger, area and manifest, and every pack with what the manifest says.

    Parameters
    ----------
    fraction: how many of the objects and packs that look untouched are read, at least one of each. What looks
        changed always is.

    Raises
    ------
    HomeError, StoreError, LedgerError: it could not be told.
    """
    return _Inspecting(sides, fraction, seed, spool_directory, watcher).done()


class _Inspecting:
    """Two looks: at everything, and once more at what seemed to differ in the first."""

    def __init__(
        self, sides: Sides, fraction: float, seed: str, spool_directory: Path, watcher: Watcher
    ) -> None:
        self._sides = sides
        self._fraction = fraction
        self._seed = seed
        self._spool_directory = spool_directory
        self._watcher = watcher
        self._paths: dict[str, PathExamined] = {}
        self._packs: dict[str, PackExamined] = {}

    def done(self) -> Inspection:
        view = self._sides.view()
        packs = Packs(self._sides, view.manifest)
        self._look(view, packs)
        first = self._counted(view, packs)
        differing = _suspects(self._paths, lambda found: not found.by_design)
        stale = _suspects(self._paths, lambda found: found.kind in STALE)
        broken = _suspects(self._packs, lambda found: not found.by_design)
        general = self._general(view, packs)
        if differing or stale or broken or not all(found.by_design for found in general):
            view = self._sides.view()
            packs = Packs(self._sides, view.manifest)
            general = self._general(view, packs)
            self._paths.update(self._examine(view, differing, again=True))
            self._paths.update(self._examine(view, stale.difference(differing)))
            self._packs.update(dict.fromkeys(broken, PackExamined(())))
            self._packs.update(packs.examined(broken, 1.0, self._seed))
        findings = (*general, *_findings(self._paths), *_findings(self._packs))
        return replace(first, findings=findings, manifest=_seen(view, _findings(self._paths)))

    def _general(self, view: View, packs: Packs) -> tuple[Finding, ...]:
        """What is found without reading a file, an object or a pack."""
        return (*view.general, *packs.general, *shape_inspection.judged(view, self._sides.rules))

    def _counted(self, view: View, packs: Packs) -> Inspection:
        """How much was read, after the first look."""
        return Inspection(
            (),
            len(self._paths),
            sum(one.read for one in self._paths.values()),
            sum(one.bytes for one in self._paths.values()) + sum(one.bytes for one in self._packs.values()),
            view.ledger,
            packs=len(packs.names),
            packs_read=sum(one.read for one in self._packs.values()),
        )

    def _look(self, view: View, packs: Packs) -> None:
        paths = sorted(view.paths())
        total, size = len(paths) + len(packs.names), 0
        for path, examined in self._examine(view, paths):
            self._paths[path] = examined
            size += examined.bytes
            self._watcher(Progress("verify", len(self._paths), total, size, size))
        for name, pack in packs.examined(packs.names, self._fraction, self._seed):
            self._packs[name] = pack
            size += pack.bytes
            self._watcher(Progress("verify", len(paths) + len(self._packs), total, size, size))

    def _examine(
        self, view: View, paths: Collection[str], *, again: bool = False
    ) -> Iterator[tuple[str, PathExamined]]:
        drawn = sample(view.readable_objects(), self._fraction, self._seed)

        def job(path: str) -> Job[PathExamined]:
            chosen = path in drawn
            one = PathInspection(self._sides, view, path, self._spool_directory)
            weight = min(_WEIGHT_BYTES, 2 * view.size_of(path))
            return Job(path, weight, lambda: one.examined(chosen=chosen, again=again))

        for done in run_jobs([job(path) for path in paths], workers=self._sides.settings.concurrency):
            if done.value is None:
                raise done.error if done.error else RuntimeError("a job ended with neither value nor error")
            yield done.job.name, done.value


def _seen(view: View, findings: Iterable[Finding]) -> ManifestSeen | None:
    if view.manifest is None:
        return None
    stale = sum(found.kind in STALE for found in findings)
    known = view.manifest
    return ManifestSeen(known.generation, len(known.files), stale, len(known.directories), len(known.links))


_Examined = dict[str, PathExamined] | dict[str, PackExamined]


def _suspects(examined: _Examined, is_suspect: Callable[[Finding], bool]) -> set[str]:
    return {name for name, one in examined.items() if any(map(is_suspect, one.findings))}


def _findings(examined: _Examined) -> Iterator[Finding]:
    for name in sorted(examined):
        yield from examined[name].findings
