"""Changes found by looking: for a home of which the kernel gives no notices.

Each round looks at every file, as a scan does, and compares with the round before. What is remembered of a
file is one number; of files beyond the first `FILES_REMEMBERED` only one number for all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from sidecar.home.beneath import DIRECTORY, Directory, Home
from sidecar.home.problems import home_error
from sidecar.home.rules import Rules
from sidecar.home.scan import EXHAUSTED, VANISHED, names_taken

FILES_REMEMBERED = 50_000


class Rounds:
    """Rounds through one home.

    Parameters
    ----------
    is_stopping: asked between two directories; True ends a round, unfinished.
    """

    def __init__(self, home: Home, rules: Rules, is_stopping: Callable[[], bool]) -> None:
        self._home = home
        self._rules = rules
        self._is_stopping = is_stopping
        self._files: dict[str, int] = {}
        self._rest = 0

    def changes(self) -> Iterator[str | None]:
        """One round: the files that are not what they were in the last one; None means: a scan is needed.

        Raises
        ------
        HomeError: the home was moved, replaced or cannot be read; the next round compares with the last
            whole one.
        """
        self._home.check()
        files: dict[str, int] = {}
        rest = 0
        for path, state in self._look():
            if len(files) >= FILES_REMEMBERED:
                rest ^= hash((path, state))
                continue
            files[path] = state
            if self._files.get(path) != state:
                yield path
        if self._is_stopping():
            return
        yield from self._files.keys() - files.keys()
        if rest != self._rest:
            yield None
        self._files, self._rest = files, rest

    def _look(self) -> Iterator[tuple[str, int]]:
        pending = [""]
        while pending and not self._is_stopping():
            path = pending.pop()
            try:
                yield from self._enter(path, pending)
            except OSError as error:
                if not path or error.errno in EXHAUSTED:
                    raise home_error("read", path, error) from error

    def _enter(self, path: str, pending: list[str]) -> Iterator[tuple[str, int]]:
        with Directory(self._home.descend(path, DIRECTORY)) as fd:
            for below, entry, is_directory in names_taken(self._rules, path, fd):
                if is_directory:
                    pending.append(below)
                    continue
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError as error:
                    if error.errno not in VANISHED:
                        raise
                    continue
                yield below, _state(found)


def _state(found: os.stat_result) -> int:
    return hash((found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode))
