"""One connected user: the first sync, the watch, flushes and checkpoints of one home, one after another.

A checkpoint and a flush may run side by side (rule 18); a restore runs alone. The home is the only queue:
while the bucket is away nothing waits in memory but the names of what changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sidecar.area.store import Store
from sidecar.area.traffic import Listener
from sidecar.errors import SidecarError
from sidecar.home.watch import Watch
from sidecar.logs import log
from sidecar.settings import Settings
from sidecar.sync.access import tell_access, unreadable_of
from sidecar.sync.flusher import Changes, Flusher
from sidecar.sync.initial import backup_failed, backup_home, failed, initial_sync, restore_area
from sidecar.sync.pace import Pace
from sidecar.sync.results import BackupResult, SyncResult, Unsynced
from sidecar.sync.threads import in_thread
from sidecar.sync.workspace import Workspace

T = TypeVar("T")

# A flush that fails is said once, and then once an hour: an outage of a night is ten lines, not ten thousand.
SAY_AGAIN_SECONDS = 3600.0
# An operation is stuck when no request of anybody was answered for so long: each has a time limit of its own,
# and a bucket that is away ends each attempt. The second is for one that hangs while others go on; the first
# backup of a large home takes hours, and may.
STUCK_SECONDS = 1800.0
HOPELESS_SECONDS = 8 * 3600.0
# Kept back from the last checkpoint for the end mark, and the longest look for what is not durable.
END_MARK_SECONDS = 0.4
LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Observers:
    """Whoever counts: called on the event loop after each operation; ``store`` from any thread."""

    synced: Callable[[SyncResult], None] = lambda result: None
    flushed: Callable[[BackupResult], None] = lambda result: None
    checkpointed: Callable[[BackupResult], None] = lambda result: None
    fell_back: Callable[[str], None] = lambda reason: None
    store: Listener = field(default_factory=Listener)


@dataclass(slots=True)
class State:
    """What is known of the user's sync; times are seconds since the epoch, 0 means never."""

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


