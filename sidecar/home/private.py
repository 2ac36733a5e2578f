"""The sidecar's own credential files: never read as part of a home, whatever name there leads to them.

They do not belong onto a volume that the agent mounts. Where they lie there all the same, or a hard link in
the home leads to one, it is refused. Not known: a copy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

REASON = "the sidecar itself has its credentials from it"


class Private:
    """Which files of a home are `paths`, the sidecar's own; `renew` looks again, for tokens are replaced."""

    __slots__ = ("_inodes", "_names", "_paths")

    def __init__(self, paths: Sequence[Path], homes: Sequence[Path]) -> None:
        """`homes`: the home's path as it was given, and where it really is."""
        self._paths = paths
        self._names = frozenset(
            str(path.relative_to(home)) for path in paths for home in homes if path.is_relative_to(home)
        )
        self._inodes: frozenset[tuple[int, int]] = frozenset()
        self.renew()

    def renew(self) -> None:
        """Look which files these are now; one that is not there is none."""
        self._inodes = frozenset(found for path in self._paths if (found := _identity(path)))

    def __bool__(self) -> bool:
        return bool(self._inodes or self._names)

    def reason(self, path: str, found: os.stat_result) -> str:
        """Why the home's `path`, which is `found`, is not carried, as half a sentence; empty if it is."""
        is_own = (found.st_dev, found.st_ino) in self._inodes or path in self._names
        return REASON if is_own else ""


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
