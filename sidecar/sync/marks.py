"""What a ledger remembers, as plain values: the two marks of a path, and the header of the whole."""

from __future__ import annotations

import os
from typing import Any

from msgspec import Struct, convert, field
from msgspec.structs import replace

from sidecar.home.entries import FileStat

# A file changed this shortly before it was read may change again within the same clock tick, unseen by its
# times (the kernel's tick is 1 to 10 ms; git calls such an entry racily clean).
RACY_NS = 50_000_000


class Settled(Struct, frozen=True, array_like=True, gc=False):
    """A conflict that was decided: this local content against this object. It moves no base (rule 8)."""

    local_digest: str
    etag: str
    stat: FileStat | None = None


class Mark(Struct, frozen=True, array_like=True, gc=False):
    """The two marks of one path (rule 1). The order of the fields is the ledger's format.

    ``etag, size, digest``: (a), the object as shipped or read; an empty ETag means cleared: unite in full.
    ``local_size, local_digest``: (b), the prefix of the local file that this object contains.
    ``stat``: the local file as it was when (b) was taken; equal again means untouched. None: read it again.
    ``mtime_ns, mode``: what the manifest says of the file.
    ``loser``: the ETag of an object that a restore passed over for a newer journalled version (rule 10).
    """

    etag: str
    size: int
    digest: str
    local_size: int
    local_digest: str
    stat: FileStat | None = None
    mtime_ns: int = 0
    mode: int = 0o600
    settled: Settled | None = None
    loser: str = ""

    def cleared(self) -> Mark:
        """This mark with (a) taken back: the next checkpoint unites in full (rule 5)."""
        return replace(self, etag="")


class Flushed(Struct, frozen=True):
    """What of a path is durable: its first `size` bytes, with SHA-256 `digest`.

    ``sequence``: the last entry that carries something of the path. ``folded``: up to here its entries are
    settled: in the object, or displaced by a later version of this writer. ``tried``: the size and digest of
    what an entry carries beyond that whose answer never came: it may be in the journal.
    """

    size: int
    digest: str
    sequence: int
    stat: FileStat | None = None
    folded: int = 0
    tried: tuple[int, str] | None = None

    @property
    def unsettled(self) -> bool:
        """Whether an entry carries something of the path that no checkpoint found settled."""
        return self.sequence > self.folded


class Known(Struct, frozen=True):
    """What is known of a path before its file is read.

    ``number``: an entry up to it was made of what stood there before the reading, a later one of what stood
    there since. Where the journal may have something of the path, it is the reader's alone.
    """

    mark: Mark | None
    flushed: Flushed | None
    number: int


class OwnEntry(Struct, frozen=True):
    """A journal entry of this writer that is still in the bucket.

    ``paths``: what it carries. ``folded``: a checkpoint found all of it in the objects; a second one that
    finds the same removes it (rule 13).
    """

    paths: tuple[str, ...]
    size: int
    folded: bool = False


class OwnVoid(Struct, frozen=True):
    """An entry of this writer that declares what it journalled of ``entry.paths`` before void."""

    sequence: int
    entry: OwnEntry


class Header(Struct, frozen=True):
    """What the ledger as a whole stands for.

    ``restored``: the restore-complete mark. ``compared``: the home met a listing of the area once, so that
    the marks know every object that a local path has. ``foreign_entries``: the journal may hold entries of
    other writers. ``not_restored``: how many files a restore left out.
    """

    user_id: str
    area: str
    writer: str
    home: tuple[int, int]
    restored: bool = False
    compared: bool = False
    foreign_entries: bool = True
    generation: int = 0
    directories: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    not_restored: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


def lasting(stat: FileStat, read_at_ns: int) -> FileStat | None:
    """`stat` if equal times will prove that the file is untouched, else None (it changed too recently)."""
    return stat if stat.mtime_ns + RACY_NS < read_at_ns else None


def new_writer(pod_uid: str | None) -> str:
    """A writer's name: a fresh ledger is a fresh writer, even in the same pod (rule 12)."""
    return f"{pod_uid or 'pod'}-{os.urandom(6).hex()}"


def packed_flushed(flushed: Flushed) -> list[Any]:
    """`flushed` as a short JSON list."""
    known = [flushed.size, flushed.digest, flushed.sequence, flushed.stat, flushed.folded]
    return [*known, *flushed.tried] if flushed.tried else known


def unpacked_flushed(fields: list[Any]) -> Flushed:
    """The value in a JSON list; raises ValueError or TypeError where it is none."""
    size, digest, sequence, stat, folded, *tried = fields
    known = convert(stat, FileStat) if stat else None
    return Flushed(size, digest, sequence, known, folded, (tried[0], tried[1]) if tried else None)


def packed_entry(entry: OwnEntry) -> list[Any]:
    """`entry` as a short JSON list."""
    return [list(entry.paths), entry.size, entry.folded]


def unpacked_entry(fields: list[Any]) -> OwnEntry:
    """The value in a JSON list; raises ValueError or TypeError where it is none."""
    paths, size, folded = fields
    return OwnEntry(tuple(paths), size, folded)


def header_document(header: Header) -> dict[str, Any]:
    """`header` as JSON."""
    return {
        "user_id": header.user_id,
        "area": header.area,
        "writer": header.writer,
        "home": header.home,
        "restored": header.restored,
        "compared": header.compared,
        "foreign_entries": header.foreign_entries,
        "generation": header.generation,
        "directories": header.directories,
        "links": header.links,
        "not_restored": header.not_restored,
        "extra": header.extra,
    }


def header_of(document: dict[str, Any]) -> Header:
    """The header in a JSON `document`; raises KeyError or TypeError where it is none."""
    return Header(
        user_id=document["user_id"],
        area=document["area"],
        writer=document["writer"],
        home=(document["home"][0], document["home"][1]),
        restored=document["restored"],
        compared=document["compared"],
        foreign_entries=document["foreign_entries"],
        generation=document["generation"],
        directories=tuple(document["directories"]),
        links=tuple(document["links"]),
        not_restored=document["not_restored"],
        extra=document["extra"],
    )
