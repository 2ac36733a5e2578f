"""What of a home is not in the bucket, as far as the home and the ledger know; the bucket is never asked."""

from __future__ import annotations

from sidecar.home.beneath import Home
from sidecar.home.entries import FileStat
from sidecar.home.rules import Rules
from sidecar.home.scan import scan
from sidecar.settings import Settings
from sidecar.sync.flush import needs_flush, new_bytes
from sidecar.sync.ledger_peek import peek
from sidecar.sync.results import Unsynced
from sidecar.sync.workspace import Workspace


def unsynced(
    settings: Settings, user_id: str, workspace: Workspace | None, reason: str
) -> tuple[Unsynced, ...]:
    """The eligible files of `user_id` that differ from what is known durable, each with `reason`.

    Parameters
    ----------
    workspace: None where none was opened yet: then the marks that the ledger has on disk are taken.

    Raises
    ------
    SidecarError: the home or the ledger cannot be read.
    """
    if workspace is None:
        return _of_closed(settings, user_id, reason)
    found = scan(workspace.home, workspace.rules, max_file_bytes=workspace.max_file_bytes)
    left = (stat for stat in found.files.values() if needs_flush(workspace, stat))
    return tuple(Unsynced(stat.path, reason, new_bytes(workspace, stat)) for stat in left)


def _of_closed(settings: Settings, user_id: str, reason: str) -> tuple[Unsynced, ...]:
    with Home.open(settings.home_of(user_id), private=settings.private_files) as home:
        rules = Rules(include=settings.include, exclude=settings.exclude)
        found = scan(home, rules, max_file_bytes=settings.max_file_mib * 1024 * 1024)
    known = peek(settings.state_dir, user_id)
    marks = known[1] if known else {}

    def is_known(stat: FileStat) -> bool:
        return stat.path in marks and marks[stat.path].stat == stat

    left = (stat for stat in found.files.values() if not is_known(stat))
    return tuple(Unsynced(stat.path, reason, stat.size) for stat in left)
