"""The end of a pod, for one user: a flush first, then a checkpoint while there is time, then the end mark."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from sidecar.errors import HomeError, SidecarError
from sidecar.logs import log
from sidecar.sync.books import Books
from sidecar.sync.flusher import Flusher
from sidecar.sync.flushing import Flushing
from sidecar.sync.initial import backup_failed
from sidecar.sync.operations import Operations
from sidecar.sync.results import BackupResult, Unsynced
from sidecar.sync.threads import in_thread
from sidecar.sync.tombstones import UserForgotten, recall
from sidecar.sync.unsynced import unsynced

# Kept back from the last checkpoint for the end mark, two requests; and the longest look for what is not
# durable.
END_MARK_SECONDS = 0.6
LOOK_SECONDS = 0.5
NOT_IN_TIME = "the bucket did not take it in time"

Checkpoint = Callable[[Callable[[], bool]], Awaitable[BackupResult]]


class Ending:
    """`last_backup` is called once, in a task; `outcome` tells what it came to."""

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
        checkpoint = asyncio.create_task(self._checkpoint_until(deadline, once=result.durable))
        reserve = END_MARK_SECONDS if result.durable else 0.0
        await asyncio.wait((checkpoint,), timeout=deadline - time.monotonic() - reserve)
        if checkpoint.done():
            result = _better(result, checkpoint)
        flusher = self._flushing.flusher
        if flusher and flusher.enabled and result.durable:
            with contextlib.suppress(TimeoutError):
                remaining = deadline - time.monotonic() - 0.1
                forgotten = await asyncio.wait_for(self._say_ended(flusher), max(0.0, remaining))
                result = forgotten or result
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
        """Flush until all is durable, time is up, or the bucket's policy turns out to know no journal."""
        result = BackupResult(self._operations.user_id, durable=False)
        pause = 0.1
        while self._flushing.by_itself and self._flushing.flusher:
            try:
                result = await self._flushing.flush(everything=True)
            except Exception:
                log.exception("The last flush broke; the checkpoint remains")
                return result
            if result.durable or time.monotonic() + pause >= deadline:
                return result
            if self._flushing.by_itself:
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
        return result

    async def _checkpoint_until(self, deadline: float, *, once: bool) -> BackupResult:
        """A checkpoint; tried again where it is not `once` and trying again may help."""
        pause = 0.2
        while True:
            result = await self._checkpoint(lambda: time.monotonic() >= deadline)
            helpless = result.error and not result.outage
            if once or result.durable or helpless or time.monotonic() + pause >= deadline:
                return result
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    async def _say_ended(self, flusher: Flusher) -> BackupResult | None:
        """Write the end mark; what became of the backup where the user turned out to be forgotten."""
        try:
            await self._operations.run(lambda _: flusher.say_ended(), "end-mark")
        except UserForgotten as error:
            return backup_failed(self._operations.user_id, error)
        except SidecarError as error:
            log.warning("The end mark was not written; the next pod waits a moment for this one: %s", error)
        return None

    # -- what is said of it

    async def outcome(self, last: asyncio.Task[BackupResult]) -> BackupResult:
        """What `last`, the task of `last_backup`, came to; what is not durable is named in any case."""
        if not last.done():
            return await self._named(_too_late(self._operations.user_id))
        problem = last.exception()
        if problem:
            log.error("The last backup broke: %r", problem, exc_info=problem)
            return await self._named(_broken(self._operations.user_id, problem))
        return last.result() if last.result().durable else await self._named(last.result())

    async def _named(self, result: BackupResult) -> BackupResult:
        """`result` with what is not durable: by itself, by the last flush, and by a short look at the home.

        A checkpoint names what is in no object; the look knows what the journal has of it. Where nobody names
        anything, all is durable, whatever of the last backup was cut off; but not where the home could not be
        used: what may not be read in it looks like nothing. Nor where the user was forgotten.
        """
        last, begun_at = self._books.last_flush, self._books.clock()
        told = result.pending or (last.pending if last and not last.durable else ())
        seen: tuple[Unsynced, ...] | None = None
        with contextlib.suppress(TimeoutError, SidecarError):
            seen = await asyncio.wait_for(in_thread(self._look, "look"), LOOK_SECONDS)
        if seen == () and not told and result.kind != HomeError.kind:
            log.info("Every file was in the bucket when the last backup was cut off: %s", result.error)
            whole = replace(result, durable=True, error=None, kind=None, hint=None)
            self._books.note(whole, begun_at, dirty=False)
            return whole
        looked = seen or ()
        left = {entry.path for entry in looked}
        pending = tuple(entry for entry in told if entry.path in left) or told or looked
        size = sum(entry.size_bytes for entry in pending)
        self._books.behind(pending, self._books.durable_at or self._books.begun_at, said=True)
        return replace(
            result,
            pending=pending,
            unsynced_bytes=size,
            error=result.error or (None if pending else "what is not durable could not be told"),
        )

    def _look(self) -> tuple[Unsynced, ...]:
        operations = self._operations
        if operations.workspace:
            recall(operations.workspace)
        return unsynced(operations.settings, operations.user_id, operations.workspace, NOT_IN_TIME)


def _better(flushed: BackupResult, checkpoint: asyncio.Future[BackupResult]) -> BackupResult:
    """Of the last flush and the last checkpoint the one that made more durable."""
    problem = checkpoint.exception()
    if problem is None and checkpoint.result().kind == UserForgotten.kind:
        return checkpoint.result()  # a flush does not ask, and wrote into an area that was erased
    if problem is None:
        return checkpoint.result() if checkpoint.result().durable or not flushed.durable else flushed
    if not flushed.durable:
        raise problem
    log.error("The last checkpoint broke; the flush before it did not: %r", problem, exc_info=problem)
    return flushed


def _too_late(user_id: str) -> BackupResult:
    return BackupResult(
        user_id,
        durable=False,
        error="the grace period ended before the last backup did",
        kind="deadline",
        hint="raise terminationGracePeriodSeconds, or look why the bucket is slow",
    )


def _broken(user_id: str, problem: BaseException) -> BackupResult:
    return BackupResult(
        user_id,
        durable=False,
        error=f"the last backup broke: {type(problem).__name__}",
        kind="internal",
        hint="the log has the whole error; please report it",
    )
