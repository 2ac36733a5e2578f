"""The kernel's notices about the directories of a home (inotify).

https://man7.org/linux/man-pages/man7/inotify.7.html

A watch belongs to a directory, wherever that is moved. So each is set on a directory that was opened from the
home without following a link, and known under the path on which it was opened; a directory that is renamed is
forgotten with all below it and met again under its new name. Only what the rules take, and what leads to
it, is watched: ``debug/`` and ``node_modules`` cost nothing.

A new directory is listed after its watch is set: what was put into it before is told from the list, what
comes after from the watch. The kernel's queue is finite; when it overflows, notices are lost and said to be.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from inotify_simple import INotify, flags, parse_events  # type: ignore[import-untyped]

from sidecar.errors import HomeError
from sidecar.home.beneath import DIRECTORY, Directory, Home
from sidecar.home.problems import home_error
from sidecar.home.rules import Rules
from sidecar.home.scan import EXHAUSTED, VANISHED, names_taken
from sidecar.names import path_problem

DIRECTORIES_WATCHED = 20_000
"""Beyond this a home is looked at in rounds. A watch takes about 1 KiB of the kernel's memory and keeps the
directory's inode there, all of it counted against the container's limit."""

_WRITTEN = flags.CREATE | flags.MODIFY | flags.CLOSE_WRITE | flags.ATTRIB
_RENAMED = flags.MOVED_FROM | flags.MOVED_TO | flags.DELETE
_MASK = int(_WRITTEN | _RENAMED | flags.ONLYDIR | flags.EXCL_UNLINK)
_HOME_MASK = int(_MASK | flags.MOVE_SELF)
_SELF = int(flags.MOVE_SELF | flags.UNMOUNT)
_IS_DIRECTORY, _LOST, _ENDED = int(flags.ISDIR), int(flags.Q_OVERFLOW), int(flags.IGNORED)
_GONE, _MET = int(flags.MOVED_FROM), int(flags.CREATE | flags.MOVED_TO | flags.ATTRIB)

_BLOCK_BYTES = 64 * 1024
# gVisor calls its view of a host directory so. Each container has a view of its own there, and no notice of
# what another container writes: https://github.com/google/gvisor/issues/11326
_FILE_SYSTEMS_WITHOUT_NOTICES = frozenset(("9p",))
_OCTAL = re.compile(rb"\\([0-7]{3})")
_LIMITS = Path("/proc/sys/fs/inotify")


class NoNotices(HomeError):
    """The kernel gives no notices here."""

    reason = "unsupported"


class NoMoreNotices(NoNotices):
    """It gives none of further directories: a limit is reached, its own, this process's or ours."""

    reason = "limit"


