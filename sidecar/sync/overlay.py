"""The journal on top: what every writer flushed and no checkpoint folded yet, laid over the restored objects.

The marks stay those of the objects as they were read (rule 6): what the journal added makes the local file
"changed", so the next checkpoint folds it in, whoever wrote it. The flush mark starts at the restored length,
so that nothing foreign is flushed again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from sidecar.area import metadata
from sidecar.area.journal import Lines
from sidecar.errors import FileChanged, HomeError, HomeFull
from sidecar.home.entries import FileStat
from sidecar.home.reads import StableFile, json_problem, must_be_whole_json, open_file
from sidecar.home.writes import append, open_writer
from sidecar.sync import unfold
from sidecar.sync.arrivals import Wanted, bring
from sidecar.sync.bodies import Bytes, Pieced, sha256
from sidecar.sync.compare import RestoreStep, Version, clashes
from sidecar.sync.journal_reader import Journal
from sidecar.sync.marks import Flushed, Mark
from sidecar.sync.merge import Span
from sidecar.sync.results import Unsynced
from sidecar.sync.unfold import Placed
from sidecar.sync.workspace import Workspace


class Overlaid(Struct, frozen=True):
    """``files`` and ``bytes`` that the journal added to the home, and what could not be laid on."""

    files: int = 0
    bytes: int = 0
    not_restored: tuple[Unsynced, ...] = ()


def overlay(workspace: Workspace, journal: Journal, blocked: Collection[str] = ()) -> Overlaid:
    """Lay the entries of `journal` over the home.

    `blocked`: paths whose object did not come: a transcript's journal alone would be a truncated file.

    Raises
    ------
    HomeError, LedgerError, StoreError: the overlay ended there; the next restore finishes it.
    """
    files = size = 0
    problems: list[Unsynced] = []
    clashing = clashes(_written(journal))
    for path, placed in sorted(unfold.by_path(journal.entries).items()):
        alone = path in blocked and placed.lines  # another file is whole in the journal
        reason = "its object did not come" if alone else workspace.refusal(path)
        reason = reason or clashing.get(path, "")
        if reason:
            problems.append(Unsynced(path, reason))
            continue
        try:
            added = _lay(workspace, path, placed)
        except HomeFull:
            raise
        except HomeError as error:  # one path that cannot be laid never stops the others
            problems.append(Unsynced(path, error.message))
            continue
        files += added > 0
        size += added
    return Overlaid(files, size, tuple(problems))


def _written(journal: Journal) -> dict[str, float]:
    """When each path was journalled last, in seconds."""
    written: dict[str, float] = {}
    for entry in journal.entries:
        for record in entry.records:
            written[record.path] = max(entry.written_ns / 1e9, written.get(record.path, 0.0))
    return written


def _lay(workspace: Workspace, path: str, placed: Placed) -> int:
    if placed.lines:
        return _lay_lines(workspace, path, placed.lines)
    return _lay_whole(workspace, path, placed) if placed.wholes else 0


def _is_known(workspace: Workspace, path: str) -> bool:
    """Whether this home had `path`, in its object or only in the journal."""
    return bool(workspace.ledger.mark(path) or workspace.ledger.flushed(path))


# -- transcripts


def _lay_lines(workspace: Workspace, path: str, writers: Mapping[str, Sequence[Lines]]) -> int:
    last = max((record for records in writers.values() for record in records), key=lambda r: r.mtime_ns)
    brought = 0
    if not workspace.is_there(path):
        if _is_known(workspace, path):
            return 0
        brought = _bring_what_no_listing_showed(workspace, path, writers)
        if not workspace.is_there(path):
            return _lay_new(workspace, path, writers, last)
    brought += _bring_what_comes_before(workspace, path, writers)
    with open_file(workspace.home, path) as file:
        data, stat = unfold.missing(file, writers), file.stat
        if not data:
            return brought
        if file.last_newline() != file.size:
            raise FileChanged(f"{path} ends within a line", "the next restore adds the rest")
        # Of what was read: what the agent writes from now on is not known to be durable.
        spans = [Span("remote", 0, file.size), Span("local", 0, len(data))]
        whole = Pieced(spans, file, Bytes(data))
        after = Flushed(whole.size, sha256(whole), 0) if _is_durable(workspace, file) else None
    _unite_in_full(workspace, path)
    mtime_ns = None if workspace.live else max(last.mtime_ns, stat.mtime_ns)
    append(workspace.home, path, data, expected_size=stat.size, mtime_ns=mtime_ns)
    if after:  # else the next flush sends what stood there before, and these lines again
        workspace.ledger.laid(path, after)
    return brought + len(data)


def _bring_what_comes_before(workspace: Workspace, path: str, writers: Mapping[str, Sequence[Lines]]) -> int:
    """After a union the object holds lines that the home lacks, and no restore brings them as long as it
    stays the same: they stand before what their writers journalled since, and come before it."""
    mark = workspace.ledger.mark(path)
    if mark is None or not mark.etag or not _holds_more(mark):
        return 0
    with open_file(workspace.home, path) as file:
        if file.last_newline() != file.size or not unfold.missing(file, writers):
            return 0  # nothing is laid on
    head = workspace.head(path)
    if head is None:
        return 0  # deleted by another: there is nothing that comes before
    workspace.ledger.record(path, mark.cleared())
    arrival = bring(workspace, Wanted(path, head.info, {}, RestoreStep.APPEND))
    if arrival.problem:
        raise FileChanged(f"{path}: {arrival.problem}", "the next restore adds the rest")
    return arrival.bytes


def _bring_what_no_listing_showed(
    workspace: Workspace, path: str, writers: Mapping[str, Sequence[Lines]]
) -> int:
    """Lines that go on from others say that there was an object. A store may not list it for a while; laid on
    alone, they would be a truncated file, and what came later would come behind them."""
    if not all(record.offset for records in writers.values() for record in records):
        return 0
    head = workspace.head(path)
    if head is None:
        return 0  # deleted by another: what the journal has is all there is
    if head.info.size > workspace.max_file_bytes:
        raise FileChanged(f"{path} is larger than CLAUDE_SIDECAR_MAX_FILE_MIB", "it stays in the bucket")
    arrival = bring(workspace, Wanted(path, head.info, {}, RestoreStep.TAKE))
    if arrival.problem:
        raise FileChanged(f"{path}: {arrival.problem}", "the next restore brings it")
    return arrival.bytes


def _lay_new(workspace: Workspace, path: str, writers: Mapping[str, Sequence[Lines]], last: Lines) -> int:
    data = unfold.missing(Bytes(b""), writers)
    with open_writer(workspace.home, path) as writer:
        writer.write(data)
        writer.commit(mtime_ns=last.mtime_ns, mode=last.mode, replacing=None)
    workspace.ledger.laid(path, Flushed(len(data), sha256(Bytes(data)), 0))
    return len(data)


def _is_durable(workspace: Workspace, file: StableFile) -> bool:
    """Whether all of `file` is in the bucket, as far as the ledger knows."""
    mark, flushed = workspace.ledger.mark(file.stat.path), workspace.ledger.flushed(file.stat.path)
    known = [(mark.local_size, mark.local_digest)] if mark else []
    known += [(flushed.size, flushed.digest)] if flushed else []
    return file.size in dict(known) and (file.size, sha256(file)) in known


def _unite_in_full(workspace: Workspace, path: str) -> None:
    """Where the object holds more than the local file, it may hold these very lines: mark (a) is cleared, so
    that the next checkpoint does not send them as new. Noted before they come, as a kill may follow."""
    mark = workspace.ledger.mark(path)
    if mark and _holds_more(mark):
        workspace.ledger.record(path, mark.cleared())


def _holds_more(mark: Mark) -> bool:
    """Whether the object has other lines than the local prefix that it contains."""
    return (mark.size, mark.digest) != (mark.local_size, mark.local_digest)


# -- whole files


def _lay_whole(workspace: Workspace, path: str, placed: Placed) -> int:
    mark, here = workspace.ledger.mark(path), workspace.is_there(path)
    if not here and _is_known(workspace, path):
        return 0
    version, made = _object_version(workspace, path, mark)
    writers = placed.wholes_since(made.writer, made.sequence)
    chosen = unfold.choose(version, writers, workspace.now_ns())
    whole = chosen.whole
    if whole is None or (must_be_whole_json(path) and json_problem(whole.data)):
        return 0
    replacing: FileStat | None = None
    if here:
        with open_file(workspace.home, path) as file:
            replacing = file.stat
            if sha256(file) == whole.sha256:
                return 0
            if mark is None or not _is_as_known(workspace, file, mark):
                return 0  # changed here: the checkpoint decides
    with open_writer(workspace.home, path) as writer:
        writer.write(whole.data)
        stat = writer.commit(mtime_ns=whole.mtime_ns, mode=whole.mode, replacing=replacing)
    if mark:
        loser = "" if chosen.descends else mark.etag
        workspace.ledger.record(path, replace(mark, stat=None, loser=loser))
    after = Flushed(len(whole.data), whole.sha256, 0, stat)
    workspace.ledger.laid(path, after)
    return len(whole.data)


def _is_as_known(workspace: Workspace, file: StableFile, mark: Mark) -> bool:
    """Whether the file holds what both its object and the last flush left: one that was brought back to its
    object behind a flush was changed."""
    flushed, known = workspace.ledger.flushed(file.stat.path), {mark.digest}
    if flushed:
        known |= {flushed.digest, flushed.tried[1] if flushed.tried else flushed.digest}
    return known == {sha256(file)}


def _object_version(
    workspace: Workspace, path: str, mark: Mark | None
) -> tuple[Version | None, metadata.FileMetadata]:
    """The object as it was restored, with what its metadata says of its base and its writer."""
    head = workspace.head(path) if mark and mark.etag else None
    if mark is None or head is None:
        return None, metadata.FileMetadata()
    described = metadata.read(head.metadata)
    mtime_ns = described.mtime_ns if described.mtime_ns is not None else int(head.info.modified * 1e9)
    if described.sha256 != mark.digest:
        described = (
            metadata.FileMetadata()
        )  # of an earlier version: a tool changed the bytes and kept the rest
    return Version(mark.digest, mtime_ns, described.base), described
