"""Lines added to a transcript that the client may be writing to at this moment.

The client appends whole lines, each with one ``write`` to a descriptor opened with ``O_APPEND``. So do we:
one call, whole lines, after a newline. Lines of both may then interleave, but none is ever split.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from sidecar.errors import FileChanged, HomeError, HomeFull
from sidecar.home import linux
from sidecar.home.beneath import FILE, Directory, Home
from sidecar.home.entries import FileStat, file_stat
from sidecar.home.ownership import demand_own_file
from sidecar.home.problems import home_error, shown
from sidecar.home.structure import utime_ns

_OPEN = FILE | os.O_RDWR | os.O_APPEND


def append(
    home: Home,
    path: str,
    data: Iterable[bytes] | bytes,
    *,
    expected_size: int,
    mtime_ns: int | None = None,
) -> FileStat:
    """Add whole lines to the file at `path`, in one write; returns the file as it is with them and no more.

    Parameters
    ----------
    mtime_ns: the file's time from then on, also where there are no lines to add. For a restore before the
        agent starts: later it would hide when the agent wrote last.

    Raises
    ------
    FileChanged: the file is not there, has not `expected_size` bytes, or ends within a line. Also when
        somebody's lines came in between: then ours are behind theirs, and the file is to be read again.
    HomeFull: no space; the file holds whole lines, perhaps some of ours.
    HomeError: not a plain file, a second name of another file, or not ours to write; or `data` does not end
        in a newline.
    """
    lines = data if isinstance(data, bytes) else b"".join(data)
    if lines and not lines.endswith(b"\n"):
        raise HomeError(f"{shown(path)}: only whole lines are appended")
    try:
        with Directory(home.descend(path, _OPEN)) as fd:
            found = os.fstat(fd)
            _demand_appendable(home, path, fd, found, expected_size)
            _append_at_once(fd, path, lines, expected_size)
            if mtime_ns is not None:
                _set_time(fd, path, mtime_ns)
            now = os.fstat(fd)
    except OSError as error:
        raise home_error("append to", path, error) from error
    size = expected_size + len(lines)
    stat = file_stat(path, now)
    return FileStat(path, size, stat.mtime_ns, stat.ctime_ns, stat.mode, stat.inode)


def _demand_appendable(home: Home, path: str, fd: int, found: os.stat_result, expected_size: int) -> None:
    demand_own_file(home, path, found)
    if found.st_nlink > 1:
        raise HomeError(f"{shown(path)} has several names (hard links)", "replace the link by a copy")
    if found.st_size != expected_size:
        raise FileChanged(f"{shown(path)} has {found.st_size} bytes, not {expected_size}")
    if expected_size and os.pread(fd, 1, expected_size - 1) != b"\n":
        raise FileChanged(f"{shown(path)} ends within a line")


def _append_at_once(fd: int, path: str, lines: bytes, expected_size: int) -> None:
    if not lines:
        return
    _reserve(fd, expected_size, len(lines))
    written = os.write(fd, lines)
    end = os.lseek(fd, 0, os.SEEK_CUR)
    if written < len(lines):
        _cut_to_whole_lines(fd, end, lines[:written])
        raise HomeFull(
            f"cannot append to {shown(path)}: no space is left, or a size limit is reached",
            "enlarge the volume or its sizeLimit, or free space in the home",
        )
    if end != expected_size + len(lines):
        raise FileChanged(f"{shown(path)} was written to meanwhile; the lines are in it, behind others")


def _set_time(fd: int, path: str, mtime_ns: int) -> None:
    try:
        os.utime(fd, ns=utime_ns(mtime_ns))
    except OSError as error:  # only the owner may; the lines are in the file by now
        raise home_error("set the time of", path, error) from error


def _reserve(fd: int, offset: int, length: int) -> None:
    """A full disk must show before the write: half of one could not be taken back from a live file."""
    try:
        linux.reserve(fd, offset, length)
    except OSError as error:
        if error.errno not in linux.MISSING:
            raise


def _cut_to_whole_lines(fd: int, end: int, written: bytes) -> None:
    """Take back the torn line that a short write left, unless somebody has written behind it already."""
    torn = len(written) - (written.rfind(b"\n") + 1)
    if torn and os.fstat(fd).st_size == end:
        os.ftruncate(fd, end - torn)
