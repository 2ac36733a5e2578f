"""Flush: the bytes that are new since the last flush, in one conditional PUT to the journal.

Of a transcript only its new whole lines travel; a small file that changed travels whole; what is large or was
rewritten goes straight to its object. Within a batch other files stand before transcripts, and batches are
written newest transcripts first. What a flush made durable is noted after the bucket acknowledged it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from msgspec import Struct, field

from sidecar.area import journal
from sidecar.area.journal import Lines, Record, Whole
from sidecar.errors import FileChanged, HomeError, SidecarError
from sidecar.home.entries import FileStat
from sidecar.home.reads import StableFile, json_problem, must_be_whole_json, open_file
from sidecar.sync import transcripts, whole_files
from sidecar.sync.bodies import sha256
from sidecar.sync.compare import is_transcript
from sidecar.sync.flush_entry import put_entry
from sidecar.sync.marks import Flushed, lasting
from sidecar.sync.results import Unsynced
from sidecar.sync.shipped import Shipped
from sidecar.sync.tails import Tail, Tails
from sidecar.sync.workspace import Workspace

# A changed file up to this size travels whole in the batch; a larger one is checkpointed by itself.
SMALL_BYTES = 256 * 1024
# What a flush holds of a file that it sends by itself: a checkpoint beside it may hold a larger one.
HELD_BYTES = 32 * 1024 * 1024


class FlushResult(Struct, frozen=True):
    """``files`` and ``bytes``: what became durable; ``wire_bytes``: what was sent for it; ``entries``: PUTs
    to the journal. ``pending``: eligible and not durable, and why; ``refused``: not eligible, and why."""

    files: int = 0
    bytes: int = 0
    wire_bytes: int = 0
    entries: int = 0
    shipped: int = 0
    seconds: float = 0.0
    pending: tuple[Unsynced, ...] = ()
    refused: tuple[Unsynced, ...] = ()
    error: SidecarError | None = None


class _Gathered(Struct, frozen=True):
    """One path's record, and what is noted once it is durable."""

    record: Record
    flushed: Flushed
    tail: Tail | None = None


class _Tally(Struct):
    files: int = 0
    bytes: int = 0
    wire_bytes: int = 0
    entries: int = 0
    shipped: int = 0
    pending: list[Unsynced] = field(default_factory=list)
    refused: list[Unsynced] = field(default_factory=list)
    error: SidecarError | None = None
    over: bool = False

    def fail(self, error: SidecarError, *, over: bool) -> None:
        """`over`: what failed will fail for every other file too; each try would cost all our patience."""
        self.error = self.error or error
        self.over = self.over or over


def flush(workspace: Workspace, stats: Iterable[FileStat], tails: Tails) -> FlushResult:
    """Make durable what is new in the files of `stats`.

    Nothing is raised for a file or for the store: the result says what is not durable, and why.
    """
    begun = time.monotonic()
    tally = _Tally()
    direct: list[FileStat] = []
    first, rest = _results_first(stats)
    _ship_all(workspace, first, tally)
    for batch in _batches(_gathered(workspace, rest, tails, tally, direct)):
        _write(workspace, batch, tails, tally)
    _ship_all(workspace, direct, tally)
    return FlushResult(
        files=tally.files,
        bytes=tally.bytes,
        wire_bytes=tally.wire_bytes,
        entries=tally.entries,
        shipped=tally.shipped,
        seconds=time.monotonic() - begun,
        pending=tuple(tally.pending),
        refused=tuple(tally.refused),
        error=tally.error,
    )


def _results_first(stats: Iterable[FileStat]) -> tuple[list[FileStat], list[FileStat]]:
    """Large tool results go up before the batch with the lines that name them (rule 14); other large files,
    which nothing names, after it."""
    first: list[FileStat] = []
    rest: list[FileStat] = []
    for stat in stats:
        named = stat.path.startswith("projects/") and not is_transcript(stat.path)
        (first if named and stat.size > SMALL_BYTES else rest).append(stat)
    return first, rest


def _ship_all(workspace: Workspace, stats: Iterable[FileStat], tally: _Tally) -> None:
    for stat in stats:
        if tally.over:
            _leave(workspace, stat, tally)
        else:
            _ship(workspace, stat, tally)


