"""The manager: which users this process serves, each one's initial sync, and the interval backups.

Coroutines over the synchronous core. One operation at a time for each user; users do not wait for each other.
A failure ends an operation, never the loop, and never the caller: results carry the error.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sidecar.area.store import Store
from sidecar.errors import SidecarError, UserError
from sidecar.logs import log
from sidecar.settings import BUCKET_NOT_CONFIGURED, Settings
from sidecar.sync.initial import backup_failed, backup_home, failed, initial_sync, restore_area
from sidecar.sync.results import BackupResult, SyncResult
from sidecar.sync.threads import in_thread
from sidecar.sync.workspace import Workspace

T = TypeVar("T")

# A fleet that was rolled out at once must not back up at once.
JITTER = 0.1
# An operation that has not ended for this long is stuck: every request in it has a time limit of its own.
STUCK_SECONDS = 1800.0


@dataclass(slots=True)
class _User:
    """One user's state in this process."""

    user_id: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    workspace: Workspace | None = None
    synced: SyncResult | None = None
    syncing: asyncio.Task[SyncResult] | None = None
    last_sync: SyncResult | None = None
    last_backup: BackupResult | None = None
    durable_at: float = 0.0
    busy_since: float = 0.0
    backups: int = 0
    failures: int = 0


class ClaudeSyncManager:
    """Keeps the ``.claude`` directories of all connected users in step with their areas.

    Parameters
    ----------
    settings: with no bucket every operation answers ``disabled``.
    connect: gives the store, once, in a worker thread; a failed connection is tried again.
    """

    def __init__(self, settings: Settings, connect: Callable[[Settings], Store] = Store.connect) -> None:
        self._settings = settings
        self._connect = connect
        self._store: Store | None = None
        self._store_lock = asyncio.Lock()
        self._users: dict[str, _User] = {}
        self._loop_task: asyncio.Task[None] | None = None
        self._backup_running = False
        self._idle_said = False
        self._draining = ""
        self._drained_at = 0.0
        self._ending = False
        self._changed = asyncio.Event()

    # -- the life of the manager

    async def start(self) -> None:
        """Begin the interval backups."""
        settings = self._settings
        if not settings.bucket:
            log.warning(BUCKET_NOT_CONFIGURED)
            return
        log.info(
            "Initializing Claude Sync Manager: bucket=%s, prefix=%s, interval=%gm",
            settings.bucket,
            settings.prefix,
            settings.interval_minutes,
        )
        log.info("Starting .claude backup loop (interval: %g minutes)", settings.interval_minutes)
        self._loop_task = asyncio.create_task(self._backup_loop(), name="backup-loop")
        log.info("Background backup task started")

    async def stop(self) -> None:
        """End the interval backups and close every workspace; what is not backed up stays in the home."""
        if self._loop_task:
            log.info("Stopping background backup task...")
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)
            self._loop_task = None
            log.info("Background backup task stopped")
        for user in self._users.values():
            if user.workspace and not user.lock.locked():
                user.workspace.close()
                user.workspace = None

    async def last_backup(self, deadline: float) -> list[BackupResult]:
        """The last checkpoint of every connected user, until `deadline` (``time.monotonic()`` seconds).

        A user whose restore never succeeded is backed up too: what is in the home is compared, never assumed.
        """
        self._ending = True
        if self._loop_task:
            self._loop_task.cancel()
        users = list(self._users.values())
        tasks = [asyncio.create_task(self._last_backup(user, deadline), name="last-backup") for user in users]
        if not tasks:
            return []
        done, _ = await asyncio.wait(tasks, timeout=max(0.0, deadline - time.monotonic()))
        late = "the grace period ended before the last backup did"
        return [
            task.result() if task in done else self._unfinished(user, late)
            for user, task in zip(users, tasks, strict=True)
        ]

    async def _last_backup(self, user: _User, deadline: float) -> BackupResult:
        def out_of_time() -> bool:
            return time.monotonic() >= deadline

        return await self._back_up(user, stop=out_of_time)

    def _unfinished(self, user: _User, reason: str) -> BackupResult:
        return BackupResult(user.user_id, durable=False, error=reason, kind="deadline")

    @property
    def drained_at(self) -> float:
        """When the first notice of the end came (``time.monotonic()`` seconds); 0 if none did."""
        return self._drained_at

    def durable_at(self) -> float:
        """When all users' files were last known to be in the bucket, in seconds since the epoch; 0: never."""
        return min((user.durable_at for user in self._users.values()), default=0.0)

    @property
    def loop_task(self) -> asyncio.Task[None] | None:
        """The backup loop, for whoever guards the root tasks."""
        return self._loop_task

    # -- operations

    async def ensure_initial_sync(self, user_id: str) -> SyncResult:
        """Restore, upload or start fresh: one run however many callers, tried again after a failure."""
        user = self._users.get(user_id)
        if user and user.synced:
            return user.synced
        if not self._settings.bucket:
            return SyncResult(user_id, synced=False, action="disabled", hint=BUCKET_NOT_CONFIGURED)
        try:
            user = user or self._admit(user_id)
        except SidecarError as error:
            return failed(user_id, error)
        if user.syncing is None:
            user.syncing = asyncio.create_task(self._first_sync(user), name="initial-sync")
        return await asyncio.shield(user.syncing)

    async def backup_user_claude_dir(self, user_id: str) -> BackupResult:
        """A checkpoint of `user_id`, who must have had an initial sync."""
        user = self._users.get(user_id)
        if not self._settings.bucket:
            return BackupResult(user_id, durable=False, error=BUCKET_NOT_CONFIGURED, kind="disabled")
        if user is None or not user.synced:
            error = UserError(
                f"user {user_id} has had no initial sync yet",
                "POST /invocations first",
            )
            return backup_failed(user_id, error)
        return await self._back_up(user)

    async def flush(self, user_id: str) -> BackupResult:
        """Make everything of `user_id` durable now."""
        return await self.backup_user_claude_dir(user_id)

    async def restore_user(self, user_id: str) -> SyncResult:
        """Bring what the home of `user_id` lacks of its area, now."""
        first = await self.ensure_initial_sync(user_id)
        user = self._users.get(user_id)
        if user is None or not user.synced:
            return first
        try:
            result = await self._run(user, restore_area, "restore")
        except SidecarError as error:
            result = failed(user_id, error)
        user.last_sync = result
        return result

    def changed(self, user_id: str | None) -> None:
        """Something was written: the next backup need not wait for the interval."""
        self._changed.set()

    def drain(self, reason: str) -> None:
        """The pod began to end: back up at once, and on every change."""
        if not self._draining:
            log.info("Draining: %s", reason)
            self._drained_at = time.monotonic()
        self._draining = reason
        self._changed.set()

    # -- what is known

    def users(self) -> tuple[str, ...]:
        """All users that have connected, synced or not."""
        return tuple(self._users)

    def get_stats(self) -> dict[str, Any]:
        """Counts and states; the first five names are a promise to callers."""
        settings = self._settings
        return {
            "synced_user_count": sum(1 for user in self._users.values() if user.synced),
            "backup_running": self._loop_task is not None and not self._loop_task.done(),
            "backup_interval_minutes": settings.interval_minutes,
            "bucket_name": settings.bucket,
            "s3_prefix": settings.prefix,
            "backup_in_progress": self._backup_running,
            "draining": self._draining or None,
            "users": {user.user_id: self._user_stats(user) for user in self._users.values()},
        }

    def _user_stats(self, user: _User) -> dict[str, Any]:
        backup = user.last_backup
        return {
            "synced": user.synced is not None,
            "last_sync": user.last_sync.as_dict() if user.last_sync else None,
            "last_backup": backup.as_dict() if backup else None,
            "last_durable_time": user.durable_at or None,
            "unsynced_bytes": backup.unsynced_bytes if backup else 0,
            "backups": user.backups,
            "failures": user.failures,
        }

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Ready when every connected user is restored or known fresh."""
        if not self._settings.bucket:
            return True, {"reason": BUCKET_NOT_CONFIGURED}
        fixed = self._settings.user_id
        if fixed and fixed not in self._users:
            return False, {"reason": f"the restore of user {fixed} has not begun"}
        waiting = [user for user in self._users.values() if not user.synced]
        if not waiting:
            return True, {"reason": "every connected user is restored or known fresh"}
        last = waiting[0].last_sync
        why = f": {last.error}" if last and last.error else ""
        return False, {
            "reason": f"{len(waiting)} users are not restored yet{why}",
            "hint": last.hint if last else None,
        }

    def liveness(self) -> tuple[bool, dict[str, Any]]:
        """Alive while the loop runs and no operation is stuck; a bucket that is away does not count."""
        if self._loop_task and self._loop_task.done():
            return False, {"reason": "the backup loop ended"}
        for user in self._users.values():
            if user.busy_since and time.monotonic() - user.busy_since > STUCK_SECONDS:
                return False, {"reason": f"an operation has not ended for {STUCK_SECONDS:g} seconds"}
        return True, {"reason": "all root tasks run"}

    def started(self) -> tuple[bool, dict[str, Any]]:
        """Started as soon as the loop runs, whatever the bucket does."""
        if not self._settings.bucket or self._loop_task:
            return True, {"reason": "started"}
        return False, {"reason": "the backup loop has not begun"}

    # -- the work

    def _admit(self, user_id: str) -> _User:
        settings = self._settings
        if settings.user_id and user_id != settings.user_id:
            raise UserError(f"this pod serves user {settings.user_id} only", "send that user's token")
        if self._users and not settings.serves_many_users:
            raise UserError(
                "this home serves one user, and another one is connected",
                "put {user_id} into CLAUDE_SIDECAR_HOME to give each user a directory",
            )
        user = self._users[user_id] = _User(user_id)
        return user

    async def _first_sync(self, user: _User) -> SyncResult:
        try:
            result = await self._run(user, initial_sync, "initial-sync")
        except SidecarError as error:
            result = failed(user.user_id, error)
            log.error("Initial sync failed for user %s: %s", user.user_id, error)
            if isinstance(error, UserError):  # a name that cannot be used does not hold the home
                self._users.pop(user.user_id, None)
        user.last_sync = result
        if result.synced:
            user.synced = SyncResult(user.user_id, synced=True, action="already_synced")
            user.durable_at = time.time()
        user.syncing = None
        return result

    async def _back_up(
        self,
        user: _User,
        before: Callable[[], None] = lambda: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> BackupResult:
        try:
            result = await self._run(user, lambda w: backup_home(w, before=before, stop=stop), "backup")
        except SidecarError as error:
            result = backup_failed(user.user_id, error)
        user.last_backup = result
        user.backups += 1
        if result.durable:
            user.durable_at = time.time()
        else:
            user.failures += 1
            if result.error:
                log.warning("Backup failed for user %s: %s", user.user_id, result.error)
        return result

    async def _run(self, user: _User, operation: Callable[[Workspace], T], name: str) -> T:
        async with user.lock:
            user.busy_since = time.monotonic()
            try:
                store = await self._connected()
                workspace = user.workspace

                def work() -> T:
                    nonlocal workspace
                    if workspace is None:
                        workspace = Workspace.open(self._settings, store, user.user_id, live=True)
                    return operation(workspace)

                try:
                    return await in_thread(work, name)
                finally:
                    user.workspace = workspace
            finally:
                user.busy_since = 0.0

    async def _connected(self) -> Store:
        async with self._store_lock:
            if self._store is None:
                self._store = await in_thread(lambda: self._connect(self._settings), "connect")
            return self._store

    async def _backup_loop(self) -> None:
        while True:
            await self._wait_for_the_next_round()
            await self.backup_all()

    async def _wait_for_the_next_round(self) -> None:
        seconds = self._settings.interval_minutes * 60 * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return
        self._changed.clear()
        if not self._draining and self._settings.sync_delay_seconds:
            await asyncio.sleep(self._settings.sync_delay_seconds)

    async def backup_all(self) -> list[BackupResult]:
        """One round: a checkpoint of every synced user. An error ends a user's backup, never the round."""
        users = [user for user in self._users.values() if user.synced]
        if not users:
            log.log(self._idle_level(), "No users to backup")
            return []
        announcement = _Once(
            lambda level: log.log(level, "Starting periodic backup for %d users", len(users))
        )
        if not self._idle_said:
            announcement(self._idle_level())
        self._backup_running = True
        try:
            results = await asyncio.gather(
                *(self._back_up(user, lambda: announcement(logging.INFO)) for user in users)
            )
        finally:
            self._backup_running = False
        log.log(announcement.level or logging.DEBUG, "Periodic backup completed")
        return list(results)

    def _idle_level(self) -> int:
        """An idle round is INFO the first time, DEBUG after it."""
        level = logging.DEBUG if self._idle_said else logging.INFO
        self._idle_said = True
        return level


class _Once:
    """Says something at most once, whichever thread asks first; ``level`` is the one it was said with."""

    def __init__(self, say: Callable[[int], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self.level = 0

    def __call__(self, level: int) -> None:
        with self._lock:
            if not self.level:
                self.level = level
                self._say(level)
