"""The manifest in the bucket: read for a restore, kept up to date by a checkpoint.

Two pods commit into one manifest: each brings what it learned since its last commit and keeps the other's. A
picture that cannot be read or written is a WARNING and costs speed; it never fails a restore or a checkpoint.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from sidecar.area.keys import AreaKeys
from sidecar.area.manifest import Changes, FileEntry, Manifest, changes_between
from sidecar.area.manifest_format import (
    PART_SUFFIX,
    ROOT_BYTES,
    Root,
    absorbed,
    decoded_root,
    encoded_part,
    encoded_root,
    manifest_of,
    name_of,
)
from sidecar.area.objects import Condition, IfAbsent, IfMatch
from sidecar.area.store import Store
from sidecar.dense import Dense
from sidecar.errors import (
    AccessDenied,
    ConditionFailed,
    FormatError,
    ObjectArchived,
    ObjectDamaged,
    ObjectMissing,
    SidecarError,
    StoreError,
)
from sidecar.home.entries import Outline
from sidecar.logs import log
from sidecar.sync import boarding, packing, retirement
from sidecar.sync.at_hand import AtHand
from sidecar.sync.marks import Mark
from sidecar.sync.parts import Parts
from sidecar.sync.transfers import concerns_all
from sidecar.sync.workspace import Workspace

_TRIES = 5
_HINT = "the next checkpoint replaces it"
# In the ledger's header; a ledger without it was written before modes and targets were looked at.
_SHAPE = "shape"


class Picture(Struct, frozen=True):
    """A manifest as it was read. ``parts``: what each of the root's parts says, in order.

    ``etag``: the root's; empty where there is none. ``problem``: why it is of no use, if it is not; then it
    is an empty one.
    """

    manifest: Manifest
    root: Root
    parts: tuple[Changes, ...]
    etag: str
    problem: ObjectDamaged | ObjectArchived | None = None


NONE = Picture(Manifest(), Root(), (), "")
NOTHING = NONE.manifest
"""What `read_if_any` returns where there is no manifest: this very object, and only there."""


def read(store: Store, keys: AreaKeys, parts: Parts | None = None) -> Picture:
    """The manifest in the bucket; an empty one where there is none that counts.

    Raises
    ------
    FormatError: a newer version wrote it: it must not be overwritten. StoreError.
    """
    parts = parts or Parts(store, keys.packs)
    etag = ""
    try:
        with store.open(keys.manifest) as download:
            etag = download.info.etag
            root = decoded_root(download.read(), keys.manifest)
        found = tuple(parts.read(name) for name, _ in root.parts)
    except ObjectMissing as error:
        if not etag:
            return NONE
        lost = ObjectDamaged(f"a part of the manifest {keys.manifest} is missing: {error.message}", _HINT)
        return replace(NONE, etag=etag, problem=lost)
    except (ObjectDamaged, ObjectArchived) as error:
        if not etag:  # it cannot be opened, and is to be replaced
            head = store.head(keys.manifest)
            etag = head.info.etag if head else ""
        return replace(NONE, etag=etag, problem=error)
    return Picture(manifest_of(root, found), root, found, etag)


def read_if_any(workspace: Workspace) -> Manifest:
    """The manifest for a restore, which goes on without one."""
    problem: SidecarError | None = None
    for _ in range(_TRIES):
        try:
            found = _read(workspace)
            return Manifest() if found.problem else found.manifest
        except ConditionFailed as error:  # the connection broke, and it is another one by now
            problem = error
            continue
        except AccessDenied as error:
            workspace.own_area_denied("The manifest may not be read", error)
            return Manifest()
        except (FormatError, StoreError) as error:
            if concerns_all(error):
                raise
            problem = error
            break
    log.warning("Going on without the manifest: %s", problem)
    return Manifest()


def commit(
    workspace: Workspace,
    outline: Outline,
    gone: Mapping[str, str] | None = None,
    *,
    at_hand: AtHand | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Bring the manifest up to date with the ledger and the home's shape; False if that failed.

    Parameters
    ----------
    gone: the paths whose objects were deleted, with their ETags.
    at_hand: the bytes of what was just sent.
    stop: asked before each file that is packed; once true, no more is.
    """
    learned = workspace.ledger.take_learned()
    committed = _commit(workspace, outline, gone or {}, learned, at_hand or AtHand(), stop)
    if committed:
        workspace.ledger.told()
    return committed


def _commit(
    workspace: Workspace,
    outline: Outline,
    gone: Mapping[str, str],
    learned: Mapping[str, bool],
    at_hand: AtHand,
    stop: Callable[[], bool],
) -> bool:
    packed: packing.Packed | None = None
    doubted = frozenset() if stop() else packing.doubted(workspace)
    for _ in range(_TRIES):
        try:
            theirs = _read(workspace)
            ours = united(workspace, packing.without(theirs.manifest, doubted), outline, gone, learned)
            if packed is None:
                # First, because a pack of the same files has the same name.
                retirement.remove(workspace, sorted(doubted & theirs.manifest.packs.keys()))
                hot = packing.hot(theirs.manifest, ours)
                packed = boarding.pack(workspace, ours, outline, hot, at_hand, stop)
            ours = packed.on(ours)
            root = _put(workspace, theirs, ours)
        except ConditionFailed:
            continue
        except AccessDenied as error:
            workspace.own_area_denied("The manifest may not be written", error)
            return False
        except FormatError as error:
            log.warning("The manifest was not written: %s", error)
            return False
        if packed.packs:
            retirement.remove_orphans(workspace, root)
        _remember(workspace, outline, ours.generation, believe=bool(doubted))
        return True
    log.warning("The manifest was not written: other pods keep changing it; the next checkpoint tries again")
    return False


