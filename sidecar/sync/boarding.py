"""Files into packs: out of the home, and out of the packs that are written anew.

What the digest in the manifest confirms is packed, wherever it was found: in the home, else in the pack in
which the file rode, because the home may have it no more (deleted there and kept in the bucket) or never had
it. Out of its pack a file is carried over only where a listing shows that its object is still the version
that was packed: what was removed from the bucket does not live on. A file that is nowhere to be had travels
alone from then on, so every pack can be written anew. The listing is made, and a pack read, only where a file
is not in the home.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from types import TracebackType

from sidecar.area import packs
from sidecar.area.download import Download
from sidecar.area.manifest import FileEntry, Manifest, PackEntry
from sidecar.area.manifest_format import name_of
from sidecar.area.objects import IfAbsent, ObjectInfo
from sidecar.area.packs import PackReader, PackWriter
from sidecar.dense import Dense
from sidecar.errors import AccessDenied, ConditionFailed, HomeError, ObjectDamaged, StoreError
from sidecar.home.entries import Outline
from sidecar.home.reads import open_file
from sidecar.logs import log
from sidecar.sync import packing, tombstones
from sidecar.sync.at_hand import AtHand
from sidecar.sync.packing import NOTHING, Packed, Plan, may_ride
from sidecar.sync.transfers import concerns_all
from sidecar.sync.workspace import Workspace

Rider = tuple[str, FileEntry, bytes | memoryview]
Aboard = dict[str, tuple[FileEntry, int]]
"""By path: the entry, and where its bytes begin in the pack"""


def pack(
    workspace: Workspace,
    manifest: Manifest,
    outline: Outline,
    hot_paths: Iterable[str],
    at_hand: AtHand,
    stop: Callable[[], bool],
) -> Packed:
    """Put into packs what the cost rule says; nothing where the bucket's policy knows only ``.claude/``.

    Parameters
    ----------
    at_hand: the bytes of what was just sent; what is packed is taken from there.
    stop: asked before each file; once true, the pack in the making is dropped.

    Raises
    ------
    StoreError: the store is away; what was uploaded is named by no manifest and removed after a day.
    """
    if stop():
        return NOTHING
    plan = packing.plan(manifest, set(hot_paths), _available(workspace, manifest, outline))
    boarding = _Boarding(workspace, manifest, plan, at_hand)
    entries: Dense[FileEntry] = Dense(FileEntry)
    written: dict[str, PackEntry] = {}
    try:
        with closing(boarding.riders()) as riders:
            for named, pack_entry in _written(workspace, riders, stop):
                written[next(iter(named.values())).pack] = pack_entry
                entries.update(named)
    except AccessDenied as error:
        workspace.own_area_denied("Packs may not be written", error)
    return Packed(entries, written, boarding.left)


def _available(workspace: Workspace, manifest: Manifest, outline: Outline) -> set[str]:
    """The paths that travel alone and whose files should be what the object is: proven when they are read."""
    available = set()
    for path, entry in manifest.files.items():
        if entry.pack in manifest.packs:
            continue
        mark = workspace.ledger.mark(path)
        if mark and mark.etag == entry.etag and outline.sizes.get(path) == entry.size:
            available.add(path)
    return available


def _written(
    workspace: Workspace, riders: Iterable[Rider], stop: Callable[[], bool]
) -> Iterator[tuple[dict[str, FileEntry], PackEntry]]:
    """Write pack after pack; each with its riders, named, once it is in the bucket."""
    writer, aboard, content = PackWriter(), Aboard(), 0
    for path, entry, data in riders:
        if stop():
            return
        aboard[path] = entry, writer.add(path, data, entry.mtime_ns, entry.mode)
        content += len(data)
        if writer.is_full:
            yield _uploaded(workspace, writer, aboard, content)
            writer, aboard, content = PackWriter(), Aboard(), 0
    if aboard:
        yield _uploaded(workspace, writer, aboard, content)


def _uploaded(
    workspace: Workspace, writer: PackWriter, aboard: Aboard, content: int
) -> tuple[dict[str, FileEntry], PackEntry]:
    data = writer.finished()
    name = name_of(data, packs.SUFFIX)
    tombstones.demand(workspace)  # packing may take long, and this is not conditional on what was there
    with suppress(ConditionFailed):  # the same bytes are there already
        workspace.store.put(workspace.keys.packs + name, data, condition=IfAbsent(), metadata={})
    named = {path: entry.riding(name, offset) for path, (entry, offset) in aboard.items()}
    return named, PackEntry(len(data), content)


class _Boarding:
    """Who boards, one after the other. ``left``: who rode in a pack, and whose bytes nobody has."""

    def __init__(self, workspace: Workspace, manifest: Manifest, plan: Plan, at_hand: AtHand) -> None:
        self.left: dict[str, str] = {}
        self._workspace = workspace
        self._plan = plan
        self._manifest = manifest
        self._at_hand = at_hand
        self._riding: dict[str, dict[str, FileEntry]] = {name: {} for name in plan.packs}
        for path, entry in manifest.files.items():
            if entry.pack in self._riding:
                self._riding[entry.pack][path] = entry
        self._listed: Mapping[str, ObjectInfo] | None = None

    def riders(self) -> Generator[Rider, None, None]:
        """Each with its bytes: first those that travelled alone, then pack by pack, as they lie there."""
        for path in self._plan.alone:
            entry = self._manifest.files[path]
            data = self._at_hand.take(path, entry.digest)
            if data is None:
                data = _from_home(self._workspace, path, entry)
            if data is not None:
                yield path, entry, data
        for name in self._plan.packs:
            yield from self._out_of(name)

    def _out_of(self, name: str) -> Iterator[Rider]:
        in_order = sorted(self._riding[name].items(), key=lambda item: item[1].offset)
        with _OldPack(self._workspace, name) as old:
            for path, entry in in_order:
                data = self._bytes_of(path, entry, old) if may_ride(path, entry) else None
                if data is None:
                    self.left[path] = name
                else:
                    yield path, entry, data

    def _bytes_of(self, path: str, entry: FileEntry, old: _OldPack) -> bytes | None:
        data = _from_home(self._workspace, path, entry)
        if data is None and self._is_listed(path, entry):
            data = old.read(entry)
        return data

    def _is_listed(self, path: str, entry: FileEntry) -> bool:
        if self._listed is None:
            self._listed = self._workspace.store.list(self._workspace.keys.objects).objects
        info = self._listed.get(self._workspace.keys.object(path))
        return info is not None and info.etag == entry.etag


def _from_home(workspace: Workspace, path: str, entry: FileEntry) -> bytes | None:
    """The bytes of the object, read from the home; None where the file is another by now."""
    try:
        with open_file(workspace.home, path) as file:
            if file.size != entry.size:
                return None
            return _proven(file.read(0, file.size), entry)
    except HomeError:
        return None


def _proven(data: bytes, entry: FileEntry) -> bytes | None:
    return data if hashlib.sha256(data).hexdigest() == entry.digest else None


class _OldPack:
    """The pack `name`, read forwards once, from the first file on that is asked for; a context manager."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self._workspace = workspace
        self._name = name
        self._download: Download | None = None
        self._reader: PackReader | None = None
        self._is_lost = False

    def __enter__(self) -> _OldPack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._download:
            self._download.__exit__(kind, value, trace)

    def read(self, entry: FileEntry) -> bytes | None:
        """The bytes of a file; None where the pack is lost, or has others. Raises StoreError: it is away."""
        if self._is_lost:
            return None
        try:
            if self._reader is None:
                self._download = self._workspace.store.open(self._workspace.keys.packs + self._name)
                self._reader = PackReader(self._download.chunks(), self._name)
            return _proven(self._reader.read(entry.offset, entry.size), entry)
        except ObjectDamaged:
            return None
        except StoreError as error:
            if concerns_all(error):
                raise
            log.debug("What only the pack %s has travels alone: %s", self._name, error)
            self._is_lost = True
            return None
