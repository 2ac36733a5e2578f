"""Which small files ride in packs, and when that is worth a request: the cost rule, and its carrying out.

A file that travels alone costs each restore one GET; packing it costs its compressed bytes once, and the
bytes of small packs that are taken in on the way. So:

- **When.** Once `LOOSE_FILES` files, or `LOOSE_BYTES`, travel alone; or a pack is dead by half and
  `DEAD_BYTES` of it are. A restore thus makes at most `LOOSE_FILES` requests more than it must, and
  downloads at most twice what it needs.
- **What.** Files up to `MAX_MEMBER_BYTES` whose local bytes are those of the object. A transcript that grew
  since the last checkpoint will grow again and stays out until it rests; so does the client's own JSON,
  which is looked at before it is restored.
- **What is taken in.** Packs that are dead by half, and packs that are not twice the size of what is new: a
  file is written again as often as the logarithm of the whole, and there are few packs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from sidecar.area import packs
from sidecar.area.manifest import FileEntry, Manifest, PackEntry
from sidecar.area.manifest_format import name_of
from sidecar.area.objects import IfAbsent
from sidecar.area.packs import MAX_MEMBER_BYTES, PackWriter
from sidecar.errors import AccessDenied, ConditionFailed, HomeError
from sidecar.home.entries import Scan
from sidecar.home.reads import must_be_whole_json, open_file
from sidecar.sync import tombstones
from sidecar.sync.compare import is_transcript
from sidecar.sync.workspace import Workspace

LOOSE_FILES = 64
LOOSE_BYTES = 4 * 1024 * 1024
DEAD_BYTES = 4 * 1024 * 1024
# Where the ledger's header keeps the packs that are not to be believed.
_DOUBTED = "doubted_packs"


class Packed(Struct, frozen=True):
    """Where files ride now: by path, the entry as it was packed. ``packs``: the new ones."""

    entries: dict[str, FileEntry] = field(default_factory=dict)
    packs: dict[str, PackEntry] = field(default_factory=dict)

    def on(self, manifest: Manifest) -> Manifest:
        """`manifest` with these files in their packs, where it still has the version that was packed."""
        if not self.entries:
            return manifest
        files = dict(manifest.files)
        for path, entry in self.entries.items():
            now = files.get(path)
            if now and now.etag == entry.etag:
                files[path] = now._replace(pack=entry.pack, offset=entry.offset)
        return replace(manifest, files=files, packs={**manifest.packs, **self.packs})


NOTHING = Packed()


def named_in(manifest: Manifest) -> dict[str, PackEntry]:
    """The packs that its files name."""
    names = {entry.pack for entry in manifest.files.values()}
    return {name: pack for name, pack in manifest.packs.items() if name in names}


def doubt(workspace: Workspace, names: Collection[str]) -> None:
    """Remember the packs that a restore found damaged or gone: the next checkpoint writes others."""
    if names:
        header = workspace.ledger.header
        extra = {**header.extra, _DOUBTED: sorted({*doubted(workspace), *names})}
        workspace.ledger.set_header(replace(header, extra=extra))


def doubted(workspace: Workspace) -> frozenset[str]:
    """The packs that a restore found damaged or gone since the last manifest."""
    return frozenset(workspace.ledger.header.extra.get(_DOUBTED, ()))


def without(manifest: Manifest, names: Collection[str]) -> Manifest:
    """`manifest` with the files of these packs travelling alone."""
    if not names:
        return manifest
    files = {
        path: entry._replace(pack="", offset=0) if entry.pack in names else entry
        for path, entry in manifest.files.items()
    }
    return replace(manifest, files=files)


def believed(extra: Mapping[str, Any]) -> dict[str, Any]:
    """What the ledger remembers beside its marks, without doubts."""
    return {name: value for name, value in extra.items() if name != _DOUBTED}


def hot(before: Manifest, after: Manifest) -> set[str]:
    """The transcripts that grew between two manifests."""
    return {
        path
        for path, entry in after.files.items()
        if is_transcript(path) and path in before.files and before.files[path].etag != entry.etag
    }


def plan(manifest: Manifest, hot_paths: Collection[str], available: Collection[str]) -> list[str]:
    """The paths to pack now; none where it does not pay yet. Pure.

    Parameters
    ----------
    available: the paths whose local bytes are those of the object.
    """
    may_ride = {
        path: entry
        for path, entry in manifest.files.items()
        if entry.size <= MAX_MEMBER_BYTES and not must_be_whole_json(path)
    }
    riders: dict[str, dict[str, int]] = {name: {} for name in manifest.packs}
    loose: dict[str, int] = {}
    for path, entry in may_ride.items():
        if entry.pack in riders:
            riders[entry.pack][path] = entry.size
        elif path in available and path not in hot_paths:
            loose[path] = entry.size
    # A pack of which a file is no longer here cannot be written again: it stays, and decides nothing.
    whole = {
        name: pack
        for name, pack in manifest.packs.items()
        if riders[name] and all(path in available for path in riders[name])
    }
    size = sum(loose.values())
    dead = _half_dead(whole, riders)
    if len(loose) < LOOSE_FILES and size < LOOSE_BYTES and sum(dead.values()) < DEAD_BYTES:
        return []
    taken = list(loose)
    for name in _taken_in(whole, size, dead):
        taken += riders[name]
    return sorted(taken)


def _half_dead(whole: Mapping[str, PackEntry], riders: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """The packs that are dead by half, each with how many of its bytes are."""
    dead = {}
    for name, pack in whole.items():
        live = sum(riders[name].values())
        if live * 2 < pack.content:
            dead[name] = pack.size * (pack.content - live) // pack.content
    return dead


def _taken_in(whole: Mapping[str, PackEntry], content: int, dead: Collection[str]) -> Iterable[str]:
    yield from dead
    for name, pack in sorted(whole.items(), key=lambda item: item[1].content):
        if name in dead:
            continue
        if pack.content >= 2 * content or pack.size >= packs.FULL_BYTES // 2:
            return
        yield name
        content += pack.content


def pack(
    workspace: Workspace,
    manifest: Manifest,
    scan: Scan,
    hot_paths: Collection[str],
    stop: Callable[[], bool],
) -> Packed:
    """Put into packs what `plan` says; nothing where the bucket's policy knows only ``.claude/``.

    `stop` is asked before each file; once true, the pack in the making is dropped.

    Raises
    ------
    StoreError: the store is away; what was uploaded is named by no manifest and removed after a day.
    """
    if stop():
        return NOTHING
    paths = plan(manifest, hot_paths, _available(workspace, manifest, scan))
    entries: dict[str, FileEntry] = {}
    written: dict[str, PackEntry] = {}
    try:
        for riders, pack_entry in _written(workspace, manifest, paths, stop):
            written[next(iter(riders.values())).pack] = pack_entry
            entries.update(riders)
    except AccessDenied as error:
        workspace.own_area_denied("Packs may not be written", error)
    return Packed(entries, written)


def _available(workspace: Workspace, manifest: Manifest, scan: Scan) -> set[str]:
    """The paths whose files should be what the object is; that is proven when they are read."""
    available = set()
    for path, entry in manifest.files.items():
        mark, stat = workspace.ledger.mark(path), scan.files.get(path)
        if mark and stat and stat.size == entry.size and mark.etag == entry.etag:
            available.add(path)
    return available


def _written(
    workspace: Workspace, manifest: Manifest, paths: Iterable[str], stop: Callable[[], bool]
) -> Iterator[tuple[dict[str, FileEntry], PackEntry]]:
    """Write pack after pack; each with its riders, named, once it is in the bucket."""
    writer, riders, content = PackWriter(), dict[str, FileEntry](), 0
    for path in paths:
        if stop():
            return
        entry = manifest.files[path]
        data = _read(workspace, entry, path)
        if data is None:
            continue
        riders[path] = entry._replace(offset=writer.add(path, data, entry.mtime_ns, entry.mode))
        content += len(data)
        if writer.is_full:
            yield _uploaded(workspace, writer, riders, content)
            writer, riders, content = PackWriter(), {}, 0
    if riders:
        yield _uploaded(workspace, writer, riders, content)


def _uploaded(
    workspace: Workspace, writer: PackWriter, riders: dict[str, FileEntry], content: int
) -> tuple[dict[str, FileEntry], PackEntry]:
    data = writer.finished()
    name = name_of(data, packs.SUFFIX)
    tombstones.demand(workspace)  # packing may take long, and this is not conditional on what was there
    with suppress(ConditionFailed):  # the same bytes are there already
        workspace.store.put(workspace.keys.packs + name, data, condition=IfAbsent(), metadata={})
    named = {path: entry._replace(pack=name) for path, entry in riders.items()}
    return named, PackEntry(len(data), content)


def _read(workspace: Workspace, entry: FileEntry, path: str) -> bytes | None:
    """The bytes of the object, read from the home; None where the file is another by now."""
    try:
        with open_file(workspace.home, path) as file:
            if file.size != entry.size:
                return None
            data = file.read(0, file.size)
    except HomeError:
        return None
    return data if hashlib.sha256(data).hexdigest() == entry.digest else None
