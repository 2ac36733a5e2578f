"""Shipping a transcript: whole lines only, united with whatever else was written, never chosen between."""

from __future__ import annotations

import time
from contextlib import suppress

from msgspec import Struct

from sidecar.area import metadata
from sidecar.area.objects import Condition, IfAbsent, IfMatch, ObjectHead
from sidecar.errors import ConditionFailed, FileChanged, ObjectMissing
from sidecar.home.entries import FileStat
from sidecar.home.reads import StableFile, open_file
from sidecar.sync import doubts, merge, rewritten
from sidecar.sync.bodies import Bytes, Pieced, Prefix, Spool, sha256
from sidecar.sync.compare import TranscriptStep, transcript_step
from sidecar.sync.marks import Flushed, Known, Mark, lasting
from sidecar.sync.merge import Readable
from sidecar.sync.shipped import Shipped
from sidecar.sync.snapshots import Snapshot
from sidecar.sync.whole_files import TRIES, demand_known
from sidecar.sync.workspace import Workspace

_PAUSE_SECONDS = 0.05


def ship(
    workspace: Workspace, stat: FileStat, *, contested: bool = False, by_blocks: bool = False
) -> Shipped:
    """Bring the object of the transcript `stat.path` up to the last whole line of the size that `stat` saw.

    Parameters
    ----------
    contested: somebody else wrote the object: read it first, whatever the marks say (rule 7).
    by_blocks: hold nothing of it in memory.

    Raises
    ------
    StoreError, LedgerError: nothing is known to have changed. HomeError: the file cannot be read.
    """
    for attempt in range(TRIES):
        known = workspace.ledger.known(stat.path)
        try:
            with open_file(workspace.home, stat.path) as file:
                return _Shipment(workspace, file, stat, known, by_blocks).ship(contested)
        except FileChanged as error:
            if not workspace.is_there(stat.path):
                return Shipped(stat.path)
            reason = error.message
            time.sleep(_PAUSE_SECONDS * (attempt + 1))
    return Shipped(stat.path, pending=reason)


class _Remote(Struct, frozen=True):
    head: ObjectHead
    body: Readable
    sha256: str