class ConnectedUser:
    """The operations on one user's home; coroutines, to be called on one event loop."""

    def __init__(
        self,
        user_id: str,
        settings: Settings,
        connected: Callable[[str], Awaitable[Store]],
        observers: Observers,
        checkpoint_wanted: Callable[[], None],
    ) -> None:
        self.user_id = user_id
        self.state = State()
        self.syncing: asyncio.Task[SyncResult] | None = None
        self.flush_task: asyncio.Task[None] | None = None
        self.draining = False
        self._settings = settings
        self._connected = connected
        self._observers = observers
        self._checkpoint_wanted = checkpoint_wanted
        self._workspace: Workspace | None = None
        self._flusher: Flusher | None = None
        self._watch: Watch | None = None
        self._lock = asyncio.Lock()
        self._flush_lock = asyncio.Lock()
        self._dirty = asyncio.Event()
        self._look_everywhere = False
        self._pace = Pace()
        self._said_at = 0.0
        self._fallback_told = ""
        self._busy: dict[str, float] = {}
        self._ending = False

    # -- the first sync and restores

    async def first_sync(self) -> SyncResult:
        """The initial sync; after a success the watch is armed and flushes begin."""
        try:
            result = await self._alone(self._met, "initial-sync")
        except SidecarError as error:
            result = failed(self.user_id, error)
            log.error("Initial sync failed for user %s: %s", self.user_id, error)
        self.state.last_sync = result
        self._observers.synced(result)
        if result.synced:
            self.state.synced = SyncResult(self.user_id, synced=True, action="already_synced")
            if result.action != "restored":
                self.state.durable_at = time.time()
            await self._begin_flushing()
        return result

    def _met(self, workspace: Workspace) -> SyncResult:
        if self.state.last_sync is None:
            self.state.unreadable = tell_access(workspace)
        return initial_sync(workspace, stop=lambda: self._ending)

    async def restore(self) -> SyncResult:
        """Bring what the home lacks of the area, now."""
        try:
            result = await self._alone(lambda w: restore_area(w, stop=lambda: self._ending), "restore")
        except SidecarError as error:
            result = failed(self.user_id, error)
        self.state.last_sync = result
        self._observers.synced(result)
        return result

    async def _alone(self, operation: Callable[[Workspace], T], name: str) -> T:
        async with self._lock, self._flush_lock:
            return await self._run(operation, name)

    async def _run(self, operation: Callable[[Workspace], T], name: str) -> T:
        self._busy[name] = time.monotonic()
        try:
            store = await self._connected(self.user_id)

            def work() -> T:
                if self._workspace is None:
                    self._workspace = Workspace.open(self._settings, store, self.user_id, live=True)
                return operation(self._workspace)

            return await in_thread(work, name)
        finally:
            self._busy.pop(name, None)

    def ailment(self, now: float, moved_at: float) -> str:
        """Why nothing of this user will be durable any more, as half a sentence; empty while all is well.

        Parameters
        ----------
        now, moved_at: this moment, and when a request was last answered (``time.monotonic()`` seconds).
        """
        if self._watch and not self._watch.alive and not self._ending:
            return "the watch over the home ended"
        for name, since in list(self._busy.items()):
            if now - since > HOPELESS_SECONDS or now - max(since, moved_at) > STUCK_SECONDS:
                return f"the {name} does not end, begun {now - since:.0f} s ago"
        return ""

    # -- checkpoints

    async def back_up(
        self, before: Callable[[], None] = lambda: None, stop: Callable[[], bool] | None = None
    ) -> BackupResult:
        """A checkpoint. `stop`: asked between files; unless it is given, the end of the pod stops it."""
        begun_at = time.time()
        result = await _undisturbed(self._checkpoint(before, stop or (lambda: self._ending)))
        self.state.last_backup = result
        self.state.backups += 1
        if not result.error:  # it looked at every file
            self.state.unreadable = unreadable_of(result.refused)
        self._observers.checkpointed(result)
        self._note(result, begun_at)
        if result.error:
            log.warning("Backup failed for user %s: %s", self.user_id, result.error)
        return result

    async def _checkpoint(self, before: Callable[[], None], stop: Callable[[], bool]) -> BackupResult:
        try:
            async with self._lock:
                return await self._run(lambda w: backup_home(w, before=before, stop=stop), "checkpoint")
        except SidecarError as error:
            return backup_failed(self.user_id, error)

    # -- flushes

    @property
    def flushes_by_itself(self) -> bool:
        """Whether changes go to the journal within seconds; otherwise the interval does the work."""
        return self._settings.sync_delay_seconds is not None and (
            self._flusher is None or self._flusher.enabled
        )

    async def _begin_flushing(self) -> None:
        if self._settings.sync_delay_seconds is None or self._workspace is None:
            return
        if self.flush_task is None:
            workspace, loop = self._workspace, asyncio.get_running_loop()
            self._flusher = Flusher(workspace)

            def on_change() -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(self._on_change)

            self._watch = await in_thread(
                lambda: Watch.start(workspace.home, workspace.rules, on_change), "arm-watch"
            )
            self._on_change()
            self.flush_task = asyncio.create_task(self._flush_loop(), name="flush-loop")
        self.changed()

    def _on_change(self) -> None:
        """The watch saw something, or gave way to rounds of looking."""
        self._dirty.set()
        reason = self._watch.fallback_reason if self._watch else ""
        if reason and reason != self._fallback_told:
            self._observers.fell_back(reason)
        self._fallback_told = reason

    def changed(self) -> None:
        """Something was written, nobody knows where: the next flush looks at everything."""
        self._look_everywhere = True
        self._dirty.set()

    async def _flush_loop(self) -> None:
        """Flush after the delay, counted from the first unflushed byte."""
        while True:
            await self._dirty.wait()
            if not self.state.unsynced_since:
                self.state.unsynced_since = time.time()
            await self._delay()
            self._dirty.clear()
            if self.flushes_by_itself or self.draining:  # else the intervals do the work
                await self.flush_changes()

    async def _delay(self) -> None:
        delay = 0.0 if self.draining else self._settings.sync_delay_seconds or 0.0
        seconds = self._pace.seconds(max(delay, 0.02), random.random())  # noqa: S311
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (self.draining and self._pace.factor <= 1.0):
            await asyncio.sleep(min(0.05, max(0.0, end - time.monotonic())))

    async def flush_changes(self) -> BackupResult:
        """Make durable what the watch saw since the last flush."""
        return await self._flush(everything=False)

    async def flush(self) -> BackupResult:
        """Make durable all that was written before this call: every file is looked at."""
        if not self.flushes_by_itself:
            return await self.back_up()
        return await self._flush(everything=True)

    async def _flush(self, *, everything: bool) -> BackupResult:
        flusher = self._flusher
        if flusher is None or not flusher.enabled:
            return await self.back_up()
        begun_at, result = await _undisturbed(self._flush_once(flusher, everything))
        self.state.last_flush = result
        self.state.flushes += 1
        self._observers.flushed(result)
        self._note(result, begun_at)
        self._pace = self._pace.relaxed() if result.durable else self._pace.stretched()
        if not result.durable:
            self._dirty.set()
        if flusher.is_long or not flusher.enabled:
            self._checkpoint_wanted()
        return result

    async def _flush_once(self, flusher: Flusher, everything: bool) -> tuple[float, BackupResult]:
        async with self._flush_lock:
            begun_at = time.time()
            self._dirty.clear()
            changes: Changes | None = self._watch.take() if self._watch else None
            if everything or self._look_everywhere:
                changes = None
            self._look_everywhere = False
            try:
                return begun_at, await self._run(lambda _: flusher.flush(changes), "flush")
            except SidecarError as error:
                self._look_everywhere = True
                return begun_at, backup_failed(self.user_id, error)
            except BaseException:
                self._look_everywhere = True  # what the watch told is not lost with the error
                raise

    def _note(self, result: BackupResult, begun_at: float) -> None:
        """Keep the books of what is durable, and say what is not."""
        state = self.state
        state.unsynced_bytes, state.unsynced_files = result.unsynced_bytes, len(result.pending)
        if result.durable:
            if self._said_at:
                log.info("The bucket is back: everything of user %s is durable again", self.user_id)
            self._said_at = 0.0
            state.durable_at = max(state.durable_at, begun_at)
            # What made it dirty again came after the look that found all durable.
            state.unsynced_since = max(state.unsynced_since, begun_at) if self._dirty.is_set() else 0.0
            return
        state.failures += 1
        state.unsynced_since = state.unsynced_since or begun_at
        if self._flusher and not self._flusher.enabled and result is state.last_flush:
            return  # said as the journal's denial; a checkpoint follows at once
        if time.monotonic() - self._said_at > SAY_AGAIN_SECONDS or not self._said_at:
            self._said_at = time.monotonic()
            log.warning(
                "%d bytes of user %s are not durable since %d s: %s",
                result.unsynced_bytes,
                self.user_id,
                time.time() - state.unsynced_since,
                result.error or (result.pending[0].reason if result.pending else "for no known reason"),
            )

    # -- the end

    async def last_backup(self, deadline: float) -> BackupResult:
        """A flush first, everything durable; then a checkpoint while there is time; then the end mark.

        `deadline`: ``time.monotonic()`` seconds. What a failed flush left is tried again until then.
        """
        self._ending = True
        if self.flush_task:
            self.flush_task.cancel()
        await self._pass_a_stuck_flush((deadline - time.monotonic()) / 3)
        result = await self._flush_until(deadline)
        checkpoint = asyncio.create_task(self.back_up(stop=lambda: time.monotonic() >= deadline))
        reserve = END_MARK_SECONDS if result.durable else 0.0
        await asyncio.wait((checkpoint,), timeout=deadline - time.monotonic() - reserve)
        if checkpoint.done() and (not result.durable or checkpoint.result().durable):
            result = checkpoint.result()
        if self._flusher and self._flusher.enabled and result.durable:
            with contextlib.suppress(TimeoutError):
                remaining = deadline - time.monotonic() - 0.1
                await asyncio.wait_for(self._say_ended(self._flusher), max(0.0, remaining))
        return result

    async def _pass_a_stuck_flush(self, seconds: float) -> None:
        """A flush that hangs must not take the last seconds: go on beside it, counting lines anew."""
        try:
            await asyncio.wait_for(self._flush_lock.acquire(), max(0.0, seconds))
            self._flush_lock.release()
        except TimeoutError:
            self._flush_lock = asyncio.Lock()
            if self._flusher and self._workspace and self._flusher.enabled:
                self._flusher = Flusher(self._workspace)

    async def unfinished(self) -> BackupResult:
        """What is not durable when time is up; asks only the home and the ledger, and not for long."""
        last, flusher = self.state.last_flush, self._flusher
        pending = last.pending if last and not last.durable else ()
        if flusher and not pending:
            with contextlib.suppress(TimeoutError, SidecarError):
                pending = await asyncio.wait_for(in_thread(flusher.unflushed, "look"), LOOK_SECONDS)
        return BackupResult(
            self.user_id,
            durable=False,
            pending=pending,
            unsynced_bytes=sum(entry.size_bytes for entry in pending),
            error="the grace period ended before the last backup did",
            kind="deadline",
            hint="raise terminationGracePeriodSeconds, or look why the bucket is slow",
        )

    async def _flush_until(self, deadline: float) -> BackupResult:
        if not self.flushes_by_itself or self._flusher is None:
            return BackupResult(self.user_id, durable=False)
        pause = 0.1
        while True:
            result = await self._flush(everything=True)
            if result.durable or time.monotonic() + pause >= deadline:
                return result
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    async def _say_ended(self, flusher: Flusher) -> None:
        try:
            await self._run(lambda _: flusher.say_ended(), "end-mark")
        except SidecarError as error:
            log.warning("The end mark was not written; the next pod waits a moment for this one: %s", error)

    def in_a_hurry(self, remaining_seconds: float) -> None:
        """The end is near: a request gives up early enough for what failed to be tried again, or named."""
        if self._workspace:
            patience = max(0.5, min(remaining_seconds / 3, 5.0))
            self._workspace.store = self._workspace.store.within(patience)

    async def close(self) -> None:
        """End the flush loop and the watch, give the ledger back."""
        if self.flush_task:
            self.flush_task.cancel()
            await asyncio.gather(self.flush_task, return_exceptions=True)
        watch, self._watch = self._watch, None
        if watch:
            await in_thread(watch.stop, "stop-watch")
        if self._workspace and not self._busy:
            self._workspace.close()
            self._workspace = None

    # -- what is known

    def stats(self) -> dict[str, Any]:
        """For ``get_stats``."""
        state, workspace = self.state, self._workspace
        entries = workspace.ledger.entries().values() if workspace else ()
        known: dict[str, Any] = {
            "synced": state.synced is not None,
            "unsynced_bytes": state.unsynced_bytes,
            "unsynced_files": state.unsynced_files,
            "unreadable_files": len(state.unreadable),
            "unreadable": [one.path for one in state.unreadable[:20]],
            "oldest_unsynced_at": state.unsynced_since or None,
            "last_durable_time": state.durable_at or None,
            "not_restored_files": workspace.ledger.header.not_restored if workspace else 0,
            "journal_entries": len(entries),
            "journal_bytes": sum(entry.size for entry in entries),
            "backups": state.backups,
            "flushes": state.flushes,
            "failures": state.failures,
            "watch_fallback": self._watch.fallback if self._watch else None,
            "last_sync": _short(state.last_sync),
            "last_backup": _short(state.last_backup),
            "last_flush": _short(state.last_flush),
        }
        return known

    @property
    def watching(self) -> bool:
        """Whether changes are seen as they happen."""
        return self._watch is not None and not self._watch.fallback


async def _undisturbed(operation: Coroutine[Any, Any, T]) -> T:
    """`operation`, which goes on to its end, its lock held, should the caller be cancelled.

    Its thread cannot be cancelled: a second flush beside it would count its lines twice.
    """
    return await asyncio.shield(asyncio.create_task(operation))


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
