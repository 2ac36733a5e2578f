"""Many callers, few runs: the two ways in which callers share a run of something slow.

A caller who goes away never ends a run: the run is a task of its own, and callers wait behind a shield.
A run's function does not raise; what it returns is the outcome for all who share it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from sidecar.api.refusals import Busy

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

MOST_RUNS = 1000
"""Runs at once of one kind: a bound on what callers who name a new user each time can start."""


class Flights(Generic[K, T]):
    """Who comes while a run is under way gets its outcome: for what is as good begun earlier as now."""

    def __init__(self, run: Callable[[K], Awaitable[T]], most: int = MOST_RUNS) -> None:
        self._run = run
        self._most = most
        self._tasks: dict[K, asyncio.Task[T]] = {}

    def start(self, key: K) -> asyncio.Task[T]:
        """The run of `key` that is under way, else a new one.

        Raises
        ------
        Busy: too many other keys are under way.
        """
        task = self._tasks.get(key)
        if task is None:
            if len(self._tasks) >= self._most:
                raise Busy
            task = asyncio.create_task(self._fly(key), name="initial sync")
            self._tasks[key] = task
        return task

    async def join(self, key: K) -> T:
        """The outcome of `start`, which a cancelled caller does not cancel."""
        return await asyncio.shield(self.start(key))

    async def _fly(self, key: K) -> T:
        try:
            return await self._run(key)
        finally:
            del self._tasks[key]

    async def stop(self) -> None:
        """Cancel what runs."""
        await _cancelled(list(self._tasks.values()))


class Turns(Generic[K, T]):
    """Who comes gets a run that **started after** they came; all who wait for the next turn share it.

    For a flush: a run under way may have looked at a file before its last line was written.
    """

    def __init__(self, run: Callable[[K], Awaitable[T]], most: int = MOST_RUNS) -> None:
        self._run = run
        self._most = most
        self._next: dict[K, asyncio.Future[T]] = {}
        self._tasks: dict[K, asyncio.Task[None]] = {}

    def start(self, key: K) -> asyncio.Future[T]:
        """The outcome of the next run of `key`, which is on its way when this returns.

        Raises
        ------
        Busy: too many other keys are under way.
        """
        if key not in self._tasks:
            if len(self._tasks) >= self._most:
                raise Busy
            self._tasks[key] = asyncio.create_task(self._work(key), name="turns")
        outcome = self._next.get(key)
        if outcome is None:
            outcome = self._next[key] = asyncio.get_running_loop().create_future()
        return outcome

    async def join(self, key: K) -> T:
        """The outcome of `start`, which a cancelled caller does not cancel."""
        return await asyncio.shield(self.start(key))

    async def _work(self, key: K) -> None:
        try:
            while (outcome := self._next.pop(key, None)) is not None:
                try:
                    outcome.set_result(await self._run(key))
                finally:
                    # Only a cancelled run leaves it open: nobody may wait for ever.
                    outcome.cancel()
        finally:
            del self._tasks[key]
            if left := self._next.pop(key, None):
                left.cancel()

    async def stop(self) -> None:
        """Cancel what runs, and with it all who wait."""
        await _cancelled(list(self._tasks.values()))


async def _cancelled(tasks: list[asyncio.Task[T]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
