"""What the operations on a home and its area report: the documented result types of the Python API."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field, to_builtins
from msgspec.structs import force_setattr

from sidecar.logs import encodable

ACTIONS = ("restored", "uploaded", "fresh", "already_synced", "started", "disabled", "failed")


class Unsynced(Struct, frozen=True):
    """A path that is not where it should be, and why (half a sentence)."""

    path: str
    reason: str
    size_bytes: int = 0

    def __post_init__(self) -> None:
        force_setattr(self, "path", encodable(self.path))
        force_setattr(self, "reason", encodable(self.reason))


class SyncResult(Struct, frozen=True):
    """The outcome of an initial sync or of a restore.

    ``action``: ``restored`` (the area came into the home), ``uploaded`` (the area was empty, the first backup
    was made), ``fresh`` (both were empty), ``already_synced``, ``started`` (goes on in the background),
    ``disabled`` (no bucket), ``failed`` (``error``, ``kind`` and ``hint`` say why; ``outage`` whether waiting
    may help). ``not_restored``: what is in the area and did not come; ``skipped``: foreign keys passed over;
    ``packed``: how many of the files came in packs.
    """

    user_id: str
    synced: bool
    action: str
    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    error: str | None = None
    kind: str | None = None
    hint: str | None = None
    outage: bool = False
    not_restored: tuple[Unsynced, ...] = ()
    skipped: tuple[Unsynced, ...] = ()
    refused: tuple[Unsynced, ...] = ()
    dry_run: bool = False
    packed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        told: dict[str, Any] = to_builtins(self)
        return told


class BackupResult(Struct, frozen=True):
    """The outcome of a checkpoint.

    ``durable``: every eligible file is in the bucket. ``pending``: eligible and not there; ``refused``: not
    eligible for a reason that a person should know (unreadable, over the cap, invalid); ``conflicts``: paths
    whose loser was kept under ``conflicts/``. ``deleted``: objects that followed a deletion in the home
    (``CLAUDE_SIDECAR_DELETIONS=mirror``); ``deletions_refused``: those that did not.
    """

    user_id: str
    durable: bool
    generation: int = 0
    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    unsynced_bytes: int = 0
    conflicts: tuple[str, ...] = ()
    conflict_kinds: dict[str, int] = field(default_factory=dict)
    deleted: int = 0
    deletions_refused: int = 0
    pending: tuple[Unsynced, ...] = ()
    refused: tuple[Unsynced, ...] = ()
    error: str | None = None
    kind: str | None = None
    hint: str | None = None
    outage: bool = False
    dry_run: bool = False
    requests: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        told: dict[str, Any] = to_builtins(self)
        return told
