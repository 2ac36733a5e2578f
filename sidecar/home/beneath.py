"""The home as an open directory: every path below it is reached without following a link.

The tree is hostile: whoever runs beside us may swap a directory for a link between two of our calls. So
nothing here looks first and opens then. A path is opened in one ``openat2`` call that refuses links in all
its parts, or, where the kernel or a sandbox lacks that, part by part with ``O_NOFOLLOW``. Descriptors of
directories are not kept between calls: a kept one goes on naming a directory that was moved elsewhere, and
opening anew costs 1.5 µs a file. Only a batch of small files (`batches`) keeps one, for some milliseconds:
whoever moves the directory in that time gets his own files where he moved it.

Promised: no path leads out of the directory that was opened. Not promised: that the directory is still
where it was (`Home.check`), and that two calls for one path meet the same file.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from sidecar.errors import HomeError
from sidecar.home import linux
from sidecar.home.private import Private
from sidecar.home.problems import home_error, shown
from sidecar.home.root import demand_writable, give_root, make_root, open_root

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO without a writer would hold the open; O_NOCTTY: a terminal would become ours.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

# No openat2 in this kernel; forbidden by a seccomp profile older than the call; disturbed by a rename.
_PERHAPS_MISSING = frozenset((errno.ENOSYS, errno.EPERM, errno.EAGAIN))
_NEVER_A_PART = frozenset(("", ".", ".."))


class Directory:
    """An open directory: ``with home.directory(path) as fd``. The descriptor is closed at the end."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)


class Turn:
    """Who works on small files: one thread at a time, until the volume turns out to be slow (`batches`)."""

    __slots__ = ("lock", "shared")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.shared = False


class Home:
    """An open home. Threads may share it; `close` ends it.

    ``root`` is where it really is. ``owner`` is who restored files are given to (UID, GID), if this process
    may do that; None leaves them to whoever runs this process. ``private``: the sidecar's own files.
    """

    __slots__ = ("_fd", "_whole_paths", "given", "identity", "owner", "private", "root", "turn")

    def __init__(
        self, fd: int, given: Path, owner: tuple[int, int] | None, private: Sequence[Path] = ()
    ) -> None:
        found = os.fstat(fd)
        self._fd = fd
        self._whole_paths = True
        self.turn = Turn()
        self.given = given
        self.root = Path(os.path.realpath(given))
        self.identity = (found.st_dev, found.st_ino)
        self.private = Private(private, (given, self.root))
        if owner is None and os.geteuid() == 0 and found.st_uid != 0:
            owner = (found.st_uid, found.st_gid)
        self.owner = owner

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        create: bool = False,
        mode: int = 0o700,
        owner: tuple[int, int] | None = None,
        private: Sequence[Path] = (),
    ) -> Home:
        """Open the home at `root`, which may itself be a link or lie behind links: that is resolved once.

        Parameters
        ----------
        create: make it (with `mode`) if it is missing, and demand that it can be written.
        owner: UID and GID of restored files; only root can give files away, and with `create` gives them a
            home that is root's, too. Default for root: the home's owner, unless that is root.
        private: files of the sidecar itself, which are never read as part of the home.

        Raises
        ------
        HomeError: missing, a file, a dangling link, not readable, or (with `create`) not writable.
        """
        made = create and make_root(root, mode)
        fd = open_root(root)
        try:
            if create and owner is not None:
                give_root(root, fd, owner, made)
            if create:
                demand_writable(root, fd)
            return cls(fd, root, owner, private)
        except BaseException:
            os.close(fd)
            raise

    def __enter__(self) -> Home:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it. Closing twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def owner_uid(self) -> int:
        """Whose files are the home's own: the owner's, else this process's (root: those of root)."""
        return self.owner[0] if self.owner is not None else os.geteuid()

    def check(self) -> None:
        """Raises HomeError if the home's path now leads to another directory or to none.

        An emptied and re-made home would otherwise read as "everything was deleted".
        """
        try:
            found = os.stat(self.given)  # noqa: PTH116
        except OSError as error:
            raise HomeError(f"the home {shown(str(self.given))} is gone: {error.strerror}") from error
        if (found.st_dev, found.st_ino) != self.identity:
            raise HomeError(
                f"the home {shown(str(self.given))} was replaced by another directory",
                "start the sidecar again",
            )

    def free_bytes(self) -> int:
        """What can still be written, in bytes. A limit that is not the file system's own is not seen."""
        found = os.fstatvfs(self._fd)
        return found.f_bavail * found.f_frsize

    def directory(self, path: str) -> Directory:
        """The directory at `path` (the home itself is ``""``) for the calls of `os` that take a ``dir_fd``.

        Raises
        ------
        FileChanged: it is not there.
        HomeError: a link or another kind of file is in the way, or it may not be read.
        """
        try:
            return Directory(self.descend(path, DIRECTORY))
        except OSError as error:
            raise home_error("open", path, error) from error

    def descend(self, path: str, flags: int) -> int:
        """Open `path` with `flags` and no link followed; raises OSError as the kernel answers.

        `flags` hold ``O_NOFOLLOW`` and ``O_CLOEXEC``, and never create.
        """
        check_path(path)
        if "/" not in path:
            return os.open(path or ".", flags, dir_fd=self._fd)
        if self._whole_paths:
            try:
                return linux.open_beneath(self._fd, path, flags)
            except OSError as error:
                if error.errno not in _PERHAPS_MISSING:
                    raise
                fd = self._walk(path.split("/"), flags)
                self._whole_paths = error.errno == errno.EAGAIN
                return fd
        return self._walk(path.split("/"), flags)

    def lstat(self, path: str) -> os.stat_result:
        """What is at `path`, links not followed; raises OSError as the kernel answers."""
        parent, _, name = path.rpartition("/")
        with Directory(self.descend(parent, DIRECTORY)) as fd:
            return os.stat(name or ".", dir_fd=fd, follow_symlinks=False)

    def _walk(self, parts: list[str], flags: int) -> int:
        fd = os.open(parts[0], DIRECTORY, dir_fd=self._fd)
        for part, wanted in zip(parts[1:], [DIRECTORY] * (len(parts) - 2) + [flags], strict=True):
            try:
                below = os.open(part, wanted, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd


def check_path(path: str) -> None:
    """Raises HomeError for what is not a plain relative path: ``..``, ``//``, a leading slash, a NUL."""
    if path and (not _NEVER_A_PART.isdisjoint(path.split("/")) or "\0" in path):
        raise HomeError(f"{shown(path)} is not a path below the home")
    if not path.isascii():
        try:
            os.fsencode(path)
        except UnicodeEncodeError as error:
            raise HomeError(f"{shown(path)} is not a name that a file can have") from error


def parent_and_name(path: str) -> tuple[str, str]:
    """The directory of `path` and its name in it; raises HomeError for a path that cannot be a file's."""
    check_path(path)
    if not path:
        raise HomeError("the home itself is no file")
    parent, _, name = path.rpartition("/")
    return parent, name
