"""Whoever counts what the sync does: metrics, and nothing that the sync waits for."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field

from sidecar.area.traffic import Listener
from sidecar.sync.results import BackupResult, SyncResult


class Observers(Struct, frozen=True):
    """Called on the event loop after each operation; ``store`` from any thread."""

    synced: Callable[[SyncResult], None] = lambda result: None
    flushed: Callable[[BackupResult], None] = lambda result: None
    checkpointed: Callable[[BackupResult], None] = lambda result: None
    fell_back: Callable[[str], None] = lambda reason: None
    missed: Callable[[int], None] = lambda count: None
    store: Listener = field(default_factory=Listener)
