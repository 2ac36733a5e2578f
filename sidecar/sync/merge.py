"""Uniting two versions of a transcript: pure decisions over bytes that somebody else holds.

Promised: nothing that stands in either version is missing from the union; the remote version stands first and
unchanged, so an object only ever grows; a writer's own lines keep their order; the result ends in a newline.
Not promised: chronological order across writers. Two writers who add the very same line at once end with one.

Exact offsets come first: where one version is a prefix of the other, bytes are placed and legitimate
duplicates survive. Only where the bytes diverge are lines compared. A line's identity is its bytes and its
k-th occurrence in its file; the union is the multiset maximum.

Memory: a hash and a counter for each line behind the common prefix (120 bytes a line, measured on 530,000 of
them), and one block. A union is a list of byte spans, not a copy.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Literal, Protocol

from msgspec import Struct

BLOCK_BYTES = 1024 * 1024


class Readable(Protocol):
    """Bytes with a length that can be read anywhere: a stable file, a spooled object, bytes in memory."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes | memoryview: ...


Side = Literal["remote", "local", "newline"]


class Span(Struct, frozen=True):
    """`length` bytes from `offset` of one side; the side ``newline`` stands for one missing line end."""

    side: Side
    offset: int
    length: int


class Union(Struct, frozen=True):
    """The united version as spans. ``added`` counts the bytes that the remote version lacked."""

    spans: tuple[Span, ...]
    added: int

    @property
    def size(self) -> int:
        return sum(span.length for span in self.spans)


def common_prefix(left: Readable, right: Readable, left_end: int, right_end: int) -> int:
    """How many bytes both versions share from their start, up to the given ends."""
    most = min(left_end, right_end)
    at = 0
    while at < most:
        length = min(BLOCK_BYTES, most - at)
        a, b = bytes(left.read(at, length)), bytes(right.read(at, length))
        if a != b:
            return at + _first_difference(a, b)
        at += length
    return most


def _first_difference(a: bytes, b: bytes) -> int:
    low, high = 0, len(a)
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def line_start(source: Readable, offset: int) -> int:
    """The start of the line that holds the byte at `offset`: searched backwards, block by block."""
    end = offset
    while end > 0:
        start = max(0, end - BLOCK_BYTES)
        found = bytes(source.read(start, end - start)).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def lines(source: Readable, start: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """(offset, length with its newline, identity) of each line of `source` between two offsets."""
    at, line_at = start, start
    identity = hashlib.blake2b(digest_size=16)
    while at < end:
        block = bytes(source.read(at, min(BLOCK_BYTES, end - at)))
        position = 0
        while (newline := block.find(b"\n", position)) >= 0:
            identity.update(block[position:newline])
            after = at + newline + 1
            yield line_at, after - line_at, identity.digest()
            line_at, position = after, newline + 1
            identity = hashlib.blake2b(digest_size=16)
        identity.update(block[position:])
        at += len(block)
    if line_at < end:
        yield line_at, end - line_at, identity.digest()


def missing_lines(
    have: Readable, have_end: int, other: Readable, other_end: int, *, side: Side, emit_from: int = 0
) -> list[Span]:
    """The lines of `other` that `have` lacks, as spans of `side` in their order.

    `emit_from`: only lines that start there or later are wanted; those before still count as occurrences.
    """
    shared = common_prefix(have, other, have_end, other_end)
    start = line_start(other, shared) if shared < other_end else shared
    held: Counter[bytes] = Counter(identity for _, _, identity in lines(have, min(start, have_end), have_end))
    spans: list[Span] = []
    for offset, length, identity in lines(other, start, other_end):
        if held[identity] > 0:
            held[identity] -= 1
        elif offset >= emit_from:
            _append(spans, Span(side, offset, length))
    return spans


def _append(spans: list[Span], span: Span) -> None:
    if spans and spans[-1].side == span.side and spans[-1].offset + spans[-1].length == span.offset:
        span = Span(span.side, spans[-1].offset, spans[-1].length + span.length)
        spans.pop()
    spans.append(span)


def unite(remote: Readable, local: Readable, local_end: int) -> Union:
    """The remote version, then what it lacks of ``local[:local_end]`` (which ends at a line end)."""
    shared = common_prefix(remote, local, remote.size, local_end)
    if shared == remote.size:  # the remote version is a prefix, even inside a line: bytes are placed
        spans = [Span("remote", 0, remote.size), Span("local", shared, local_end - shared)]
        return Union(_ended(spans, remote, local), local_end - shared)
    if shared == local_end:
        return Union(_ended([Span("remote", 0, remote.size)], remote, local), 0)
    missing = missing_lines(remote, remote.size, local, local_end, side="local")
    return _joined([Span("remote", 0, remote.size)], missing, remote, local)


def extend(remote: Readable, local: Readable, shipped: int, local_end: int) -> Union:
    """The remote version, then ``local[shipped:local_end]`` byte for byte (rule 1: both marks hold)."""
    return _joined(
        [Span("remote", 0, remote.size)], [Span("local", shipped, local_end - shipped)], remote, local
    )


def rewritten(remote: Readable, local: Readable, local_end: int, foreign_from: int) -> Union:
    """The rewritten local version, then the remote lines that the old local version did not have (rule 2).

    `foreign_from`: where the remote version's foreign part starts; 0 where that cannot be told, and then
    every remote line that the new version lacks is kept.
    """
    foreign = missing_lines(local, local_end, remote, remote.size, side="remote", emit_from=foreign_from)
    return _joined([Span("local", 0, local_end)], foreign, remote, local)


def _joined(first: list[Span], more: list[Span], remote: Readable, local: Readable) -> Union:
    spans = [*_ended(first, remote, local), *more] if more else first
    return Union(_ended(spans, remote, local), sum(span.length for span in more))


def _ended(spans: list[Span], remote: Readable, local: Readable) -> tuple[Span, ...]:
    """`spans` without empty ones, closed by a newline if the last byte is not one."""
    kept = [span for span in spans if span.length]
    if kept:
        last = kept[-1]
        source = remote if last.side == "remote" else local
        if last.side != "newline" and bytes(source.read(last.offset + last.length - 1, 1)) != b"\n":
            kept.append(Span("newline", 0, 1))
    return tuple(kept)
