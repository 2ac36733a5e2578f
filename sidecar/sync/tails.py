"""What a flush remembers of growing files, so that 4 KiB behind 40 MiB cost 4 KiB of reading.

For each transcript: the hash of its flushed prefix, ready to go on, and how often each of its lines occurred.
Only memory: what is not remembered is read once. Bounded by lines; the transcript that slept longest goes.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from sidecar.errors import FileChanged
from sidecar.home.reads import StableFile
from sidecar.sync.bodies import blocks

# Some 100 bytes for each: 20 MB at most, the distinct lines of about 200 MB of transcripts.
MAX_LINES = 200_000
_WINDOW_BYTES = 4096


@dataclass(slots=True)
class Tail:
    """The first `size` bytes of a file: their running hash and the occurrences of their lines."""

    inode: int
    size: int = 0
    hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    lines: Counter[bytes] = field(default_factory=Counter)
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
            identity = hashlib.blake2b(line, digest_size=8).digest()
            self.lines[identity] += 1
            if self.lines[identity] > 1:
                counts[number] = self.lines[identity]
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
        if size > file.size:
            return None
        try:
            fresh = _read(file, size)
        except FileChanged:
            return None
        return fresh if fresh.digest == digest else None

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


def _read(file: StableFile, size: int) -> Tail:
    tail, rest = Tail(file.stat.inode), b""
    for block in blocks(file, 0, size):
        tail.hash.update(block)
        *whole, rest = (rest + bytes(block)).split(b"\n")
        tail.lines.update(hashlib.blake2b(line, digest_size=8).digest() for line in whole)
    tail.size = size
    tail.window = file.read(max(0, size - _WINDOW_BYTES), min(size, _WINDOW_BYTES))
    return tail
