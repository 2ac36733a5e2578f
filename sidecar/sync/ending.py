"""The end of a pod, for one user: a flush first, then a checkpoint while there is time, then the end mark."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from sidecar.errors import SidecarError
from sidecar.logs import log
from sidecar.sync.books import Books
from sidecar.sync.flusher import Flusher
from sidecar.sync.flushing import Flushing
from sidecar.sync.operations import Operations
from sidecar.sync.results import BackupResult
from sidecar.sync.threads import in_thread

# Kept back from the last checkpoint for the end mark, and the longest look for what is not durable.
END_MARK_SECONDS = 0.4
LOOK_SECONDS = 0.5

Checkpoint = Callable[[Callable[[], bool]], Awaitable[BackupResult]]


class Ending:
    """`last_backup` is called once; `unfinished` if it did not return in time."""

    def __init__(
        self, operations: Operations, flushing: Flushing, books: Books, checkpoint: Checkpoint
    ) -> None:
        self._operations = operations
        self._flushing = flushing
        self._books = books
        self._checkpoint = checkpoint

    async def last_backup(self, deadline: float) -> BackupResult:
        """A flush first, everything durable; then a checkpoint while there is time; then the end mark.

        `deadline`: ``time.monotonic()`` seconds. What a failed flush left is tried again until then.
        """
        self._operations.ending = True
        if self._flushing.task:
            self._flushing.task.cancel()
        await self._pass_a_stuck_flush((deadline - time.monotonic()) / 3)
        result = await self._flush_until(deadline)
        checkpoint = asyncio.ensure_future(self._checkpoint(lambda: time.monotonic() >= deadline))
        reserve = END_MARK_SECONDS if result.durable else 0.0
        await asyncio.wait((checkpoint,), timeout=deadline - time.monotonic() - reserve)
        if checkpoint.done() and (not result.durable or checkpoint.result().durable):
            result = checkpoint.result()
        flusher = self._flushing.flusher
        if flusher and flusher.enabled and result.durable:
            with contextlib.suppress(TimeoutError):
                remaining = deadline - time.monotonic() - 0.1
                await asyncio.wait_for(self._say_ended(flusher), max(0.0, remaining))
        return result

    async def _pass_a_stuck_flush(self, seconds: float) -> None:
        """A flush that hangs must not take the last seconds."""
        lock = self._operations.flush_lock
        try:
            await asyncio.wait_for(lock.acquire(), max(0.0, seconds))
            lock.release()
        except TimeoutError:
            self._flushing.pass_stuck()

    async def _flush_until(self, deadline: float) -> BackupResult:
        if not self._flushing.by_itself or self._flushing.flusher is None:
            return BackupResult(self._operations.user_id, durable=False)
        pause = 0.1
        while True:
            result = await self._flushing.flush(everything=True)
            if result.durable or time.monotonic() + pause >= deadline:
                return result
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    async def _say_ended(self, flusher: Flusher) -> None:
        try:
            await self._operations.run(lambda _: flusher.say_ended(), "end-mark")
        except SidecarError as error:
            log.warning("The end mark was not written; the next pod waits a moment for this one: %s", error)

    async def unfinished(self) -> BackupResult:
        """What is not durable when time is up; asks only the home and the ledger, and not for long."""
        last, flusher = self._books.last_flush, self._flushing.flusher
        pending = last.pending if last and not last.durable else ()
        if flusher and not pending:
            with contextlib.suppress(TimeoutError, SidecarError):
                pending = await asyncio.wait_for(in_thread(flusher.unflushed, "look"), LOOK_SECONDS)
        return BackupResult(
            self._operations.user_id,
            durable=False,
            pending=pending,
            unsynced_bytes=sum(entry.size_bytes for entry in pending),
            error="the grace period ended before the last backup did",
            kind="deadline",
            hint="raise terminationGracePeriodSeconds, or look why the bucket is slow",
        )
