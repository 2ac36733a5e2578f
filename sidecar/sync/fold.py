"""Removing journal entries that the objects provably contain (rule 13).

Own entries: every path of the entry was found folded by a checkpoint, a second checkpoint finds the same, and
the objects are still the versions that the marks know, or are read and contain it all the same. What no
checkpoint brings from the home (it was deleted, is a link or a directory by now, or refused) is settled from
the journal. Foreign entries, of writers that ended or died: every line stands in a local prefix that the
object contains, every whole file is in its object or under ``conflicts/``; also found twice. One writer's
entries go oldest first, and stop at the first that must stay.

Known limit: an outside writer who puts back a stale object without a condition at the very moment of a
removal, in a bucket without versions.
"""

from __future__ import annotations

import stat
import time
from collections import Counter
from collections.abc import Collection, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from sidecar.area import journal as journal_format
from sidecar.area.journal import Entry, Lines, Record, Void, Whole
from sidecar.area.objects import ObjectInfo
from sidecar.errors import FileChanged, HomeError, ObjectMissing
from sidecar.home.entries import FileStat
from sidecar.home.reads import open_file
from sidecar.home.scan import look
from sidecar.sync import journal_reader, merge, orphans, unfold
from sidecar.sync.bodies import Bytes, sha256
from sidecar.sync.journal_reader import Journal
from sidecar.sync.unfold import Placed
from sidecar.sync.workspace import Workspace


class Folded(Struct, frozen=True):
    """``removed``: entries that are gone; ``left`` and ``left_bytes``: entries that are still there."""

    removed: int = 0
    left: int = 0
    left_bytes: int = 0


class _Proofs(Struct):
    """What is found out once a fold: which objects are the versions that the marks know, and their lines."""

    workspace: Workspace
    refused: Collection[str] = ()
    _versions: dict[str, bool] = field(default_factory=dict)
    _lines: dict[str, Counter[bytes]] = field(default_factory=dict)

    def comes(self, path: str) -> bool:
        """Whether checkpoints bring what stands at `path` in the home, and settle its entries by that: not a
        directory or a link, nor what is refused."""
        workspace = self.workspace
        if path in self.refused or not workspace.is_there(path):
            return False
        cap, prefix_bytes = workspace.max_file_bytes, len(workspace.keys.objects.encode())
        seen = look(workspace.home, workspace.rules, path, max_file_bytes=cap, key_prefix_bytes=prefix_bytes)
        return isinstance(seen, FileStat)

    def version_holds(self, path: str) -> bool:
        """Whether the object of `path` still is the version that mark (a) names."""
        if path not in self._versions:
            mark, head = self.workspace.ledger.mark(path), self.workspace.head(path)
            self._versions[path] = bool(mark and mark.etag and head and head.info.etag == mark.etag)
        return self._versions[path]

    def lines(self, path: str) -> Counter[bytes]:
        """How often each line stands in the object: by the local prefix in it, else read from it."""
        if path not in self._lines:
            known = _prefix_lines(self.workspace, path) if self.version_holds(path) else None
            self._lines[path] = _object_lines(self.workspace, path) if known is None else known
        return self._lines[path]

    def forget(self, path: str) -> None:
        """The object of `path` was written just now."""
        self._lines.pop(path, None)
        self._versions.pop(path, None)


class _Others(Struct, frozen=True):
    """The journal as it was read. ``alive``: the other writers at work; ``placed``: its records by path."""

    read: Journal
    alive: set[str]
    placed: dict[str, Placed]

    def lines_to_settle(self, path: str) -> dict[str, list[Lines]]:
        """All that the journal has of a transcript: one writer's part may go on from another's. Nothing while
        somebody is at work on it, who brings it himself and may still rewind it."""
        writers = self.placed[path].lines
        return {} if self.alive & writers.keys() else writers


def fold(workspace: Workspace, refused: Collection[str] = ()) -> Folded:
    """Remove what can be removed of this writer's entries and of those of writers that are gone.

    `refused`: paths that checkpoints leave out again and again: what is journalled of them does not wait.

    Raises
    ------
    StoreError: what is left is found by the next checkpoint.
    """
    proofs = _Proofs(workspace, refused)
    removed = _fold_own(workspace, proofs)
    if workspace.ledger.header.foreign_entries:
        removed += _fold_foreign(workspace, proofs)
    left = workspace.ledger.entries().values()
    return Folded(removed, len(left), sum(entry.size for entry in left))


