"""A pack: many small files in one compressed object, so that a restore is a few requests.

It is a tar in one zstd frame (``zstd -d | tar t`` lists it), named by the SHA-256 of its bytes, and never
changes. Where a file's bytes begin in the unpacked tar stands in the manifest, with their digest; nothing is
believed that the digest does not confirm. A pack is never the truth: each file in it is an object as well.

The tar's headers: POSIX.1-1988 ustar, and pax for names that do not fit
(https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html#tag_20_92_13_06).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from sidecar.area.manifest_format import WINDOW_LOG
from sidecar.errors import ObjectDamaged

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SUFFIX = ".tar.zst"
# A larger file gains little: its transfer takes longer than its request.
MAX_MEMBER_BYTES = 1024 * 1024
# A pack is closed when it has this much; with its last member it stays under 8 MiB.
FULL_BYTES = 6 * 1024 * 1024
# Well compressed files: a pack holds at most this much of them, so that packs can be restored side by side.
FULL_UNPACKED_BYTES = 48 * 1024 * 1024
_LEVEL = 3
_BLOCK = 512
# What a ustar header has behind its checksum is the same in each.
_SUM_BEHIND = sum(b"0ustar\00000")
_STEP_BYTES = 1024 * 1024
_MAX_UNPACKED_BYTES = 1024 * 1024 * 1024


class PackWriter:
    """One pack in the making."""

    def __init__(self) -> None:
        self._compressor = zstd.ZstdCompressor(level=_LEVEL)
        self._out: list[bytes] = []
        self.size = 0
        self.unpacked = 0

    @property
    def is_full(self) -> bool:
        return self.size >= FULL_BYTES or self.unpacked >= FULL_UNPACKED_BYTES

    def add(self, path: str, data: bytes | memoryview, mtime_ns: int, mode: int) -> int:
        """Add a file; returns where its bytes begin in the unpacked tar."""
        header = _header(path, len(data), mtime_ns, mode)
        offset = self.unpacked + len(header)
        self._take(header + data + bytes(-len(data) % _BLOCK))
        return offset

    def finished(self) -> bytes:
        """The whole pack."""
        self._take(bytes(2 * _BLOCK))
        self._out.append(self._compressor.flush())
        return b"".join(self._out)

    def _take(self, data: bytes) -> None:
        self.unpacked += len(data)
        out = self._compressor.compress(data)
        if out:
            self._out.append(out)
            self.size += len(out)


class PackReader:
    """The unpacked bytes of a pack, read forwards once. ``chunks``: the pack as it comes."""

    def __init__(self, chunks: Iterator[bytes], name: str) -> None:
        self._chunks = chunks
        self._name = name
        limit = zstd.DecompressionParameter.window_log_max
        self._decompressor = zstd.ZstdDecompressor(options={limit: WINDOW_LOG})
        self._buffer = b""
        self._start = 0

    def read(self, offset: int, size: int) -> bytes:
        """The `size` bytes at `offset`, which must not lie before what was read already.

        Raises
        ------
        ObjectDamaged: not a pack, or none that has these bytes.
        """
        end = offset + size
        if offset < self._start or size < 0 or end > _MAX_UNPACKED_BYTES:
            raise self._damaged()
        while self._start + len(self._buffer) < end:
            self._drop(offset)
            self._buffer += self._more()
        at = offset - self._start
        return self._buffer[at : at + size]

    def _drop(self, offset: int) -> None:
        passed = min(offset - self._start, len(self._buffer))
        self._buffer = self._buffer[passed:]
        self._start += passed

    def _more(self) -> bytes:
        decompressor = self._decompressor
        try:
            while not decompressor.eof:
                data = b""
                if decompressor.needs_input:
                    data = next(self._chunks, b"")
                    if not data:
                        break
                out: bytes = decompressor.decompress(data, max_length=_STEP_BYTES)
                if out:
                    return out
        except zstd.ZstdError as error:
            raise self._damaged() from error
        raise self._damaged()

    def _damaged(self) -> ObjectDamaged:
        return ObjectDamaged(
            f"the pack {self._name} is damaged, or not what the manifest says of it",
            "its files are read from their objects",
        )


def _header(path: str, size: int, mtime_ns: int, mode: int) -> bytes:
    seconds = max(0, mtime_ns // 1_000_000_000)
    name = path.encode()
    if len(name) > 100 or not name.isascii() or seconds >= 1 << 33:
        return _pax_header(path, size, seconds, mode)
    fields = b"%s%s0000000\0000000000\0%011o\0%011o\0        0%sustar\00000%s" % (
        name.ljust(100, b"\0"),
        b"%07o\0" % (mode & 0o777),
        size,
        seconds,
        bytes(100),
        bytes(_BLOCK - 265),
    )
    return fields[:148] + b"%06o\0 " % (sum(fields[:156]) + _SUM_BEHIND) + fields[156:]


def _pax_header(path: str, size: int, seconds: int, mode: int) -> bytes:
    import tarfile

    member = tarfile.TarInfo(path)
    member.size, member.mtime, member.mode = size, seconds, mode & 0o777
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
