"""One walk through the home: every path that belongs into a backup, and every one that cannot be taken.

Iterative, and each directory is opened from the root anew: neither depth nor a directory that is swapped for
a link in the middle leads anywhere else, and no descriptor stays open. Only `lstat` looks at files; the scan
opens none. What vanishes during the walk is simply absent, and a name that is renamed during it may be
missed: one scan is no proof that a file is gone (`Home.lstat` is).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from functools import cached_property, partial

from sidecar.errors import HomeError
from sidecar.home.beneath import DIRECTORY, Directory, Home, check_path
from sidecar.home.entries import DirStat, FileStat, LinkStat, Refused, Scan, file_stat, time_ns
from sidecar.home.links import kept_target, link_problem
from sidecar.home.ownership import foreign_reason
from sidecar.home.problems import home_error, kind, not_permitted
from sidecar.home.rules import Place, Rules
from sidecar.names import MAX_KEY_BYTES, path_problem

# A directory that is gone, or is something else by now: the next scan sees what came instead.
VANISHED = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE))
_SWAPPED = frozenset((errno.ENOENT, errno.ESTALE, errno.EINVAL))  # EINVAL: a link that is one no more
_ABSENT = VANISHED | _SWAPPED | {errno.ENAMETOOLONG}
EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))
_MIB = 1024 * 1024


def scan(home: Home, rules: Rules, *, max_file_bytes: int, key_prefix_bytes: int = 0) -> Scan:
    """Everything in `home` that `rules` take.

    A refused directory stands for all that lies below it. Names that the rules leave out are only counted.

    Parameters
    ----------
    max_file_bytes: larger files are refused, by their size and not by what they occupy.
    key_prefix_bytes: length of what stands before a path in its key; a longer key than S3 takes is refused.

    Raises
    ------
    HomeError: the home itself was moved, replaced or cannot be read.
    """
    home.check()
    home.private.renew()
    walk = _Walk(home, rules, max_file_bytes, MAX_KEY_BYTES - key_prefix_bytes)
    walk.run()
    return Scan(walk.files, walk.directories, walk.links, tuple(walk.refused), walk.excluded)


def look(
    home: Home, rules: Rules, path: str, *, max_file_bytes: int, key_prefix_bytes: int = 0
) -> FileStat | Refused | None:
    """One path as a full scan would see it; the parameters are those of `scan`.

    None: nothing is there, or a directory, or a link that is kept, or the rules leave it out. What is refused
    may be a directory above `path`: that stands for all that lies below it. Whether the home was replaced is
    not asked (`Home.check`).

    Raises
    ------
    HomeError: `path` is not one below the home, or the home itself cannot be read.
    """
    check_path(path)
    if not path or not rules.takes(path):
        return None
    home.private.renew()
    walk = _Walk(home, rules, max_file_bytes, MAX_KEY_BYTES - key_prefix_bytes)
    walk.run_to(path)
    return walk.refused[0] if walk.refused else walk.files.get(path)


def names_in(home: Home, directory: str) -> list[str]:
    """The names in `directory`, unsorted; none where there is no such directory, or it may not be read."""
    try:
        with home.directory(directory) as fd, os.scandir(fd) as entries:
            return [entry.name for entry in entries]
    except (OSError, HomeError):
        return []


def names_taken(rules: Rules, path: str, fd: int) -> Iterator[tuple[str, os.DirEntry[str], bool]]:
    """What a scan would look at in the open directory at `path`: its path, and whether it is a directory."""
    place = rules.place(path)
    prefix = path + "/" if path else ""
    with os.scandir(fd) as entries:
        for entry in entries:
            below = prefix + entry.name
            is_directory = entry.is_dir(follow_symlinks=False)
            verdict = place.decide(entry.name, is_directory)
            if not is_directory and verdict.taken:
                yield below, entry, False
            elif is_directory and (verdict.taken or verdict.descend) and not path_problem(below):
                yield below, entry, True


class _Walk:
    """The state of one scan."""

    def __init__(self, home: Home, rules: Rules, max_file_bytes: int, max_path_bytes: int) -> None:
        self.files: dict[str, FileStat] = {}
        self.directories: dict[str, DirStat] = {}
        self.links: dict[str, LinkStat] = {}
        self.refused: list[Refused] = []
        self.excluded = 0
        self._home = home
        self._rules = rules
        self._max_file_bytes = max_file_bytes
        self._max_path_bytes = max_path_bytes
        self._pending = [""]
        self._uid = os.geteuid()
        self._owner_uid = home.owner_uid
        self._private = home.private if home.private else None
        self._reads_all = False

    @cached_property
    def _groups(self) -> frozenset[int]:
        return frozenset((*os.getgroups(), os.getegid()))

    def run(self) -> None:
        while self._pending:
            path = self._pending.pop()
            try:
                self._directory(path)
            except OSError as error:
                self._failed(path, error)

    def run_to(self, path: str) -> None:
        """Look at `path` alone, and open on the way what `run` would open."""
        *above, name = path.split("/")
        at, fd = "", -1
        try:
            fd = self._home.descend("", DIRECTORY)
            for part in above:
                at = f"{at}/{part}" if at else part
                self._refuses_name(at)
                below = os.open(part, DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = below
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode) and not self._refuses_name(path):
                self._found(path, found, self._rules.place(at), fd, name)
        except OSError as error:
            if error.errno in _ABSENT:
                self.refused.clear()
            else:
                self._failed(at, error)
        finally:
            if fd >= 0:
                os.close(fd)

    def _refuses_name(self, path: str) -> bool:
        if path.isascii() and path.isprintable() and "\\" not in path and len(path) <= self._max_path_bytes:
            return False
        problem = path_problem(path, MAX_KEY_BYTES - self._max_path_bytes)
        if problem:
            self.refused.append(Refused(path, problem))
        return bool(problem)

    def _directory(self, path: str) -> None:
        place = self._rules.place(path)
        with Directory(self._home.descend(path, DIRECTORY)) as fd, os.scandir(fd) as entries:
            if place.taken:
                found = os.fstat(fd)
                self.directories[path] = DirStat(path, time_ns(found.st_mtime_ns), found.st_mode & 0o777)
            self._names(path + "/" if path else "", place, fd, entries)

    def _names(self, prefix: str, place: Place, fd: int, entries: os._ScandirIterator[str]) -> None:
        room = self._max_path_bytes - len(os.fsencode(prefix))
        for entry in entries:
            name = entry.name
            is_directory = entry.is_dir(follow_symlinks=False)
            verdict = place.decide(name, is_directory)
            if not verdict.taken and not verdict.descend:
                self.excluded += 1
                continue
            path = prefix + name
            if not (name.isascii() and name.isprintable() and "\\" not in name and len(name) <= room) and (
                problem := path_problem(path, MAX_KEY_BYTES - self._max_path_bytes)
            ):
                self.refused.append(Refused(path, problem))
            elif is_directory:
                self._pending.append(path)
            elif verdict.taken:
                self._entry(path, place, fd, entry)

    def _entry(self, path: str, place: Place, fd: int, entry: os.DirEntry[str]) -> None:
        try:
            self._found(path, entry.stat(follow_symlinks=False), place, fd, entry.name)
        except OSError as error:
            if error.errno not in _SWAPPED:
                raise

    def _found(self, path: str, found: os.stat_result, place: Place, fd: int, name: str) -> None:
        if stat.S_ISLNK(found.st_mode):
            self._link(path, found, place, fd, name)
        elif stat.S_ISREG(found.st_mode):
            self._file(path, found, fd, name)
        elif not stat.S_ISDIR(found.st_mode):
            self.refused.append(Refused(path, f"it is {kind(found.st_mode)}"))

    def _file(self, path: str, found: os.stat_result, fd: int, name: str) -> None:
        if found.st_size > self._max_file_bytes:
            reason = self._over_the_cap(found.st_size)
        elif not self._is_readable(found, fd, name):
            reason = not_permitted(found)
        elif self._private and (own := self._private.reason(path, found)):
            reason = own
        elif found.st_uid == self._owner_uid:
            reason = ""
        else:
            look = partial(os.stat, name, dir_fd=fd, follow_symlinks=False)
            reason = foreign_reason(self._home, found, look)
        if reason:
            self.refused.append(Refused(path, reason))
        else:
            self.files[path] = file_stat(path, found)

    def _link(self, path: str, found: os.stat_result, place: Place, fd: int, name: str) -> None:
        if not place.decide(name, True).taken:  # a directory rule holds for a link to a directory as well
            self.excluded += 1
            return
        target = kept_target(self._home, path, os.readlink(name, dir_fd=fd))
        problem = link_problem(path, target)
        if problem:
            self.refused.append(Refused(path, problem))
        else:
            self.links[path] = LinkStat(path, target, time_ns(found.st_mtime_ns))

    def _over_the_cap(self, size: int) -> str:
        cap = self._max_file_bytes / _MIB
        return f"it has {size / _MIB:,.1f} MiB, more than the {cap:,.1f} MiB of CLAUDE_SIDECAR_MAX_FILE_MIB"

    def _is_readable(self, found: os.stat_result, fd: int, name: str) -> bool:
        """By the permission bits; where they say no, the kernel is asked: it knows capabilities and ACLs."""
        mode = found.st_mode
        if found.st_uid == self._uid:
            allowed = mode & stat.S_IRUSR
        elif found.st_gid in self._groups:
            allowed = mode & stat.S_IRGRP
        else:
            allowed = mode & stat.S_IROTH
        if allowed or self._reads_all:
            return True
        readable = os.access(name, os.R_OK, dir_fd=fd, effective_ids=True, follow_symlinks=False)
        self._reads_all = readable and self._uid == 0
        return readable

    def _failed(self, path: str, error: OSError) -> None:
        if not path or error.errno in EXHAUSTED:
            raise home_error("read", path, error) from error
        if error.errno in VANISHED:
            return
        self.refused.append(Refused(path, self._why(path, error)))

    def _why(self, path: str, error: OSError) -> str:
        if error.errno in (errno.EACCES, errno.EPERM):
            try:
                return not_permitted(self._home.lstat(path))
            except (OSError, HomeError):
                return f"UID {self._uid} may not read it"
        return f"it cannot be read: {error.strerror}"
