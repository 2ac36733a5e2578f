"""The books of one user: what is durable, since when the oldest byte is not, and when that is said."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sidecar.logs import log
from sidecar.sync.results import BackupResult, SyncResult, Unsynced

# What fails is said once, and then once an hour: an outage of a night is ten lines, not ten thousand.
SAY_AGAIN_SECONDS = 3600.0


@dataclass(slots=True)
class Books:
    """What is known of the user's sync; points in time are seconds since the epoch, 0 means never."""

    user_id: str
    clock: Callable[[], float] = time.time
    synced: SyncResult | None = None
    last_sync: SyncResult | None = None
    last_backup: BackupResult | None = None
    last_flush: BackupResult | None = None
    durable_at: float = 0.0
    unsynced_since: float = 0.0
    unsynced_bytes: int = 0
    unsynced_files: int = 0
    unreadable: tuple[Unsynced, ...] = ()
    backups: int = 0
    flushes: int = 0
    failures: int = 0
    _said_at: float = 0.0

    def note(self, result: BackupResult, begun_at: float, *, dirty: bool, said: bool = False) -> None:
        """Keep the books of what is durable, and say what is not.

        `begun_at`: when the operation began to look; `dirty`: something changed since; `said`: why it failed
        was told elsewhere.
        """
        self.unsynced_bytes, self.unsynced_files = result.unsynced_bytes, len(result.pending)
        if result.durable:
            if self._said_at:
                log.info("The bucket is back: everything of user %s is durable again", self.user_id)
            self._said_at = 0.0
            self.durable_at = max(self.durable_at, begun_at)
            # What made it dirty again came after the look that found all durable.
            self.unsynced_since = max(self.unsynced_since, begun_at) if dirty else 0.0
            return
        self.failures += 1
        self.unsynced_since = self.unsynced_since or begun_at
        if not said:
            self._say(result)

    def _say(self, result: BackupResult) -> None:
        now = self.clock()
        if self._said_at and now - self._said_at <= SAY_AGAIN_SECONDS:
            return
        self._said_at = now
        log.warning(
            "%d bytes of user %s are not durable since %d s: %s",
            result.unsynced_bytes,
            self.user_id,
            now - self.unsynced_since,
            result.error or (result.pending[0].reason if result.pending else "for no known reason"),
        )

    def stats(self) -> dict[str, Any]:
        """For ``get_stats``."""
        return {
            "synced": self.synced is not None,
            "unsynced_bytes": self.unsynced_bytes,
            "unsynced_files": self.unsynced_files,
            "unreadable_files": len(self.unreadable),
            "unreadable": [one.path for one in self.unreadable[:20]],
            "oldest_unsynced_at": self.unsynced_since or None,
            "last_durable_time": self.durable_at or None,
            "backups": self.backups,
            "flushes": self.flushes,
            "failures": self.failures,
            "last_sync": _short(self.last_sync),
            "last_backup": _short(self.last_backup),
            "last_flush": _short(self.last_flush),
        }


def _short(result: SyncResult | BackupResult | None) -> dict[str, Any] | None:
    """`result` without its long lists: a few of each are enough for a person."""
    if isinstance(result, BackupResult):
        return replace(
            result, pending=result.pending[:20], refused=result.refused[:20], conflicts=result.conflicts[:20]
        ).as_dict()
    if isinstance(result, SyncResult):
        refused, skipped = result.refused[:20], result.skipped[:20]
        result = replace(result, not_restored=result.not_restored[:20], skipped=skipped, refused=refused)
        return result.as_dict()
    return None
