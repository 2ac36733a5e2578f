"""What a store says of objects: plain values, and the shape of a body that can be sent."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from msgspec import Struct


class ObjectInfo(NamedTuple):
    """One key of a listing. ``etag`` is kept exactly as the store gave it, quotes included."""

    key: str
    size: int
    etag: str
    modified: float
    """Seconds since the epoch, by the store's clock."""


class SkippedKey(Struct, frozen=True):
    """A foreign key that is not ours to carry; ``reason`` is half a sentence."""

    key: str
    reason: str


class Listing(Struct, frozen=True):
    """All keys under a prefix. ``objects`` is by key; a key listed twice stands once."""

    objects: dict[str, ObjectInfo]
    skipped: tuple[SkippedKey, ...] = ()


class ObjectHead(Struct, frozen=True):
    """An object's listing line and its user metadata (names in lower case, without ``x-amz-meta-``)."""

    info: ObjectInfo
    metadata: dict[str, str]


class IfAbsent(Struct, frozen=True):
    """Write only where there is no object: ``If-None-Match: *``."""


class IfMatch(Struct, frozen=True):
    """Write only over exactly this version: ``If-Match: etag``."""

    etag: str


Condition = IfAbsent | IfMatch


class Source(Protocol):
    """A body to send. It can be read more than once: an attempt that failed is sent again."""

    @property
    def size(self) -> int:
        """Length in bytes; fixed while the source lives."""
        ...

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Exactly `length` bytes from `offset`; raises FileChanged where the file no longer has them."""
        ...
