"""The interval: a checkpoint of every synced user each few minutes, and at once when somebody wants one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable, Iterable

from sidecar.logs import log
from sidecar.sync.connected_user import ConnectedUser
from sidecar.sync.results import BackupResult

# A fleet that was rolled out at once must not back up at once.
JITTER = 0.1


class Interval:
    """Rounds of checkpoints. An error ends a user's backup, never the round.

    Parameters
    ----------
    users: gives those that are synced.
    """

    def __init__(self, minutes: float, users: Callable[[], Iterable[ConnectedUser]]) -> None:
        self._minutes = minutes
        self._users = users
        self._wanted = asyncio.Event()
        self._idle_said = False

    def want(self) -> None:
        """Have the next round begin at once."""
        self._wanted.set()

    async def loop(self) -> None:
        while True:
            seconds = self._minutes * 60 * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), seconds)
            self._wanted.clear()
            await self.backup_all()

    async def backup_all(self) -> list[BackupResult]:
        """One round: a checkpoint of every synced user."""
        users = list(self._users())
        if not users:
            log.log(self._idle_level(), "No users to backup")
            return []
        announcement = _Once(
            lambda level: log.log(level, "Starting periodic backup for %d users", len(users))
        )
        if not self._idle_said:
            announcement(self._idle_level())
        results = await asyncio.gather(*(user.back_up(lambda: announcement(logging.INFO)) for user in users))
        log.log(announcement.level or logging.DEBUG, "Periodic backup completed")
        return list(results)

    def _idle_level(self) -> int:
        """An idle round is INFO the first time, DEBUG after it."""
        level = logging.DEBUG if self._idle_said else logging.INFO
        self._idle_said = True
        return level


class _Once:
    """Says something at most once, whichever thread asks first; ``level`` is the one it was said with."""

    def __init__(self, say: Callable[[int], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self.level = 0

    def __call__(self, level: int) -> None:
        with self._lock:
            if not self.level:
                self.level = level
                self._say(level)
