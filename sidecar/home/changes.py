"""What changed in a home, gathered until somebody takes it."""

from __future__ import annotations

import threading
import time

from msgspec import Struct

PATHS_KEPT = 20_000
"""More changed paths than this are told as "everything": a scan is then cheaper, and memory has a bound."""


class Changes(Struct, frozen=True):
    """What changed since the last `take`.

    ``paths`` are relative paths of files: written, made, renamed to or from, deleted, or with other
    attributes. ``everything``: only a scan can tell, and ``paths`` is empty. ``first_at_ns`` is when the
    first of it was noticed (``time.monotonic_ns``), None if nothing was.
    """

    paths: frozenset[str] = frozenset()
    everything: bool = False
    first_at_ns: int | None = None


class Gathered:
    """Changes between two takings. One thread adds, others take."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paths: set[str] = set()
        self._everything = False
        self._first_at_ns: int | None = None

    def add(self, path: str | None) -> None:
        """Keep `path`; None means everything."""
        with self._lock:
            if self._first_at_ns is None:
                self._first_at_ns = time.monotonic_ns()
            if path is None or len(self._paths) >= PATHS_KEPT:
                self._everything = True
                self._paths = set()
            elif not self._everything:
                self._paths.add(path)

    def take(self) -> Changes:
        """All that was added since the last call, which is then forgotten here."""
        with self._lock:
            taken = Changes(frozenset(self._paths), self._everything, self._first_at_ns)
            self._paths = set()
            self._everything = False
            self._first_at_ns = None
        return taken
