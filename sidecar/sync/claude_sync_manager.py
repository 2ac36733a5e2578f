"""The manager: which users this process serves, each one's initial sync, and the interval backups.

Coroutines over the synchronous core. A failure ends an operation, never the loop, and never the caller:
results carry the error.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sidecar.area.keys import AreaKeys
from sidecar.area.store import Store
from sidecar.errors import SidecarError, UserError
from sidecar.logs import log
from sidecar.settings import BUCKET_NOT_CONFIGURED, Settings
from sidecar.sync.connected_user import ConnectedUser
from sidecar.sync.drain import Drain
from sidecar.sync.initial import backup_failed, failed
from sidecar.sync.interval import Interval
from sidecar.sync.ledger import owners_of
from sidecar.sync.observers import Observers
from sidecar.sync.results import BackupResult, SyncResult
from sidecar.sync.shared_store import SharedStore
from sidecar.sync.threads import in_thread

# How long one operation goes on trying without progress; then the loops try again, ever more slowly.
OUTAGE_SECONDS = 10.0
CLOCK_SECONDS = 10.0


def connect(settings: Settings) -> Store:
    """The store for a process that lives long."""
    return Store.connect(settings, outage_seconds=OUTAGE_SECONDS, lasting=True)


class ClaudeSyncManager:
    """Keeps the ``.claude`` directories of all connected users in step with their areas.

    Parameters
    ----------
    settings: with no bucket every operation answers ``disabled``.
    connect: gives the store, once, in a worker thread; a failed connection is tried again.
    observers: called on the event loop after each operation.
    """

    def __init__(
        self,
        settings: Settings,
        connect: Callable[[Settings], Store] = connect,
        observers: Observers | None = None,
    ) -> None:
        self._settings = settings
        self._observers = observers or Observers()
        self._shared = SharedStore(settings, connect, self._observers.store)
        self._interval = Interval(settings.interval_minutes, self._synced_users)
        self._users: dict[str, ConnectedUser] = {}
        self._loop_task: asyncio.Task[None] | None = None
        self._clock_task: asyncio.Task[None] | None = None
        self._drain = Drain(settings.grace_seconds)
        self._renewal: asyncio.Task[None] | None = None
        self._owners: frozenset[str] = frozenset()

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
        self._owners = await in_thread(self._find_owners, "find-owners")
        self._loop_task = asyncio.create_task(self._interval.loop(), name="backup-loop")
        self._clock_task = asyncio.create_task(self._look_at_the_clock(), name="unsynced-clock")
        log.info("Background backup task started")

    def _find_owners(self) -> frozenset[str]:
        """Whose files the one home holds, by the ledgers of an earlier life of this container."""
        if self._settings.serves_many_users:
            return frozenset()
        try:
            found = Path(self._settings.home).stat()
            return frozenset(owners_of(self._settings.state_dir, (found.st_dev, found.st_ino)))
        except (OSError, SidecarError):
            return frozenset()  # the first sync meets the same and says it

    async def stop(self) -> None:
        """End the interval backups and close every home; what is not backed up stays in it."""
        if self._loop_task:
            log.info("Stopping background backup task...")
            tasks = [task for task in (self._loop_task, self._clock_task) if task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._loop_task = None
            log.info("Background backup task stopped")
        for user in self._users.values():
            await user.close()

    async def _look_at_the_clock(self) -> None:
        """Bytes that wait for too long are said also while nothing fails, or while it takes its time to."""
        while True:
            await asyncio.sleep(CLOCK_SECONDS)
            for user in self._users.values():
                user.books.look_at_the_clock()

    def root_tasks(self) -> tuple[asyncio.Task[None], ...]:
        """The tasks without which this process does not do its work."""
        tasks = [self._loop_task, self._clock_task, *(user.root_task() for user in self._users.values())]
        return tuple(task for task in tasks if task)

    # -- operations

    async def ensure_initial_sync(self, user_id: str) -> SyncResult:
        """Restore, upload or start fresh: one run however many callers, tried again after a failure."""
        user = self._users.get(user_id)
        if user and user.books.synced:
            return user.books.synced
        if not self._settings.bucket:
            return SyncResult(user_id, synced=False, action="disabled", hint=BUCKET_NOT_CONFIGURED)
        try:
            user = user or self._admit(user_id)
        except SidecarError as error:
            return failed(user_id, error)
        if user.syncing is None:
            user.syncing = asyncio.create_task(self._first_sync(user), name="initial-sync")
        return await asyncio.shield(user.syncing)

    async def _first_sync(self, user: ConnectedUser) -> SyncResult:
        try:
            result = await user.first_sync()
        finally:
            user.syncing = None
        if result.kind == UserError.kind:  # somebody else's home, or no name: it does not hold the place
            self._users.pop(user.user_id, None)
        return result

    async def backup_user_claude_dir(self, user_id: str) -> BackupResult:
        """A checkpoint of `user_id`, who must have had an initial sync."""
        user = self._users.get(user_id)
        return await user.back_up() if user and user.books.synced else self._not_synced(user_id)

    async def flush(self, user_id: str) -> BackupResult:
        """Make everything of `user_id` durable now: in the journal, or by a checkpoint without one."""
        user = self._users.get(user_id)
        return await user.flush() if user and user.books.synced else self._not_synced(user_id)

    def _not_synced(self, user_id: str) -> BackupResult:
        if not self._settings.bucket:
            return BackupResult(user_id, durable=False, error=BUCKET_NOT_CONFIGURED, kind="disabled")
        error = UserError(f"user {user_id} has had no initial sync yet", "POST /invocations first")
        return backup_failed(user_id, error)

    async def restore_user(self, user_id: str) -> SyncResult:
        """Bring what the home of `user_id` lacks of its area, now."""
        first = await self.ensure_initial_sync(user_id)
        user = self._users.get(user_id)
        return await user.restore() if user and user.books.synced else first

    def changed(self, user_id: str | None) -> None:
        """Something was written in this user's home (None: in any): flush soon."""
        for user in self._users.values():
            if user_id in (None, user.user_id) and user.books.synced:
                user.changed()

    def drain(self, reason: str) -> None:
        """The pod began to end: flush on every change, at once. It lapses if the end does not come."""
        if self._drain.notice(reason):
            log.info("Draining: %s", reason)
            # What is left of the pod's life must not end with its credentials.
            self._renewal = asyncio.create_task(self.renew_credentials(at_once=True), name="renewal")
        for user in self._users.values():
            user.changed()
        if self._settings.sync_delay_seconds is None:
            self._interval.want()

    async def renew_credentials(self, *, at_once: bool = False) -> None:
        """Renew the credentials for the bucket if they end soon, or `at_once`; a failure is said once."""
        await self._shared.renew_credentials(at_once=at_once)

    async def last_backup(self, deadline: float) -> list[BackupResult]:
        """Everything durable, then a checkpoint, of every connected user.

        A user whose restore never succeeded is backed up too: what is in the home is compared, never assumed.

        Parameters
        ----------
        deadline: ``time.monotonic()`` seconds; what is not done by then is reported as not durable.
        """
        if self._loop_task:
            self._loop_task.cancel()
        users = self._users_at_the_end()
        for user in users:
            user.operations.in_a_hurry(deadline - time.monotonic())
        tasks = [asyncio.create_task(user.ending.last_backup(deadline), name="last-backup") for user in users]
        if not tasks:
            return []
        await asyncio.wait(tasks, timeout=max(0.0, deadline - time.monotonic()))
        outcomes = (user.ending.outcome(task) for user, task in zip(users, tasks, strict=True))
        return list(await asyncio.gather(*outcomes))

    def _users_at_the_end(self) -> list[ConnectedUser]:
        """The connected users, and those whose files the home holds though nobody asked for them yet."""
        fixed = self._settings.user_id
        if self._settings.bucket:
            for user_id in self._owners.union({fixed} if fixed else ()) - self._users.keys():
                with contextlib.suppress(UserError):
                    self._admit(user_id)
        return list(self._users.values())

    # -- what is known

    @property
    def drained_at(self) -> float:
        """When the notice of the end came (``time.monotonic()`` seconds); 0 if none is in force."""
        return self._drain.noticed_at

    def durable_at(self) -> float:
        """When all users' files were last known to be in the bucket, in seconds since the epoch; 0: never."""
        return min((user.books.durable_at for user in self._users.values()), default=0.0)

    def oldest_unsynced_at(self) -> float:
        """Since when the oldest byte is not durable, in seconds since the epoch; 0: everything is."""
        return min(
            (u.books.unsynced_since for u in self._users.values() if u.books.unsynced_since), default=0.0
        )

    def users(self) -> tuple[str, ...]:
        """All users that have connected, synced or not, and whose files the one home holds already."""
        return tuple(self._owners.union(self._users))

    def get_stats(self) -> dict[str, Any]:
        """Counts and states; the first five names are a promise to callers."""
        settings, users = self._settings, self._users.values()
        known: dict[str, Any] = {
            "synced_user_count": sum(1 for user in users if user.books.synced),
            "backup_running": self._loop_task is not None and not self._loop_task.done(),
            "backup_interval_minutes": settings.interval_minutes,
            "bucket_name": settings.bucket,
            "s3_prefix": settings.prefix,
            "draining": self._drain.reason or None,
            "journal_enabled": all(user.flushing.by_itself for user in users),
            "watching": all(user.watching for user in users),
            "users": {user.user_id: user.stats() for user in users},
        }
        if store := self._shared.store:
            known["credentials_end_at"] = store.credentials_end_at
            known["conditions_honoured"] = not self._shared.weak_guard
            known["engine"] = {"name": settings.engine, **store.carried}
            known["requests"] = {
                name: {"requests": flow.requests, "sent": flow.bytes_sent, "received": flow.bytes_received}
                for name, flow in store.requests.items()
            }
        return known

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Ready when every connected user is restored or known fresh."""
        if not self._settings.bucket:
            return True, {"reason": BUCKET_NOT_CONFIGURED}
        guard: dict[str, Any] = {"guard": weak} if (weak := self._shared.weak_guard) else {}
        fixed = self._settings.user_id
        if fixed and fixed not in self._users:
            return False, {"reason": f"the restore of user {fixed} has not begun", **guard}
        waiting = [user for user in self._users.values() if not user.books.synced]
        guard.update(self._unreadable())
        if not waiting:
            return True, {"reason": "every connected user is restored or known fresh", **guard}
        last = waiting[0].books.last_sync
        why = f": {last.error}" if last and last.error else ""
        reason = f"{len(waiting)} users are not restored yet{why}"
        return False, {"reason": reason, "hint": last.hint if last else None, **guard}

    def _unreadable(self) -> dict[str, Any]:
        """What of the homes cannot be read, and what to set; nothing where all can be."""
        found = [one for user in self._users.values() for one in user.books.unreadable]
        if not found:
            return {}
        return {
            "unreadable_files": len(found),
            "unreadable": [one.path for one in found[:20]],
            "unreadable_hint": found[0].reason,
        }

    def liveness(self) -> tuple[bool, dict[str, Any]]:
        """Alive while the root tasks run and no operation is stuck; a bucket that is away does not count."""
        for task in self.root_tasks():
            if task.done():
                return False, {"reason": f"the task {task.get_name()} ended"}
        moved_at = self._shared.store.moved_at if self._shared.store else 0.0
        for user in list(self._users.values()):
            if ailment := user.ailment(time.monotonic(), moved_at):
                return False, {"reason": ailment}
        return True, {"reason": "all root tasks run"}

    def started(self) -> tuple[bool, dict[str, Any]]:
        """Started as soon as the loop runs, whatever the bucket does."""
        if not self._settings.bucket or self._loop_task:
            return True, {"reason": "started"}
        return False, {"reason": "the backup loop has not begun"}

    # -- the work

    def _admit(self, user_id: str) -> ConnectedUser:
        settings = self._settings
        AreaKeys(settings.prefix, user_id)
        if settings.user_id and user_id != settings.user_id:
            raise UserError(f"this pod serves user {settings.user_id} only", "send that user's token")
        if self._users and not settings.serves_many_users:
            raise UserError(
                "this home serves one user, and another one is connected",
                "put {user_id} into CLAUDE_SIDECAR_HOME to give each user a directory",
            )
        user = ConnectedUser(
            user_id, settings, self._shared.connected, self._observers, self._interval.want, self._drain
        )
        self._users[user_id] = user
        return user

    def _synced_users(self) -> list[ConnectedUser]:
        return [user for user in self._users.values() if user.books.synced]