class Notices:
    """The notices of one home; a context manager.

    Parameters
    ----------
    is_stopping: asked between two directories; True ends what is going on, unfinished.

    Raises
    ------
    NoNotices: from here and from every method, with the reason.
    """

    def __init__(self, home: Home, rules: Rules, is_stopping: Callable[[], bool]) -> None:
        self.lost = False  # `changes` met an overflow: `arm` again
        self._home = home
        self._rules = rules
        self._is_stopping = is_stopping
        self._paths: dict[int, str] = {}
        self._known: dict[int, str] = {}
        _demand_notices(home)
        try:
            self._inotify = INotify(nonblocking=True)
        except OSError as error:
            raise _no_notices(error, "max_user_instances") from error

    def __enter__(self) -> Notices:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inotify.close()

    def fileno(self) -> int:
        """The descriptor that has input when there are notices."""
        return int(self._inotify.fileno())

    def arm(self) -> Iterator[str | None]:
        """Watch every directory, and forget those that are gone. Again after notices were `lost`.

        Yields the files in directories that were not watched before; None means: a scan is needed.
        """
        self.lost = False
        self._known, self._paths = self._paths, {}
        yield from self._meet("")
        for watch in self._known.keys() - self._paths.keys():
            self._end(watch)
        self._known = {}

    def read(self) -> bytes:
        """The notices that wait, as the kernel writes them, or the first of them."""
        try:
            return os.read(self.fileno(), _BLOCK_BYTES)
        except BlockingIOError:
            return b""

    def changes(self, block: bytes) -> Iterator[str | None]:
        """The files that `block` speaks of; None means: a scan is needed."""
        for watch, mask, _, name in parse_events(block):
            directory = self._paths.get(watch)
            if directory is None or not name:
                if self._ended(watch, mask):
                    yield None
                continue
            path = f"{directory}/{name}" if directory else name
            if mask & _IS_DIRECTORY:
                yield from self._directory(path, mask)
            elif self._rules.takes(path):
                yield path

    def _ended(self, watch: int, mask: int) -> bool:
        """A notice about no file; True if it means everything."""
        if mask & _LOST:
            self.lost = True
        elif mask & _ENDED:
            self._paths.pop(watch, None)
        return bool(mask & (_LOST | _SELF))

    def _directory(self, path: str, mask: int) -> Iterator[str | None]:
        verdict = self._rules.decide(path, True)
        if not (verdict.taken or verdict.descend) or path_problem(path):
            return
        if mask & _GONE:
            if self._forget(path):
                yield None
        elif mask & _MET:
            yield from self._meet(path)

    def _meet(self, start: str) -> Iterator[str | None]:
        """Watch the directory at `start` and all below it; yields the files of those not known there."""
        pending = [start]
        while pending and not self._is_stopping():
            path = pending.pop()
            try:
                yield from self._enter(path, pending)
            except OSError as error:
                if error.errno in EXHAUSTED:
                    raise NoMoreNotices(str(home_error("watch", path, error))) from error
                if not path:
                    raise NoNotices(str(home_error("watch", path, error))) from error
                if error.errno not in VANISHED:
                    yield None

    def _enter(self, path: str, pending: list[str]) -> Iterator[str]:
        with Directory(self._home.descend(path, DIRECTORY)) as fd:
            watch = self._begin(fd, _MASK if path else _HOME_MASK)
            if self._paths.get(watch) == path:
                return
            self._paths[watch] = path
            is_new = self._known.get(watch) != path
            for below, _, is_directory in names_taken(self._rules, path, fd):
                if is_directory:
                    pending.append(below)
                elif is_new:
                    yield below

    def _begin(self, fd: int, mask: int) -> int:
        if len(self._paths) >= DIRECTORIES_WATCHED:
            raise NoMoreNotices(f"the home has more than {DIRECTORIES_WATCHED:,} directories")
        try:
            return int(self._inotify.add_watch(f"/proc/self/fd/{fd}", mask))
        except OSError as error:
            raise _no_notices(error, "max_user_watches") from error

    def _forget(self, path: str) -> bool:
        """End the watches on `path` and on all below it; False if there are none."""
        below = path + "/"
        watches = [watch for watch, at in self._paths.items() if at == path or at.startswith(below)]
        for watch in watches:
            del self._paths[watch]
            self._end(watch)
        return bool(watches)

    def _end(self, watch: int) -> None:
        with suppress(OSError):  # the directory is gone, and its watch with it
            self._inotify.rm_watch(watch)


def _no_notices(error: OSError, limit: str) -> NoNotices:
    if error.errno not in (errno.ENOSPC, errno.EMFILE):
        return NoNotices(f"inotify is not available: {error.strerror}")
    try:
        value = (_LIMITS / limit).read_text().strip()
    except OSError:
        value = "unknown"
    return NoMoreNotices(
        f"no inotify watch is left: fs.inotify.{limit} is {value} for all containers of this UID on the node",
        f"raise fs.inotify.{limit} on the node",
    )


def _demand_notices(home: Home) -> None:
    kind = file_system(home.root)
    if kind in _FILE_SYSTEMS_WITHOUT_NOTICES:
        raise NoNotices(f"a file system of type {kind} does not tell what another container writes")


def file_system(path: Path) -> str:
    """The type of the file system that `path` (without links) is on; empty if it cannot be told."""
    found, length = "", 0
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return ""
    for line in lines:  # https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
        before, _, after = line.partition(b" - ")
        point = Path(os.fsdecode(_OCTAL.sub(lambda code: bytes((int(code[1], 8),)), before.split(b" ")[4])))
        if path.is_relative_to(point) and len(str(point)) >= length:
            found, length = after.split(b" ")[0].decode(), len(str(point))
    return found
