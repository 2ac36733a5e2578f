"""One version of a local file that may change at any moment: what is sent is exactly what was hashed.

A small file is read into memory once. A large one is hashed block by block first; every later read is checked
against the block's hash and raises FileChanged where the agent rewrote it meanwhile. Bytes that were appended
behind the end are not part of the snapshot.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from sidecar.errors import FileChanged
from sidecar.sync.bodies import Bytes
from sidecar.sync.merge import BLOCK_BYTES, Readable

# Up to this a snapshot is held in memory, and the store sends it as one request.
MEMORY_BYTES = 32 * 1024 * 1024


class OpenFile(Protocol):
    """A local file, open: `read` returns exactly the bytes asked for or raises FileChanged."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


class Snapshot:
    """The first `end` bytes of `file`, fixed, with their SHA-256 (``sha256``) and those of a shorter prefix.

    Parameters
    ----------
    prefix: a length in bytes, at most `end`; ``prefix_sha256`` is its digest, from the same pass.

    Raises
    ------
    FileChanged: the file shrank or changed while it was read.
    """

    def __init__(self, file: OpenFile, end: int, prefix: int = 0) -> None:
        self.size = end
        self._name = str(getattr(file, "path", "a file"))
        self._file: Readable = file
        self._blocks: list[bytes] = []
        whole, self.prefix_sha256 = hashlib.sha256(), ""
        if end <= MEMORY_BYTES:
            data = file.read(0, end) if end else b""
            self._file = Bytes(data)
            self.prefix_sha256 = hashlib.sha256(memoryview(data)[:prefix]).hexdigest()
            whole.update(data)
        else:
            self.prefix_sha256 = self._hash_blocks(whole, prefix)
        self.sha256 = whole.hexdigest()

    @property
    def in_memory(self) -> bool:
        """True where no later read can fail."""
        return not self._blocks

    def _hash_blocks(self, whole: hashlib._Hash, prefix: int) -> str:
        at, prefix_sha256 = 0, hashlib.sha256().hexdigest()
        while at < self.size:
            block = self._file.read(at, min(BLOCK_BYTES, self.size - at))
            if at <= prefix < at + len(block):
                part = whole.copy()
                part.update(block[: prefix - at])
                prefix_sha256 = part.hexdigest()
            whole.update(block)
            self._blocks.append(hashlib.sha256(block).digest())
            at += len(block)
        return whole.hexdigest() if prefix == self.size else prefix_sha256

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Exactly `length` bytes from `offset`."""
        if not self._blocks:
            return self._file.read(offset, length)
        first, last = offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES
        parts = [self._checked_block(number) for number in range(first, last + 1)] if length else []
        start = offset - first * BLOCK_BYTES
        return memoryview(b"".join(parts))[start : start + length]

    def _checked_block(self, number: int) -> bytes:
        at = number * BLOCK_BYTES
        block = bytes(self._file.read(at, min(BLOCK_BYTES, self.size - at)))
        if hashlib.sha256(block).digest() != self._blocks[number]:
            raise FileChanged(f"{self._name} was rewritten while it was read", "the next round takes it")
        return block
