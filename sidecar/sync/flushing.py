"""One user's flushes by themselves: the watch, the delay, the pace; and those that somebody asks for."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from sidecar.errors import SidecarError
from sidecar.home.watch import Watch
from sidecar.sync.books import Books
from sidecar.sync.flusher import Changes, Flusher
from sidecar.sync.initial import backup_failed
from sidecar.sync.observers import Observers
from sidecar.sync.operations import Operations, undisturbed
from sidecar.sync.pace import Pace
from sidecar.sync.results import BackupResult
from sidecar.sync.threads import in_thread


class Flushing:
    """The flushes of one home, from `begin` to `close`; coroutines, to be called on one event loop.

    Parameters
    ----------
    checkpoint: makes everything durable where the journal may not be written.
    checkpoint_wanted: called when the journal has grown long, or turned out to be denied.
    """

    def __init__(
        self,
        operations: Operations,
        books: Books,
        observers: Observers,
        checkpoint: Callable[[], Awaitable[BackupResult]],
        checkpoint_wanted: Callable[[], None],
    ) -> None:
        self.flusher: Flusher | None = None
        self.watch: Watch | None = None
        self.task: asyncio.Task[None] | None = None
        self.pace = Pace()
        self.draining = False
        self._operations = operations
        self._books = books
        self._observers = observers
        self._checkpoint = checkpoint
        self._checkpoint_wanted = checkpoint_wanted
        self._delay_seconds = operations.settings.sync_delay_seconds
        self._dirty = asyncio.Event()
        self._look_everywhere = False
        self._fallback_told = ""

    @property
    def by_itself(self) -> bool:
        """Whether changes go to the journal within seconds; otherwise the interval does the work."""
        return self._delay_seconds is not None and (self.flusher is None or self.flusher.enabled)

    @property
    def dirty(self) -> bool:
        """Whether anything changed since the last flush began to look."""
        return self._dirty.is_set()

    @property
    def denied(self) -> bool:
        """Whether the bucket's policy turned out to know no journal."""
        return self.flusher is not None and not self.flusher.enabled

    async def begin(self) -> None:
        """Arm the watch and flush from now on; the home has had its first sync. Again: look everywhere."""
        workspace = self._operations.workspace
        if self._delay_seconds is None or workspace is None:
            return
        if self.task is None:
            loop = asyncio.get_running_loop()
            self.flusher = Flusher(workspace)

            def on_change() -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(self._on_change)

            self.watch = await in_thread(
                lambda: Watch.start(workspace.home, workspace.rules, on_change), "arm-watch"
            )
            self._on_change()
            self.task = asyncio.create_task(self._loop(), name="flush-loop")
        self.changed()

    def _on_change(self) -> None:
        """The watch saw something, or gave way to rounds of looking."""
        self._dirty.set()
        reason = self.watch.fallback_reason if self.watch else ""
        if reason and reason != self._fallback_told:
            self._observers.fell_back(reason)
        self._fallback_told = reason

    def changed(self) -> None:
        """Something was written, nobody knows where: the next flush looks at everything."""
        self._look_everywhere = True
        self._dirty.set()

    async def _loop(self) -> None:
        """Flush after the delay, counted from the first unflushed byte."""
        while True:
            await self._dirty.wait()
            if not self._books.unsynced_since:
                self._books.unsynced_since = time.time()
            await self._delay()
            self._dirty.clear()
            if self.by_itself or self.draining:  # else the intervals do the work
                await self.flush(everything=False)

    async def _delay(self) -> None:
        delay = 0.0 if self.draining else self._delay_seconds or 0.0
        seconds = self.pace.seconds(max(delay, 0.02), random.random())  # noqa: S311
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (self.draining and self.pace.factor <= 1.0):
            await asyncio.sleep(min(0.05, max(0.0, end - time.monotonic())))

    async def flush(self, *, everything: bool) -> BackupResult:
        """Make durable what the watch saw since the last flush, or look at `everything`."""
        flusher = self.flusher
        if flusher is None or not flusher.enabled:
            return await self._checkpoint()
        begun_at, result = await undisturbed(self._flush_once(flusher, everything))
        books = self._books
        books.last_flush = result
        books.flushes += 1
        self._observers.flushed(result)
        # A denial is said as the journal's; a checkpoint follows at once.
        books.note(result, begun_at, dirty=self.dirty, said=self.denied)
        self.pace = self.pace.relaxed() if result.durable else self.pace.stretched()
        if not result.durable:
            self._dirty.set()
        if flusher.is_long or not flusher.enabled:
            self._checkpoint_wanted()
        return result

    async def _flush_once(self, flusher: Flusher, everything: bool) -> tuple[float, BackupResult]:
        operations = self._operations
        async with operations.flush_lock:
            begun_at = time.time()
            self._dirty.clear()
            changes: Changes | None = self.watch.take() if self.watch else None
            if everything or self._look_everywhere:
                changes = None
            self._look_everywhere = False
            try:
                return begun_at, await operations.run(lambda _: flusher.flush(changes), "flush")
            except SidecarError as error:
                self._look_everywhere = True
                return begun_at, backup_failed(operations.user_id, error)
            except BaseException:
                self._look_everywhere = True  # what the watch told is not lost with the error
                raise

    def pass_stuck(self) -> None:
        """Go on beside a flush that hangs, counting lines anew."""
        workspace = self._operations.workspace
        self._operations.flush_lock = asyncio.Lock()
        if workspace and not self.denied and self.flusher:
            self.flusher = Flusher(workspace)

    async def close(self) -> None:
        """End the loop and the watch."""
        if self.task:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        watch, self.watch = self.watch, None
        if watch:
            await in_thread(watch.stop, "stop-watch")
