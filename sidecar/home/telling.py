"""Which paths a watch told since the last full scan, so that the scan can find what it did not tell."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from msgspec import Struct, field

from sidecar.home.changes import PATHS_KEPT


class Told(Struct):
    """What was told in one period. ``until_ns``: everything up to here (nanoseconds since the epoch)."""

    paths: set[str] = field(default_factory=set)
    until_ns: int = 0

    def covers(self, path: str, changed_ns: int) -> bool:
        """Whether a change of `path` at `changed_ns` was told."""
        return path in self.paths or changed_ns <= self.until_ns


class Telling:
    """Told by the watch's thread, asked by any. More paths than are kept are told as everything."""

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._told = Told()

    def add(self, path: str | None) -> None:
        """`path` is told; None: everything that happened until now."""
        with self._lock:
            if path is None or len(self._told.paths) >= PATHS_KEPT:
                self._told = Told(until_ns=self._clock_ns())
            else:
                self._told.paths.add(path)

    def renew(self) -> Told:
        """What was told in the period that ends now; another one begins."""
        with self._lock:
            told, self._told = self._told, Told()
        return told

    def covers(self, path: str, changed_ns: int) -> bool:
        """Whether a change of `path` at `changed_ns` was told in the period under way."""
        with self._lock:
            return self._told.covers(path, changed_ns)
