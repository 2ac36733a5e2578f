"""``CLAUDE_SIDECAR_DELETIONS=mirror``: what was deleted in the home is deleted in the area, with great care.

A file counts as deleted only if this ledger knew it, the home is still the one that the ledger knew it in,
the file is certainly not there, no rule leaves it out, and it does not look like the client's own clean-up.
Its object goes only if it is exactly the version that the ledger knew: what another writer changed stays.
Never more than half of an area goes at once (within an hour); then nothing goes. Everything else is in the
bucket before anything is deleted. A deletion that fails is a WARNING, and the next checkpoint tries again.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sidecar.errors import AccessDenied, ConditionFailed, HomeError, SidecarError
from sidecar.home.entries import Scan
from sidecar.home.reads import open_file
from sidecar.logs import log
from sidecar.sync.deletion_rules import CLEANUP_DAYS, Brake, absent, braked, looks_like_cleanup
from sidecar.sync.marks import Mark
from sidecar.sync.transfers import Job, run_jobs
from sidecar.sync.workspace import Workspace

_SETTINGS_BYTES = 1024 * 1024
# Where the ledger's header keeps what this module remembers.
_HOME, _BRAKE, _CONDITIONS = "home", "deletions", "conditions"


@dataclass(frozen=True, slots=True)
class Mirrored:
    """``gone``: the paths whose objects were deleted, with their ETags. ``refused``: how many were not: by
    the brake, by a store without conditions, or by an error."""

    gone: Mapping[str, str]
    refused: int = 0


NOTHING = Mirrored({})


def candidates(workspace: Workspace, scan: Scan) -> list[str]:
    """The paths that were deleted in the home and whose objects may follow, brake and conditions aside."""
    if workspace.settings.deletions != "mirror" or not workspace.ledger.header.restored:
        return []
    marks = workspace.ledger.marks()
    missing = [path for path in absent(marks, scan) if _is_gone(workspace, path)]
    if not _same_home(workspace, missing) or not missing:
        return []
    missing = [path for path in missing if not workspace.refusal(path)]
    return _without_journalled(workspace, _without_cleanup(workspace, missing, marks))


def note_home(workspace: Workspace) -> None:
    """Before a ledger learns anything: note the home in which it does."""
    header = workspace.ledger.header
    if _HOME not in header.extra and not workspace.ledger.marks():
        _remember(workspace, _HOME, list(workspace.home.identity))


def _same_home(workspace: Workspace, missing: list[str]) -> bool:
    """Whether the ledger learned what it knows in this home; if not, what is missing is not known any more.

    Another volume at the same path reads as "nearly everything was deleted" otherwise.
    """
    if workspace.ledger.header.extra.get(_HOME) == list(workspace.home.identity):
        return True
    for path in missing:
        workspace.ledger.forget(path)
    _remember(workspace, _HOME, list(workspace.home.identity))
    if missing:
        log.warning(
            "The home %s is another directory than before: %d files that it lacks are not taken for deleted",
            workspace.home.root,
            len(missing),
        )
    return False


def _is_gone(workspace: Workspace, path: str) -> bool:
    """Whether the file system itself says that nothing is there; one scan is no proof."""
    try:
        workspace.home.lstat(path)
    except OSError as error:
        return error.errno == errno.ENOENT
    except HomeError:
        return False
    return False


def _without_cleanup(workspace: Workspace, paths: list[str], marks: Mapping[str, Mark]) -> list[str]:
    if not paths:
        return []
    days, now_ns = _cleanup_days(workspace), workspace.now_ns()
    kept = [path for path in paths if looks_like_cleanup(path, marks[path].mtime_ns, now_ns, days)]
    news = [path for path in kept if workspace.first_time(path, "clean-up")]
    if news:
        log.info(
            "%d files older than %g days are gone from the home and stay in the bucket: that looks like the "
            "client's own clean-up",
            len(news),
            days,
        )
    return [path for path in paths if path not in set(kept)]


def _cleanup_days(workspace: Workspace) -> float:
    """The client's ``cleanupPeriodDays`` as the home's own settings have it."""
    import orjson

    try:
        with open_file(workspace.home, "settings.json") as file:
            settings = orjson.loads(file.read(0, min(file.size, _SETTINGS_BYTES)))
        days = settings.get("cleanupPeriodDays", CLEANUP_DAYS)
    except (HomeError, ValueError, AttributeError):
        return CLEANUP_DAYS
    return float(days) if isinstance(days, int | float) and days >= 0 else CLEANUP_DAYS


def _without_journalled(workspace: Workspace, paths: list[str]) -> list[str]:
    """Rule 15: what the journal still carries would come back by it, so it waits until that is folded.

    This is the place where a tombstone goes into the journal, once entries can hold one.
    """
    carried = {path for entry in workspace.ledger.entries().values() for path in entry.paths}
    return [path for path in paths if path not in carried]


def carry_out(workspace: Workspace, paths: list[str]) -> Mirrored:
    """Delete the objects of `paths`, each only if it is the version that the ledger knows.

    Afterwards: commit the manifest without what is gone, then `settled`.
    """
    if not paths:
        return NOTHING
    try:
        if not _conditions_hold(workspace):
            return Mirrored({}, refused=len(paths))
        marks = workspace.ledger.marks()
        known = sum(1 for mark in marks.values() if mark.etag)
        brake = braked(_brake(workspace), len(paths), known, time.time())
        if brake is None:
            return _refuse(workspace, paths, known)
        _remember(workspace, _BRAKE, [brake.since, brake.known, brake.deleted])
    except SidecarError as error:
        log.warning("%d deletions are not mirrored yet: %s", len(paths), error)
        return Mirrored({}, refused=len(paths))
    return _delete_all(workspace, {path: marks[path].etag for path in paths})


def settled(workspace: Workspace, mirrored: Mirrored) -> None:
    """Nothing knows the deleted paths any more: the ledger may forget them."""
    for path in mirrored.gone:
        workspace.ledger.forget(path)


def _delete_all(workspace: Workspace, etags: Mapping[str, str]) -> Mirrored:
    def job(path: str) -> Job[bool]:
        return Job(path, 0, lambda: _delete(workspace, path, etags[path]))

    gone: dict[str, str] = {}
    errors: list[SidecarError] = []
    for done in run_jobs([job(path) for path in etags], workers=workspace.settings.concurrency):
        if done.value:
            gone[done.job.name] = etags[done.job.name]
        elif isinstance(done.error, SidecarError):
            errors.append(done.error)
        elif done.error is not None:
            raise done.error
    if gone:
        names = ", ".join(sorted(gone)[:5])
        log.info("Deleted %d objects whose files were deleted in the home: %s", len(gone), names)
    if errors:
        log.warning("%d deletions are not mirrored yet: %s", len(errors), errors[0])
    return Mirrored(gone, refused=len(errors))


def _delete(workspace: Workspace, path: str, etag: str) -> bool:
    if not _is_gone(workspace, path):
        return False  # it came back meanwhile
    try:
        workspace.store.delete(workspace.keys.object(path), if_match=etag)
    except ConditionFailed:
        log.info("%s was deleted in the home and changed by another writer: it stays in the bucket", path)
        mark = workspace.ledger.mark(path)
        if mark:
            workspace.ledger.record(path, mark.cleared())  # not asked about again
        return False
    return True


def _refuse(workspace: Workspace, paths: list[str], known: int) -> Mirrored:
    """The brake: nothing is deleted. What a person removed from the bucket since is no longer missed."""
    listed = workspace.store.list(workspace.keys.objects).objects
    for path in paths:
        if workspace.keys.object(path) not in listed:
            workspace.ledger.forget(path)
    held = [path for path in paths if workspace.keys.object(path) in listed]
    if held and workspace.first_time(workspace.keys.objects, f"brake {len(held)} of {known}"):
        log.warning(
            "Nothing was deleted from the bucket: %d of %d files are gone from the home, and never more than "
            "half goes within an hour. If that was meant, remove them from %s yourself (the first: %s); if "
            "not, a new pod brings them back",
            len(held),
            known,
            workspace.objects_url,
            ", ".join(sorted(held)[:5]),
        )
    return Mirrored({}, refused=len(held))


def _conditions_hold(workspace: Workspace) -> bool:
    """Whether this store deletes only the version that is meant; asked once for each ledger."""
    known = workspace.ledger.header.extra.get(_CONDITIONS)
    if known is None:
        known = _asked_for_conditions(workspace)
        _remember(workspace, _CONDITIONS, known)
    if known != "hold" and workspace.first_time(workspace.keys.objects, "conditions"):
        why = {
            "ignored": "ignores conditions, so another writer's newer version could be deleted",
            "denied": "does not let this identity delete (allow s3:DeleteObject)",
        }
        log.warning(
            "Deletions are not mirrored: the store of %s %s; set CLAUDE_SIDECAR_DELETIONS=keep to be silent",
            workspace.objects_url,
            why.get(known, "could not be asked about conditions"),
        )
    return bool(known == "hold")


def _asked_for_conditions(workspace: Workspace) -> str:
    store, prefix = workspace.store, workspace.keys.own
    try:
        holds = store.probe_conditions(prefix) and store.probe_conditional_delete(prefix)
    except AccessDenied:
        return "denied"
    return "hold" if holds else "ignored"


def _brake(workspace: Workspace) -> Brake | None:
    fields = workspace.ledger.header.extra.get(_BRAKE)
    return Brake(*fields) if fields else None


def _remember(workspace: Workspace, name: str, value: Any) -> None:
    header = workspace.ledger.header
    workspace.ledger.set_header(replace(header, extra={**header.extra, name: value}))
