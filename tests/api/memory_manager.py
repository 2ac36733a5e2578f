"""A manager in memory: it takes time, fails, counts and mixes nothing up. The API's tests stand on it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from sidecar.sync.results import BackupResult, SyncResult, Unsynced


class MemoryManager:
    """Keeps for each user what was written and how much of it is durable.

    ``gate``: while closed, every operation waits at it. ``failures``: that many operations fail first, with
    ``failure_kind``. ``runs`` counts operations by name and user; ``under_way`` those running at once.
    """

    def __init__(self, *, disabled: bool = False) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.disabled = disabled
        self.failures = 0
        self.failure_kind = "unreachable"
        self.raises: Exception | None = None
        self.runs: Counter[tuple[str, str]] = Counter()
        self.waiting_at_the_gate = 0
        self.written: Counter[str] = Counter()
        self.durable: Counter[str] = Counter()
        self.refused: tuple[Unsynced, ...] = ()
        self.told_changed: list[str | None] = []
        self.told_drained: list[str] = []
        self.ready = (True, {"reason": "all is restored"})
        self.live = (True, {"reason": "all root tasks run"})
        self.begun = (True, {"reason": "started"})
        self.more_stats: dict[str, Any] = {}
        self.user_stats: dict[str, Any] = {}
        self._synced: set[str] = set()
        self._users: list[str] = []

    def write(self, user_id: str, size_bytes: int = 1) -> None:
        """The agent of `user_id` writes."""
        self.written[user_id] += size_bytes

    async def ensure_initial_sync(self, user_id: str) -> SyncResult:
        if self.disabled:
            return SyncResult(user_id, synced=False, action="disabled", hint="set S3_WORKSPACE_BUCKET")
        if user_id in self._synced:
            return SyncResult(user_id, synced=True, action="already_synced")
        if user_id not in self._users:
            self._users.append(user_id)
        problem = await self._work("initial", user_id)
        if problem:
            return SyncResult(user_id, synced=False, action="failed", error=problem, kind=self.failure_kind)
        self._synced.add(user_id)
        return SyncResult(user_id, synced=True, action="restored", files=len(user_id), bytes=100)

    async def backup_user_claude_dir(self, user_id: str) -> BackupResult:
        return await self._back_up("checkpoint", user_id)

    async def flush(self, user_id: str) -> BackupResult:
        return await self._back_up("flush", user_id)

    async def restore_user(self, user_id: str) -> SyncResult:
        problem = await self._work("restore", user_id)
        if problem:
            return SyncResult(user_id, synced=False, action="failed", error=problem, kind=self.failure_kind)
        return SyncResult(user_id, synced=True, action="restored", files=2, bytes=20)

    def users(self) -> tuple[str, ...]:
        return tuple(self._users)

    def get_stats(self) -> dict[str, Any]:
        return {
            "synced_user_count": len(self._synced),
            "backup_running": True,
            "backup_interval_minutes": 5.0,
            "bucket_name": None if self.disabled else "bucket",
            "s3_prefix": "user_data",
            "users": {u: {"unsynced_bytes": self._unsynced(u), **self.user_stats} for u in self._users},
            **self.more_stats,
        }

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        return self.ready

    def liveness(self) -> tuple[bool, dict[str, Any]]:
        return self.live

    def started(self) -> tuple[bool, dict[str, Any]]:
        return self.begun

    def drain(self, reason: str) -> None:
        self.told_drained.append(reason)

    def changed(self, user_id: str | None) -> None:
        self.told_changed.append(user_id)

    def _unsynced(self, user_id: str) -> int:
        return self.written[user_id] - self.durable[user_id]

    async def _back_up(self, name: str, user_id: str) -> BackupResult:
        # What is written after this line is not in this backup: the mistake that callers must not inherit.
        seen = self.written[user_id]
        problem = await self._work(name, user_id)
        if problem:
            return BackupResult(
                user_id,
                durable=False,
                unsynced_bytes=self._unsynced(user_id),
                error=problem,
                kind=self.failure_kind,
            )
        moved, self.durable[user_id] = seen - self.durable[user_id], seen
        return BackupResult(
            user_id,
            durable=True,
            generation=self.runs[name, user_id],
            files=1,
            bytes=moved,
            unsynced_bytes=self._unsynced(user_id),
            refused=self.refused,
        )

    async def _work(self, name: str, user_id: str) -> str:
        self.runs[name, user_id] += 1
        if self.raises:
            raise self.raises
        self.waiting_at_the_gate += 1
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
        finally:
            self.waiting_at_the_gate -= 1
        if self.failures:
            self.failures -= 1
            return "the bucket is away"
        return ""
