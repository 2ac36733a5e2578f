"""Whose a file is: a name in the home can be a hard link to somebody else's bytes."""

from __future__ import annotations

import os
import stat

from sidecar.errors import HomeError
from sidecar.home.beneath import Home
from sidecar.home.problems import in_the_way, shown


def foreign_reason(home: Home, found: os.stat_result) -> str:
    """Why a file is somebody else's although it lies in the home, as half a sentence; empty if it is not.

    A hard link needs no right to read its target, so a name in the home can be another owner's file. A file
    of the home's own owner with several names is read like any other.
    """
    if found.st_nlink > 1 and found.st_uid != home.owner_uid:
        return f"it is a hard link to a file of UID {found.st_uid}, who does not own the home"
    return ""


def demand_own_file(home: Home, path: str, found: os.stat_result) -> None:
    """Raises HomeError unless `found`, of the open file at `path`, is a regular file and ours to carry."""
    if not stat.S_ISREG(found.st_mode):
        raise in_the_way(path, found)
    reason = foreign_reason(home, found)
    if not reason and found.st_uid != home.owner_uid and os.geteuid() == 0:
        reason = _name_was_lent(home, path, found)
    if reason:
        raise HomeError(f"{shown(path)} is refused: {reason}", "replace the link by a copy")


def _name_was_lent(home: Home, path: str, found: os.stat_result) -> str:
    """Root can open anything, and a second name may be gone by the time of the fstat: look once more."""
    try:
        now = home.lstat(path)
    except OSError:
        return "its name is gone"
    same = (now.st_dev, now.st_ino, now.st_nlink, now.st_ctime_ns) == (
        (found.st_dev, found.st_ino, 1, found.st_ctime_ns)
    )
    return "" if same else f"it belongs to UID {found.st_uid} and its name changed meanwhile"
