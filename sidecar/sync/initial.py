"""The first meeting of a home and its area: restored, uploaded, fresh, or already in step.

Also the words that people grep for: every operation on a user's directory is logged here, once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from msgspec.structs import replace

from sidecar.area.objects import Listing
from sidecar.beside import Beside
from sidecar.errors import AccessDenied, SidecarError
from sidecar.home.entries import Scan
from sidecar.logs import log
from sidecar.sync import deletions, tombstones
from sidecar.sync.journal_reader import Journal, read_journal, wait_for_the_living
from sidecar.sync.prefetch import Prefetch
from sidecar.sync.progress import Watcher, nobody
from sidecar.sync.restore import area_listing, restore
from sidecar.sync.results import BackupResult, SyncResult
from sidecar.sync.workspace import Workspace

# How long a restore waits for another writer who is at work: a pod that ends flushes within this time.
WAIT_FOR_OTHERS_SECONDS = 5.0


def failed(user_id: str, error: SidecarError) -> SyncResult:
    """The result of an initial sync or restore that `error` ended."""
    return SyncResult(
        user_id,
        synced=False,
        action="failed",
        error=error.message,
        kind=error.kind,
        hint=error.hint,
        outage=error.outage,
    )


def backup_failed(user_id: str, error: SidecarError) -> BackupResult:
    """The result of a backup that `error` ended before it began."""
    return BackupResult(
        user_id,
        durable=False,
        error=error.message,
        kind=error.kind,
        hint=error.hint,
        outage=error.outage,
    )


def initial_sync(
    workspace: Workspace,
    *,
    watcher: Watcher = nobody,
    stop: Callable[[], bool] = lambda: False,
    dry_run: bool = False,
) -> SyncResult:
    """Restore the area, or make the first backup where the area is empty, or start fresh.

    A ledger with its restore-complete mark means that this pod has done this: nothing is touched
    (``already_synced``), so that a restarted container never restores over live data.

    Raises
    ------
    StoreError: the area cannot be read; that is never taken for an empty one. HomeError, LedgerError.
    """
    if workspace.ledger.header.restored:
        return SyncResult(workspace.user_id, synced=True, action="already_synced")
    begun = _begin_beside(workspace)
    log.info("Checking if .claude data exists in S3: %s", workspace.objects_url)
    prefetch = Prefetch(workspace, packs=not dry_run)
    # The journal first, the objects after: what a checkpoint folds meanwhile is seen by one of the two.
    journal = wait_for_the_living(workspace, seconds=0 if dry_run else WAIT_FOR_OTHERS_SECONDS)
    _begun(workspace, begun)
    listing = area_listing(workspace, expected=bool(journal.keys) or not prefetch.found_none)
    if listing.objects or journal.keys:
        return _restore(workspace, journal, listing, prefetch, watcher, stop, dry_run)
    log.info(
        "No .claude data found in S3 for user %s, checking for local .claude data to backup",
        workspace.user_id,
    )
    if not dry_run:
        workspace.ledger.set_header(replace(workspace.ledger.header, foreign_entries=journal.denied))
    backup = backup_home(workspace, listing=listing, watcher=watcher, stop=stop, dry_run=dry_run)
    if backup.error:
        return _first_backup(backup, "failed")
    if not dry_run:
        workspace.ledger.set_header(replace(workspace.ledger.header, restored=True))
    if not backup.files:
        return _first_backup(backup, "fresh")
    if not dry_run:
        log.info(
            "Initial backup completed for user %s: %d files backed up to S3", workspace.user_id, backup.files
        )
    return _first_backup(backup, "uploaded")


def _first_backup(backup: BackupResult, action: str) -> SyncResult:
    return SyncResult(
        backup.user_id,
        synced=action != "failed",
        action=action,
        files=backup.files,
        bytes=backup.bytes,
        seconds=backup.seconds,
        error=backup.error,
        kind=backup.kind,
        hint=backup.hint,
        outage=backup.outage,
        refused=backup.refused,
        dry_run=backup.dry_run,
    )


def restore_area(
    workspace: Workspace,
    *,
    watcher: Watcher = nobody,
    stop: Callable[[], bool] = lambda: False,
    dry_run: bool = False,
) -> SyncResult:
    """Bring into the home what it lacks of the area, whatever the ledger says of earlier restores."""
    begun = _begin_beside(workspace)
    prefetch = Prefetch(workspace, packs=not dry_run)
    journal = read_journal(workspace)
    _begun(workspace, begun)
    return _restore(workspace, journal, area_listing(workspace), prefetch, watcher, stop, dry_run)


def _restore(
    workspace: Workspace,
    journal: Journal,
    listing: Listing,
    prefetch: Prefetch,
    watcher: Watcher,
    stop: Callable[[], bool],
    dry_run: bool,
) -> SyncResult:
    log.info("Syncing .claude from %s to %s", workspace.objects_url, workspace.home.root)
    result = restore(
        workspace, listing, journal, prefetch=prefetch, watcher=watcher, stop=stop, dry_run=dry_run
    )
    if result.synced and not dry_run:
        log.info(".claude sync completed: Successfully synced %d files from S3", result.files)
    if result.not_restored and not dry_run:
        log.warning(
            "%d files of %s are not restored: %s",
            len(result.not_restored),
            workspace.objects_url,
            "; ".join(f"{entry.path}: {entry.reason}" for entry in result.not_restored[:5]),
        )
    return result


def backup_home(
    workspace: Workspace,
    *,
    listing: Listing | None = None,
    before: Callable[[], None] = lambda: None,
    watcher: Watcher = nobody,
    stop: Callable[[], bool] = lambda: False,
    scanned: Callable[[Scan], None] = lambda scan: None,
    transcripts_first: bool = False,
    dry_run: bool = False,
    pack: bool = True,
) -> BackupResult:
    """A checkpoint, with its log lines where it moved something; `before` is called ahead of the first.

    `listing`: what the area holds, if that was just found out; a ledger that does not know it asks otherwise.
    """

    from sidecar.sync import doubts
    from sidecar.sync.checkpoint import checkpoint  # late: a restore has no use for it

    def announce() -> None:
        before()
        log.info("Backing up .claude from %s to %s", workspace.home.root, workspace.objects_url)

    _begin(workspace)
    header = workspace.ledger.header
    if listing is None and not (header.restored or header.compared):
        listing = area_listing(workspace)
    workspace.announce_first_move(announce)
    if not dry_run:
        with suppress(SidecarError):  # what is away now is away for the checkpoint too, which says so
            doubts.resolve(workspace)
    try:
        result = checkpoint(
            workspace,
            listing=listing,
            watcher=watcher,
            stop=stop,
            scanned=scanned,
            transcripts_first=transcripts_first,
            dry_run=dry_run,
            pack=pack,
        )
    finally:
        workspace.announce_first_move(None)
    if listing is not None and result.durable and not dry_run:
        workspace.ledger.set_header(replace(workspace.ledger.header, compared=True))
    if result.files and not dry_run:
        log.info(".claude backup completed: Successfully backed up %d files to S3", result.files)
    if not dry_run and not result.error:
        _fold(workspace, result)
    _warn(workspace, result)
    return result


def _fold(workspace: Workspace, result: BackupResult) -> None:
    if not workspace.ledger.entries() and not workspace.ledger.header.foreign_entries:
        return
    from sidecar.sync.fold import fold

    # What is refused once may come at the next checkpoint: settings that somebody is just writing.
    again = [entry.path for entry in result.refused if not workspace.first_time(entry.path, "the journal")]
    try:
        folded = fold(workspace, again)
        log.debug("Folded the journal: %d entries removed, %d left", folded.removed, folded.left)
    except AccessDenied:
        return  # said once, when the journal was read
    except SidecarError as error:
        log.warning("The journal was not folded; the next checkpoint goes on: %s", error)


def _begin(workspace: Workspace) -> None:
    """What a ledger notes before it learns anything; later, nothing."""
    tombstones.meet(workspace)
    deletions.note_home(workspace)


def _begin_beside(workspace: Workspace) -> Beside[Callable[[], None]]:
    """Ask for the same while the journal is read, from which a ledger learns nothing yet."""
    one_by_one = workspace.settings.concurrency == 1
    return Beside(partial(tombstones.asked, workspace), one_by_one=one_by_one)


def _begun(workspace: Workspace, asked: Beside[Callable[[], None]]) -> None:
    """Note what came of it, in this thread: nobody else writes the ledger meanwhile."""
    asked.result()()
    deletions.note_home(workspace)


def _warn(workspace: Workspace, result: BackupResult) -> None:
    if result.pending and not result.dry_run:
        names = "; ".join(f"{entry.path}: {entry.reason}" for entry in result.pending[:5])
        # What an outage leaves is said by whoever keeps the books, and not at each interval.
        level = logging.DEBUG if result.outage else logging.WARNING
        log.log(level, "%d files are not in the bucket yet: %s", len(result.pending), names)
    news = [entry for entry in result.refused if workspace.first_time(entry.path, entry.reason)]
    if news:
        names = "; ".join(f"{entry.path}: {entry.reason}" for entry in news[:5])
        log.warning("%d files cannot be backed up: %s", len(news), names)
