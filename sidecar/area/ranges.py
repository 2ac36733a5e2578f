"""A large object in ranges, several on their way at once, handed on in order.

One connection to S3 carries some 90 MB/s
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-guidelines.html): a transcript
of hundreds of megabytes comes sooner over several. What waits in memory is bounded for all objects together.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

from msgspec import Struct, field

# Below this, one connection is hardly slower, and nothing is gained.
RANGED_FROM_BYTES = 64 * 1024 * 1024
RANGE_BYTES = 4 * 1024 * 1024
LANES = 4
# Ranges ahead of the one that is handed on next, of all objects together: 32 MiB.
AHEAD_IN_ALL = 8


class _Range(Struct):
    """One range on its way. ``is_ahead``: it holds a place in what may be ahead."""

    is_ahead: bool
    arrived: threading.Event = field(default_factory=threading.Event)
    data: bytes = b""
    error: BaseException | None = None


def in_order(
    read: Callable[[int, int], bytes], offset: int, size: int, ahead: threading.Semaphore
) -> Iterator[bytes]:
    """The bytes from `offset` to `size`, in order; `read` gives so many bytes from an offset, in a thread.

    Raises what `read` raises, at the place where the bytes would come.
    """
    waiting: deque[_Range] = deque()
    try:
        while offset < size or waiting:
            while offset < size and len(waiting) < LANES and (not waiting or ahead.acquire(blocking=False)):
                one = _Range(is_ahead=bool(waiting))
                waiting.append(one)
                length = min(RANGE_BYTES, size - offset)
                threading.Thread(
                    target=_fetch, args=(one, read, offset, length), name="range", daemon=True
                ).start()
                offset += length
            first = waiting.popleft()
            first.arrived.wait()
            _leave(first, ahead)
            if first.error:
                raise first.error
            yield first.data
    finally:
        for one in waiting:
            _leave(one, ahead)


def _fetch(one: _Range, read: Callable[[int, int], bytes], offset: int, length: int) -> None:
    try:
        one.data = read(offset, length)
    except BaseException as error:
        one.error = error
    one.arrived.set()


def _leave(one: _Range, ahead: threading.Semaphore) -> None:
    if one.is_ahead:
        ahead.release()
