"""Whose a file is: a name in the home can be a hard link to somebody else's bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from sidecar.errors import FileChanged, HomeError
from sidecar.home.beneath import Home
from sidecar.home.problems import in_the_way, shown


def foreign_reason(home: Home, found: os.stat_result, look: Callable[[], os.stat_result]) -> str:
    """Why a file is somebody else's although it lies in the home, as half a sentence; empty if it is not.

    A hard link needs no right to read its target, so a name in the home can be another owner's file. A file
    of the home's own owner with several names is read like any other.

    Parameters
    ----------
    look: what the file's name leads to now, its last part not followed; raises OSError as the kernel answers.
    """
    return _second_name(home, found) or _lent_name(home, found, look)


def demand_own_file(home: Home, path: str, found: os.stat_result) -> None:
    """Raises HomeError unless `found`, of the open file at `path`, is a regular file and ours to carry."""
    if not stat.S_ISREG(found.st_mode):
        raise in_the_way(path, found)
    if home.private and (reason := home.private.reason(path, found)):
        raise HomeError(f"{shown(path)} is refused: {reason}", "keep it on a volume of the sidecar's own")
    if reason := _second_name(home, found):
        raise HomeError(f"{shown(path)} is refused: {reason}", "replace the link by a copy")
    if reason := _lent_name(home, found, lambda: home.lstat(path)):
        raise FileChanged(f"{shown(path)} is refused: {reason}")


def _second_name(home: Home, found: os.stat_result) -> str:
    if found.st_nlink > 1 and found.st_uid != home.owner_uid:
        return f"it is a hard link to a file of UID {found.st_uid}, who does not own the home"
    return ""


def _lent_name(home: Home, found: os.stat_result, look: Callable[[], os.stat_result]) -> str:
    """A name that was replaced between its lookup and the stat shows its target with one name only.

    So a file of another owner is looked at once more: while its own name exists elsewhere, the name in the
    home either leads to something else by now, or makes two again.
    """
    if found.st_uid == home.owner_uid:
        return ""
    try:
        now = look()
    except OSError:
        return f"it belongs to UID {found.st_uid} and its name is gone"
    same = (now.st_dev, now.st_ino, now.st_nlink, now.st_ctime_ns) == (
        (found.st_dev, found.st_ino, 1, found.st_ctime_ns)
    )
    return "" if same else f"it belongs to UID {found.st_uid} and its name changed meanwhile"
