"""Folding every journal of a bucket, without a home: before a rollback to a reader that knows only objects.

Resumable: what is done is in the bucket, a second run goes on with what is left. Writers that are at work are
left alone and counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from sidecar.area.keys import AreaKeys
from sidecar.area.store import Store
from sidecar.errors import SidecarError
from sidecar.names import user_id_problem
from sidecar.settings import Settings
from sidecar.sync.fold import fold
from sidecar.sync.journal_reader import read_journal
from sidecar.sync.workspace import Workspace


class UserFolded(Struct, frozen=True):
    """One user's journal after a fold. ``left``: entries still there; ``alive``: of writers at work."""

    user_id: str
    removed: int
    left: int
    alive: int
    error: SidecarError | None = None


def fold_all_users(settings: Settings, store: Store, place: Path) -> Iterator[UserFolded]:
    """Fold the journal of each user under the prefix, one after another.

    Parameters
    ----------
    place: an empty directory of ours for the time of the call.

    Raises
    ------
    StoreError: the users cannot be listed.
    """
    for number, user_id in enumerate(store.children(f"{settings.prefix}/")):
        if user_id_problem(user_id):
            continue
        keys = AreaKeys(settings.prefix, user_id)
        if not store.list(keys.journal).objects:
            continue
        own = place / str(number)
        apart = replace(settings, home=str(own / "home"), state_dir=own / "state", user_id=user_id)
        try:
            yield _fold_user(apart, store, user_id)
        except SidecarError as error:
            yield UserFolded(user_id, 0, len(store.list(keys.journal).objects), 0, error)


def _fold_user(settings: Settings, store: Store, user_id: str) -> UserFolded:
    with Workspace.open(settings, store, user_id, live=False) as workspace:
        workspace.ask_conditions_first()
        # Twice: an entry goes when two passes found it contained (rule 13).
        removed = fold(workspace).removed + fold(workspace).removed
        left = read_journal(workspace)
        alive = left.alive(time.time(), workspace.ledger.writer)
        at_work = sum(1 for writer, _ in left.keys if writer in alive)
        return UserFolded(user_id, removed, len(left.keys), at_work)
