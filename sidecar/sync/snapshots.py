"""One version of a local file that may change at any moment: what is sent is exactly what was hashed.

A small file is read into memory once. A large one is hashed block by block first; every later read is checked
against the block's hash and raises FileChanged where the agent rewrote it meanwhile. Bytes that were appended
behind the end are not part of the snapshot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Protocol

from sidecar.errors import FileChanged
from sidecar.sync.bodies import Bytes, blocks
from sidecar.sync.merge import BLOCK_BYTES, Readable

# Up to this a snapshot is held in memory, and the store sends it as one request.
MEMORY_BYTES = 80 * 1024 * 1024


class OpenFile(Protocol):
    """A local file, open: `read` returns exactly the bytes asked for or raises FileChanged."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


class Snapshot:
    """The first `end` bytes of `file`, fixed, with their SHA-256 (``sha256``).

    Parameters
    ----------
    prefixes: lengths in bytes, each at most `end`, whose digests are taken in the same pass.
    by_blocks: hold nothing in memory, whatever the size: little of it is likely to be read again.

    Raises
    ------
    FileChanged: the file shrank or changed while it was read.
    """

    def __init__(
        self, file: OpenFile, end: int, prefixes: Collection[int] = (), *, by_blocks: bool = False
    ) -> None:
        self.size = end
        self._file: Readable = file
        self._blocks: list[bytes] = []
        self._prefixes: dict[int, str] = {}
        self._by_blocks = by_blocks or end > MEMORY_BYTES
        if not self._by_blocks:
            data = file.read(0, end) if end else b""
            self._file = Bytes(data)
            if not prefixes:
                self.sha256 = hashlib.sha256(data).hexdigest()
                return
        self.sha256 = self._hashed(sorted(set(prefixes)))

    def _hashed(self, prefixes: list[int]) -> str:
        """The digest of the whole; on the way those of `prefixes` are noted, and of a large one's blocks."""
        running, at = hashlib.sha256(), 0
        for block in blocks(self._file, 0, self.size):
            while prefixes and prefixes[0] <= at + len(block):
                part = running.copy()
                part.update(block[: prefixes[0] - at])
                self._prefixes[prefixes.pop(0)] = part.hexdigest()
            running.update(block)
            at += len(block)
            if self._by_blocks:
                self._blocks.append(hashlib.sha256(block).digest())
        self._prefixes.update(dict.fromkeys(prefixes, running.hexdigest()))
        return running.hexdigest()

    def prefix_sha256(self, length: int) -> str:
        """The SHA-256 of the first `length` bytes, one of `prefixes`."""
        return self._prefixes[length]

    @property
    def in_memory(self) -> bool:
        """True where no later read can fail, or copies anything."""
        return not self._blocks

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Exactly `length` bytes from `offset`."""
        if not self._blocks:
            return self._file.read(offset, length)
        start = offset - offset % BLOCK_BYTES
        end = min(-(-(offset + length) // BLOCK_BYTES) * BLOCK_BYTES, self.size)
        data = memoryview(self._file.read(start, end - start))
        for at in range(start, end, BLOCK_BYTES):
            block = data[at - start : at - start + BLOCK_BYTES]
            if hashlib.sha256(block).digest() != self._blocks[at // BLOCK_BYTES]:
                raise FileChanged("the file was rewritten while it was read", "the next round takes it")
        return data[offset - start : offset - start + length]
