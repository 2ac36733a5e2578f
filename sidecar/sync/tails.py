"""What a flush remembers of growing files, so that 4 KiB behind 40 MiB cost 4 KiB of reading.

For each transcript: the hash of its flushed prefix, ready to go on, and how often each of its lines occurred.
Only memory: what is not remembered is read once. Bounded by lines; the transcript that slept longest goes.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct, field

from sidecar.errors import FileChanged
from sidecar.home.reads import StableFile
from sidecar.sync.bodies import blocks
from sidecar.sync.line_tally import LineTally

# Eight bytes for each: the lines of about a gigabyte of transcripts.
MAX_LINES = 1_000_000
_WINDOW_BYTES = 4096
# Who reads ahead rests as long as it works: half of one processor, for a second at the start at most (a
# transcript of 40 MiB takes a tenth of a second).
_REST_PER_WORK = 1


class Tail(Struct):
    """The first `size` bytes of a file: their running hash and the occurrences of their lines."""

    inode: int
    size: int = 0
    hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    lines: LineTally = field(default_factory=LineTally)
    window: bytes = b""

    @property
    def digest(self) -> str:
        return self.hash.hexdigest()

    def grown(self, data: bytes) -> tuple[Tail, dict[int, int]]:
        """The tail after whole lines `data`, and by line number the occurrence, where it is not the first."""
        after = Tail(self.inode, self.size + len(data), self.hash.copy(), self.lines, b"")
        after.hash.update(data)
        after.window = (self.window + data[-_WINDOW_BYTES:])[-_WINDOW_BYTES:]
        counts: dict[int, int] = {}
        for number, line in enumerate(data.split(b"\n")[:-1]):
            count = self.lines.add(line)
            if count > 1:
                counts[number] = count
        return after, counts

    def continues(self, file: StableFile) -> bool:
        """Whether `file` still begins with these bytes, as far as its last 4 KiB tell.

        A rewrite that keeps the inode, the length and the window is found by the next checkpoint, which
        hashes all of it.
        """
        if file.stat.inode != self.inode or file.size < self.size:
            return False
        return file.read(self.size - len(self.window), len(self.window)) == self.window


class Tails:
    """The tails of the transcripts that are written now; not for several threads."""

    def __init__(self) -> None:
        self._tails: OrderedDict[str, Tail] = OrderedDict()
        self._counted: dict[str, int] = {}
        self._lines = 0

    def at(self, path: str, file: StableFile, size: int, digest: str) -> Tail | None:
        """The tail of the first `size` bytes if their SHA-256 is `digest`, else None; read if not known."""
        known = self._tails.get(path)
        if known and known.size == size and known.digest == digest and known.continues(file):
            return known
        return read(file, size, digest)

    def __contains__(self, path: str) -> bool:
        return path in self._tails

    def keep(self, path: str, tail: Tail) -> None:
        """Remember `tail` for the next flush."""
        self.forget(path)
        self._tails[path] = tail
        self._counted[path] = len(tail.lines)
        self._lines += len(tail.lines)
        while len(self._tails) > 1 and self._lines > MAX_LINES:
            self.forget(next(iter(self._tails)))

    def forget(self, path: str) -> None:
        """The next flush reads `path` anew."""
        self._tails.pop(path, None)
        self._lines -= self._counted.pop(path, 0)


def read(
    file: StableFile, size: int, digest: str, *, pace: Callable[[float], bool] = lambda seconds: True
) -> Tail | None:
    """The tail of the first `size` bytes if their SHA-256 is `digest`, else None.

    `pace`: called after each block with the seconds that it took; False gives up.
    """
    if size > file.size:
        return None
    tail, rest = Tail(file.stat.inode), b""
    try:
        began = time.monotonic()
        for block in blocks(file, 0, size):
            tail.hash.update(block)
            *whole, rest = (rest + block).split(b"\n")
            tail.lines.extend(whole)
            if not pace(time.monotonic() - began):
                return None
            began = time.monotonic()
        tail.size = size
        tail.window = file.read(max(0, size - _WINDOW_BYTES), min(size, _WINDOW_BYTES))
    except FileChanged:
        return None
    if tail.digest != digest:
        return None
    tail.lines.settle()
    return tail


def at_leisure(stopping: Callable[[], bool]) -> Callable[[float], bool]:
    """The pace of one who has time: rests after each block, and gives up when `stopping` says so."""

    def pace(worked_seconds: float) -> bool:
        if stopping():
            return False
        time.sleep(min(0.1, _REST_PER_WORK * worked_seconds))
        return not stopping()

    return pace
