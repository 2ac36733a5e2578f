"""One user's flushes by themselves: the watch, the delay, the pace; and those that somebody asks for."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable

from sidecar.errors import SidecarError
from sidecar.home.watch import Watch
from sidecar.sync.books import Books
from sidecar.sync.drain import Drain
from sidecar.sync.flusher import Changes, Flusher
from sidecar.sync.initial import backup_failed
from sidecar.sync.missed import SETTLE_SECONDS, Missed
from sidecar.sync.observers import Observers
from sidecar.sync.operations import Operations, undisturbed
from sidecar.sync.pace import Pace
from sidecar.sync.results import BackupResult
from sidecar.sync.threads import in_thread

# A journal that has grown long is folded ahead of the interval: two checkpoints (the second one removes what
# the first one found in the objects) in this time at most.
EARLY_SECONDS = 30.0


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
        drain: Drain,
    ) -> None:
        self.flusher: Flusher | None = None
        self.watch: Watch | None = None
        self.task: asyncio.Task[None] | None = None
        self.pace = Pace()
        self._operations = operations
        self._books = books
        self._observers = observers
        self._checkpoint = checkpoint
        self._checkpoint_wanted = checkpoint_wanted
        self._drain = drain
        self._delay_seconds = operations.settings.sync_delay_seconds
        self._dirty = asyncio.Event()
        self._dirty_at = 0.0
        self._early: deque[float] = deque(maxlen=2)
        self._warming: asyncio.Task[None] | None = None
        self.missed: Missed | None = None
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
            self.flusher = Flusher(workspace, self._books.found)

            def on_change() -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(self._on_change)

            self.watch = await in_thread(
                lambda: Watch.start(workspace.home, workspace.rules, on_change), "arm-watch"
            )
            self.missed = Missed(workspace, self.watch.telling, lambda: self._settle_seconds)
            self._on_change()
            self.task = asyncio.create_task(self._loop(), name="flush-loop")
            self.warm()
        self.changed()

    @property
    def _settle_seconds(self) -> float:
        return max(SETTLE_SECONDS, self.watch.longest_seconds) if self.watch else SETTLE_SECONDS

    def _on_change(self) -> None:
        """The watch saw something, or gave way to rounds of looking."""
        self._touch()
        reason = self.watch.fallback_reason if self.watch else ""
        if reason and reason != self._fallback_told:
            self._observers.fell_back(reason)
        self._fallback_told = reason

    def changed(self) -> None:
        """Something was written, nobody knows where: the next flush looks at everything."""
        self._look_everywhere = True
        self._touch()

    def _touch(self) -> None:
        if not self._dirty.is_set():
            self._dirty_at = time.monotonic()
        self._dirty.set()

    async def _loop(self) -> None:
        """Flush after the delay, counted from the first unflushed byte."""
        while True:
            await self._dirty.wait()
            self._books.wrote()
            await self._delay()
            self._dirty.clear()
            if self.by_itself or self._drain.active:  # else the intervals do the work
                await self.flush(everything=False)

    async def _delay(self) -> None:
        delay = 0.0 if self._drain.active else self._delay_seconds or 0.0
        seconds = self.pace.seconds(max(delay, 0.02), random.random())  # noqa: S311
        end = self._dirty_at + seconds
        while time.monotonic() < end and not (self._drain.active and self.pace.factor <= 1.0):
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
            self._touch()
        if not flusher.enabled or (flusher.is_long and self._is_early_due()):
            self._checkpoint_wanted()
        return result

    def _is_early_due(self) -> bool:
        """Whether a checkpoint may come early. A journal that cannot be folded must not ask for ever."""
        now = time.monotonic()
        if len(self._early) == self._early.maxlen and now - self._early[0] < EARLY_SECONDS:
            return False
        self._early.append(now)
        return True

    def warm(self) -> None:
        """Read ahead what a flush of sleeping transcripts would have to read: the end has no time for it."""
        if self.flusher and not self.denied and (self._warming is None or self._warming.done()):
            self._warming = asyncio.create_task(self._warm(self.flusher), name="warm")

    async def _warm(self, flusher: Flusher) -> None:
        for path, size, digest in await in_thread(flusher.cold, "find-cold"):
            tail = await in_thread(
                lambda: flusher.read_ahead(path, size, digest, self._operations.is_ending),  # noqa: B023
                "read-ahead",
            )
            if tail is None:
                continue
            async with self._operations.flush_lock:
                flusher.warm(path, tail)

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
                with operations.going_first():
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
            self.flusher = Flusher(workspace, self._books.found)

    async def close(self) -> None:
        """End the loop and the watch."""
        tasks = [task for task in (self.task, self._warming) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        watch, self.watch = self.watch, None
        if watch:
            await in_thread(watch.stop, "stop-watch")
