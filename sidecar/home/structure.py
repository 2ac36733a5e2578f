"""The home's structure around its files: directories, links, and what an earlier life left half-made."""

from __future__ import annotations

import fcntl
import os
import stat

from sidecar.errors import HomeError
from sidecar.home import linux
from sidecar.home.beneath import DIRECTORY, FILE, Directory, Home, parent_and_name
from sidecar.home.links import kept_target, link_problem
from sidecar.home.problems import home_error, in_the_way, shown
from sidecar.home.transients import OWN_PREFIX, OWN_SUFFIX, is_own_temporary

_INT64 = 2**63 - 1


def temporary_name() -> str:
    """A name that no other writer uses; the rules keep such names out of every backup."""
    return f"{OWN_PREFIX}{os.urandom(8).hex()}{OWN_SUFFIX}"


def utime_ns(mtime_ns: int) -> tuple[int, int]:
    """`mtime_ns` as `os.utime` takes it, cut to what it can take."""
    mtime_ns = max(-_INT64, min(mtime_ns, _INT64))
    return mtime_ns, mtime_ns


def opened_or_made(home: Home, path: str, mode: int = 0o700) -> int:
    """A descriptor of the directory at `path`, made with those above it where they are missing.

    The directory gets `mode`, those above it 0700, and all of them the home's owner; what is there already
    keeps what it has.

    Raises
    ------
    HomeError: something other than a directory is in the way.
    """
    try:
        try:
            return home.descend(path, DIRECTORY)
        except FileNotFoundError:
            return _make_path(home, path.split("/"), mode)
    except OSError as error:
        raise home_error("make the directory", path, error) from error


def make_directory(home: Home, path: str, mode: int = 0o700) -> None:
    """Make the directory at `path` and those above it; one that is there already stays as it is.

    The owner can always write to it, whatever `mode` says: files are to come. `set_directory` ends that.
    """
    os.close(opened_or_made(home, path, (mode & 0o777) | 0o700))


def set_directory(home: Home, path: str, mode: int, mtime_ns: int) -> None:
    """Give the directory at `path` its permission bits and its time, once everything in it is in place."""
    try:
        with Directory(home.descend(path, DIRECTORY)) as fd:
            os.fchmod(fd, mode & 0o777)
            os.utime(fd, ns=utime_ns(mtime_ns))
    except OSError as error:
        raise home_error("set mode and time of", path, error) from error


def make_link(home: Home, path: str, target: str, mtime_ns: int | None = None) -> None:
    """Make a symbolic link that stays inside the home; the same link may be there already, and stays.

    It belongs to whoever runs this process: a link's owner gives no right to anything. `mtime_ns` is the
    link's own time, where the file system keeps one.

    Raises
    ------
    HomeError: the target leads out, or something else is in the way.
    """
    problem = link_problem(path, target)
    if problem:
        raise HomeError(f"{shown(path)} is not made: {problem}")
    parent, name = parent_and_name(path)
    with Directory(opened_or_made(home, parent)) as directory:
        try:
            os.symlink(target, name, dir_fd=directory)
            if mtime_ns is not None:
                _set_link_time(directory, name, mtime_ns)
        except FileExistsError:
            _demand_same_link(home, directory, path, target)
        except OSError as error:
            raise home_error("make the link", path, error) from error


def remove_leftovers(home: Home) -> int:
    """Remove the temporary files of processes that are no more; returns how many.

    A living writer holds a lock on its file. What cannot be looked into is passed over.
    """
    removed = 0
    pending = [""]
    while pending:
        path = pending.pop()
        try:
            removed += _remove_leftovers_in(home, path, pending)
        except OSError:
            continue
    return removed


def _remove_leftovers_in(home: Home, path: str, pending: list[str]) -> int:
    prefix = path + "/" if path else ""
    removed = 0
    with Directory(home.descend(path, DIRECTORY)) as fd, os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(prefix + entry.name)
            elif is_own_temporary(entry.name):
                removed += _remove_if_dead(fd, entry.name)
    return removed


def _remove_if_dead(directory: int, name: str) -> bool:
    try:
        fd = os.open(name, FILE, dir_fd=directory)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=directory)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _make_path(home: Home, parts: list[str], mode: int) -> int:
    fd = home.descend("", DIRECTORY)
    for place, part in enumerate(parts, start=1):
        try:
            below = _opened_or_made_in(home, fd, part, mode if place == len(parts) else 0o700)
        finally:
            os.close(fd)
        fd = below
    return fd


def _opened_or_made_in(home: Home, directory: int, name: str, mode: int) -> int:
    try:
        return os.open(name, DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        pass
    try:
        os.mkdir(name, 0o700, dir_fd=directory)
    except FileExistsError:
        return os.open(name, DIRECTORY, dir_fd=directory)
    fd = os.open(name, DIRECTORY, dir_fd=directory)
    try:
        _dress_new(home, fd, mode)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _dress_new(home: Home, fd: int, mode: int) -> None:
    """Mode and owner of a directory made just now; one that was put in its place meanwhile is not touched."""
    if os.fstat(fd).st_uid != os.geteuid():
        return
    if home.owner is not None and os.geteuid() == 0:
        os.fchown(fd, *home.owner)
    if mode != 0o700:
        os.fchmod(fd, mode)


def _set_link_time(directory: int, name: str, mtime_ns: int) -> None:
    try:
        os.utime(name, ns=utime_ns(mtime_ns), dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno not in linux.MISSING:  # a link without its time is still the link
            raise


def _demand_same_link(home: Home, directory: int, path: str, target: str) -> None:
    name = path.rpartition("/")[2]
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        raise in_the_way(path, found)
    there = kept_target(home, path, os.readlink(name, dir_fd=directory))
    if there != target:
        raise HomeError(
            f"{shown(path)} is a link to {shown(there)}, not to {shown(target)}", "remove one of them"
        )
