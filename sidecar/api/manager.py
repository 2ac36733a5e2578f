"""What the API needs of the manager behind it: the one seam between HTTP and the sync core."""

from __future__ import annotations

from typing import Any, Protocol

from sidecar.sync.results import BackupResult, SyncResult


class Manager(Protocol):
    """The operations and the answers that HTTP offers.

    Everything that is not a coroutine is called on the event loop: it returns within a millisecond and
    waits for no lock that a transfer holds. A failed sync is a result, never an exception.
    """

    async def ensure_initial_sync(self, user_id: str) -> SyncResult:
        """Idempotent: one run however many callers; after a failure the next call tries again."""

    async def backup_user_claude_dir(self, user_id: str) -> BackupResult:
        """One checkpoint, begun after this call."""

    async def flush(self, user_id: str) -> BackupResult:
        """Make durable everything that was written before this call."""

    async def restore_user(self, user_id: str) -> SyncResult:
        """Restore and merge into the home now."""

    def users(self) -> tuple[str, ...]:
        """The connected users: those whose home this process keeps."""

    def get_stats(self) -> dict[str, Any]:
        """What is known without asking the store; `states.GAUGES` names the keys that metrics show."""

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Restored or known fresh, and why not."""

    def liveness(self) -> tuple[bool, dict[str, Any]]:
        """Root tasks alive and no attempt stuck; never false because the store is away."""

    def started(self) -> tuple[bool, dict[str, Any]]:
        """The watch is armed, whatever the store does."""

    def drain(self, reason: str) -> None:
        """The pod began to end. Idempotent."""

    def changed(self, user_id: str | None) -> None:
        """Something was written in this user's home (None: in any): flush soon."""
