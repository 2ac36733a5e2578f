"""The three Linux calls that Python lacks: ``openat2``, ``renameat2`` and ``fallocate``.

Each raises OSError like the functions of `os`. A kernel or a sandbox without one of them answers ENOSYS
(or, under an old seccomp profile, EPERM; a file system may answer EINVAL): every caller has another way.
"""

from __future__ import annotations

import errno
import os
import sys
from functools import cache
from typing import Any

# One number on every architecture that CPython's container images are built for:
# https://github.com/torvalds/linux/blob/master/scripts/syscall.tbl
_OPENAT2 = 437
# https://man7.org/linux/man-pages/man2/openat2.2.html
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
# https://man7.org/linux/man-pages/man2/rename.2.html
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
# https://man7.org/linux/man-pages/man2/fallocate.2.html
_FALLOC_FL_KEEP_SIZE = 1

# As `os.fsencode` does it, in a tenth of its time: a restore renames thousands of files.
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

MISSING = frozenset((errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP))
"""What a kernel, a sandbox or a file system without one of these calls answers."""


def open_beneath(directory: int, path: str, flags: int) -> int:
    """Open `path` below `directory` in one call: no link is followed in any part, and none leads out."""
    syscall, how, size = _openat2(flags)
    return _call(syscall, path, _OPENAT2, directory, path.encode(_ENCODING, _ERRORS), how, size)


def rename_to_free_name(directory: int, old: str, new: str) -> None:
    """Rename `old` to `new`; FileExistsError if anything is there, in one step."""
    _rename(directory, old, new, _RENAME_NOREPLACE)


def exchange(directory: int, old: str, new: str) -> None:
    """Let `old` and `new` change places in one step: neither is ever absent."""
    _rename(directory, old, new, _RENAME_EXCHANGE)


def reserve(fd: int, offset: int, length: int) -> None:
    """Make sure that `length` bytes from `offset` can be written; the file's size stays as it is."""
    ctypes, libc = _libc()
    start, count = ctypes.c_int64(offset), ctypes.c_int64(length)
    _call(libc.fallocate, "", fd, _FALLOC_FL_KEEP_SIZE, start, count)


def _rename(directory: int, old: str, new: str, flag: int) -> None:
    renameat2 = getattr(_libc()[1], "renameat2", None)
    if renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    names = old.encode(_ENCODING, _ERRORS), new.encode(_ENCODING, _ERRORS)
    _call(renameat2, new, directory, names[0], directory, names[1], flag)


@cache
def _openat2(flags: int) -> tuple[Any, Any, Any]:
    """The call, and what it is told of how to open: the kernel only reads it, so threads may share it."""
    ctypes, libc = _libc()
    how = (ctypes.c_uint64 * 3)(flags, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS)
    return libc.syscall, how, ctypes.c_size_t(ctypes.sizeof(how))


@cache
def _libc() -> tuple[Any, Any]:
    import ctypes

    return ctypes, ctypes.CDLL(None, use_errno=True)


def _call(function: Any, path: str, *arguments: Any) -> int:
    ctypes, _ = _libc()
    while True:
        answer: int = function(*arguments)
        if answer >= 0:
            return answer
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number), path)
