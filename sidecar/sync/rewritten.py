"""Settling what the journal holds of a version that its own writer left: declared void, of a transcript after
its lines were kept aside.

Otherwise a restore would bring back the lines that a rewind took away, or the edit that was reverted, or
their removal would lose them.
"""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.area.journal import Lines, Void
from sidecar.sync import unfold
from sidecar.sync.bodies import Bytes, sha256
from sidecar.sync.flush_entry import put_as
from sidecar.sync.journal_reader import own_records
from sidecar.sync.marks import Flushed, OwnEntry, OwnVoid
from sidecar.sync.workspace import Workspace


def keep_aside(workspace: Workspace, path: str, flushed: Flushed) -> None:
    """Keep the journalled lines of the old version of a transcript under ``conflicts/``.

    Raises
    ------
    StoreError: the lines are still in the journal alone.
    """
    records = own_records(workspace, path, flushed.folded, flushed.sequence)
    lines = [record for record in records if isinstance(record, Lines)]
    old = Bytes(unfold.missing(Bytes(b""), {workspace.ledger.writer: lines}))
    if old.size:
        workspace.keep_aside(path, old, sha256(old), max(record.mtime_ns for record in lines))


def void(workspace: Workspace, paths: Iterable[str], number: int) -> OwnVoid:
    """Declare void what this writer journalled of `paths` under numbers below `number`, which is reserved.

    Raises
    ------
    StoreError: a restore still lays it on.
    """
    records = tuple(Void(path) for path in paths)
    size = put_as(workspace, number, records)
    return OwnVoid(number, OwnEntry(tuple(record.path for record in records), size))
