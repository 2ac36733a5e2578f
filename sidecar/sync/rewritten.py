"""Settling what the journal holds of a transcript that was rewritten: kept aside first, then declared void.

Otherwise a restore would bring back the lines that a rewind took away, or their removal would lose them.
"""

from __future__ import annotations

from sidecar.area.journal import Lines, Void
from sidecar.sync import unfold
from sidecar.sync.bodies import Bytes, sha256
from sidecar.sync.flush_entry import put_entry
from sidecar.sync.journal_reader import own_records
from sidecar.sync.marks import Flushed
from sidecar.sync.workspace import Workspace


def settle(workspace: Workspace, path: str, flushed: Flushed) -> None:
    """Keep the journalled lines of the old version under ``conflicts/``, then void them in the journal.

    Raises
    ------
    StoreError: the lines are still in the journal.
    """
    records = own_records(workspace, path, flushed.folded, flushed.sequence)
    lines = [record for record in records if isinstance(record, Lines)]
    old = Bytes(unfold.missing(Bytes(b""), {workspace.ledger.writer: lines}))
    if old.size:
        workspace.keep_aside(path, old, sha256(old), max(record.mtime_ns for record in lines))
    sequence, size = put_entry(workspace, (Void(path),))
    workspace.ledger.record_flush(sequence, size, {path: flushed})
