"""The public functions: one call for one directory, as coroutines over the synchronous core.

Settings come from the environment, as for the commands; `bucket` overrides ``S3_WORKSPACE_BUCKET``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from msgspec.structs import replace

from sidecar.area.store import Store
from sidecar.settings import Settings, load
from sidecar.sync.initial import backup_home, restore_area
from sidecar.sync.results import BackupResult, SyncResult
from sidecar.sync.threads import in_thread
from sidecar.sync.workspace import Workspace

T = TypeVar("T")


async def check_s3_directory_exists(bucket: str, prefix: str) -> bool:
    """Whether `bucket` holds at least one object under `prefix`.

    Parameters
    ----------
    bucket: the bucket's name. prefix: a key prefix; a missing final ``/`` is added.

    Raises
    ------
    StoreError: that cannot be told (unreachable, denied, no such bucket): never False instead.
    """

    def look() -> bool:
        store = Store.connect(_settings(bucket))
        return bool(store.list(prefix.rstrip("/") + "/").objects)

    return await in_thread(look, "check-directory")


async def sync_claude_dir_from_s3(user_id: str, bucket: str) -> SyncResult:
    """Restore the ``.claude`` directory of `user_id` from `bucket` into the home.

    Raises
    ------
    StoreError: the area cannot be read. UserError, HomeError, LedgerError: see `Workspace.open`.
    """
    return await _with_workspace(user_id, bucket, restore_area)


async def backup_claude_dir_to_s3(user_id: str, bucket: str) -> BackupResult:
    """Bring the area of `user_id` in `bucket` up to date with the home: a checkpoint.

    A file that could not be sent is listed in the result's ``pending``; ``durable`` says if all is there.

    Raises
    ------
    StoreError: there is no way to the bucket. UserError, HomeError, LedgerError: see `Workspace.open`.
    """
    return await _with_workspace(user_id, bucket, backup_home)


def _settings(bucket: str) -> Settings:
    return replace(load(os.environ), bucket=bucket)


async def _with_workspace(user_id: str, bucket: str, operation: Callable[[Workspace], T]) -> T:
    def work() -> T:
        settings = _settings(bucket)
        with Workspace.open(settings, Store.connect(settings), user_id, live=True) as workspace:
            workspace.ask_conditions_first()
            return operation(workspace)

    return await in_thread(work, "workspace-sync")
