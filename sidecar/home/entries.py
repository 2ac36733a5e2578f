"""What a scan finds: plain values, no file descriptors."""

from __future__ import annotations

import os

from msgspec import Struct, field

_MOST_NS = 2**63 - 1


class FileStat(Struct, frozen=True, array_like=True, gc=False):
    """A regular file as `fstat` saw it. Two equal values mean: not touched in between.

    ``path`` is relative to the home with ``/`` between its parts, ``mode`` holds the permission bits only.
    The order of the fields is the ledger's format.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    inode: int


class DirStat(Struct, frozen=True):
    """A directory; the home itself has the path ``""``."""

    path: str
    mtime_ns: int
    mode: int


class LinkStat(Struct, frozen=True):
    """A symbolic link that stays inside the home: ``target`` as the link holds it (always relative).

    ``mtime_ns`` is the link's own, and not compared: a link is where it is and where it leads.
    """

    path: str
    target: str
    mtime_ns: int = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LinkStat) and (self.path, self.target) == (other.path, other.target)

    def __hash__(self) -> int:
        return hash((self.path, self.target))


class Refused(Struct, frozen=True):
    """A path that belongs into a backup and cannot be taken: ``reason`` is half a sentence for a person."""

    path: str
    reason: str


class Scan(Struct, frozen=True):
    """One walk through the home: what is in, what was refused, how much the rules left out."""

    files: dict[str, FileStat] = field(default_factory=dict)
    directories: dict[str, DirStat] = field(default_factory=dict)
    links: dict[str, LinkStat] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()
    excluded: int = 0

    def outline(self) -> Outline:
        """What is still needed when the files were compared: of 100,000 that is 20 MiB less."""
        return Outline({path: stat.size for path, stat in self.files.items()}, self.directories, self.links)


class Outline(Struct, frozen=True):
    """What is where in a home; of the files the ``sizes`` in bytes alone."""

    sizes: dict[str, int] = field(default_factory=dict)
    directories: dict[str, DirStat] = field(default_factory=dict)
    links: dict[str, LinkStat] = field(default_factory=dict)


def file_stat(path: str, found: os.stat_result) -> FileStat:
    """The values of a regular file that `found` describes."""
    mtime_ns, ctime_ns = time_ns(found.st_mtime_ns), time_ns(found.st_ctime_ns)
    return FileStat(path, found.st_size, mtime_ns, ctime_ns, found.st_mode & 0o777, found.st_ino)


def time_ns(found_ns: int) -> int:
    """A time as the file system has it, or the nearest that 64 bits can carry: the years 1677 to 2262.

    A volume in memory takes any year, and what is noted of it must be read again.
    """
    return max(-_MOST_NS, min(found_ns, _MOST_NS))