class _Shipment:
    """One transcript's way up. Both marks are taken from one snapshot of the local file (rule 18)."""

    def __init__(
        self, workspace: Workspace, file: StableFile, seen: FileStat, known: Known, by_blocks: bool
    ) -> None:
        self.workspace = workspace
        self.file = file
        self.path = file.stat.path
        self.read_at_ns = workspace.now_ns()
        self.mark, self.flushed, self.number = known.mark, known.flushed, known.number
        self.kept = False
        prefixes = [*_local_prefix(self.mark), *_flushed_prefix(self.flushed)]
        # What was sent since the scan comes too: what it names was durable before it.
        limit = min(max([seen.size, *(size for size, _ in prefixes)]), file.size)
        end = file.last_newline(limit)
        self.tail_bytes = limit - end
        self.tried = self.flushed.tried if self.flushed else None
        within = [prefix for prefix in (*prefixes, self.tried) if prefix and prefix[0] <= end]
        by_blocks = by_blocks or self._stays_in_the_store()
        self.local = Snapshot(file, end, [size for size, _ in within], by_blocks=by_blocks)
        held = {(size, digest) for size, digest in within if self.local.prefix_sha256(size) == digest}
        if self.tried and end < self.tried[0] <= file.size and sha256(file, self.tried[0]) == self.tried[1]:
            held.add(self.tried)
        self.begins_with_mark = self.mark is not None and held.issuperset(_local_prefix(self.mark))
        sent = {*_flushed_prefix(self.flushed), *([self.tried] if self.tried else [])}
        self.begins_with_flushed = held.issuperset(sent)
        # The stat that the scan saw, if nothing was appended since: equal times then mean untouched.
        self.stat = seen if seen == file.stat else None

    def _stays_in_the_store(self) -> bool:
        """Whether all but the tail is there and is likely to be taken from there."""
        mark, store = self.mark, self.workspace.store
        return mark is not None and store.composes(mark.local_size, self.workspace.keys.own)

    @property
    def end(self) -> int:
        return self.local.size

    def ship(self, contested: bool) -> Shipped:
        if not self.end and self.tail_bytes:
            return Shipped(self.path, tail_bytes=self.tail_bytes)
        step = transcript_step(self.mark, self.end, begins_with_mark=self.begins_with_mark)
        if contested and step is not TranscriptStep.REWRITE:
            step = TranscriptStep.UNITE
        try:
            return self._first_try(step)
        except (ConditionFailed, ObjectMissing):
            demand_known(self.workspace, self.path, self.mark)
            return self._unite_until_settled(displace=step is TranscriptStep.REWRITE)

    def _first_try(self, step: TranscriptStep) -> Shipped:
        mark = self.mark
        if mark is None or step is TranscriptStep.CREATE:
            return self._put(self.local, self.local.sha256, IfAbsent())
        if step is TranscriptStep.NOTHING:
            return self._note(mark)
        if step is TranscriptStep.GROW:
            return self._put(self.local, self.local.sha256, IfMatch(mark.etag), mark.size)
        if step is TranscriptStep.EXTEND:
            return self._extend(mark)
        return self._unite_until_settled(displace=step is TranscriptStep.REWRITE)

    def _note(self, mark: Mark) -> Shipped:
        demand_known(self.workspace, self.path, mark)
        stat = self.file.stat
        noted = (mark.mtime_ns, mark.mode) != (stat.mtime_ns, stat.mode)
        self._record(mark.etag, mark.size, mark.digest, end=mark.local_size, digest_of_end=mark.local_digest)
        return Shipped(self.path, noted=noted, tail_bytes=self.tail_bytes)

    def _extend(self, mark: Mark) -> Shipped:
        head, spool = self.workspace.spool(self.path, if_match=mark.etag)
        with spool:
            union = merge.extend(spool, self.local, mark.local_size, self.end)
            body = Pieced(union.spans, spool, self.local)
            return self._put(body, sha256(body), IfMatch(head.info.etag), spool.size)

    def _unite_until_settled(self, *, displace: bool) -> Shipped:
        for _ in range(TRIES):
            with suppress(ConditionFailed):
                return self._unite(displace=displace)
            demand_known(self.workspace, self.path, self.mark)
        return Shipped(self.path, pending=self.workspace.why_contested(self.path))

    def _unite(self, *, displace: bool) -> Shipped:
        try:
            head, spool = self.workspace.spool(self.path)
        except ObjectMissing:
            return self._put(self.local, self.local.sha256, IfAbsent())
        with spool:
            remote = _Remote(head, spool, spool.sha256)
            return self._displace(remote, spool) if displace else self._join(remote)

    def _join(self, remote: _Remote) -> Shipped:
        union = merge.unite(remote.body, self.local, self.end)
        if union.size == remote.body.size:  # the object contains every local line: leave it alone
            info = remote.head.info
            self._record(info.etag, remote.body.size, remote.sha256)
            return Shipped(self.path, noted=True, tail_bytes=self.tail_bytes)
        body = Pieced(union.spans, remote.body, self.local)
        return self._put(body, sha256(body), IfMatch(remote.head.info.etag), remote.body.size)

    def _displace(self, remote: _Remote, spool: Spool) -> Shipped:
        """Rule 2: the old version goes to ``conflicts/`` first; foreign lines live on in the new one."""
        mark = self.mark
        foreign_from = 0
        if mark and mark.local_size <= spool.size and sha256(spool, mark.local_size) == mark.local_digest:
            foreign_from = mark.local_size
        described = metadata.read(remote.head.metadata)
        old_ns = (
            described.mtime_ns if described.mtime_ns is not None else int(remote.head.info.modified * 1e9)
        )
        rewritten.keep_aside(self.workspace, self.path, spool, old_ns)
        self.kept = True
        union = merge.rewritten(spool, self.local, self.end, foreign_from)
        body = Pieced(union.spans, spool, self.local) if union.spans else Bytes(b"")
        shipped = self._put(body, sha256(body), IfMatch(remote.head.info.etag))
        return Shipped(
            self.path,
            shipped.sent_bytes,
            moved=True,
            noted=True,
            conflict="rewritten",
            tail_bytes=self.tail_bytes,
        )

    def _put(self, body: Readable, digest: str, condition: Condition, held_bytes: int = 0) -> Shipped:
        """`held_bytes`: the version that `condition` names is exactly so many first bytes of `body`."""
        workspace, stat = self.workspace, self.file.stat
        described = metadata.FileMetadata(
            mtime_ns=stat.mtime_ns,
            mode=stat.mode,
            writer=workspace.ledger.writer,
            sha256=digest,
            base=self.mark.digest if self.mark else "",
        )
        key = workspace.keys.object(self.path)
        workspace.moving()
        if not workspace.store.composes(held_bytes, workspace.keys.own):
            held_bytes = 0
        etag = workspace.store.put(
            key,
            body,
            condition=condition,
            metadata=metadata.written(described),
            held_bytes=held_bytes,
        )
        self._record(etag, body.size, digest)
        return Shipped(self.path, body.size - held_bytes, moved=True, noted=True, tail_bytes=self.tail_bytes)

    def _record(
        self, etag: str, size: int, digest: str, *, end: int | None = None, digest_of_end: str = ""
    ) -> None:
        stat = self.file.stat
        known = lasting(self.stat, self.read_at_ns) if self.stat else None
        local_size = self.end if end is None else end
        local_digest = digest_of_end if end is not None else self.local.sha256
        mark = Mark(etag, size, digest, local_size, local_digest, known, stat.mtime_ns, stat.mode)
        self.workspace.ledger.record(self.path, mark)
        self._fold()

    def _fold(self) -> None:
        """The object holds the snapshot, and so what the journal has of it, unless that was rewritten."""
        before, void = self.flushed, None
        if before is None:
            return
        if not self.begins_with_flushed and doubts.carries(self.workspace, self.path):
            if not self.kept:
                self._keep_the_journal_aside()
            void = rewritten.void(self.workspace, [self.path], self.number)
        elif self.tried and self.tried[0] > self.end:
            return  # what may be in the journal goes further: the next checkpoint settles it
        after = Flushed(self.end, self.local.sha256, 0, self.stat)
        self.workspace.ledger.fold(self.path, before, after, void)

    def _keep_the_journal_aside(self) -> None:
        """What was taken back stands in the journal alone, behind what the object holds of the local file."""
        mark = self.mark
        before = Prefix(self.local, mark.local_size if mark and self.begins_with_mark else 0)
        rewritten.keep_aside(self.workspace, self.path, before, 0)


def _local_prefix(mark: Mark | None) -> list[tuple[int, str]]:
    return [(mark.local_size, mark.local_digest)] if mark else []


def _flushed_prefix(flushed: Flushed | None) -> list[tuple[int, str]]:
    return [(flushed.size, flushed.digest)] if flushed else []
