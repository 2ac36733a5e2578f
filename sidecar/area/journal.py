"""The journal: what was written since the last checkpoint, one object for each flush.

An entry is zstd over one line of JSON (the header: who, when, and what each record continues) and then the
records' bytes, one after another. It is self-describing and checked as a whole: an entry whose bytes are not
what its header says is damaged and is not applied in part. A key names one body for ever.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable
from typing import Any

from msgspec import Struct, field

from sidecar.errors import FormatError, ObjectDamaged

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FORMAT_MAJOR, FORMAT_MINOR = 1, 0
SUFFIX = ".zst"
# A batch holds at most this much before compression, so that it fits into the seconds that a pod may have.
MAX_BATCH_BYTES = 8 * 1024 * 1024
# What an entry may unpack to: a batch, its header, and room for a later version's larger batches.
_MAX_UNPACKED_BYTES = 16 * MAX_BATCH_BYTES
_NAME = re.compile(r"(?P<writer>[^/]{1,200})/(?P<sequence>\d{1,18})\.zst")


class Lines(Struct, frozen=True):
    """New whole lines of a transcript.

    ``offset``: where they begin in the writer's file; ``base``: the SHA-256 of that file before them.
    ``counts``: by line number in ``data``, which occurrence the line is in the writer's file, where it is not
    the first (rule 3).
    """

    path: str
    offset: int
    base: str
    data: bytes
    mtime_ns: int
    mode: int
    counts: dict[int, int] = field(default_factory=dict)

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


class Whole(Struct, frozen=True):
    """A small file as a whole; ``base``: the SHA-256 of the version that it was made from, if known."""

    path: str
    data: bytes
    sha256: str
    base: str
    mtime_ns: int
    mode: int


class Void(Struct, frozen=True):
    """What this writer journalled of `path` before is settled: it was rewritten and the old version kept, or
    reverted, or deleted."""

    path: str
    data: bytes = b""
    mtime_ns: int = 0
    mode: int = 0
    base: str = ""


Record = Lines | Whole | Void


class Entry(Struct, frozen=True):
    """One flush of one writer. ``ended``: the writer's end mark: it will write no more."""

    writer: str
    sequence: int
    written_ns: int
    records: tuple[Record, ...] = ()
    ended: bool = False


def name(writer: str, sequence: int) -> str:
    """The key of an entry below ``journal/``; names sort as sequences do."""
    return f"{writer}/{sequence:012d}{SUFFIX}"


def parsed(relative: str) -> tuple[str, int] | None:
    """(writer, sequence) of a key below ``journal/``; None where it is not an entry's."""
    match = _NAME.fullmatch(relative)
    return (match["writer"], int(match["sequence"])) if match else None


def encoded(entry: Entry) -> bytes:
    """`entry` as it rests in the bucket."""
    import orjson

    body = b"".join(record.data for record in entry.records)
    header = {
        "version": f"{FORMAT_MAJOR}.{FORMAT_MINOR}",
        "writer": entry.writer,
        "sequence": entry.sequence,
        "written_ns": entry.written_ns,
        "ended": entry.ended,
        "sha256": hashlib.sha256(body).hexdigest(),
        "records": [_described(record) for record in entry.records],
    }
    return zstd.compress(orjson.dumps(header) + b"\n" + body, level=3)


def _described(record: Record) -> dict[str, Any]:
    common = {
        "path": record.path,
        "length": len(record.data),
        "mtime_ns": record.mtime_ns,
        "mode": record.mode,
        "base": record.base,
    }
    if isinstance(record, Whole):
        return {"kind": "whole", **common, "sha256": record.sha256}
    if isinstance(record, Void):
        return {"kind": "void", **common}
    counts = {str(number): count for number, count in record.counts.items()}
    return {"kind": "lines", **common, "offset": record.offset, "counts": counts}


def decoded(data: bytes, where: str) -> Entry:
    """The entry in `data`; `where` names the object in errors.

    Raises
    ------
    ObjectDamaged: not an entry, or not what its header says. FormatError: another version's.
    """
    import orjson

    try:
        header_line, _, body = _decompressed(data).partition(b"\n")
        header: dict[str, Any] = orjson.loads(header_line)
        major, minor = (int(part) for part in str(header["version"]).split("."))
    except (zstd.ZstdError, ValueError, KeyError, TypeError) as error:
        raise _damaged(where) from error
    if major != FORMAT_MAJOR or minor > FORMAT_MINOR + 1:
        raise FormatError(
            f"the journal entry {where} has format {major}.{minor}, which cannot be read here",
            "run the version that wrote it; nothing is folded or removed until then",
        )
    try:
        if hashlib.sha256(body).hexdigest() != header["sha256"]:
            raise ValueError("another body")
        return Entry(
            writer=str(header["writer"]),
            sequence=int(header["sequence"]),
            written_ns=int(header["written_ns"]),
            records=tuple(_records(header["records"], body)),
            ended=bool(header["ended"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(where) from error


def _damaged(where: str) -> ObjectDamaged:
    return ObjectDamaged(
        f"the journal entry {where} is damaged and is not applied", "it is kept in the bucket"
    )


def _decompressed(data: bytes) -> bytes:
    decompressor = zstd.ZstdDecompressor()
    out = decompressor.decompress(data, max_length=_MAX_UNPACKED_BYTES)
    if not decompressor.eof:
        raise ValueError("incomplete, or larger than any entry")
    return out


def _records(described: Iterable[dict[str, Any]], body: bytes) -> Iterable[Record]:
    at = 0
    for fields in described:
        length = int(fields["length"])
        data = body[at : at + length]
        if length < 0 or len(data) != length:
            raise ValueError("a record longer than the body")
        at += length
        yield _record(fields, data)
    if at != len(body):
        raise ValueError("bytes that no record describes")


def _record(fields: dict[str, Any], data: bytes) -> Record:
    path, base = str(fields["path"]), str(fields["base"])
    mtime_ns, mode = int(fields["mtime_ns"]), int(fields["mode"]) & 0o777
    if fields["kind"] == "whole":
        sha256 = str(fields["sha256"])
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError("a whole file with another digest")
        return Whole(path, data, sha256, base, mtime_ns, mode)
    if fields["kind"] == "void":
        return Void(path)
    if fields["kind"] != "lines":
        raise ValueError("an unknown kind of record")
    counts = {int(number): int(count) for number, count in fields["counts"].items()}
    return Lines(path, int(fields["offset"]), base, data, mtime_ns, mode, counts)
