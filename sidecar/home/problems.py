"""What the kernel refused, as a sentence: the one place where an OSError becomes a HomeError."""

from __future__ import annotations

import errno
import os
import stat

from sidecar.errors import FileChanged, HomeError, HomeFull
from sidecar.logs import printable

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
# A component that is a link answers ELOOP to openat2 and ENOTDIR to open(O_DIRECTORY | O_NOFOLLOW).
_IN_THE_WAY = frozenset((errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EXDEV, errno.ENXIO))
_GONE = frozenset((errno.ENOENT, errno.ESTALE))
_HELD = frozenset((errno.EAGAIN, errno.EBUSY, errno.ETXTBSY))

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFREG: "a file",
}


def shown(path: str) -> str:
    """`path` as it may stand in a message: no control character, at most 200 characters."""
    text = printable(path) or "the home itself"
    return text if len(text) <= 200 else text[:200] + "…"


def kind(mode: int) -> str:
    """What a file of `mode` is, with its article."""
    return _KINDS.get(stat.S_IFMT(mode), "neither a file nor a directory")


def not_permitted(found: os.stat_result) -> str:
    """Half a sentence for a path that this process may not read, with what to set."""
    mode, uid = stat.S_IMODE(found.st_mode), os.geteuid()
    return (
        f"it belongs to UID {found.st_uid} with mode {mode:04o} and cannot be read by UID {uid}: "
        f"run the sidecar as UID {found.st_uid} (runAsUser)"
    )


def home_error(doing: str, path: str, error: OSError, found: os.stat_result | None = None) -> HomeError:
    """`error`, met while `doing` something ("read", "write") to `path`, as what a caller can tell apart."""
    number = error.errno
    start = f"cannot {doing} {shown(path)}: "
    if number in _FULL:
        hint = "enlarge the volume or its sizeLimit, or free space in the home"
        return HomeFull(start + "no space is left, or a quota or a size limit is reached", hint)
    if number in _GONE:
        return FileChanged(start + "it is not there")
    if number in _HELD:
        return FileChanged(start + "another process holds it")
    if number in _IN_THE_WAY:
        return HomeError(start + "a link or another kind of file is in the way", "remove or rename it")
    if number == errno.EROFS:
        return HomeError(start + "the volume is read-only", "mount it writable (readOnly: false)")
    if number in (errno.EACCES, errno.EPERM):
        if found is not None:
            return HomeError(start + not_permitted(found))
        return HomeError(
            start + f"UID {os.geteuid()} may not", "run the sidecar as the UID that owns the home"
        )
    return HomeError(start + os.strerror(number or 0))


def in_the_way(path: str, found: os.stat_result) -> HomeError:
    """Something other than what `path` should be is there."""
    what = kind(found.st_mode)
    return HomeError(f"{shown(path)} is {what}: it is in the way", "remove or rename it")
