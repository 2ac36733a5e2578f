"""``claude-sidecar run``: the composition root. One process, named and guarded root tasks, one way to stop.

Phases: listeners up, interval backups, the fixed user's initial sync (tried again for ever), then the wait
for the end. SIGTERM: a last checkpoint within what is left of the grace period, the termination message, and
an exit code that says whether all eligible files are in the bucket. A second SIGTERM ends at once.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from sidecar import memory, termination
from sidecar.api.identity import Verifier
from sidecar.api.listeners import Listeners
from sidecar.api.metrics import Metrics
from sidecar.area.traffic import Listener
from sidecar.beside import Beside
from sidecar.errors import SidecarError
from sidecar.logs import log
from sidecar.settings import Settings
from sidecar.sync.claude_sync_manager import ClaudeSyncManager
from sidecar.sync.observers import Observers
from sidecar.sync.restore_note import taken
from sidecar.sync.results import BackupResult, SyncResult

DONE, FAILED = 0, 1
# Kept back from the grace period for the end itself: the termination message and the exit.
MARGIN_SECONDS = 1.0
# What a sidecar has after its SIGTERM at the least, less the time to write the termination message.
LEAST_SECONDS = 1.5
_RETRY_SECONDS = (2.0, 60.0)
_RENEWAL_SECONDS = 30.0
# What follows an operation frees as well: trimmed at once, 5,000 files leave 2 MiB more.
_TRIM_AFTER_SECONDS = 5.0


def run(settings: Settings, held: Sequence[int] = ()) -> int:
    """Serve until SIGTERM; returns the exit code: 0 only if all eligible files are durable.

    `held`: the signals that came before this could be imported (`termination.hold_signals`).
    """
    return asyncio.run(_Server(settings, held).serve())


Result = TypeVar("Result", SyncResult, BackupResult)


def _and_trim(count: Callable[[Result], None]) -> Callable[[Result], None]:
    """`count`; after an operation that moved something, also the memory that it took goes back."""

    def counted(result: Result) -> None:
        count(result)
        if result.files:
            asyncio.get_running_loop().call_later(_TRIM_AFTER_SECONDS, Beside, memory.trim)

    return counted


class _Server:
    def __init__(self, settings: Settings, held: Sequence[int]) -> None:
        self._settings = settings
        self._held = held
        self._metrics = Metrics()
        observers = Observers(
            synced=_and_trim(self._metrics.restored),
            flushed=self._metrics.flushed,
            checkpointed=_and_trim(self._metrics.checkpointed),
            fell_back=self._metrics.watch_fallback,
            missed=self._metrics.watch_missed,
            store=Listener(self._metrics.s3_answered, self._metrics.s3_moved),
        )
        self._manager = ClaudeSyncManager(settings, observers=observers)
        self._end = asyncio.Event()
        self._reason = ""
        self._root_tasks: set[asyncio.Task[Any]] = set()
        self._died = ""

    async def serve(self) -> int:
        settings = self._settings
        self._catch_signals()
        verifier = Verifier.from_settings(settings)
        listeners = Listeners(settings, self._manager, verifier, self._metrics)
        await listeners.start()
        try:
            await self._manager.start()
            if left := taken(settings.state_dir):
                self._metrics.restored(left[0], partly=left[1])
            self._spawn(self._watch_the_managers_tasks(), "watch-tasks")
            self._spawn(self._keep_credentials_fresh(), "renew-credentials")
            if settings.user_id and settings.bucket:
                self._spawn(self._sync_fixed_user(settings.user_id), "initial-sync-of-the-fixed-user")
            await self._end.wait()
            return await self._finish()
        finally:
            await listeners.stop()

    # -- signals

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number.name)
        if self._held:
            self._on_signal(signal.Signals(self._held[0]).name)

    def _on_signal(self, name: str) -> None:
        if self._end.is_set():
            log.error("%s again: ending at once; what was not backed up is lost with the pod", name)
            os._exit(FAILED)
        log.info("%s: the last backup begins", name)
        self._reason = name
        self._end.set()

    # -- root tasks

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._guard(asyncio.create_task(work, name=name))

    def _guard(self, task: asyncio.Task[Any]) -> None:
        """A root task that dies ends the process, so that Kubernetes starts it again."""
        self._root_tasks.add(task)
        task.add_done_callback(self._on_root_task_end)

    def _on_root_task_end(self, task: asyncio.Task[Any]) -> None:
        self._root_tasks.discard(task)
        if task.cancelled() or not task.exception():
            return
        log.error("The task %s died: %r", task.get_name(), task.exception(), exc_info=task.exception())
        self._died = self._reason = f"the task {task.get_name()} died"
        self._end.set()

    async def _watch_the_managers_tasks(self) -> None:
        """The manager's loops come and go with users: one that died is found within a second."""
        while True:
            for task in self._manager.root_tasks():
                if task.done():
                    self._on_root_task_end(task)
            await asyncio.sleep(1.0)

    async def _keep_credentials_fresh(self) -> None:
        """Also while nothing is written: the next flush must not begin with a token service that is away."""
        while True:
            await asyncio.sleep(_RENEWAL_SECONDS)
            await self._manager.renew_credentials()

    async def _sync_fixed_user(self, user_id: str) -> None:
        pause_seconds, most_seconds = _RETRY_SECONDS
        while not (await self._manager.ensure_initial_sync(user_id)).synced:
            await asyncio.sleep(pause_seconds * random.uniform(0.5, 1))  # noqa: S311
            pause_seconds = min(pause_seconds * 2, most_seconds)

    # -- the end

    async def _finish(self) -> int:
        deadline = self._deadline(time.monotonic())
        for task in list(self._root_tasks):
            task.remove_done_callback(self._on_root_task_end)
            task.cancel()
        results = await self._manager.last_backup(deadline)
        durable = all(result.durable for result in results) and not self._died
        known = termination.Durability(self._manager.durable_at(), self._manager.oldest_unsynced_at())
        data = termination.message(results, known, f"ended by {self._reason}")
        termination.write(self._settings.termination_log, data)
        log.log(20 if durable else 40, "%s", data.split(b"\n", 1)[0].decode())
        await self._stop_manager()
        return DONE if durable else FAILED

    def _deadline(self, now: float) -> float:
        """When to be done: the first notice plus the grace period, less a margin.

        Kubernetes gives a sidecar two seconds after its SIGTERM whatever happened before, so an early notice
        cannot take those away.
        """
        noticed_at = self._manager.drained_at or now
        return max(noticed_at + self._settings.grace_seconds - MARGIN_SECONDS, now + LEAST_SECONDS)

    async def _stop_manager(self) -> None:
        try:
            await asyncio.wait_for(self._manager.stop(), MARGIN_SECONDS)
        except (TimeoutError, SidecarError) as error:
            log.warning("The end was not orderly: %r", error)
