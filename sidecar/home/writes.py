"""Files that appear whole or not at all, in a tree where somebody else writes too.

A file is written under a temporary name in its own directory and renamed when it is complete, so no reader
ever sees half of it. It is not synced to the disk: the disk is the pod's and goes with it; what counts is the
bucket. A node that crashes and comes back may show files that its disk never got; that is for the ledger to
notice, which compares sizes and times with what it knows.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from types import TracebackType
from typing import Literal

from sidecar.home import placement
from sidecar.home.appends import append
from sidecar.home.beneath import DIRECTORY, Directory, Home, parent_and_name
from sidecar.home.entries import FileStat
from sidecar.home.problems import home_error
from sidecar.home.structure import (
    make_directory,
    make_link,
    opened_or_made,
    remove_leftovers,
    set_directory,
    temporary_name,
)

__all__ = [
    "Replacing",
    "Writer",
    "append",
    "make_directory",
    "make_link",
    "open_writer",
    "remove",
    "remove_leftovers",
    "set_directory",
]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_INT64 = 2**63 - 1

Replacing = FileStat | Literal["anything"] | None


class Writer:
    """One file in the making; a context manager. Left without `commit`, nothing of it remains."""

    __slots__ = ("_directory", "_fd", "_home", "_is_lent", "_name", "_path", "_size", "_temporary")

    def __init__(self, home: Home, path: str, directory: int | None, mode: int) -> None:
        parent, self._name = parent_and_name(path)
        self._is_lent = directory is not None
        self._home = home
        self._path = path
        self._size = 0
        self._temporary = temporary_name()
        self._directory = opened_or_made(home, parent) if directory is None else directory
        try:
            self._fd = os.open(self._temporary, _CREATE, mode, dir_fd=self._directory)
        except OSError as error:
            self._leave_directory()
            raise home_error("write", path, error) from error
        # The lock tells `remove_leftovers` of another process that this one lives.
        with suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._temporary:
                self._forget()
        finally:
            os.close(self._fd)
            self._leave_directory()

    def write(self, data: bytes | memoryview) -> None:
        """Add `data` at the end.

        Raises
        ------
        HomeFull: no space, or over a quota or a size limit.
        """
        rest = memoryview(data)
        try:
            while rest:
                written = os.write(self._fd, rest)
                self._size += written
                rest = rest[written:]
        except OSError as error:
            raise home_error("write", self._path, error) from error

    def commit(self, *, mtime_ns: int, mode: int, replacing: Replacing) -> FileStat:
        """Give the file its name, once; returns what was committed.

        Parameters
        ----------
        mode: permission bits; set-user-id, set-group-id and sticky bits are dropped.
        replacing: what must be there now: nothing (None), exactly this file, or ``"anything"`` that is not
            a directory.

        Raises
        ------
        FileChanged: what is there is not what `replacing` says. It is left as it is.
        HomeError: a directory, a link or another kind of file is in the way.
        """
        try:
            dressed = self._dressed(mtime_ns, mode & 0o777)
            self._place(replacing, dressed.st_ino)
            renamed = os.fstat(self._fd)
        except OSError as error:
            raise home_error("write", self._path, error) from error
        # All but the ctime from before the name was public: somebody may have written to the file since, and
        # the next scan must see that as a change.
        mtime_ns, mode = dressed.st_mtime_ns, dressed.st_mode & 0o777
        return FileStat(self._path, self._size, mtime_ns, renamed.st_ctime_ns, mode, dressed.st_ino)

    def _dressed(self, mtime_ns: int, mode: int) -> os.stat_result:
        if self._home.owner is not None and os.geteuid() == 0:
            os.fchown(self._fd, *self._home.owner)
        mtime_ns = max(-_INT64, min(mtime_ns, _INT64))
        os.utime(self._fd, ns=(mtime_ns, mtime_ns))
        dressed = os.fstat(self._fd)
        if dressed.st_mode & 0o777 != mode:  # of small files, most are as they were made
            os.fchmod(self._fd, mode)
            dressed = os.fstat(self._fd)
        return dressed

    def _place(self, replacing: Replacing, inode: int) -> None:
        where = (self._directory, self._temporary, self._name, self._path)
        if replacing is None:
            placement.take_free_name(*where)
        elif isinstance(replacing, FileStat):
            placement.replace(*where, replacing, inode)
        else:
            os.rename(self._temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._temporary = ""

    def _leave_directory(self) -> None:
        if not self._is_lent:
            os.close(self._directory)

    def _forget(self) -> None:
        """Remove the temporary file, if that is still what has its name."""
        with suppress(OSError):
            found = os.stat(self._temporary, dir_fd=self._directory, follow_symlinks=False)
            if found.st_ino == os.fstat(self._fd).st_ino:
                os.unlink(self._temporary, dir_fd=self._directory)


def open_writer(home: Home, path: str, directory: int | None = None, *, mode: int | None = None) -> Writer:
    """Begin the file at `path`; the directories above it are made as needed (mode 0700).

    Parameters
    ----------
    directory: a descriptor of the one right above, where the caller has it open; it stays open.
    mode: what `commit` is going to give it, if that is known: made so, most files need no second call.

    Raises
    ------
    HomeFull: no space.
    HomeError: something other than a directory is in the way, or the home may not be written.
    """
    # Without the owner's rights a server behind the file system may refuse what comes after.
    is_writable = mode is not None and mode & 0o600 == 0o600
    return Writer(home, path, directory, mode & 0o777 if mode and is_writable else 0o600)


def remove(home: Home, path: str, expected: FileStat) -> None:
    """Remove the file at `path`, if it is exactly `expected`; FileChanged otherwise, and it stays."""
    parent, name = parent_and_name(path)
    try:
        with Directory(home.descend(parent, DIRECTORY)) as directory:
            placement.take_away(directory, temporary_name(), name, path, expected)
    except OSError as error:
        raise home_error("remove", path, error) from error
