"""``restore`` and ``backup`` as commands: one operation, its progress, its exit code.

Where a sidecar runs on the same state directory, it is asked to do the work: two processes must not work on
one home.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from sidecar.area.store import Store
from sidecar.commands.output import DONE, PARTLY, Shown, failure_code, mib, print_json, say, sentence
from sidecar.errors import SettingsError, SidecarError
from sidecar.logs import log
from sidecar.settings import BUCKET_NOT_CONFIGURED, Settings
from sidecar.sync.access import tell_access
from sidecar.sync.initial import backup_failed, backup_home, failed, initial_sync, restore_area
from sidecar.sync.ledger import LedgerBusy
from sidecar.sync.ledger_peek import peek
from sidecar.sync.restore_note import leave
from sidecar.sync.results import BackupResult, SyncResult
from sidecar.sync.workspace import Workspace


def restore(
    settings: Settings, *, dry_run: bool = False, as_json: bool = False, token_file: str | None = None
) -> int:
    """The init hook. The restore policy decides what a failure does to the pod.

    ``auto``: an outage lets the agent start (0), a wrong configuration does not (1; a wrong setting: 2).
    ``continue``: always 0. ``require``: 1 or 2 on any failure, 3 where something did not come.
    """
    if settings.user_id is None:
        log.info("No user is known yet: the restore waits for the first trigger")
        return DONE
    if not settings.bucket:
        log.warning(BUCKET_NOT_CONFIGURED)
        result = SyncResult(settings.user_id, synced=False, action="disabled")
    else:
        result = _restored(settings, settings.user_id, dry_run, token_file)
    if as_json:
        print_json(result.as_dict())
    elif dry_run:
        _say_plan("restore", result.files, result.bytes)
    return _restore_code(settings.restore_policy, result)


def _restored(settings: Settings, user_id: str, dry_run: bool, token_file: str | None) -> SyncResult:
    try:
        store = Store.connect(settings, outage_seconds=settings.restore_timeout_seconds)
        with (_planned if dry_run else _opened)(settings, store, user_id) as workspace:
            operation = initial_sync
            if workspace.ledger.header.restored:  # not the first time: an agent may be at work
                workspace.live, operation = True, restore_area
            result = operation(workspace, watcher=Shown(), dry_run=dry_run)
    except LedgerBusy as busy:
        from sidecar.commands.asking import RunningSidecar

        return RunningSidecar(settings, user_id, token_file).restore(busy, dry_run=dry_run)
    except SidecarError as error:
        result = failed(user_id, error)
    if not dry_run:
        leave(settings.state_dir, result)
    return result


@contextlib.contextmanager
def _opened(settings: Settings, store: Store, user_id: str) -> Iterator[Workspace]:
    with Workspace.open(settings, store, user_id, live=False) as workspace:
        tell_access(workspace)
        workspace.ask_conditions_first()
        yield workspace


@contextlib.contextmanager
def _planned(settings: Settings, store: Store, user_id: str) -> Iterator[Workspace]:
    """For a dry run: what is not there is not made, but stood in for by what is gone afterwards."""
    import tempfile

    home = settings.home_of(user_id)
    is_there = os.path.lexists(home)
    with tempfile.TemporaryDirectory(prefix="claude-sidecar-plan-") as directory:
        stand_in = Path(directory)
        if not is_there:
            (stand_in / "home").mkdir()
            settings = replace(settings, home=str(stand_in / "home"))
        if not is_there or peek(settings.state_dir, user_id) is None:
            settings = replace(settings, state_dir=stand_in / "state")
        with Workspace.open(settings, store, user_id, live=False, make_home=False) as workspace:
            workspace.home.root = home  # what is said names the home that is meant
            yield workspace


def _restore_code(policy: str, result: SyncResult) -> int:
    if result.action == "failed":
        may_start = policy == "continue" or (policy == "auto" and result.outage)
        say_it = log.warning if may_start else log.error
        say_it("The restore failed: %s", sentence(result.error, result.hint))
        if may_start:
            log.warning("The agent starts without its history; the sidecar adds what is missing when it can")
        return DONE if may_start else failure_code(result.kind)
    if result.not_restored and policy == "require":
        return PARTLY
    return DONE


def backup(
    settings: Settings, *, dry_run: bool = False, as_json: bool = False, token_file: str | None = None
) -> int:
    """A checkpoint by hand: 0 all eligible files are in the bucket, 3 some are not, 1 or 2 failed."""
    user_id = demanded_user(settings)
    result = _backed_up(settings, user_id, dry_run, token_file)
    if as_json:
        print_json(result.as_dict())
    elif dry_run:
        _say_plan("backup", result.files, result.bytes)
    elif result.durable and not (result.files or result.deleted or result.conflicts):
        what = "nothing else" if result.refused else "nothing"
        home = settings.home_of(user_id)
        log.info("Nothing to back up: %s in %s changed since the last backup", what, home)
    if result.error:
        log.error("The backup failed: %s", sentence(result.error, result.hint))
        return failure_code(result.kind)
    return DONE if result.durable or dry_run else PARTLY


def demanded_user(settings: Settings) -> str:
    """The user of a command that works on a bucket.

    Raises
    ------
    SettingsError: no user, or no bucket, is given.
    """
    if settings.user_id is None:
        raise SettingsError("no user is given", "give --user-id or CLAUDE_SIDECAR_USER_ID")
    if not settings.bucket:
        raise SettingsError(BUCKET_NOT_CONFIGURED, "give --bucket or S3_WORKSPACE_BUCKET")
    return settings.user_id


def _backed_up(settings: Settings, user_id: str, dry_run: bool, token_file: str | None) -> BackupResult:
    try:
        store = Store.connect(settings, outage_seconds=settings.restore_timeout_seconds)
        with Workspace.open(settings, store, user_id, live=True, make_home=False) as workspace:
            workspace.ask_conditions_first()
            return backup_home(workspace, watcher=Shown(), dry_run=dry_run)
    except LedgerBusy as busy:
        from sidecar.commands.asking import RunningSidecar

        return RunningSidecar(settings, user_id, token_file).backup(busy, dry_run=dry_run)
    except SidecarError as error:
        return backup_failed(user_id, error)


def _say_plan(word: str, files: int, size_bytes: int) -> None:
    say(f"{word} would move {files} files, {mib(size_bytes)} MiB")
