"""Own entries of which nobody knows whether they arrived: the answer was lost, or the process killed.

Unknown to its own writer, such an entry would stay until another folds it, and bring back what a rewind took
away.
"""

from __future__ import annotations

from sidecar.area import journal
from sidecar.errors import FormatError, ObjectArchived, ObjectDamaged, ObjectMissing
from sidecar.logs import log
from sidecar.sync.journal_reader import read_entry
from sidecar.sync.marks import OwnEntry
from sidecar.sync.workspace import Workspace


def resolve(workspace: Workspace) -> None:
    """Find out what arrived; no request where nothing is in doubt.

    Raises
    ------
    StoreError: nobody knows still.
    """
    ledger, doubts = workspace.ledger, workspace.ledger.doubts()
    if not doubts:
        return
    listed = workspace.store.list(f"{workspace.keys.journal}{ledger.writer}/").objects
    for number in doubts:
        key = workspace.keys.journal + journal.name(ledger.writer, number)
        info = listed.get(key)
        if info is None:
            ledger.entry_removed(number)
            continue
        try:
            records = read_entry(workspace, key).records
            ledger.arrived(number, OwnEntry(tuple({record.path for record in records}), info.size))
        except (ObjectMissing, ObjectDamaged, ObjectArchived, FormatError) as error:
            log.debug("Nothing is known of the journal entry %s: %s", key, error)
            ledger.entry_removed(number)


def carries(workspace: Workspace, path: str) -> bool:
    """Whether an entry of this writer that is in the bucket carries something of `path`.

    Raises
    ------
    StoreError: nobody knows.
    """
    resolve(workspace)
    return any(path in entry.paths for entry in workspace.ledger.entries().values())
