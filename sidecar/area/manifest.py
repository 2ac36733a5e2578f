"""The manifest: the committed picture of an area, compressed JSON beside the objects.

It makes restores fast and carries what S3 cannot: directories, symbolic links, and a mode or mtime that
changed without the content. It is never the truth: a path's entry counts only where its ETag is the one that
a listing shows. Lost, stale or damaged, it costs speed and empty directories, never content.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from sidecar.errors import FormatError, ObjectDamaged

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FORMAT_MAJOR, FORMAT_MINOR = 1, 0
# A manifest of a million paths has some 200 MB; more than this is not one of ours.
MAX_BYTES = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What the area holds for one path, as of the object version `etag`."""

    etag: str
    size: int
    mtime_ns: int
    mode: int
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """``files``, ``directories`` ((mode, mtime_ns)) and ``links`` ((target, mtime_ns)), by path."""

    files: dict[str, FileEntry] = field(default_factory=dict)
    directories: dict[str, tuple[int, int]] = field(default_factory=dict)
    links: dict[str, tuple[str, int]] = field(default_factory=dict)
    generation: int = 0
    writer: str = ""


def encoded(manifest: Manifest) -> bytes:
    """`manifest` as it rests in the bucket: zstd over JSON."""
    import orjson

    document = {
        "version": f"{FORMAT_MAJOR}.{FORMAT_MINOR}",
        "generation": manifest.generation,
        "writer": manifest.writer,
        "files": {p: [e.etag, e.size, e.mtime_ns, e.mode, e.digest] for p, e in manifest.files.items()},
        "directories": manifest.directories,
        "links": manifest.links,
    }
    return zstd.compress(orjson.dumps(document), level=3)


def decoded(data: bytes, where: str) -> Manifest:
    """The manifest in `data`; `where` names the object in errors.

    Raises
    ------
    ObjectDamaged: not a manifest, or a damaged one.
    FormatError: another major version, or more than one minor version ahead.
    """
    import orjson

    try:
        document: Any = orjson.loads(_decompressed(data))
        major, minor = (int(part) for part in str(document["version"]).split("."))
    except (zstd.ZstdError, ValueError, KeyError, TypeError) as error:
        raise ObjectDamaged(f"the manifest {where} is damaged", "the next checkpoint replaces it") from error
    if major != FORMAT_MAJOR or minor > FORMAT_MINOR + 1:
        raise FormatError(
            f"the manifest {where} has format {major}.{minor}, which is too new or too old",
            "run the version that wrote it",
        )
    try:
        return _manifest_of(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ObjectDamaged(f"the manifest {where} is damaged", "the next checkpoint replaces it") from error


def _decompressed(data: bytes) -> bytes:
    decompressor = zstd.ZstdDecompressor()
    out = decompressor.decompress(data, max_length=MAX_BYTES)
    if not decompressor.eof:
        raise ValueError("incomplete")
    return out


def _manifest_of(document: dict[str, Any]) -> Manifest:
    files = {
        path: FileEntry(str(etag), int(size), int(mtime_ns), int(mode) & 0o777, str(digest))
        for path, (etag, size, mtime_ns, mode, digest) in document["files"].items()
    }
    directories = {
        path: (int(mode) & 0o777, int(mtime)) for path, (mode, mtime) in document["directories"].items()
    }
    links = {path: (str(target), int(mtime)) for path, (target, mtime) in document["links"].items()}
    return Manifest(files, directories, links, int(document["generation"]), str(document["writer"]))