# -- own entries


def _fold_own(workspace: Workspace, proofs: _Proofs) -> int:
    removed, ledger = 0, workspace.ledger
    one_stays = False
    for sequence, entry in ledger.entries().items():
        if not all(_is_settled(workspace, proofs, path, sequence) for path in entry.paths):
            break
        if sequence not in ledger.entries():
            continue  # somebody else found it contained and removed it
        if not entry.folded:
            ledger.set_folded(sequence, True)
            one_stays = True
        if one_stays:
            continue  # what declares an older entry void goes after it
        if not all(_holds(workspace, proofs, path, sequence) for path in entry.paths):
            ledger.set_folded(sequence, False)
            break
        key = workspace.keys.journal + journal_format.name(ledger.writer, sequence)
        workspace.store.delete(key, if_match=None)
        ledger.entry_removed(sequence)
        removed += 1
    return removed


def _is_settled(workspace: Workspace, proofs: _Proofs, path: str, sequence: int) -> bool:
    flushed = workspace.ledger.flushed(path)
    if flushed is None:
        return _is_held(workspace, proofs, path, sequence, keep=False)
    if flushed.folded >= sequence:
        return True
    if proofs.comes(path):
        return False
    settled = settle_orphan(workspace, path, flushed.folded, flushed.sequence)
    if settled:
        workspace.ledger.fold(path, flushed, flushed)
    return settled


def settle_orphan(workspace: Workspace, path: str, after: int, upto: int) -> bool:
    """Put what these own entries hold of a path that no checkpoint brings from the home into its object."""
    writer = workspace.ledger.writer
    lines, wholes = _sorted(journal_reader.own_records(workspace, path, after, upto))
    settled = orphans.settle_lines(workspace, path, {writer: lines}) if lines else True
    if wholes and _is_of_another_kind(workspace, path):
        # As a new object it would be newer than what is below the directory, and a restore would take it.
        workspace.keep_aside(path, Bytes(wholes[-1].data), wholes[-1].sha256, wholes[-1].mtime_ns)
        return settled
    return settled and (orphans.settle_whole(workspace, wholes) if wholes else True)


def _is_of_another_kind(workspace: Workspace, path: str) -> bool:
    """Whether what stands at `path` in the home is no file: a directory, or a link."""
    try:
        return not stat.S_ISREG(workspace.home.lstat(path).st_mode)
    except (OSError, HomeError):
        return False


def _is_held(workspace: Workspace, proofs: _Proofs, path: str, sequence: int, *, keep: bool) -> bool:
    """Whether the bucket holds what own entries have, from this one on, of a path whose flushes the ledger no
    longer knows (its home was another, its deletion refused), or whose object somebody changed: judged by the
    bytes, as what others left.

    `keep`: the entry is about to go; a file that is not the object is kept aside.
    """
    newest = max(workspace.ledger.entries(), default=sequence)
    if not proofs.comes(path):
        return settle_orphan(workspace, path, sequence - 1, newest)
    lines, wholes = _sorted(journal_reader.own_records(workspace, path, sequence - 1, newest))
    if not all(unfold.contained(record, proofs.lines(path)) for record in lines):
        mark = workspace.ledger.mark(path)
        if mark and mark.etag and not proofs.version_holds(path):
            workspace.ledger.record(path, mark.cleared())  # the file may never change again
        return False  # the next checkpoint ships what the restore brought, or unites (rule 7)
    if wholes and keep:
        _keep_whole(workspace, proofs, wholes[-1])
    return True


def _sorted(records: Sequence[Record]) -> tuple[list[Lines], list[Whole]]:
    return [r for r in records if isinstance(r, Lines)], [r for r in records if isinstance(r, Whole)]


def _holds(workspace: Workspace, proofs: _Proofs, path: str, sequence: int) -> bool:
    if workspace.ledger.flushed(path) is None:
        return _is_held(workspace, proofs, path, sequence, keep=True)
    newest = max(workspace.ledger.entries(), default=sequence)
    if not workspace.is_there(path):  # a later entry may have declared it void
        return settle_orphan(workspace, path, sequence - 1, newest)
    mark = workspace.ledger.mark(path)
    if (mark and mark.settled) or proofs.version_holds(path):
        return True  # it lost, and is under conflicts/; or it is in the object
    return _is_held(workspace, proofs, path, sequence, keep=True)