def _read(workspace: Workspace) -> Picture:
    picture = read(workspace.store, workspace.keys, workspace.parts())
    if picture.problem:
        log.warning("%s; going on without it", picture.problem.message)
    return picture


def united(
    workspace: Workspace,
    theirs: Manifest,
    outline: Outline,
    gone: Mapping[str, str],
    learned: Mapping[str, bool],
) -> Manifest:
    """`theirs` with what this pod knows better: what it `learned` since its last commit, and its home."""
    files = Dense[FileEntry](FileEntry, theirs.files)
    for path, etag in gone.items():
        if (entry := files.get(path)) and entry.etag == etag:
            files.discard(path)
    marks = workspace.ledger.marks()
    for path in marks:
        if path in gone or (path in files and path not in learned):
            continue
        mark, known = marks[path], files.get(path)
        if mark.etag and (known is None or _is_better(mark, known, learned[path])):
            files[path] = _entry(mark, known)
    header = workspace.ledger.header
    directories = {p: v for p, v in theirs.directories.items() if p not in header.directories}
    directories.update({p: (d.mode, d.mtime_ns) for p, d in outline.directories.items() if p})
    links = {p: t for p, t in theirs.links.items() if p not in header.links}
    links.update({p: (link.target, link.mtime_ns) for p, link in outline.links.items()})
    return replace(
        theirs,
        files=files,
        directories=directories,
        links=links,
        generation=theirs.generation + 1,
        writer=workspace.ledger.writer,
    )


def _is_better(mark: Mark, known: FileEntry, learned: bool) -> bool:
    """Whether this pod knows better. One that only touched its file knows nothing of the object."""
    return learned or mark.etag == known.etag


def _entry(mark: Mark, known: FileEntry | None) -> FileEntry:
    entry = FileEntry(mark.etag, mark.size, mark.mtime_ns, mark.mode, mark.digest)
    if known and (known.etag, known.digest) == (entry.etag, entry.digest):
        return entry.riding(known.pack, known.offset)
    return entry


def _put(workspace: Workspace, theirs: Picture, ours: Manifest) -> Root:
    """Write `ours` in the place of `theirs`, as changes; raises ConditionFailed where another was faster."""
    changes = theirs.root.changes.then(changes_between(theirs.manifest, ours))
    root = replace(
        theirs.root,
        changes=changes if theirs.root.parts else changes.settled(),
        packs=packing.named_in(ours),
        generation=ours.generation,
        writer=ours.writer,
    )
    data = encoded_part(root.changes)
    if len(data) > ROOT_BYTES:
        root = _with_new_part(workspace, theirs, root, data)
    del data
    retired, due = retirement.after(theirs.root, root, int(time.time()))
    root = replace(root, retired=retired)
    condition: Condition = IfMatch(theirs.etag) if theirs.etag else IfAbsent()
    body = encoded_root(root)
    workspace.store.put(workspace.keys.manifest, body, condition=condition, metadata={})
    workspace.parts().forget_others({name for name, _ in root.parts})
    retirement.remove(workspace, due)
    return root


def _with_new_part(workspace: Workspace, theirs: Picture, root: Root, data: bytes) -> Root:
    """`root` with its changes (`data`, encoded) in a part, which takes in the smaller ones before it."""
    count = absorbed(root.parts, len(data))
    kept = root.parts[: len(root.parts) - count]
    if count:
        changes = Changes()
        for earlier in (*theirs.parts[len(kept) :], root.changes):
            changes = changes.then(earlier)
        data = encoded_part(changes if kept else changes.settled())
    name = name_of(data, PART_SUFFIX)
    with suppress(ConditionFailed):  # the same bytes are there already
        workspace.store.put(workspace.keys.packs + name, data, condition=IfAbsent(), metadata={})
    workspace.parts().keep(name, data)
    return replace(root, changes=Changes(), parts=(*kept, (name, len(data))))


def shape_changed(workspace: Workspace, outline: Outline) -> bool:
    """True where a directory or link changed since the last manifest; times alone do not count."""
    header = workspace.ledger.header
    if header.directories != _directory_names(outline) or header.links != _link_names(outline):
        return True
    return header.extra.get(_SHAPE, "") not in ("", _shape_digest(outline))


def _shape_digest(outline: Outline) -> str:
    """Stands for the modes of the directories, and where the links lead."""
    digest = hashlib.sha256()
    for path in sorted(outline.directories):
        digest.update(f"{path}\0{outline.directories[path].mode:o}\0".encode("utf-8", "surrogateescape"))
    for path in sorted(outline.links):
        digest.update(f"{path}\0{outline.links[path].target}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _directory_names(outline: Outline) -> tuple[str, ...]:
    return tuple(sorted(path for path in outline.directories if path))


def _link_names(outline: Outline) -> tuple[str, ...]:
    return tuple(sorted(outline.links))


def _remember(workspace: Workspace, outline: Outline, generation: int, *, believe: bool) -> None:
    header = workspace.ledger.header
    extra = packing.believed(header.extra) if believe else header.extra
    workspace.ledger.set_header(
        replace(
            header,
            extra={**extra, _SHAPE: _shape_digest(outline)},
            directories=_directory_names(outline),
            links=_link_names(outline),
            generation=generation,
        )
    )
