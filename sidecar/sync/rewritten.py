"""Settling what the journal holds of a version that its own writer left: declared void, of a transcript after
its lines were kept aside.

Otherwise a restore would bring back the lines that a rewind took away, or the edit that was reverted, or
their removal would lose them.
"""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.area.journal import Lines, Void
from sidecar.sync import doubts, unfold
from sidecar.sync.bodies import Bytes, Pieced, sha256
from sidecar.sync.flush_entry import put_as
from sidecar.sync.journal_reader import own_records
from sidecar.sync.marks import OwnEntry, OwnVoid
from sidecar.sync.merge import Readable, Span
from sidecar.sync.workspace import Workspace


def keep_aside(workspace: Workspace, path: str, before: Readable, mtime_ns: int) -> None:
    """Keep the old version of a transcript under ``conflicts/``: `before`, and what the journal has behind
    it, as one file.

    Raises
    ------
    StoreError: the old version is where it was.
    """
    doubts.resolve(workspace)
    records = own_records(workspace, path, 0, workspace.ledger.sequence)
    lines = [record for record in records if isinstance(record, Lines)]
    behind = Bytes(unfold.missing(before, {workspace.ledger.writer: lines}))
    old = Pieced([Span("remote", 0, before.size), Span("local", 0, behind.size)], before, behind)
    if old.size:
        times = [record.mtime_ns for record in lines]
        workspace.keep_aside(path, old, sha256(old), max([mtime_ns, *times]))


def void(workspace: Workspace, paths: Iterable[str], number: int) -> OwnVoid:
    """Declare void what this writer journalled of `paths` under numbers below `number`, which is reserved.

    Raises
    ------
    StoreError: a restore still lays it on.
    """
    records = tuple(Void(path) for path in paths)
    size = put_as(workspace, number, records)
    return OwnVoid(number, OwnEntry(tuple(record.path for record in records), size))
