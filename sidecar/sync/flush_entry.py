"""One PUT to the journal, under a number that no other body has."""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.area import journal
from sidecar.area.journal import Entry, Record
from sidecar.area.objects import IfAbsent
from sidecar.errors import ConditionFailed, StoreError
from sidecar.sync.marks import Flushed
from sidecar.sync.workspace import Workspace

_TRIES = 8
Carried = Mapping[str, tuple[Flushed, Flushed]]
"""By path: up to where it is known durable, and what an entry takes it to."""
_NOTHING: Carried = {}


def put_entry(
    workspace: Workspace, records: tuple[Record, ...], carried: Carried = _NOTHING, *, ended: bool = False
) -> tuple[int, int]:
    """Write one entry; returns its sequence number and its size in bytes.

    A number is noted in the ledger before it is used, and is never used for a second body (rule 12).

    Raises
    ------
    StoreError: the entry is not in the bucket, or nobody knows.
    """
    for _ in range(_TRIES):
        sequence = workspace.ledger.next_sequence()
        try:
            return sequence, put_as(workspace, sequence, records, carried, ended=ended)
        except ConditionFailed:
            continue
    raise ConditionFailed("the journal's numbers are taken again and again", "give a fresh state directory")


def put_as(
    workspace: Workspace,
    sequence: int,
    records: tuple[Record, ...],
    carried: Carried = _NOTHING,
    *,
    ended: bool = False,
) -> int:
    """Write one entry under a number that the ledger gave for it alone; returns its size in bytes.

    That it may be in the bucket is noted before: its answer may be lost, or the process killed.

    Raises
    ------
    ConditionFailed: the number is taken. StoreError: the entry is not in the bucket, or nobody knows.
    """
    ledger = workspace.ledger
    entry = Entry(ledger.writer, sequence, workspace.now_ns(), records, ended)
    body = journal.encoded(entry)
    ledger.trying(sequence, carried)
    try:
        key = workspace.keys.journal + journal.name(entry.writer, sequence)
        workspace.store.put(key, body, condition=IfAbsent(), metadata={})
    except StoreError as error:
        if not error.outage:
            ledger.entry_removed(sequence)
        raise
    finally:
        ledger.sent(sequence)
    return len(body)
