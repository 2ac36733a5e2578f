"""Carrying out mirrored deletions: object, manifest, journal, ledger, in this order.

An object goes only if it is exactly the version that the ledger knew. Cut off anywhere, the next checkpoint
does what is left: a mark is forgotten last. A deletion that fails is a WARNING and never fails a checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from msgspec import Struct

from sidecar.errors import AccessDenied, ConditionFailed, FormatError, SidecarError
from sidecar.logs import log
from sidecar.sync import doubts, rewritten
from sidecar.sync.deletion_rules import Brake, braked
from sidecar.sync.deletions import forget, is_gone, remember
from sidecar.sync.journal_reader import read_journal
from sidecar.sync.transfers import Job, run_jobs
from sidecar.sync.workspace import Workspace

# Where the ledger's header keeps what this module remembers.
_BRAKE, _CONDITIONS = "deletions", "conditions"


class Mirrored(Struct, frozen=True):
    """``gone``: the paths whose objects were deleted, with their ETags. ``refused``: how many were not: by
    the brake, by a store without conditions, or by an error."""

    gone: Mapping[str, str]
    refused: int = 0


NOTHING = Mirrored({})


def carry_out(workspace: Workspace, paths: list[str]) -> Mirrored:
    """Delete the objects of `paths`, each only if it is the version that the ledger knows.

    Afterwards: commit the manifest without what is gone, then `settled`.
    """
    if not paths:
        return NOTHING
    try:
        if not _conditions_hold(workspace):
            return Mirrored({}, refused=len(paths))
        doubts.resolve(workspace)  # what arrived unheard of is to be voided as well: it must be known
        paths = _without_foreign(workspace, paths)
        if not paths:
            return NOTHING
        marks = workspace.ledger.marks()
        known = sum(1 for mark in marks.values() if mark.etag)
        brake = braked(_brake(workspace), len(paths), known, time.time())
        if brake is None:
            return _refuse(workspace, paths, known)
        remember(workspace, _BRAKE, [brake.since, brake.known, brake.deleted])
    except SidecarError as error:
        log.warning("%d deletions are not mirrored yet: %s", len(paths), error)
        return Mirrored({}, refused=len(paths))
    return _delete_all(workspace, {path: marks[path].etag for path in paths})


def _without_foreign(workspace: Workspace, paths: list[str]) -> list[str]:
    """What another writer has in the journal was changed by another: it stays."""
    journal = read_journal(workspace)
    if journal.unread:
        raise FormatError(
            f"the journal entry {journal.unread[0]} cannot be read, so nobody can tell whose it is"
        )
    own = workspace.ledger.writer
    foreign = {r.path for entry in journal.entries if entry.writer != own for r in entry.records}
    return [path for path in paths if path not in foreign]


def settled(workspace: Workspace, mirrored: Mirrored) -> None:
    """After the manifest: void what the journal holds of the deleted paths (rule 15), and forget them."""
    ledger = workspace.ledger
    carried = {path for entry in ledger.entries().values() for path in entry.paths}.intersection(
        mirrored.gone
    )
    try:
        _void(workspace, sorted(carried))
    except SidecarError as error:
        log.warning("What the journal holds of %d deleted files would come back: %s", len(carried), error)
        return  # the marks stay, so the next checkpoint does all of this again
    for path, etag in mirrored.gone.items():
        mark = ledger.mark(path)
        if mark is None or mark.etag != etag or workspace.is_there(path):
            continue  # it was made anew meanwhile
        if path in carried:  # its entries are removed by what the ledger knows of it
            ledger.record(path, mark.cleared())
        else:
            ledger.forget(path)


def _void(workspace: Workspace, paths: list[str]) -> None:
    """Without this a deleted transcript comes back as its tail."""
    if not paths:
        return
    number = workspace.ledger.next_sequence()  # before the look: what comes back is flushed under a later one
    gone = [path for path in paths if is_gone(workspace, path)]
    if not gone:
        return
    flushed = {path: known for path in gone if (known := workspace.ledger.flushed(path))}
    void = rewritten.void(workspace, gone, number)
    for path, known in flushed.items():
        workspace.ledger.fold(path, known, known, void)
    if not flushed:  # else it is noted with them
        workspace.ledger.arrived(void.sequence, void.entry)


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
    if not is_gone(workspace, path):
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
    forget(workspace, [path for path in paths if workspace.keys.object(path) not in listed])
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
        remember(workspace, _CONDITIONS, known)
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
