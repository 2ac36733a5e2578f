"""``restore`` and ``backup`` as commands: one operation, its progress, its exit code.

Imports neither asyncio nor aiohttp: an init container pays for every import.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from sidecar.area.store import Store
from sidecar.errors import SettingsError, SidecarError
from sidecar.logs import log
from sidecar.settings import BUCKET_NOT_CONFIGURED, Settings
from sidecar.sync.initial import backup_failed, backup_home, failed, initial_sync, restore_area
from sidecar.sync.progress import Progress
from sidecar.sync.results import BackupResult, SyncResult
from sidecar.sync.workspace import Workspace

DONE, FAILED, WRONG_USE, PARTLY = 0, 1, 2, 3
_LINE_SECONDS = 10.0
_TERMINAL_SECONDS = 0.1


def restore(settings: Settings, *, dry_run: bool = False, as_json: bool = False) -> int:
    """The init hook. The restore policy decides what a failure does to the pod.

    ``auto``: an outage lets the agent start (0), a wrong configuration does not (1). ``continue``: always 0.
    ``require``: 1 on any failure, 3 where something did not come.
    """
    if settings.user_id is None:
        log.info("No user is known yet: the restore waits for the first trigger")
        return DONE
    if not settings.bucket:
        log.warning(BUCKET_NOT_CONFIGURED)
        result = SyncResult(settings.user_id, synced=False, action="disabled")
    else:
        result = _restored(settings, settings.user_id, dry_run)
    if as_json:
        _print_json(result.as_dict())
    elif dry_run:
        _print_plan("restore", result.files, result.bytes)
    return _restore_code(settings.restore_policy, result)


def _restored(settings: Settings, user_id: str, dry_run: bool) -> SyncResult:
    try:
        store = Store.connect(settings, outage_seconds=settings.restore_timeout_seconds)
        with Workspace.open(settings, store, user_id, live=False) as workspace:
            operation = initial_sync
            if workspace.ledger.header.restored:  # not the first time: an agent may be at work
                workspace.live, operation = True, restore_area
            return operation(workspace, watcher=_Shown(), dry_run=dry_run)
    except SidecarError as error:
        return failed(user_id, error)


def _restore_code(policy: str, result: SyncResult) -> int:
    if result.action == "failed":
        may_start = policy == "continue" or (policy == "auto" and result.outage)
        say = log.warning if may_start else log.error
        say("The restore failed: %s%s", result.error, f" ({result.hint})" if result.hint else "")
        if may_start:
            log.warning("The agent starts without its history; the sidecar adds what is missing when it can")
        return DONE if may_start else FAILED
    if result.not_restored and policy == "require":
        return PARTLY
    return DONE


def backup(settings: Settings, *, dry_run: bool = False, as_json: bool = False) -> int:
    """A checkpoint by hand: 0 all eligible files are in the bucket, 3 some are not, 1 failed."""
    if settings.user_id is None:
        raise SettingsError("no user is given", "give --user-id or CLAUDE_SIDECAR_USER_ID")
    if not settings.bucket:
        raise SettingsError(BUCKET_NOT_CONFIGURED, "give --bucket or S3_WORKSPACE_BUCKET")
    result = _backed_up(settings, settings.user_id, dry_run)
    if as_json:
        _print_json(result.as_dict())
    elif dry_run:
        _print_plan("backup", result.files, result.bytes)
    elif not result.files and result.durable:
        log.info("Nothing to back up: %s is in step with the bucket", settings.home_of(settings.user_id))
    if result.error:
        log.error("The backup failed: %s%s", result.error, f" ({result.hint})" if result.hint else "")
        return FAILED
    return DONE if result.durable or dry_run else PARTLY


def _backed_up(settings: Settings, user_id: str, dry_run: bool) -> BackupResult:
    try:
        store = Store.connect(settings, outage_seconds=settings.restore_timeout_seconds)
        with Workspace.open(settings, store, user_id, live=True) as workspace:
            return backup_home(workspace, watcher=_Shown(), dry_run=dry_run)
    except SidecarError as error:
        return backup_failed(user_id, error)


class _Shown:
    """Shows progress: one moving line on a terminal, a log line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._every_seconds = _TERMINAL_SECONDS if self._terminal else _LINE_SECONDS
        self._last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now, ended = time.monotonic(), progress.files == progress.files_total
        if now - self._last < self._every_seconds and not (ended and self._terminal):
            return
        self._last = now
        text = (
            f"{progress.word}: {progress.files} of {progress.files_total} files, "
            f"{_mib(progress.bytes)} of {_mib(progress.bytes_total)} MiB"
        )
        if self._terminal:
            sys.stderr.write(f"\r{text}\x1b[K" + ("\n" if ended else ""))
            sys.stderr.flush()
        else:
            log.info("%s", text)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 1024 / 1024:.1f}"


def _print_plan(word: str, files: int, size_bytes: int) -> None:
    sys.stdout.write(f"{word} would move {files} files, {_mib(size_bytes)} MiB\n")


def _print_json(value: Any) -> None:
    import orjson

    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")
