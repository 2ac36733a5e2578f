"""One connected user: the first sync, restores and checkpoints of one home, its flushes and its end.

The home is the only queue: while the bucket is away nothing waits in memory but the names of what changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from sidecar.area.store import Store
from sidecar.errors import SidecarError
from sidecar.logs import log
from sidecar.settings import Settings
from sidecar.sync.access import tell_access, unreadable_of
from sidecar.sync.books import Books
from sidecar.sync.drain import Drain
from sidecar.sync.ending import Ending
from sidecar.sync.flushing import Flushing
from sidecar.sync.initial import backup_failed, backup_home, failed, initial_sync, restore_area
from sidecar.sync.observers import Observers
from sidecar.sync.operations import Operations, undisturbed
from sidecar.sync.results import BackupResult, SyncResult
from sidecar.sync.threads import in_thread
from sidecar.sync.unsynced import unsynced
from sidecar.sync.workspace import Workspace


class ConnectedUser:
    """The operations on one user's home; coroutines, to be called on one event loop."""

    def __init__(
        self,
        user_id: str,
        settings: Settings,
        connected: Callable[[str], Awaitable[Store]],
        observers: Observers,
        checkpoint_wanted: Callable[[], None],
        drain: Drain,
    ) -> None:
        self.user_id = user_id
        self.books = Books(user_id)
        self.syncing: asyncio.Task[SyncResult] | None = None
        self.operations = Operations(user_id, settings, connected)
        self.flushing = Flushing(
            self.operations, self.books, observers, self.back_up, checkpoint_wanted, drain
        )
        self.ending = Ending(self.operations, self.flushing, self.books, lambda stop: self.back_up(stop=stop))
        self._observers = observers

    # -- the first sync and restores

    async def first_sync(self) -> SyncResult:
        """The initial sync; after a success the watch is armed and flushes begin."""
        try:
            result = await self.operations.alone(self._met, "initial-sync")
        except SidecarError as error:
            result = failed(self.user_id, error)
            level = logging.ERROR if self.books.is_news("initial sync", error.kind) else logging.DEBUG
            log.log(level, "Initial sync failed for user %s: %s", self.user_id, error)
            await self._tell_unsynced(error)
        self.books.last_sync = result
        self._observers.synced(result)
        if result.synced:
            self.books.over("initial sync")
            self.books.synced = SyncResult(self.user_id, synced=True, action="already_synced")
            if result.action != "restored":
                self.books.durable_at = time.time()
            self.books.unsynced_bytes = self.books.unsynced_files = 0
            await self.flushing.begin()
        return result

    def _met(self, workspace: Workspace) -> SyncResult:
        if self.books.last_sync is None:
            self.books.unreadable = tell_access(workspace)
        return initial_sync(workspace, stop=self.operations.is_ending)

    async def _tell_unsynced(self, error: SidecarError) -> None:
        """Nothing goes up before the area was read: what is in the home until then is not durable."""
        operations = self.operations
        with contextlib.suppress(SidecarError):
            pending = await in_thread(
                lambda: unsynced(operations.settings, self.user_id, operations.workspace, error.message),
                "look",
            )
            if pending:
                self.books.behind(pending, self.books.begun_at, error.message, said=True)

    async def restore(self) -> SyncResult:
        """Bring what the home lacks of the area, now."""
        operations = self.operations
        try:
            result = await operations.alone(lambda w: restore_area(w, stop=operations.is_ending), "restore")
        except SidecarError as error:
            result = failed(self.user_id, error)
        self.books.last_sync = result
        self._observers.synced(result)
        return result

    # -- checkpoints

    async def back_up(
        self, before: Callable[[], None] = lambda: None, stop: Callable[[], bool] | None = None
    ) -> BackupResult:
        """A checkpoint. `stop`: asked between files; unless it is given, the end of the pod stops it.

        With a `stop` of its own it is the last one: it packs no files.
        """
        begun_at = time.time()
        checkpoint = self._checkpoint(before, stop or self.operations.is_ending, pack=stop is None)
        result = await undisturbed(checkpoint)
        self.books.last_backup = result
        self.books.backups += 1
        if not result.error:  # it looked at every file
            self.books.unreadable = unreadable_of(result.refused)
        self._observers.checkpointed(result)
        self._note(result, begun_at)
        self.flushing.warm()
        return result

    def _note(self, result: BackupResult, begun_at: float) -> None:
        """Keep the books. What no object holds may be in the journal: where there is one, flushes tell."""
        books, flushing = self.books, self.flushing
        journalled = flushing.flusher is not None and flushing.by_itself
        if result.durable or not journalled:
            since = begun_at if result.durable else books.durable_at or books.begun_at
            books.note(result, since, dirty=flushing.dirty)
        elif not self.operations.ending:
            books.failures += 1
            flushing.changed()
        if not result.error:
            books.over("backup")
            return
        said = journalled and result.outage  # by the flushes
        level = logging.WARNING if not said and books.is_news("backup", result.kind or "") else logging.DEBUG
        log.log(level, "Backup failed for user %s: %s", self.user_id, result.error)

    async def _checkpoint(
        self, before: Callable[[], None], stop: Callable[[], bool], *, pack: bool
    ) -> BackupResult:
        operations, missed = self.operations, self.flushing.missed

        def between_files() -> bool:
            operations.give_way()
            return stop()

        def work(workspace: Workspace) -> BackupResult:
            if missed:
                missed.begin()
            return backup_home(
                workspace,
                before=before,
                stop=between_files,
                scanned=missed.scanned if missed else lambda scan: None,
                transcripts_first=operations.ending,
                pack=pack,
            )

        try:
            async with operations.checkpoint_lock:
                result = await operations.run(work, "checkpoint")
                if missed and (paths := missed.end()):
                    self.books.missed(len(paths), paths[0])
                    self._observers.missed(len(paths))
                return result
        except SidecarError as error:
            return backup_failed(self.user_id, error)

    # -- flushes

    async def flush(self) -> BackupResult:
        """Make durable all that was written before this call: every file is looked at."""
        if not self.flushing.by_itself:
            return await self.back_up()
        return await self.flushing.flush(everything=True)

    def changed(self) -> None:
        """Something was written, nobody knows where: the next flush looks at everything."""
        self.flushing.changed()

    # -- what is known, and the end

    def ailment(self, now: float, moved_at: float) -> str:
        """Why nothing of this user will be durable any more, as half a sentence; empty while all is well.

        Parameters
        ----------
        now, moved_at: this moment, and when a request was last answered (``time.monotonic()`` seconds).
        """
        watch = self.flushing.watch
        if watch and not watch.alive and not self.operations.ending:
            return "the watch over the home ended"
        return self.operations.ailment(now, moved_at)

    def root_task(self) -> asyncio.Task[None] | None:
        """The task without which this user's changes wait for the interval; None before it began."""
        return self.flushing.task

    def stats(self) -> dict[str, Any]:
        """For ``get_stats``."""
        workspace, watch = self.operations.workspace, self.flushing.watch
        entries = workspace.ledger.entries().values() if workspace else ()
        return {
            **self.books.stats(),
            "not_restored_files": workspace.ledger.header.not_restored if workspace else 0,
            "journal_entries": len(entries),
            "journal_bytes": sum(entry.size for entry in entries),
            "watch_fallback": watch.fallback if watch else None,
        }

    @property
    def watching(self) -> bool:
        """Whether changes are seen as they happen."""
        watch = self.flushing.watch
        return watch is not None and not watch.fallback

    async def close(self) -> None:
        """End the flush loop and the watch, give the ledger back."""
        await self.flushing.close()
        self.operations.close()
