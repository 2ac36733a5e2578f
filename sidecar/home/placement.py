"""How a finished file gets its name, in one step, without displacing what nobody has seen.

Between a look at a name and a rename over it the agent can write. So a name that should be free is taken by a
rename that fails if it is not, and an expected file changes places with the new one: what came out is looked
at, and goes back if it is not what was expected. File systems without these renames (NFS, some FUSE) get a
link in place of the first and a look just before the rename in place of the second.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from sidecar.errors import FileChanged, HomeError
from sidecar.home import linux
from sidecar.home.entries import FileStat, file_stat
from sidecar.home.problems import in_the_way, shown


def take_free_name(directory: int, temporary: str, name: str, path: str) -> None:
    """Rename `temporary` to `name` in `directory`; `path` is for messages.

    Raises
    ------
    FileChanged: a file is there.
    HomeError: something else is there.
    """
    try:
        try:
            linux.rename_to_free_name(directory, temporary, name)
        except OSError as error:
            if error.errno not in linux.MISSING:
                raise
            _link_to_free_name(directory, temporary, name)
    except FileExistsError as error:
        raise _occupied(directory, name, path) from error


def replace(directory: int, temporary: str, name: str, path: str, expected: FileStat, inode: int) -> None:
    """Put `temporary` (whose inode is `inode`) in the place of the file `name`, which must be `expected`.

    Raises
    ------
    FileChanged: another file is there, or none; what is there stays.
    HomeError: something other than a file is there.
    """
    _demand(directory, name, path, expected)
    try:
        linux.exchange(directory, temporary, name)
    except OSError as error:
        if error.errno not in linux.MISSING:
            raise
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        return
    if _is(directory, temporary, path, expected):
        with suppress(OSError):  # the new file is in place; `remove_leftovers` takes what stays here
            os.unlink(temporary, dir_fd=directory)
        return
    _undo(directory, temporary, name, inode)
    raise FileChanged(f"{shown(path)} was written to in the moment of its replacement")


def take_away(directory: int, temporary: str, name: str, path: str, expected: FileStat) -> None:
    """Remove the file `name`, which must be `expected`; `temporary` is a free name to look at it under."""
    _demand(directory, name, path, expected)
    os.rename(name, temporary, src_dir_fd=directory, dst_dir_fd=directory)
    if _is(directory, temporary, path, expected):
        os.unlink(temporary, dir_fd=directory)
        return
    take_free_name(directory, temporary, name, path)
    raise FileChanged(f"{shown(path)} was written to in the moment of its removal")


def _undo(directory: int, temporary: str, name: str, inode: int) -> None:
    linux.exchange(directory, temporary, name)
    if os.stat(temporary, dir_fd=directory, follow_symlinks=False).st_ino != inode:
        # A third file came to `name` meanwhile, and is the newest: it stays.
        linux.exchange(directory, temporary, name)
        os.unlink(temporary, dir_fd=directory)


def _link_to_free_name(directory: int, temporary: str, name: str) -> None:
    try:
        os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno not in linux.MISSING:
            raise
        _rename_if_free(directory, temporary, name)
        return
    os.unlink(temporary, dir_fd=directory)


def _rename_if_free(directory: int, temporary: str, name: str) -> None:
    """Neither such a rename nor a link: a look first, and a moment in which the agent can come between."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        return
    raise FileExistsError(name)


def _occupied(directory: int, name: str, path: str) -> HomeError:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return FileChanged(f"{shown(path)} appeared and went again")
    if stat.S_ISREG(found.st_mode):
        return FileChanged(f"{shown(path)} appeared meanwhile")
    return in_the_way(path, found)


def _demand(directory: int, name: str, path: str, expected: FileStat) -> None:
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        raise in_the_way(path, found)
    if file_stat(expected.path, found) != expected:
        raise FileChanged(f"{shown(path)} was changed meanwhile")


def _is(directory: int, name: str, path: str, expected: FileStat) -> bool:
    """Whether `name` is `expected` after a rename, which sets the ctime: so all but that is compared."""
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    now = file_stat(path, found)
    return stat.S_ISREG(found.st_mode) and (now.inode, now.size, now.mtime_ns, now.mode) == (
        (expected.inode, expected.size, expected.mtime_ns, expected.mode)
    )
