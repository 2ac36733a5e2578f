"""What is said at the start of whose the home is and what in it cannot be read, and kept for ``/readyz``."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable

from sidecar.errors import HomeError
from sidecar.home.access import Ownership, is_unreadable, unreadable
from sidecar.home.entries import Refused
from sidecar.logs import log
from sidecar.sync.results import Unsynced
from sidecar.sync.workspace import Workspace

_EXAMPLES = 3


def tell_access(workspace: Workspace) -> tuple[Unsynced, ...]:
    """Say to whom restored files go and what cannot be read; returns the latter.

    A home that cannot be read at all is left to the operation that follows: it says the same.
    """
    found: tuple[Refused, ...] = ()
    with contextlib.suppress(HomeError, OSError):
        _tell_owner(workspace)
        found = unreadable(workspace.home, workspace.rules, workspace.max_file_bytes)
    if found:
        log.warning("%s", sentence(unreadable_of(found), str(workspace.home.root)))
    for refused in found:  # said now: the first checkpoint need not say it again
        workspace.first_time(refused.path, refused.reason)
    return unreadable_of(found)


def unreadable_of(refused: Iterable[Refused | Unsynced]) -> tuple[Unsynced, ...]:
    """Those of `refused` that this process may not read."""
    return tuple(Unsynced(one.path, one.reason) for one in refused if is_unreadable(one.reason))


def sentence(paths: tuple[Unsynced, ...], root: str) -> str:
    """Which files of the home at `root` cannot be read, and what to set."""
    names = ", ".join(one.path for one in paths[:_EXAMPLES])
    more = "; " if len(paths) <= _EXAMPLES else f" and {len(paths) - _EXAMPLES} more; "
    return (
        f"{len(paths)} files of {root} cannot be read and are not backed up: {names}{more}{paths[0].reason}"
    )


def _tell_owner(workspace: Workspace) -> None:
    owner = workspace.settings.owner
    told, hint, is_warning = Ownership.of(workspace.home, owner.uid if owner else None).told()
    if told:
        # Of many homes it is the same each time.
        quiet = logging.DEBUG if workspace.settings.serves_many_users else logging.INFO
        log.log(logging.WARNING if is_warning else quiet, "%s%s", told, f" ({hint})" if hint else "")
