"""Shipping a file that is replaced as a whole: settings, memory, tool results, anything but transcripts."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from sidecar.area import metadata
from sidecar.area.metadata import FileMetadata
from sidecar.area.objects import Condition, IfAbsent, IfMatch, ObjectHead
from sidecar.errors import ConditionFailed, FileChanged, ObjectMissing, StoreError
from sidecar.home.entries import FileStat
from sidecar.home.reads import StableFile, json_problem, must_be_whole_json, open_file
from sidecar.sync import doubts, rewritten, snapshots
from sidecar.sync.bodies import Spool
from sidecar.sync.compare import Version, Winner, winner
from sidecar.sync.marks import Flushed, Known, Mark, Settled, lasting
from sidecar.sync.shipped import Shipped
from sidecar.sync.snapshots import Snapshot
from sidecar.sync.workspace import Workspace

# How often a file that moves under our hands, or an object that others keep writing, is tried again.
TRIES = 4
Arrived = Callable[[str, Mark, Snapshot], None]
"""The path, its mark, and its bytes"""
_PAUSE_SECONDS = 0.05


def ship(
    workspace: Workspace,
    stat: FileStat,
    *,
    contested: bool = False,
    ready: Shipment | None = None,
    by_blocks: bool = False,
) -> Shipped:
    """Bring the object of `stat.path` up to date with the home, unless somebody else's version wins.

    Parameters
    ----------
    contested: a listing shows an object that the marks do not know: look at it before sending anything.
    ready: the file, read already.
    by_blocks: hold nothing of it in memory.

    Raises
    ------
    StoreError, LedgerError: nothing is known to have changed. HomeError: the file cannot be read.
    """
    for attempt in range(TRIES):
        try:
            if ready and not attempt:
                return ready.ship(contested)
            known = workspace.ledger.known(stat.path)
            with open_file(workspace.home, stat.path) as file:
                return Shipment(workspace, file, known, by_blocks=by_blocks).ship(contested)
        except FileChanged as error:
            if not workspace.is_there(stat.path):
                return Shipped(stat.path)  # deleted since the scan: the next round sees that
            reason = error.message
            time.sleep(_PAUSE_SECONDS * (attempt + 1))
    return Shipped(stat.path, pending=reason)


def read_ahead(workspace: Workspace, path: str, most_bytes: int, arrived: Arrived) -> Shipment | None:
    """The file at `path`, read to be sent soon.

    None where it is too large for that by now. Raises HomeError where it cannot be read.
    """
    known = workspace.ledger.known(path)
    with open_file(workspace.home, path) as file:
        if file.size > min(most_bytes, snapshots.MEMORY_BYTES):
            return None
        return Shipment(workspace, file, known, arrived)


def demand_known(workspace: Workspace, path: str, mark: Mark | None) -> None:
    """Another version stands in the bucket: go on only if `mark` is what is known of it. A flush beside this
    checkpoint sent a later state of the file; what is here must not be taken for what came after that.

    Raises
    ------
    FileChanged: read the file again, and begin anew.
    """
    if workspace.ledger.mark(path) != mark:
        raise FileChanged(f"{path} was sent by a flush meanwhile", "the next round takes it")


class Shipment:
    """One file's way up: its bytes are read once and fixed, then decided on.

    `arrived`: who notes that the object holds it, if not the ledger at once.
    """

    def __init__(
        self,
        workspace: Workspace,
        file: StableFile,
        known: Known,
        arrived: Arrived | None = None,
        *,
        by_blocks: bool = False,
    ) -> None:
        self.workspace = workspace
        self.file = file
        self.path = file.stat.path
        self._arrived = arrived
        self.mark, self.flushed, self.sequence = known.mark, known.flushed, known.number
        self.read_at_ns = workspace.now_ns()
        self.body = Snapshot(file, file.size, by_blocks=by_blocks)
        if not file.unchanged():
            raise FileChanged(f"{self.path} changed while it was read", "the next round takes it")

    @property
    def digest(self) -> str:
        return self.body.sha256

    def ship(self, contested: bool) -> Shipped:
        mark = self.mark
        if mark and mark.digest == self.digest and mark.etag:
            return self._note(mark)
        if mark and mark.settled and self._is_settled(mark.settled):
            self._settle(mark.settled.etag)
            return Shipped(self.path)
        problem = self._json_problem()
        if problem:
            return Shipped(self.path, refused=problem)
        if contested or (mark and not mark.etag):
            return self._contest()
        try:
            if mark and mark.loser:
                self._keep_loser_aside(mark)
            return self._put(IfMatch(mark.etag) if mark else IfAbsent())
        except (ConditionFailed, ObjectMissing):  # gone: AWS says 404, others 412
            return self._contest()

    def _is_settled(self, settled: Settled) -> bool:
        """A decision holds for this content against that object (rule 8); another object asks anew."""
        if settled.local_digest != self.digest:
            return False
        head = self.workspace.head(self.path)
        return head is not None and head.info.etag == settled.etag

    def _keep_loser_aside(self, mark: Mark) -> None:
        """Rule 10: a restore preferred a journalled version over this object: aside before its CAS."""
        try:
            head, spool = self.workspace.spool(self.path, if_match=mark.loser)
        except ObjectMissing as error:
            raise ConditionFailed(f"{self.path} was deleted meanwhile") from error
        with spool:
            modified_ns = int(head.info.modified * 1e9)
            self.workspace.keep_aside(self.path, spool, spool.sha256, modified_ns)

    def _json_problem(self) -> str:
        if not must_be_whole_json(self.path) or not self.body.in_memory:
            return ""
        problem = json_problem(bytes(self.body.read(0, self.body.size)))
        return f"not valid JSON at this moment ({problem}); kept back" if problem else ""

    def _note(self, mark: Mark) -> Shipped:
        """The content is what the object holds: only times and mode may be new."""
        demand_known(self.workspace, self.path, mark)
        stat = self.file.stat
        noted = (mark.mtime_ns, mark.mode) != (stat.mtime_ns, stat.mode)
        kept = replace(
            mark,
            stat=lasting(stat, self.read_at_ns),
            mtime_ns=stat.mtime_ns,
            mode=stat.mode,
            settled=None,
        )
        self.workspace.ledger.record(self.path, kept)
        self._fold()
        return Shipped(self.path, noted=noted)

    def _put(self, condition: Condition, *, conflict: str = "") -> Shipped:
        workspace, stat = self.workspace, self.file.stat
        described = FileMetadata(
            mtime_ns=stat.mtime_ns,
            mode=stat.mode,
            writer=workspace.ledger.writer,
            sha256=self.digest,
            base=self.mark.digest if self.mark else "",
            sequence=self.sequence,
        )
        workspace.moving()
        try:
            etag = workspace.store.put(
                workspace.keys.object(self.path),
                self.body,
                condition=condition,
                metadata=metadata.written(described),
            )
        except StoreError as error:
            if error.outage and self.mark:  # it may have arrived: the next round looks before it believes
                workspace.ledger.record(self.path, self.mark.cleared())
            raise
        self._record(etag, sent=True)
        return Shipped(self.path, self.body.size, moved=True, noted=True, conflict=conflict)

    def _record(self, etag: str, *, sent: bool = False) -> None:
        stat, size, digest = self.file.stat, self.body.size, self.digest
        known = lasting(stat, self.read_at_ns)
        mark = Mark(etag, size, digest, size, digest, known, stat.mtime_ns, stat.mode)
        if self._arrived:
            self._arrived(self.path, mark, self.body)
        else:
            self.workspace.ledger.record(self.path, mark)
        self._fold(sent=sent)

    def _contest(self) -> Shipped:
        """Somebody else's version stands there: read it, decide, try again, at most a few times."""
        for _ in range(TRIES):
            demand_known(self.workspace, self.path, self.mark)
            with suppress(ConditionFailed, ObjectMissing):
                return self._read_and_decide()
        return Shipped(self.path, pending=self.workspace.why_contested(self.path))

    def _read_and_decide(self) -> Shipped:
        try:
            head, spool = self.workspace.spool(self.path)
        except ObjectMissing:
            return self._put(IfAbsent())
        with spool:
            return self._meet(head, spool)

    def _meet(self, head: ObjectHead, spool: Spool) -> Shipped:
        workspace, stat = self.workspace, self.file.stat
        described = metadata.read(head.metadata)
        if described.sha256 != spool.sha256:
            described = FileMetadata()  # of an earlier version: a tool changed the bytes and kept the rest
        remote_ns = described.mtime_ns if described.mtime_ns is not None else int(head.info.modified * 1e9)
        verdict = winner(
            Version(self.digest, stat.mtime_ns, self.mark.digest if self.mark else ""),
            Version(spool.sha256, remote_ns, described.base),
            known=self.mark is not None,
            now_ns=workspace.now_ns(),
            own=described.writer == workspace.ledger.writer,
        )
        if verdict is Winner.EQUAL:
            self._record(head.info.etag)
            return Shipped(self.path, noted=True)
        if verdict is Winner.REMOTE_DESCENDS:
            self._settle(head.info.etag)
            return Shipped(self.path)
        if verdict is Winner.REMOTE:
            workspace.keep_aside(self.path, self.body, self.digest, stat.mtime_ns)
            self._settle(head.info.etag)
            return Shipped(self.path, self.body.size, conflict="remote_kept")
        displaced = not self.mark or spool.sha256 != self.mark.digest
        if displaced:
            workspace.keep_aside(self.path, spool, spool.sha256, remote_ns)
        return self._put(IfMatch(head.info.etag), conflict="local_kept" if displaced else "")

    def _settle(self, etag: str) -> None:
        """Remember the decision and leave the base (rule 8)."""
        base = self.mark or Mark("", 0, "", 0, "")
        settled = Settled(self.digest, etag, lasting(self.file.stat, self.read_at_ns))
        self.workspace.ledger.record(self.path, replace(base, settled=settled))
        self._fold()

    def _fold(self, *, sent: bool = False) -> None:
        """What the journal holds of this file is older than what was just decided on. The object says so to
        others if it was `sent`; else the edit that the agent went back from, or on from, is declared void: a
        restore would lay it on."""
        before, void = self.flushed, None
        if before is None:
            return
        tried = before.tried[1] if before.tried else self.digest
        went_on = {before.digest, tried} != {self.digest} and not sent
        if went_on and doubts.carries(self.workspace, self.path):
            void = rewritten.void(self.workspace, [self.path], self.sequence)
        known = lasting(self.file.stat, self.read_at_ns)
        after = Flushed(self.body.size, self.digest, 0, known)
        self.workspace.ledger.fold(self.path, before, after, void)
