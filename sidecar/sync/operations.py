"""The operations on one user's home: which may run side by side, and which one is stuck.

A checkpoint and a flush may run side by side (rule 18); a restore runs alone. Each runs in a thread of its
own; the workspace is opened by the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from sidecar.area.store import Store
from sidecar.settings import Settings
from sidecar.sync.threads import in_thread
from sidecar.sync.workspace import Workspace

T = TypeVar("T")

# An operation is stuck when no request of anybody was answered for so long: each has a time limit of its own,
# and a bucket that is away ends each attempt. The second is for one that hangs while others go on; the first
# backup of a large home takes hours, and may.
STUCK_SECONDS = 1800.0
HOPELESS_SECONDS = 8 * 3600.0
# A flush takes a fraction of a second; behind one that takes longer a checkpoint still goes on, file by file.
GIVE_WAY_SECONDS = 3.0


class Operations:
    """Coroutines, to be called on one event loop.

    ``ending``: the pod ends: a restore and an interval's checkpoint stop at the next file.
    """

    def __init__(
        self, user_id: str, settings: Settings, connected: Callable[[str], Awaitable[Store]]
    ) -> None:
        self.user_id = user_id
        self.settings = settings
        self.workspace: Workspace | None = None
        self.checkpoint_lock = asyncio.Lock()
        self.flush_lock = asyncio.Lock()
        self.ending = False
        self._connected = connected
        self._busy: dict[str, float] = {}
        self._no_flush = threading.Event()
        self._no_flush.set()

    async def alone(self, operation: Callable[[Workspace], T], name: str) -> T:
        """Run `operation` while no other one runs."""
        async with self.checkpoint_lock, self.flush_lock:
            return await self.run(operation, name)

    async def run(self, operation: Callable[[Workspace], T], name: str) -> T:
        """Run `operation` in a thread of that name; the caller holds the lock that it needs."""
        self._busy[name] = time.monotonic()
        try:
            store = await self._connected(self.user_id)

            def work() -> T:
                if self.workspace is None:
                    self.workspace = Workspace.open(self.settings, store, self.user_id, live=True)
                return operation(self.workspace)

            return await in_thread(work, name)
        finally:
            self._busy.pop(name, None)

    def ailment(self, now: float, moved_at: float) -> str:
        """Which operation is stuck, as half a sentence; empty while all is well.

        Parameters
        ----------
        now, moved_at: this moment, and when a request was last answered (``time.monotonic()`` seconds).
        """
        for name, since in list(self._busy.items()):
            if now - since > HOPELESS_SECONDS or now - max(since, moved_at) > STUCK_SECONDS:
                return f"the {name} does not end, begun {now - since:.0f} s ago"
        return ""

    @contextlib.contextmanager
    def going_first(self) -> Iterator[None]:
        """While a flush is under way: a checkpoint begins no file."""
        self._no_flush.clear()
        try:
            yield
        finally:
            self._no_flush.set()

    def give_way(self) -> None:
        """Called between two files of a checkpoint: wait for a flush under way, unless it hangs."""
        if not self.ending:
            self._no_flush.wait(GIVE_WAY_SECONDS)

    def is_ending(self) -> bool:
        """For whoever asks between two files."""
        return self.ending

    def in_a_hurry(self, remaining_seconds: float) -> None:
        """The end is near: a request gives up early enough for what failed to be tried again, or named."""
        if self.workspace:
            patience = max(0.5, min(remaining_seconds / 3, 5.0))
            self.workspace.store = self.workspace.store.within(patience)

    def close(self) -> None:
        """Give the ledger back, unless an operation that cannot be stopped still uses it."""
        if self.workspace and not self._busy:
            self.workspace.close()
            self.workspace = None


async def undisturbed(operation: Coroutine[Any, Any, T]) -> T:
    """`operation`, which goes on to its end, its lock held, should the caller be cancelled.

    Its thread cannot be cancelled: a second flush beside it would count its lines twice.
    """
    return await asyncio.shield(asyncio.create_task(operation))
