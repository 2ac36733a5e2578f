"""How a manifest rests in the bucket: a small root, and parts that never change.

    .claude-sidecar/manifest.json.zst        the root: what changed last, and which parts come before it
                   /packs/<digest>.json.zst  a part: what changed earlier; named by the SHA-256 of its bytes

A commit is one conditional PUT of the root. When its changes outgrow `ROOT_BYTES` they become a part, which
takes in the parts before it that are not twice its size: so there are few parts, and a change is written
again only as often as the logarithm of the whole. All are zstd over JSON and carry the format's version.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Raw, Struct, field, json

from sidecar.area.manifest import (
    Changes,
    DirEntry,
    FileEntry,
    LinkEntry,
    Manifest,
    PackEntry,
    changed_files,
    present,
)
from sidecar.dense import Dense, members
from sidecar.errors import FormatError, ObjectDamaged

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FORMAT_MAJOR, FORMAT_MINOR = 1, 1
PART_SUFFIX = ".json.zst"
# A change of three files sends about a kilobyte; 8 KiB holds the changes of an hour in a busy session.
ROOT_BYTES = 8 * 1024
# A manifest of a million paths has some 200 MB; more than this is not one of ours.
MAX_BYTES = 1024 * 1024 * 1024
# What is written here needs a window of 2 MiB; a wider one would take a restore's memory.
WINDOW_LOG = 23
# What names a part or a pack: nothing else is ever read, or removed, because a manifest says so.
_NAME = re.compile(r"[0-9a-f]{64}\.(?:json|tar)\.zst")
# What JSON's integers can carry: what is beyond was read as a fraction and could not be written again.
_LEAST, _LIMIT = -(2**63), 2**64
# What reading somebody else's document may end in; it may be nested deeper than anybody can follow.
_WRONG = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


class Root(Struct, frozen=True):
    """``parts``: (name, size in bytes), the oldest first; ``changes`` come after them.

    ``packs`` and ``retired`` as in `Manifest`.
    """

    changes: Changes = field(default_factory=Changes)
    parts: tuple[tuple[str, int], ...] = ()
    packs: dict[str, PackEntry] = field(default_factory=dict)
    retired: dict[str, int] = field(default_factory=dict)
    generation: int = 0
    writer: str = ""


def manifest_of(root: Root, parts: Iterable[Changes]) -> Manifest:
    """The manifest that `root` and the content of its parts make together."""
    files: Dense[FileEntry] = Dense(FileEntry | None)
    directories: dict[str, DirEntry | None] = {}
    links: dict[str, LinkEntry | None] = {}
    for changes in (*parts, root.changes):
        files.update(changes.files)  # type: ignore[arg-type]  # what is taken out goes below
        directories.update(changes.directories)
        links.update(changes.links)
    files.drop(None)  # type: ignore[arg-type]
    return Manifest(
        files,
        present(directories),
        present(links),
        root.generation,
        root.writer,
        root.packs,
        root.retired,
    )


def name_of(data: bytes, suffix: str) -> str:
    """The name of the part or pack with these bytes."""
    return hashlib.sha256(data).hexdigest() + suffix


def absorbed(parts: Sequence[tuple[str, int]], size: int) -> int:
    """How many of the newest `parts` a new one of `size` bytes takes in."""
    count = 0
    for _, part_size in reversed(parts):
        if part_size >= 2 * size:
            break
        size += part_size
        count += 1
    return count


def encoded_root(root: Root) -> bytes:
    """`root` as it rests in the bucket."""
    document = {
        "generation": root.generation,
        "writer": root.writer,
        "parts": root.parts,
        "packs": {name: tuple(pack) for name, pack in root.packs.items()},
        "retired": root.retired,
    }
    return _compressed(_pieces(document, root.changes))


def encoded_part(changes: Changes) -> bytes:
    """`changes` as a part."""
    return _compressed(_pieces({}, changes))


def decoded_root(data: bytes, where: str) -> Root:
    """The root in `data`; `where` names the object in errors.

    Raises
    ------
    ObjectDamaged: not a manifest, or a damaged one.
    FormatError: another major version, or more than one minor version ahead.
    """
    document = _document(data, where)
    try:
        return Root(
            _changes_of(document),
            tuple((_name(name), _count(size)) for name, size in document.parts),
            {_name(n): PackEntry(_count(s), _count(c)) for n, (s, c) in document.packs.items()},
            {_name(name): _count(at) for name, at in document.retired.items()},
            _count(document.generation),
            str(document.writer),
        )
    except _WRONG as error:
        raise _damaged(where) from error


def decoded_part(data: bytes, name: str) -> Changes:
    """The changes in the part `name`. Raises ObjectDamaged, FormatError."""
    if name_of(data, PART_SUFFIX) != name:
        raise _damaged(name)
    document = _document(data, name)
    try:
        return _changes_of(document)
    except _WRONG as error:
        raise _damaged(name) from error


def _pieces(document: Mapping[str, Any], changes: Changes) -> Iterator[bytes]:
    """`document` with the `changes` in it as JSON; the same changes are the same bytes."""
    paths, files = sorted(changes.files), changes.files
    names: dict[str, int] = {}
    for path in paths:
        if (entry := files[path]) and entry.pack:
            names.setdefault(entry.pack, len(names))
    whole = {
        "version": f"{FORMAT_MAJOR}.{FORMAT_MINOR}",
        **document,
        "pack_names": list(names),
        "directories": changes.directories,
        "links": changes.links,
    }
    yield json.encode(whole, order="sorted")[:-1] + b',"files":{'
    yield from members((path, entry[:5] if (entry := files[path]) else None) for path in paths)
    yield b'},"packed":{'
    yield from members(
        (path, (names[entry.pack], entry.offset)) for path in paths if (entry := files[path]) and entry.pack
    )
    yield b"}}"


class _Document(Struct):
    """What rests: the files as they came, because there may be many; all else as JSON has it."""

    files: dict[str, Raw]
    directories: dict[str, Any]
    links: dict[str, Any]
    packed: dict[str, Raw] = field(default_factory=dict)
    pack_names: tuple[Any, ...] = ()
    parts: tuple[Any, ...] = ()
    packs: dict[str, Any] = field(default_factory=dict)
    retired: dict[str, Any] = field(default_factory=dict)
    generation: Any = None
    writer: Any = None


class _Version(Struct):
    version: Any


_file_fields = json.Decoder(tuple[str, int, int, int, str] | None).decode
_pack_fields = json.Decoder(tuple[int, int]).decode


def _changes_of(document: _Document) -> Changes:
    directories = {
        path: (int(fields[0]) & 0o777, _time(fields[1])) if fields else None
        for path, fields in document.directories.items()
    }
    links = {
        path: (str(fields[0]), _time(fields[1])) if fields else None
        for path, fields in document.links.items()
    }
    return Changes(changed_files(_files_of(document)), directories, links)


def _files_of(document: _Document) -> Iterator[tuple[str, FileEntry | None]]:
    names = [_name(name) for name in document.pack_names]
    while document.files:  # what was read goes at once: all of both would be the peak of a checkpoint
        path, resting = document.files.popitem()
        fields = _file_fields(resting)
        if fields is None:
            yield path, None
            continue
        etag, size, mtime_ns, mode, digest = fields
        riding = document.packed.pop(path, None)
        number, offset = _pack_fields(riding) if riding is not None else (-1, 0)
        if not 0 <= size < _LIMIT:
            raise ValueError("out of range")
        pack = names[number] if number >= 0 else ""
        yield path, FileEntry(etag, size, _time(mtime_ns), mode & 0o777, digest, pack, _time(offset))


def _name(value: object) -> str:
    name = str(value)
    if not _NAME.fullmatch(name):
        raise ValueError("not the name of a part or pack")
    return name


def _count(value: Any) -> int:
    if not 0 <= int(value) < 2**63:
        raise ValueError("out of range")
    return int(value)


def _time(value: Any) -> int:
    if not _LEAST <= int(value) < _LIMIT:
        raise ValueError("out of range")
    return int(value)


def _compressed(pieces: Iterable[bytes]) -> bytes:
    compressor = zstd.ZstdCompressor(level=3)
    return b"".join([*map(compressor.compress, pieces), compressor.flush()])


def _document(data: bytes, where: str) -> _Document:
    try:
        text = _decompressed(data)
        major, minor = (int(part) for part in str(json.decode(text, type=_Version).version).split("."))
        if major == FORMAT_MAJOR and minor <= FORMAT_MINOR + 1:
            return json.decode(text, type=_Document)
    except (zstd.ZstdError, *_WRONG) as error:
        raise _damaged(where) from error
    raise FormatError(
        f"the manifest {where} has format {major}.{minor}, which is too new or too old",
        "run the version that wrote it",
    )


def _decompressed(data: bytes) -> bytes:
    decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})
    out = decompressor.decompress(data, max_length=MAX_BYTES)
    if not decompressor.eof:
        raise ValueError("incomplete")
    return out


def _damaged(where: str) -> ObjectDamaged:
    return ObjectDamaged(f"the manifest {where} is damaged", "the next checkpoint replaces it")
