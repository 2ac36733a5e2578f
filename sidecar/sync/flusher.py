"""One user's flushes: which files are looked at, and what is not durable since when.

Synchronous; one flush at a time, beside a checkpoint of the same user if need be: each takes its marks from
one snapshot of a file (rule 18).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from sidecar.errors import AccessDenied
from sidecar.home.entries import FileStat, Refused
from sidecar.home.scan import look, scan
from sidecar.sync import tombstones
from sidecar.sync.flush import FlushResult, flush, needs_flush, new_bytes
from sidecar.sync.flush_entry import put_entry
from sidecar.sync.results import BackupResult, Unsynced
from sidecar.sync.tails import Tails
from sidecar.sync.workspace import Workspace

# The journal is folded early once it holds this much: a restore reads all of it.
MAX_ENTRIES = 256
MAX_BYTES = 32 * 1024 * 1024
NOT_IN_TIME = "the bucket did not take it in time"


class Changes(Protocol):
    """What a watch saw: paths, or that everything must be looked at."""

    @property
    def paths(self) -> frozenset[str]: ...

    @property
    def everything(self) -> bool: ...


class Flusher:
    """Flushes the home of `workspace` to its journal.

    ``enabled``: False once the bucket's policy turned out to know no journal: then intervals do the work.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._tails = Tails()
        self._left: frozenset[str] = frozenset()
        self.enabled = True

    def flush(self, changes: Changes | None = None) -> BackupResult:
        """Make durable what changed, and what an earlier flush had to leave.

        `changes`: what a watch saw; None looks at every file.
        """
        begun = time.monotonic()
        workspace = self._workspace
        tombstones.recall(workspace)
        stats, refused = self._changed_files(changes)
        result = flush(workspace, [s for s in stats if needs_flush(workspace, s)], self._tails)
        self._left = frozenset(entry.path for entry in result.pending)
        if isinstance(result.error, AccessDenied) and self.enabled:
            self.enabled = False
            workspace.own_area_denied("The journal may not be written", result.error)
        return _reported(workspace, result, refused, time.monotonic() - begun)

    def _changed_files(self, changes: Changes | None) -> tuple[Iterable[FileStat], list[Unsynced]]:
        workspace = self._workspace
        prefix_bytes = len(workspace.keys.objects.encode())
        if changes is None or changes.everything:
            found = scan(
                workspace.home,
                workspace.rules,
                max_file_bytes=workspace.max_file_bytes,
                key_prefix_bytes=prefix_bytes,
            )
            return found.files.values(), [Unsynced(r.path, r.reason) for r in found.refused]
        seen = [
            look(
                workspace.home,
                workspace.rules,
                path,
                max_file_bytes=workspace.max_file_bytes,
                key_prefix_bytes=prefix_bytes,
            )
            for path in changes.paths | self._left
        ]
        refused = [Unsynced(one.path, one.reason) for one in seen if isinstance(one, Refused)]
        return [one for one in seen if isinstance(one, FileStat)], refused

    def unflushed(self) -> tuple[Unsynced, ...]:
        """What differs from what is known durable. Asks the home and the ledger, never the bucket."""
        stats, _ = self._changed_files(None)
        left = (stat for stat in stats if needs_flush(self._workspace, stat))
        return tuple(Unsynced(s.path, NOT_IN_TIME, new_bytes(self._workspace, s)) for s in left)

    @property
    def is_long(self) -> bool:
        """Whether the journal has grown so much that a checkpoint should fold it now."""
        entries = self._workspace.ledger.entries().values()
        return len(entries) >= MAX_ENTRIES or sum(entry.size for entry in entries) >= MAX_BYTES

    def say_ended(self) -> None:
        """The end mark: this writer will write no more, so nobody needs to wait for it."""
        sequence, size = put_entry(self._workspace, (), ended=True)
        self._workspace.ledger.record_flush(sequence, size, {})


def _reported(
    workspace: Workspace, result: FlushResult, refused: list[Unsynced], seconds: float
) -> BackupResult:
    error = result.error
    report = BackupResult(
        workspace.user_id,
        durable=not result.pending and error is None,
        generation=workspace.ledger.header.generation,
        files=result.files,
        bytes=result.bytes,
        seconds=seconds,
        unsynced_bytes=sum(entry.size_bytes for entry in result.pending),
        pending=result.pending,
        refused=(*refused, *result.refused),
    )
    if error is None:
        return report
    return replace(report, error=error.message, kind=error.kind, hint=error.hint)
