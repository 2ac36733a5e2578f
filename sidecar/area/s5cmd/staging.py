"""Files on their way to or from another program: on the state volume, never in the home.

The agent can swap a path in its home between any two looks, so no other program is ever given one. What lies
here has names that nobody can guess, in a directory that the agent does not mount.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sidecar.area.objects import Source
from sidecar.errors import LedgerError

_PREFIX = "staging-"
# Left free, so that the ledger can still be written.
_RESERVE_BYTES = 16 * 1024 * 1024
_BLOCK_BYTES = 1024 * 1024


class Staging:
    """A directory of its own below ``<state_dir>/tmp``. What a killed process left there is removed.

    Raises
    ------
    LedgerError: the state directory cannot be written.
    """

    def __init__(self, state_dir: Path) -> None:
        parent = state_dir / "tmp"
        try:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(parent):
                _sweep(parent)
                self.path = parent / f"{_PREFIX}{os.urandom(16).hex()}"
                self.path.mkdir(mode=0o700)
                self._held = _directory(self.path)
                fcntl.flock(self._held, fcntl.LOCK_EX)
        except OSError as error:
            raise LedgerError(
                f"the state directory {state_dir} cannot be used: {error.strerror}",
                "give CLAUDE_SIDECAR_STATE_DIR a volume that this user can write",
            ) from error
        self._lock = threading.Lock()
        self._numbers = 0
        self._promised_bytes = 0

    @contextmanager
    def room(self, size_bytes: int) -> Iterator[Path | None]:
        """A path for a file of `size_bytes`, which is removed at the end; None where there is no room."""
        with self._lock:
            found = os.statvfs(self.path)
            free = found.f_bavail * found.f_frsize - _RESERVE_BYTES - self._promised_bytes
            if size_bytes > free:
                name = None
            else:
                self._promised_bytes += size_bytes
                self._numbers += 1
                name = self.path / str(self._numbers)
        if name is None:
            yield None
            return
        try:
            yield name
        finally:
            name.unlink(missing_ok=True)
            with self._lock:
                self._promised_bytes -= size_bytes

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._held)


def fill(path: Path, source: bytes | Source) -> None:
    """Write `source` to `path`, block by block; raises FileChanged where it no longer has its bytes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        if isinstance(source, bytes):
            _write(file, memoryview(source))
            return
        for offset in range(0, source.size, _BLOCK_BYTES):
            _write(file, memoryview(source.read(offset, min(_BLOCK_BYTES, source.size - offset))))


def taken(path: Path) -> IO[bytes]:
    """The file at `path`, open; its name is gone."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    path.unlink()
    return os.fdopen(descriptor, "rb", buffering=0)


def _write(file: IO[bytes], data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


def _sweep(parent: Path) -> None:
    """Remove what belongs to nobody any more: its owner's lock is gone with its owner."""
    for left in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), _locked(left, fcntl.LOCK_NB):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _locked(directory: Path, how: int = 0) -> Iterator[None]:
    descriptor = _directory(directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(descriptor)


def _directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
