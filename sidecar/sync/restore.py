"""Restore: the area into the home.

Promised: a restored file appears whole or not at all; a local change is never undone; a transcript in a live
home is appended to, never replaced; what did not come is named and is never taken for deleted. A restore that
was cut off is finished by the next one: it takes only what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec.structs import replace

from sidecar.area.manifest import Manifest
from sidecar.area.objects import Listing, ObjectInfo
from sidecar.errors import HomeError, SidecarError
from sidecar.home.entries import Scan
from sidecar.home.scan import scan as scan_home
from sidecar.home.writes import make_directory, make_link, remove_leftovers, set_directory
from sidecar.logs import log
from sidecar.sync import packing
from sidecar.sync.adoption import adopt
from sidecar.sync.arrivals import Wanted
from sidecar.sync.bringing import Bringing, Tally
from sidecar.sync.compare import Local, RestoreStep, clashes, is_transcript, restore_step, urgency
from sidecar.sync.journal_reader import Journal
from sidecar.sync.overlay import overlay
from sidecar.sync.prefetch import Prefetch
from sidecar.sync.progress import Watcher, nobody
from sidecar.sync.results import SyncResult, Unsynced
from sidecar.sync.transfers import concerns_all
from sidecar.sync.workspace import Workspace

# Left free on the home's volume (a tenth of a small one), so that the agent can still start and write.
RESERVE_BYTES = 16 * 1024 * 1024
# How directories are made on the way; their own modes come at the end.
_OWN_MODE = 0o700


class RestoreCutOff(SidecarError):
    """Something asked it to stop."""

    kind = "cut_off"
    outage = True


def area_listing(workspace: Workspace, *, expected: bool = True) -> Listing:
    """What the area holds as objects. Raises StoreError where that cannot be told: never empty instead.

    `expected`: as in `Store.list`.
    """
    return workspace.store.list(workspace.keys.objects, expected=expected)


def restore(
    workspace: Workspace,
    listing: Listing,
    journal: Journal | None = None,
    *,
    prefetch: Prefetch | None = None,
    watcher: Watcher = nobody,
    stop: Callable[[], bool] = lambda: False,
    dry_run: bool = False,
) -> SyncResult:
    """Bring the objects of `listing` into the home, and `journal` (read before the listing) on top.

    `prefetch`: the manifest and the packs, if they are on their way already. The result's action is
    ``restored``, or ``failed`` where an error ended it early; either way ``not_restored`` lists what is in
    the area and not in the home, with the reason.
    """
    begun = time.monotonic()
    tally = Tally()
    if not dry_run:
        remove_leftovers(workspace.home)
    prefetch = prefetch or Prefetch(workspace)
    manifest = prefetch.manifest()
    scan = scan_home(workspace.home, workspace.rules, max_file_bytes=workspace.max_file_bytes)
    adopt(workspace, listing, manifest, scan)
    wanted = _wanted(workspace, listing, manifest, scan, tally)
    fitting = _fitting(workspace, wanted, tally)
    if not dry_run:
        Bringing(workspace, fitting, tally, watcher, stop).run(prefetch)
        if not tally.cut_off and (tally.error is None or not concerns_all(tally.error)):
            _overlay(workspace, journal or Journal(), tally)
            _shape(workspace, manifest, scan)
            _finish(workspace, tally)
            packing.doubt(workspace, prefetch.doubted)
    else:
        tally.files, tally.bytes = len(fitting), sum(item.info.size for item in fitting)
    return _result(workspace, tally, begun, dry_run)


def _wanted(
    workspace: Workspace, listing: Listing, manifest: Manifest, scan: Scan, tally: Tally
) -> list[Wanted]:
    infos = _ours(workspace, listing, tally)
    lost = clashes({path: info.modified for path, info in infos.items()})
    tally.not_restored += [Unsynced(path, reason, infos[path].size) for path, reason in lost.items()]
    wanted = []
    for path, info in infos.items():
        if path in lost:
            continue
        step = _step(workspace, scan, path, info)
        if step is not RestoreStep.NOTHING:
            wanted.append(Wanted(path, info, manifest.files, step))
    return sorted(wanted, key=lambda item: urgency(item.path, item.mtime_ns))


def _ours(workspace: Workspace, listing: Listing, tally: Tally) -> dict[str, ObjectInfo]:
    """The objects that belong into a home; the rest is skipped, counted and named once."""
    skipped = [Unsynced(workspace.keys.path(s.key), s.reason) for s in listing.skipped]
    infos: dict[str, ObjectInfo] = {}
    begin, rules = len(workspace.keys.objects), workspace.rules
    for key, info in listing.objects.items():  # its names can stand in a home: the listing saw to that
        path = key[begin:]
        verdict = rules.decide(path, False)
        problem = "" if verdict.taken else verdict.reason
        if not problem and info.size > workspace.max_file_bytes:
            problem = f"larger than {workspace.settings.max_file_mib} MiB (CLAUDE_SIDECAR_MAX_FILE_MIB)"
        if problem:
            skipped.append(Unsynced(path, problem, info.size))
        else:
            infos[path] = info
    if skipped:
        names = ", ".join(f"{s.path} ({s.reason})" for s in skipped[:5])
        log.warning("Passing over %d keys that are not restored: %s", len(skipped), names)
    tally.skipped += skipped
    return infos


def _step(workspace: Workspace, scan: Scan, path: str, info: ObjectInfo) -> RestoreStep:
    mark, stat = workspace.ledger.mark(path), scan.files.get(path)
    if stat is None:
        if mark is None and workspace.ledger.flushed(path):
            return RestoreStep.NOTHING  # it was here, known from the journal alone, and was deleted
        local = Local.ABSENT
    elif mark is None:
        local = Local.NEW
    else:
        local = Local.SAME if mark.stat == stat else Local.CHANGED
    return restore_step(local, mark, info.etag, transcript=is_transcript(path))


def _fitting(workspace: Workspace, wanted: list[Wanted], tally: Tally) -> list[Wanted]:
    """What fits into the free space, the most urgent first (configuration, then the newest sessions)."""
    free = workspace.home.free_bytes()
    room = free - min(RESERVE_BYTES, free // 10)
    fitting = []
    for item in wanted:
        if item.info.size > room:
            reason = "it does not fit on the home's volume"
            tally.not_restored.append(Unsynced(item.path, reason, item.info.size))
            continue
        room -= item.info.size
        fitting.append(item)
    if len(fitting) < len(wanted):
        log.warning(
            "%d of %d files do not fit on the volume of %s and are not restored; give it more space",
            len(wanted) - len(fitting),
            len(wanted),
            workspace.home.root,
        )
    return fitting


def _overlay(workspace: Workspace, journal: Journal, tally: Tally) -> None:
    skipped = {entry.path for entry in tally.skipped}
    laid = overlay(workspace, journal, skipped | {entry.path for entry in tally.not_restored})
    tally.files += laid.files
    tally.bytes += laid.bytes
    tally.not_restored += [entry for entry in laid.not_restored if entry.path not in skipped]
    tally.not_restored += [Unsynced(key, "a journal entry that cannot be read") for key in journal.unread]
    foreign = any(writer != workspace.ledger.writer for writer, _ in journal.keys)
    workspace.ledger.set_header(replace(workspace.ledger.header, foreign_entries=foreign))


def _shape(workspace: Workspace, manifest: Manifest, scan: Scan) -> None:
    """Directories and links: only the manifest carries them. Directory times last, the deepest first."""
    for path in sorted(manifest.directories):
        if path not in scan.directories and not workspace.refusal(path, is_directory=True):
            _try(path, lambda path=path: make_directory(workspace.home, path, 0o700))  # type: ignore[misc]
    for path, (target, mtime_ns) in manifest.links.items():
        if path not in scan.links and path not in scan.files and not workspace.refusal(path):
            _try(path, lambda p=path, t=target, at=mtime_ns: make_link(workspace.home, p, t, at))  # type: ignore[misc]
    for path in sorted(manifest.directories, key=len, reverse=True):
        mode, mtime_ns = manifest.directories[path]
        if _may_set(workspace, scan, path) and not workspace.refusal(path, is_directory=True):
            _try(path, lambda p=path, m=mode, t=mtime_ns: set_directory(workspace.home, p, m, t))  # type: ignore[misc]


def _may_set(workspace: Workspace, scan: Scan, path: str) -> bool:
    """Whether a directory is ours to set: we made it, now or in a restore that was cut off."""
    before = scan.directories.get(path)
    return before is None or (not workspace.ledger.header.restored and before.mode == _OWN_MODE)


def _try(path: str, effect: Callable[[], object]) -> None:
    try:
        effect()
    except HomeError as error:
        log.warning("%s was not restored as it was: %s", path, error)


def _finish(workspace: Workspace, tally: Tally) -> None:
    """The restore-complete mark: what is missing now is known and named."""
    header = replace(workspace.ledger.header, restored=True, not_restored=len(tally.not_restored))
    workspace.ledger.set_header(header)


def _result(workspace: Workspace, tally: Tally, begun: float, dry_run: bool) -> SyncResult:
    error = tally.error
    if tally.cut_off and error is None:
        error = RestoreCutOff("the restore was cut off before its end", "the next one takes what is missing")
    return SyncResult(
        workspace.user_id,
        synced=error is None,
        action="failed" if error else "restored",
        files=tally.files,
        bytes=tally.bytes,
        packed=min(tally.packed, tally.files),
        seconds=time.monotonic() - begun,
        error=error.message if error else None,
        kind=error.kind if error else None,
        hint=error.hint if error else None,
        outage=error.outage if error else False,
        not_restored=tuple(tally.not_restored),
        skipped=tuple(tally.skipped),
        dry_run=dry_run,
    )
