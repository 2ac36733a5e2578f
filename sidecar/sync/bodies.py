"""Bytes to compare and to send: in memory, in a spooled file, or pieced together from spans."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from sidecar.sync.merge import BLOCK_BYTES, Readable, Span

# Above this an object is spooled to a file on the state volume instead of held in memory.
SPOOL_BYTES = 8 * 1024 * 1024


class Bytes:
    """A body in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    @property
    def size(self) -> int:
        return len(self._data)

    def read(self, offset: int, length: int) -> memoryview:
        return self._data[offset : offset + length]


class Spool:
    """An object's bytes as they came, readable anywhere, with their SHA-256; a context manager.

    Up to 8 MiB stay in memory; more goes to an unnamed file in `directory`.

    Raises
    ------
    LedgerError: the volume of `directory` does not take it.
    """

    def __init__(self, chunks: Iterable[bytes], directory: Path) -> None:
        import tempfile

        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(  # noqa: SIM115
            max_size=SPOOL_BYTES, dir=str(directory)
        )
        self._size = 0
        try:
            self.sha256 = self._filled(chunks, directory)
        except BaseException:
            self._file.close()
            raise

    def _filled(self, chunks: Iterable[bytes], directory: Path) -> str:
        digest = hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
            try:
                self._file.write(chunk)
            except OSError as error:
                from sidecar.sync.ledger_file import unusable

                raise unusable(directory, error) from error
            self._size += len(chunk)
        return digest.hexdigest()

    @property
    def size(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class Pieced:
    """Spans of a remote and a local version, read as one body."""

    def __init__(self, spans: Sequence[Span], remote: Readable, local: Readable) -> None:
        sides: dict[str, Readable] = {"remote": remote, "local": local, "newline": Bytes(b"\n")}
        self._parts = [(sides[span.side], span.offset, span.length) for span in spans]
        self._size = sum(span.length for span in spans)

    @property
    def size(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        pieces: list[bytes] = []
        for source, start, span_length in self._parts:
            if length <= 0:
                break
            if offset >= span_length:
                offset -= span_length
                continue
            take = min(length, span_length - offset)
            pieces.append(bytes(source.read(start + offset, take)))
            offset, length = 0, length - take
        return b"".join(pieces)


class Prefix:
    """The first `size` bytes of a body."""

    def __init__(self, source: Readable, size: int) -> None:
        self._source = source
        self.size = size

    def read(self, offset: int, length: int) -> bytes | memoryview:
        return self._source.read(offset, length)


def blocks(source: Readable, start: int = 0, end: int | None = None) -> Iterator[bytes | memoryview]:
    """The bytes of `source` between two offsets, a block at a time."""
    at, end = start, source.size if end is None else end
    while at < end:
        length = min(BLOCK_BYTES, end - at)
        yield source.read(at, length)
        at += length


def sha256(source: Readable, end: int | None = None) -> str:
    """The SHA-256 of ``source[:end]`` in hex."""
    digest = hashlib.sha256()
    for block in blocks(source, 0, end):
        digest.update(block)
    return digest.hexdigest()


def temporary_directory(state_dir: Path) -> Path:
    """Where spooled objects go: on the state volume, never in the home."""
    directory = state_dir / "tmp"
    os.makedirs(directory, mode=0o700, exist_ok=True)  # noqa: PTH103
    return directory
