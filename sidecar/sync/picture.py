"""The manifest in the bucket: read for a restore, kept up to date by a checkpoint.

Two pods commit into one manifest: each brings its own paths and keeps the other's. A picture that cannot be
read or written is a WARNING and costs speed; it never fails a restore or a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sidecar.area.manifest import FileEntry, Manifest, decoded, encoded
from sidecar.area.objects import Condition, IfAbsent, IfMatch
from sidecar.errors import (
    AccessDenied,
    ConditionFailed,
    FormatError,
    ObjectArchived,
    ObjectDamaged,
    ObjectMissing,
)
from sidecar.home.entries import Scan
from sidecar.logs import log
from sidecar.sync.workspace import Workspace

_TRIES = 5


def read(workspace: Workspace) -> tuple[Manifest, str]:
    """The manifest and its ETag; an empty one and no ETag where there is none that counts.

    Raises
    ------
    FormatError: a newer version wrote it: it must not be overwritten.
    """
    key = workspace.keys.manifest
    try:
        with workspace.store.open(key) as download:
            etag = download.info.etag
            return decoded(download.read(), key), etag
    except ObjectMissing:
        return Manifest(), ""
    except (ObjectDamaged, ObjectArchived) as error:
        log.warning("%s; going on without it", error.message)
        return Manifest(), etag if isinstance(error, ObjectDamaged) else ""


def read_if_any(workspace: Workspace) -> Manifest:
    """The manifest for a restore, which goes on without one."""
    try:
        return read(workspace)[0]
    except AccessDenied as error:
        workspace.own_area_denied("The manifest may not be read", error)
        return Manifest()
    except FormatError as error:
        log.warning("Going on without the manifest: %s", error)
        return Manifest()


def commit(workspace: Workspace, scan: Scan, gone: Mapping[str, str] | None = None) -> bool:
    """Bring the manifest up to date with the ledger and the home's shape; False if that failed.

    `gone`: the paths whose objects were deleted, with their ETags.
    """
    for _ in range(_TRIES):
        try:
            theirs, etag = read(workspace)
            ours = _united(workspace, theirs, scan, gone or {})
            condition: Condition = IfMatch(etag) if etag else IfAbsent()
            workspace.store.put(workspace.keys.manifest, encoded(ours), condition=condition, metadata={})
        except ConditionFailed:
            continue
        except AccessDenied as error:
            workspace.own_area_denied("The manifest may not be written", error)
            return False
        except FormatError as error:
            log.warning("The manifest was not written: %s", error)
            return False
        _remember_shape(workspace, scan, ours.generation)
        return True
    log.warning("The manifest was not written: other pods keep changing it; the next checkpoint tries again")
    return False


def _united(workspace: Workspace, theirs: Manifest, scan: Scan, gone: Mapping[str, str]) -> Manifest:
    files = {path: entry for path, entry in theirs.files.items() if gone.get(path) != entry.etag}
    for path, mark in workspace.ledger.marks().items():
        if mark.etag and path not in gone:
            files[path] = FileEntry(mark.etag, mark.size, mark.mtime_ns, mark.mode, mark.digest)
    directories = {
        p: v for p, v in theirs.directories.items() if p not in workspace.ledger.header.directories
    }
    directories.update({p: (d.mode, d.mtime_ns) for p, d in scan.directories.items() if p})
    links = {p: t for p, t in theirs.links.items() if p not in workspace.ledger.header.links}
    links.update({p: (link.target, link.mtime_ns) for p, link in scan.links.items()})
    return Manifest(files, directories, links, theirs.generation + 1, workspace.ledger.writer)


def shape_changed(workspace: Workspace, scan: Scan) -> bool:
    """True where a directory or link came or went since the last manifest; times alone do not count."""
    header = workspace.ledger.header
    return header.directories != _directory_names(scan) or header.links != _link_names(scan)


def _directory_names(scan: Scan) -> tuple[str, ...]:
    return tuple(sorted(path for path in scan.directories if path))


def _link_names(scan: Scan) -> tuple[str, ...]:
    return tuple(sorted(scan.links))


def _remember_shape(workspace: Workspace, scan: Scan, generation: int) -> None:
    workspace.ledger.set_header(
        replace(
            workspace.ledger.header,
            directories=_directory_names(scan),
            links=_link_names(scan),
            generation=generation,
        )
    )