# -- entries of others


def _fold_foreign(workspace: Workspace, proofs: _Proofs) -> int:
    read = journal_reader.read_journal(workspace)
    alive = read.alive(time.time(), workspace.ledger.writer)
    by_writer: dict[str, list[Entry]] = {}
    for entry in sorted(read.entries, key=lambda one: one.sequence):
        if entry.writer != workspace.ledger.writer and entry.writer not in alive:
            by_writer.setdefault(entry.writer, []).append(entry)
    others = _Others(read, alive, unfold.by_path(read.entries))
    removed = 0
    unread = {
        (journal_format.parsed(key[len(workspace.keys.journal) :]) or ("", 0))[0] for key in read.unread
    }
    for writer, entries in by_writer.items():
        if writer not in unread:
            removed += _fold_writer(workspace, proofs, others, entries)
    foreign = sum(1 for writer, _ in read.keys if writer != workspace.ledger.writer)
    if foreign == removed:
        workspace.ledger.set_header(replace(workspace.ledger.header, foreign_entries=False))
    return removed


def _fold_writer(workspace: Workspace, proofs: _Proofs, others: _Others, entries: list[Entry]) -> int:
    removed = 0
    for number, entry in enumerate(entries):
        later = entries[number + 1 :]
        if not all(_is_contained(workspace, proofs, others, record, later) for record in entry.records):
            break
        info: ObjectInfo = others.read.keys[entry.writer, entry.sequence]
        if info.key not in workspace.seen_folded:
            workspace.seen_folded.add(info.key)
            continue
        workspace.store.delete(info.key, if_match=None)
        workspace.seen_folded.discard(info.key)
        removed += 1
    return removed


def _is_contained(
    workspace: Workspace,
    proofs: _Proofs,
    others: _Others,
    record: Lines | Whole | Void,
    later: list[Entry],
) -> bool:
    if isinstance(record, Void) or _is_voided(record, later):
        return True
    if isinstance(record, Lines):
        if unfold.contained(record, proofs.lines(record.path)):
            return True
        if proofs.comes(record.path):
            return False  # the next checkpoint ships what the restore brought
        writers = others.lines_to_settle(record.path)
        if not writers:
            return False
        proofs.forget(record.path)
        orphans.settle_lines(workspace, record.path, writers)
        return unfold.contained(record, proofs.lines(record.path))
    if not workspace.is_there(record.path):
        return orphans.settle_whole(workspace, [record])  # each in its order: a chain of edits stays a chain
    if any(isinstance(r, Whole) and r.path == record.path for entry in later for r in entry.records):
        return True
    _keep_whole(workspace, proofs, record)
    return True


def _keep_whole(workspace: Workspace, proofs: _Proofs, record: Whole) -> None:
    """Keep the file aside, unless it is the object."""
    mark = workspace.ledger.mark(record.path)
    if not (mark and mark.digest == record.sha256 and proofs.version_holds(record.path)):
        workspace.keep_aside(record.path, Bytes(record.data), record.sha256, record.mtime_ns)


def _is_voided(record: Lines | Whole, later: list[Entry]) -> bool:
    """True where the writer kept the old version aside and said so: bringing it back would undo a rewind."""
    return any(isinstance(r, Void) and r.path == record.path for entry in later for r in entry.records)


def _prefix_lines(workspace: Workspace, path: str) -> Counter[bytes] | None:
    """The lines of the local prefix that mark (b) names; None where the file no longer begins with it."""
    mark = workspace.ledger.mark(path)
    if mark is None or not mark.etag:
        return None
    try:
        with open_file(workspace.home, path) as file:
            if mark.local_size > file.size or sha256(file, mark.local_size) != mark.local_digest:
                return None
            return Counter(identity for _, _, identity in merge.lines(file, 0, mark.local_size))
    except (HomeError, FileChanged):
        return None


def _object_lines(workspace: Workspace, path: str) -> Counter[bytes]:
    try:
        _, spool = workspace.spool(path)
    except ObjectMissing:
        return Counter()
    with spool:
        return Counter(identity for _, _, identity in merge.lines(spool, 0, spool.size))
