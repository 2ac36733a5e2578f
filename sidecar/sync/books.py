"""The books of one user: what is durable, since when the oldest byte is not, and when that is said.

A trouble is said at once, and while it lasts once an hour: an outage of a night is ten lines, not thousands.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from sidecar.logs import log
from sidecar.sync.results import BackupResult, SyncResult, Unsynced

SAY_AGAIN_SECONDS = 3600.0
SAY_AFTER_SECONDS = 60.0
"""A byte that waits so long is said also where nothing failed: twenty times what is promised (3 s), and well
before the alert (300 s, docs/operations.md)."""


class Books(Struct):
    """What is known of the user's sync; points in time are seconds since the epoch, 0 means never."""

    user_id: str
    clock: Callable[[], float] = time.time
    begun_at: float = field(default_factory=time.time)
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
    watch_missed: int = 0
    _reason: str = ""
    _said: dict[str, tuple[float, str]] = field(default_factory=dict)

    def wrote(self) -> None:
        """Something is not durable from now on."""
        self.unsynced_since = self.unsynced_since or self.clock()

    def found(self, files: int, size_bytes: int) -> None:
        """So much is not durable, by the look that a flush begins with; called from its thread."""
        self.unsynced_files, self.unsynced_bytes = files, size_bytes

    def note(self, result: BackupResult, begun_at: float, *, dirty: bool, said: bool = False) -> None:
        """Keep the books of what is durable, and say what is not.

        `begun_at`: when the operation began to look; `dirty`: something changed since; `said`: why it failed
        was told elsewhere.
        """
        if not result.durable:
            self.failures += 1
            self.behind(result.pending, begun_at, result.error or "", said=said)
            return
        self.unsynced_bytes = self.unsynced_files = 0
        self._reason = ""
        if self._said.pop("behind", None):
            log.info("The bucket is back: everything of user %s is durable again", self.user_id)
        self.durable_at = max(self.durable_at, begun_at)
        # What made it dirty again came after the look that found all durable.
        self.unsynced_since = max(self.unsynced_since, begun_at) if dirty else 0.0

    def behind(
        self, pending: tuple[Unsynced, ...], since: float, reason: str = "", *, said: bool = False
    ) -> None:
        """`pending` is not durable, at the latest since `since`; said unless it was (`said`)."""
        if pending:  # else it failed before it could tell what is left
            self.unsynced_bytes = sum(entry.size_bytes for entry in pending)
            self.unsynced_files = len(pending)
        self.unsynced_since = self.unsynced_since or since
        self._reason = reason or (pending[0].reason if pending else "for no known reason")
        if not said:
            self._say()

    def look_at_the_clock(self) -> None:
        """Say that bytes wait for too long, where nothing failed that would have said it."""
        if self.unsynced_since and self.clock() - self.unsynced_since > SAY_AFTER_SECONDS:
            self._say()

    def _say(self) -> None:
        if self.is_news("behind"):
            log.warning(
                "%d bytes of user %s are not durable since %d s: %s",
                self.unsynced_bytes,
                self.user_id,
                self.clock() - self.unsynced_since,
                self._reason or "the bucket has not taken them yet",
            )

    def missed(self, count: int, example: str) -> None:
        """A full scan found `count` files that the watch had not told of."""
        if not count:
            return
        level = logging.DEBUG if self.watch_missed else logging.WARNING
        self.watch_missed += count
        log.log(
            level,
            "The watch had not told of %d files of user %s that the checkpoint found, for example %s",
            count,
            self.user_id,
            example,
        )

    def is_news(self, what: str, kind: str = "") -> bool:
        """Whether `what` is to be said: the first time, when it is of another `kind`, and once an hour."""
        now, (said_at, said_kind) = self.clock(), self._said.get(what, (0.0, ""))
        if said_at and said_kind == kind and now - said_at <= SAY_AGAIN_SECONDS:
            return False
        self._said[what] = (now, kind)
        return True

    def over(self, what: str) -> None:
        """The trouble `what` is over: its next time is news."""
        self._said.pop(what, None)

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
            "watch_missed": self.watch_missed,
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