def needs_flush(workspace: Workspace, stat: FileStat) -> bool:
    """Whether `stat` differs from what is known durable of its path."""
    mark, flushed = workspace.ledger.mark(stat.path), workspace.ledger.flushed(stat.path)
    if flushed and flushed.stat == stat:
        return False
    if mark and mark.settled and mark.settled.stat == stat:
        return False
    return mark is None or mark.stat != stat


def new_bytes(workspace: Workspace, stat: FileStat) -> int:
    """How much of `stat` is not known durable, by sizes alone."""
    if not is_transcript(stat.path):
        return stat.size
    mark, flushed = workspace.ledger.mark(stat.path), workspace.ledger.flushed(stat.path)
    known = max(mark.local_size if mark else 0, flushed.size if flushed else 0)
    return stat.size - known if known <= stat.size else stat.size


# -- gathering


def _gathered(
    workspace: Workspace, stats: Iterable[FileStat], tails: Tails, tally: _Tally, direct: list[FileStat]
) -> Iterator[_Gathered]:
    """The records of `stats`, each read when it is asked for: only a batch is ever in memory.

    Whole files first, then transcripts, the newest first. `direct` gets what goes straight to its object.
    """
    # A tool result is written before the line that names it: sizes of transcripts are from before.
    for stat in sorted(stats, key=lambda one: (is_transcript(one.path), -one.mtime_ns)):
        if tally.over:
            _leave(workspace, stat, tally)
            continue
        try:
            found = _gather(workspace, stat, tails)
        except FileChanged as error:
            if workspace.is_there(stat.path):
                tally.pending.append(Unsynced(stat.path, error.message, stat.size))
            continue
        except HomeError as error:
            tally.refused.append(Unsynced(stat.path, error.message, stat.size))
            continue
        if isinstance(found, _Gathered):
            yield found
        elif isinstance(found, str):
            tally.refused.append(Unsynced(stat.path, found, stat.size))
        elif found:
            direct.append(stat)


def _leave(workspace: Workspace, stat: FileStat, tally: _Tally) -> None:
    """`stat` was not even tried: the bucket is away for all."""
    reason = tally.error.message if tally.error else ""
    tally.pending.append(Unsynced(stat.path, reason, new_bytes(workspace, stat)))


def _gather(workspace: Workspace, stat: FileStat, tails: Tails) -> _Gathered | str | bool:
    """What a flush does with one file: a record, a reason why it is refused, or whether it goes directly."""
    if is_transcript(stat.path):
        with open_file(workspace.home, stat.path) as file:
            return _gather_lines(workspace, stat, file, tails)
    if stat.size > SMALL_BYTES:
        return True
    with open_file(workspace.home, stat.path) as file:
        return _gather_whole(workspace, file)


def _gather_lines(
    workspace: Workspace, seen: FileStat, file: StableFile, tails: Tails
) -> _Gathered | str | bool:
    end = file.last_newline(min(seen.size, file.size))
    tail = _durable_tail(workspace, file, tails)
    far = tail is None or end < tail.size or end - tail.size > journal.MAX_BATCH_BYTES // 2
    if tail is None or far or _is_inside_a_line(file, tail.size):
        tails.forget(seen.path)
        return True  # new and large, rewritten, far behind, or from where somebody cut the object off
    data = file.read(tail.size, end - tail.size)
    flushed = workspace.ledger.flushed(seen.path)
    if flushed and flushed.tried and not _goes_on_from(flushed.tried, file, tail, data):
        tails.forget(seen.path)
        return True  # rewritten behind what may be in the journal
    if end == tail.size:
        return False
    base = tail.digest
    grown, counts = tail.grown(data)
    record = Lines(seen.path, tail.size, base, data, file.stat.mtime_ns, file.stat.mode, counts)
    known = seen if seen == file.stat else None
    return _Gathered(record, Flushed(end, grown.digest, 0, known), grown)


def _is_inside_a_line(file: StableFile, offset: int) -> bool:
    return offset > 0 and file.read(offset - 1, 1) != b"\n"


def _goes_on_from(tried: tuple[int, str], file: StableFile, tail: Tail, data: bytes) -> bool:
    """Whether the file begins with what was tried; `data` is what it has behind `tail`."""
    size, digest = tried
    if size < tail.size:
        return sha256(file, size) == digest
    running = tail.hash.copy()
    running.update(data[: size - tail.size])
    return size <= tail.size + len(data) and running.hexdigest() == digest


