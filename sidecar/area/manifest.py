"""The manifest: the committed picture of an area.

It makes restores fast and carries what S3 cannot: directories, symbolic links, a mode or mtime that changed
without the content, and which files ride in a pack. It is never the truth: a path's entry counts only where
its ETag is the one that a listing shows. Lost, stale or damaged, it costs speed and empty directories, never
content. Here are its values; how they rest in the bucket is `sidecar.area.manifest_format`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

from msgspec import Struct, field

from sidecar.dense import Dense

Value = TypeVar("Value")


class FileEntry(NamedTuple):
    """What the area holds for one path, as of the object version `etag`.

    ``pack``: the name of the pack that holds the same bytes from ``offset`` on; empty where none does.
    """

    etag: str
    size: int
    mtime_ns: int
    mode: int
    digest: str
    pack: str = ""
    offset: int = 0

    def riding(self, pack: str, offset: int) -> FileEntry:
        """The same in `pack`; in a fifth of the time of `_replace`, for thousands."""
        return FileEntry(self.etag, self.size, self.mtime_ns, self.mode, self.digest, pack, offset)


class PackEntry(NamedTuple):
    """``size`` of the pack as it rests, ``content``: the bytes of the files that were put into it."""

    size: int
    content: int


DirEntry = tuple[int, int]
"""(mode, mtime_ns)"""
LinkEntry = tuple[str, int]
"""(target, mtime_ns)"""


class Manifest(Struct, frozen=True):
    """``files``, ``directories`` and ``links`` by path.

    ``packs``: those that the files name. ``retired``: what no manifest names since
    this time (seconds since the epoch), still there for restores that read an earlier one.
    """

    files: Mapping[str, FileEntry] = field(default_factory=dict)
    directories: dict[str, DirEntry] = field(default_factory=dict)
    links: dict[str, LinkEntry] = field(default_factory=dict)
    generation: int = 0
    writer: str = ""
    packs: dict[str, PackEntry] = field(default_factory=dict)
    retired: dict[str, int] = field(default_factory=dict)


class Changes(Struct, frozen=True):
    """What to change in a manifest, by path; None takes a path out."""

    files: Mapping[str, FileEntry | None] = field(default_factory=dict)
    directories: dict[str, DirEntry | None] = field(default_factory=dict)
    links: dict[str, LinkEntry | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.files or self.directories or self.links)

    def then(self, later: Changes) -> Changes:
        """These changes and `later` ones as one."""
        files = changed_files(self.files)
        files.update(later.files)
        return Changes(files, {**self.directories, **later.directories}, {**self.links, **later.links})

    def settled(self) -> Changes:
        """Without what takes a path out: for where nothing stands before these changes."""
        files = changed_files(self.files)
        files.drop(None)
        return Changes(files, _there(self.directories), _there(self.links))


def changed_files(
    values: Mapping[str, FileEntry | None] | Iterable[tuple[str, FileEntry | None]] = (),
) -> Dense[FileEntry | None]:
    """`values` in little memory."""
    return Dense(FileEntry | None, values)


def changes_between(old: Manifest, new: Manifest) -> Changes:
    """What makes `new` of `old`."""
    before, after = Dense[FileEntry](FileEntry, old.files), Dense[FileEntry](FileEntry, new.files)
    files = changed_files(after.only(after.changed_since(before)))
    files.update(dict.fromkeys(path for path in before if path not in after))
    return Changes(files, _between(old.directories, new.directories), _between(old.links, new.links))


def _between(old: Mapping[str, Value], new: Mapping[str, Value]) -> dict[str, Value | None]:
    changed: dict[str, Value | None] = {path: value for path, value in new.items() if old.get(path) != value}
    changed.update(dict.fromkeys(old.keys() - new.keys()))
    return changed


def _there(values: Mapping[str, Value | None]) -> dict[str, Value | None]:
    return {path: value for path, value in values.items() if value is not None}


def present(values: Mapping[str, Value | None]) -> dict[str, Value]:
    """What `values` leave standing."""
    return {path: value for path, value in values.items() if value is not None}
