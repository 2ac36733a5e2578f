"""Checkpoint: the objects of an area brought up to date with the home, then the manifest.

Order: other files before transcripts, because a tool result is written before the line that names it; within
each, what is new first. Sizes are those of one scan. A file that did not change since its mark costs no read
and no request.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from msgspec import Struct, field

from sidecar.area.objects import Listing
from sidecar.errors import HomeError, LedgerError, SidecarError
from sidecar.home.entries import FileStat, Outline, Refused, Scan
from sidecar.home.scan import scan as scan_home
from sidecar.logs import log
from sidecar.names import path_problem
from sidecar.sync import convoys, deletions, mirroring, picture, tombstones, transcripts
from sidecar.sync.adoption import adopt
from sidecar.sync.at_hand import AtHand
from sidecar.sync.compare import is_transcript
from sidecar.sync.marks import Flushed, Mark
from sidecar.sync.progress import Progress, Watcher, nobody
from sidecar.sync.results import BackupResult, Unsynced
from sidecar.sync.shipped import Shipped
from sidecar.sync.transfers import Convoy, Done, Job, concerns_all, run_jobs
from sidecar.sync.workspace import Workspace


class _Tally(Struct):
    """What a checkpoint moved so far."""

    files: int = 0
    bytes: int = 0
    noted: bool = False
    conflicts: list[str] = field(default_factory=list)
    conflict_kinds: Counter[str] = field(default_factory=Counter)
    pending: list[Unsynced] = field(default_factory=list)
    refused: list[Unsynced] = field(default_factory=list)
    error: SidecarError | None = None
    mirrored: mirroring.Mirrored = mirroring.NOTHING
    at_hand: AtHand = field(default_factory=AtHand)

    @property
    def halted(self) -> bool:
        """True where the store is away or will not have us: nothing more is tried."""
        return self.error is not None and concerns_all(self.error)


def checkpoint(
    workspace: Workspace,
    *,
    listing: Listing | None = None,
    watcher: Watcher = nobody,
    stop: Callable[[], bool] = lambda: False,
    scanned: Callable[[Scan], None] = lambda scan: None,
    transcripts_first: bool = False,
    dry_run: bool = False,
    pack: bool = True,
) -> BackupResult:
    """Ship every eligible file that changed; nothing is raised for a file that could not be shipped.

    Parameters
    ----------
    listing: what the area holds, where the ledger cannot know it yet: equal files are adopted, and an object
        that the ledger does not know is looked at before anything is sent.
    scanned: given the scan, before anything of it is shipped.
    transcripts_first: the time may not be enough for all.
    stop: asked before each file; once true, what has not begun is reported as pending.
    dry_run: report what would move, send nothing.
    pack: also put small files into packs where that pays; not when time is short.

    Raises
    ------
    HomeError: the home cannot be read at all. UserForgotten: the area was erased after this ledger was made.
    """
    begun = time.monotonic()
    scan = scan_home(workspace.home, workspace.rules, max_file_bytes=workspace.max_file_bytes)
    scanned(scan)
    if listing is not None and listing.objects:
        adopt(workspace, listing, picture.read_if_any(workspace), scan)
    dirty, refused = _eligible(workspace, scan)
    if dry_run:
        return _planned(workspace, dirty, refused, begun)
    deleted, outline = deletions.candidates(workspace, scan), scan.outline()
    if dirty or deleted or picture.shape_changed(workspace, outline) or tombstones.is_noted(workspace):
        tombstones.demand(workspace)
    tally = _Tally(refused=refused)
    _ship_all(
        workspace, dirty, _contested(workspace, dirty, listing), tally, watcher, stop, transcripts_first
    )
    del scan, dirty  # before the manifest is read: both at once would be the peak
    if not (tally.pending or tally.error or stop()):
        tally.mirrored = mirroring.carry_out(workspace, deleted)
    if (tally.noted or tally.mirrored.gone or picture.shape_changed(workspace, outline)) and not tally.halted:
        _commit_picture(workspace, outline, tally, stop if pack else lambda: True)
    return _result(workspace, tally, begun)


def _eligible(workspace: Workspace, scan: Scan) -> tuple[list[FileStat], list[Unsynced]]:
    prefix_bytes = len(workspace.keys.objects.encode())
    dirty: list[FileStat] = []
    refused = [_unsynced(entry) for entry in scan.refused]
    marks = workspace.ledger.marks()
    for path, stat in scan.files.items():
        if not _is_dirty(marks.get(path), workspace.ledger.flushed(path), stat):
            continue
        problem = path_problem(path, prefix_bytes)
        if problem:
            refused.append(Unsynced(path, problem, stat.size))
        else:
            dirty.append(stat)
    return sorted(dirty, key=_order), refused


def _unsynced(entry: Refused) -> Unsynced:
    return Unsynced(entry.path, entry.reason)


def _is_dirty(mark: Mark | None, flushed: Flushed | None, stat: FileStat) -> bool:
    if mark is None or (flushed and flushed.unsettled):
        return True
    if mark.settled and mark.settled.stat == stat:
        return False
    return mark.stat != stat or (not mark.etag and not mark.settled)


def _order(stat: FileStat) -> tuple[bool, int]:
    return is_transcript(stat.path), -stat.mtime_ns


def _contested(workspace: Workspace, dirty: list[FileStat], listing: Listing | None) -> frozenset[str]:
    """The paths whose object is another version than the ledger knows."""
    if listing is None:
        return frozenset()
    contested = set()
    for stat in dirty:
        info, mark = listing.objects.get(workspace.keys.object(stat.path)), workspace.ledger.mark(stat.path)
        if info and (mark is None or mark.etag != info.etag):
            contested.add(stat.path)
    return frozenset(contested)


def _ship_all(
    workspace: Workspace,
    dirty: list[FileStat],
    contested: frozenset[str],
    tally: _Tally,
    watcher: Watcher,
    stop: Callable[[], bool],
    transcripts_first: bool,
) -> None:
    others = [stat for stat in dirty if not is_transcript(stat.path)]
    lines = [stat for stat in dirty if is_transcript(stat.path)]
    total_bytes, done_bytes = sum(stat.size for stat in dirty), 0

    def halted() -> bool:
        return stop() or tally.halted

    def run(work: Iterable[Job[Shipped] | Convoy[Shipped]]) -> Iterator[Done[Shipped]]:
        return run_jobs(work, workers=workspace.settings.concurrency, stop=halted)

    groups = [
        run(convoys.jobs(workspace, others, contested, tally.at_hand)),
        run(convoys.alone(workspace, stat, contested, transcripts.ship) for stat in lines),
    ]
    ends = chain(*(reversed(groups) if transcripts_first else groups))
    sizes = {stat.path: stat.size for stat in dirty}
    try:
        for number, done in enumerate(ends, 1):
            _count(done, tally, sizes[done.job.name])
            done_bytes += sizes[done.job.name]
            watcher(Progress("backup", number, len(dirty), done_bytes, total_bytes))
    finally:
        _settle(workspace, tally)


def _settle(workspace: Workspace, tally: _Tally) -> None:
    try:
        workspace.ledger.settle()
    except LedgerError as error:
        tally.error = tally.error or error


def _count(done: Done[Shipped], tally: _Tally, size: int) -> None:
    path, shipped = done.job.name, done.value
    if not done.started:
        tally.pending.append(Unsynced(path, "not begun: the checkpoint ended before it", size))
    elif shipped is None:
        _count_error(done, tally, size)
    else:
        tally.files += shipped.moved
        tally.bytes += shipped.sent_bytes
        tally.noted |= shipped.noted
        if shipped.conflict:
            tally.conflicts.append(path)
            tally.conflict_kinds[shipped.conflict] += 1
            log.warning("Conflict on %s: the version that lost is kept under conflicts/", path)
        if shipped.pending:
            tally.pending.append(Unsynced(path, shipped.pending, size))
        if shipped.refused:
            tally.refused.append(Unsynced(path, shipped.refused, size))


def _count_error(done: Done[Shipped], tally: _Tally, size: int) -> None:
    error = done.error
    if not isinstance(error, SidecarError):
        raise error if error else RuntimeError("a job ended with neither value nor error")
    if isinstance(error, HomeError) and not error.outage:
        tally.refused.append(Unsynced(done.job.name, error.message, size))
        return
    tally.pending.append(Unsynced(done.job.name, error.message, size))
    if tally.error is None or concerns_all(error):
        tally.error = error


def _commit_picture(workspace: Workspace, outline: Outline, tally: _Tally, stop: Callable[[], bool]) -> None:
    try:
        if picture.commit(workspace, outline, tally.mirrored.gone, at_hand=tally.at_hand, stop=stop):
            mirroring.settled(workspace, tally.mirrored)
    except SidecarError as error:
        tally.error = error


def _planned(
    workspace: Workspace, dirty: list[FileStat], refused: list[Unsynced], begun: float
) -> BackupResult:
    return BackupResult(
        workspace.user_id,
        durable=not dirty,
        files=len(dirty),
        bytes=sum(stat.size for stat in dirty),
        seconds=time.monotonic() - begun,
        pending=tuple(Unsynced(stat.path, "would be uploaded", stat.size) for stat in dirty),
        refused=tuple(refused),
        dry_run=True,
    )


def _result(workspace: Workspace, tally: _Tally, begun: float) -> BackupResult:
    error = tally.error
    return BackupResult(
        workspace.user_id,
        durable=not tally.pending and not error,
        generation=workspace.ledger.header.generation,
        files=tally.files,
        bytes=tally.bytes,
        seconds=time.monotonic() - begun,
        unsynced_bytes=sum(entry.size_bytes for entry in tally.pending),
        conflicts=tuple(tally.conflicts),
        conflict_kinds=dict(tally.conflict_kinds),
        deleted=len(tally.mirrored.gone),
        deletions_refused=tally.mirrored.refused,
        pending=tuple(tally.pending),
        refused=tuple(tally.refused),
        error=error.message if error else None,
        kind=error.kind if error else None,
        hint=error.hint if error else None,
        outage=error.outage if error else False,
    )
