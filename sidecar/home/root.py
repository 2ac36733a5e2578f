"""The home's own directory: made, opened, and described where that cannot be done.

It may be a link or lie behind links, for its place is the operator's choice. It is the only path that is.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from sidecar.errors import HomeError
from sidecar.home.problems import shown


def make_root(root: Path, mode: int) -> bool:
    """Make the home if nothing is there; True if it was made now."""
    try:
        root.mkdir(mode, parents=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise _root_error(root, "made", error) from error
    return True


def open_root(root: Path) -> int:
    try:
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _root_error(root, "opened", error) from error


def give_root(root: Path, fd: int, owner: tuple[int, int], made: bool) -> None:
    """Give the home itself to `owner`, if this is root's process and made it, or found it to be root's.

    The kubelet makes the directory of a subPath for root, and an agent could not write there.
    """
    if os.geteuid() != 0 or not (made or os.fstat(fd).st_uid == 0):
        return
    try:
        os.fchown(fd, *owner)
    except OSError as error:
        raise HomeError(
            f"the home {shown(str(root))} cannot be given to UID {owner[0]}: {error.strerror}",
            "give the sidecar the capability CHOWN, or run it as that UID (runAsUser)",
        ) from error


def _root_error(root: Path, doing: str, error: OSError) -> HomeError:
    start = f"the home {shown(str(root))} cannot be {doing}: "
    # os.path answers False where a directory above is closed; Path raises.
    if os.path.islink(root) and not os.path.exists(root):  # noqa: PTH110, PTH114
        return HomeError(start + f"it is a link to {shown(os.readlink(root))}, which is not there")  # noqa: PTH115
    if error.errno == errno.ENOENT:
        return HomeError(start + "it is not there", "create it, or correct CLAUDE_SIDECAR_HOME")
    if error.errno == errno.ENOTDIR:
        return HomeError(
            start + "it, or a part of its path, is a file", "give a directory as CLAUDE_SIDECAR_HOME"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return HomeError(start + _who(root), "run the sidecar as the UID that owns the home (runAsUser)")
    return HomeError(start + (error.strerror or "the reason is unknown"))


def _who(root: Path) -> str:
    try:
        found = os.stat(root)  # noqa: PTH116
    except OSError:
        return f"UID {os.geteuid()} may not search the directories above it"
    mode = stat.S_IMODE(found.st_mode)
    return f"it belongs to UID {found.st_uid} with mode {mode:04o} and this process is UID {os.geteuid()}"


def demand_writable(root: Path, fd: int) -> None:
    if os.access(".", os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True):
        return
    start = f"the home {shown(str(root))} cannot be written: "
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        raise HomeError(start + "the volume is read-only", "mount it writable (readOnly: false)")
    raise HomeError(start + _who(root), "run the sidecar as the UID that owns the home (runAsUser)")