def _durable_tail(workspace: Workspace, file: StableFile, tails: Tails) -> Tail | None:
    """The longest prefix of the file that is durable; an empty one for a new file; None: it was rewritten.

    Only the longest counts: a file that begins with a shorter one alone was rewritten after its last flush,
    and going on from there would call its older entries settled.
    """
    path = file.stat.path
    mark, flushed = workspace.ledger.mark(path), workspace.ledger.flushed(path)
    prefixes = [(flushed.size, flushed.digest)] if flushed else []
    if mark and mark.local_digest:
        prefixes.append((mark.local_size, mark.local_digest))
    if not prefixes:
        return Tail(file.stat.inode)
    size, digest = max(prefixes, key=lambda prefix: prefix[0])
    return tails.at(path, file, size, digest)


def _gather_whole(workspace: Workspace, file: StableFile) -> _Gathered | str | bool:
    path, read_at_ns = file.stat.path, workspace.now_ns()
    data = file.read(0, file.size)
    if not file.unchanged():
        raise FileChanged(f"{path} changed while it was read", "the next flush takes it")
    problem = json_problem(data) if must_be_whole_json(path) else ""
    if problem:
        return f"not valid JSON at this moment ({problem}); kept back"
    digest = _sha256(data)
    mark, flushed = workspace.ledger.mark(path), workspace.ledger.flushed(path)
    newest = flushed.digest if flushed else mark.digest if mark else ""
    left = flushed is not None and flushed.tried is not None and flushed.tried[1] != digest
    if not left and (newest == digest or (mark and mark.settled and mark.settled.local_digest == digest)):
        return False
    stat = file.stat
    record = Whole(path, data, digest, newest, stat.mtime_ns, stat.mode)
    return _Gathered(record, Flushed(len(data), digest, 0, lasting(stat, read_at_ns)))


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


# -- sending


def _batches(gathered: Iterable[_Gathered]) -> Iterator[list[_Gathered]]:
    """As they come, each batch within the journal's cap."""
    batch: list[_Gathered] = []
    size = 0
    for one in gathered:
        if batch and size + len(one.record.data) > journal.MAX_BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += len(one.record.data)
    if batch:
        yield batch


def _write(workspace: Workspace, batch: list[_Gathered], tails: Tails, tally: _Tally) -> None:
    if tally.over and tally.error:
        return _not_written(batch, tails, tally, tally.error)
    try:
        carried = {one.record.path: (_durable_before(one.record), one.flushed) for one in batch}
        sequence, wire_bytes = put_entry(workspace, tuple(one.record for one in batch), carried)
        noted = {one.record.path: one.flushed for one in batch}
        workspace.ledger.record_flush(sequence, wire_bytes, noted)
    except SidecarError as error:
        tally.fail(error, over=True)
        return _not_written(batch, tails, tally, error)
    for one in batch:
        if one.tail:
            tails.keep(one.record.path, one.tail)
    tally.files += len(batch)
    tally.bytes += sum(len(one.record.data) for one in batch)
    tally.wire_bytes += wire_bytes
    tally.entries += 1


def _durable_before(record: Record) -> Flushed:
    """What `record` goes on from, where the ledger knows of no flush before."""
    return Flushed(record.offset if isinstance(record, Lines) else 0, record.base, 0)


def _not_written(batch: list[_Gathered], tails: Tails, tally: _Tally, error: SidecarError) -> None:
    for one in batch:
        tally.pending.append(Unsynced(one.record.path, error.message, len(one.record.data)))
        tails.forget(one.record.path)


def _ship(workspace: Workspace, stat: FileStat, tally: _Tally) -> None:
    ship = transcripts.ship if is_transcript(stat.path) else whole_files.ship
    try:
        shipped: Shipped = ship(workspace, stat, by_blocks=stat.size > HELD_BYTES)
    except HomeError as error:
        tally.refused.append(Unsynced(stat.path, error.message, stat.size))
        return
    except SidecarError as error:
        tally.fail(error, over=error.outage)
        tally.pending.append(Unsynced(stat.path, error.message, stat.size))
        return
    tally.shipped += shipped.moved
    tally.files += shipped.moved
    tally.bytes += shipped.sent_bytes
    tally.wire_bytes += shipped.sent_bytes
    if shipped.pending:
        tally.pending.append(Unsynced(stat.path, shipped.pending, stat.size))
    if shipped.refused:
        tally.refused.append(Unsynced(stat.path, shipped.refused, stat.size))
