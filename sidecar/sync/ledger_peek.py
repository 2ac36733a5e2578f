"""Looking at a ledger without opening it: for commands that run beside whoever holds its lock.

Nothing is written, made or locked. What the holder notes meanwhile may be missing in the picture.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from sidecar.sync.ledger import directory_of
from sidecar.sync.ledger_content import content_of
from sidecar.sync.ledger_file import LedgerFile, unusable
from sidecar.sync.marks import Header, Mark

_TRIES = 5


def peek(state_dir: Path, user_id: str) -> tuple[Header, Mapping[str, Mark]] | None:
    """The header and the marks of `user_id` as they are on disk; None where there are none.

    Raises
    ------
    LedgerError: they cannot be read. FormatError: a newer version wrote them.
    """
    directory = directory_of(state_dir, user_id)
    try:
        for _ in range(_TRIES):
            before = _snapshot(directory)
            content = content_of(LedgerFile(directory)) if before else None
            if before == _snapshot(directory):  # else the log that was read belongs to a newer one
                break
    except OSError as error:
        raise unusable(directory, error) from error
    return (content.header, content.marks) if content else None


def is_held(state_dir: Path, user_id: str) -> bool:
    """Whether a process works on the ledger of `user_id` here, at this moment."""
    try:
        descriptor = os.open(directory_of(state_dir, user_id) / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _snapshot(directory: Path) -> tuple[int, int] | None:
    """Which snapshot is in place: each one is a new file."""
    try:
        found = (directory / "ledger.json").stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
