"""Which small files ride in packs, and when that is worth a request: the cost rule, pure. `boarding` does it.

A file that travels alone costs each restore one GET; packing it costs its compressed bytes once, and the
bytes of small packs that are taken in on the way. So:

- **When.** Once `LOOSE_FILES` files, or `LOOSE_BYTES`, travel alone; or a pack is dead by half and
  `DEAD_BYTES` of it are. A restore thus makes at most `LOOSE_FILES` requests more than it must, and
  downloads at most twice what it needs.
- **What.** Files up to `MAX_MEMBER_BYTES` whose local bytes are those of the object. A transcript that grew
  since the last checkpoint will grow again and stays out until it rests; so does the client's own JSON,
  which is looked at before it is restored.
- **What is taken in.** Packs that are dead by half, and packs that are not twice the size of what is new: a
  file is written again as often as the logarithm of the whole, and there are few packs. Whether the home has
  their files does not matter: their bytes are in the pack itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from sidecar.area import packs
from sidecar.area.manifest import FileEntry, Manifest, PackEntry
from sidecar.area.packs import MAX_MEMBER_BYTES
from sidecar.dense import Dense
from sidecar.home.reads import must_be_whole_json
from sidecar.sync.compare import is_transcript
from sidecar.sync.workspace import Workspace

LOOSE_FILES = 64
LOOSE_BYTES = 4 * 1024 * 1024
DEAD_BYTES = 4 * 1024 * 1024
# Where the ledger's header keeps the packs that are not to be believed.
_DOUBTED = "doubted_packs"


class Packed(Struct, frozen=True):
    """Where files ride now: by path, the entry as it was packed. ``packs``: the new ones.

    ``left``: the files that travel alone from now on, each with the pack that it left.
    """

    entries: Mapping[str, FileEntry] = field(default_factory=dict)
    packs: dict[str, PackEntry] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def on(self, manifest: Manifest) -> Manifest:
        """`manifest` with these files in their packs, where it still has the version that was packed."""
        if not (self.entries or self.left):
            return manifest
        files = Dense[FileEntry](FileEntry, manifest.files)
        for path, name in self.left.items():
            now = files.get(path)
            if now and now.pack == name:  # another pod may have packed it since
                files[path] = now._replace(pack="", offset=0)
        same = []
        for path, entry in self.entries.items():
            now = files.get(path)
            if now and now.etag == entry.etag:
                aboard = now.riding(entry.pack, entry.offset)
                if aboard == entry:
                    same.append(path)
                else:
                    files[path] = aboard
        files.update(Dense[FileEntry](FileEntry, self.entries).only(same))
        return replace(manifest, files=files, packs={**manifest.packs, **self.packs})


NOTHING = Packed()


class Plan(Struct, frozen=True):
    """``alone``: the files that travel alone now and are to ride. ``packs``: those to be written anew."""

    alone: tuple[str, ...] = ()
    packs: tuple[str, ...] = ()


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
    files = Dense[FileEntry](FileEntry, manifest.files)
    for path, entry in manifest.files.items():
        if entry.pack in names:
            files[path] = entry._replace(pack="", offset=0)
    return replace(manifest, files=files)


def believed(extra: Mapping[str, Any]) -> dict[str, Any]:
    """What the ledger remembers beside its marks, without doubts."""
    return {name: value for name, value in extra.items() if name != _DOUBTED}


def hot(before: Manifest, after: Manifest) -> set[str]:
    """The transcripts that grew between two manifests."""
    paths = (path for path in after.files if is_transcript(path) and path in before.files)
    return {path for path in paths if before.files[path].etag != after.files[path].etag}


def may_ride(path: str, entry: FileEntry) -> bool:
    """Whether this file may be in a pack at all."""
    return entry.size <= MAX_MEMBER_BYTES and not must_be_whole_json(path)


def plan(manifest: Manifest, hot_paths: Collection[str], available: Collection[str]) -> Plan:
    """What to pack now; nothing where it does not pay yet. Pure.

    Parameters
    ----------
    available: those of the paths that travel alone whose local bytes are those of the object.
    """
    known = named_in(manifest)  # what nobody rides in any more goes by itself
    riding = dict.fromkeys(known, 0)
    loose: dict[str, int] = {}
    for path, entry in manifest.files.items():
        if entry.pack in riding:
            riding[entry.pack] += entry.size
        elif path in available and path not in hot_paths and may_ride(path, entry):
            loose[path] = entry.size
    size = sum(loose.values())
    dead = _half_dead(known, riding)
    if len(loose) < LOOSE_FILES and size < LOOSE_BYTES and sum(dead.values()) < DEAD_BYTES:
        return Plan()
    return Plan(tuple(sorted(loose)), tuple(_taken_in(known, size, dead)))


def _half_dead(known: Mapping[str, PackEntry], riding: Mapping[str, int]) -> dict[str, int]:
    """The packs that are dead by half, each with how many of its bytes are."""
    return {
        name: pack.size * (pack.content - riding[name]) // pack.content
        for name, pack in known.items()
        if riding[name] * 2 < pack.content
    }


def _taken_in(known: Mapping[str, PackEntry], content: int, dead: Collection[str]) -> Iterable[str]:
    yield from dead
    for name, pack in sorted(known.items(), key=lambda item: item[1].content):
        if name in dead:
            continue
        if pack.content >= 2 * content or pack.size >= packs.FULL_BYTES // 2:
            return
        yield name
        content += pack.content
