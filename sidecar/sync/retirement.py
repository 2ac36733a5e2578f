"""Packs and parts that no manifest names any more: kept for whoever reads an earlier one, then removed.

A restore that runs meanwhile may have read the manifest before. It is over after an hour; and should it not
be, it finds a pack missing and reads objects instead. So clocks may err here: they cost speed only.
"""

from __future__ import annotations

import time
from contextlib import suppress

from sidecar.area.manifest_format import Root
from sidecar.errors import SidecarError
from sidecar.logs import log
from sidecar.sync.workspace import Workspace

KEPT_SECONDS = 3600
# A pack is uploaded before the manifest that names it: what lies there unnamed for a day was left by a crash.
_ORPHAN_SECONDS = 24 * 3600


def _named(root: Root) -> set[str]:
    return {*root.packs, *(name for name, _ in root.parts)}


def after(before: Root, now_named: Root, now: int) -> tuple[dict[str, int], list[str]]:
    """What is retired once `now_named` is the root, with the time of each, and what may be removed then."""
    named = _named(now_named)
    retired = {name: at for name, at in before.retired.items() if name not in named}
    retired.update({name: now for name in _named(before) - named if name not in retired})
    # Another pod's clock may be ahead of ours; a time that is further away than that is no time.
    due = [name for name, at in retired.items() if abs(now - at) >= KEPT_SECONDS]
    return {name: at for name, at in retired.items() if name not in due}, due


def remove(workspace: Workspace, names: list[str]) -> None:
    """Remove what is retired for long enough. What stays is found by `remove_orphans`."""
    for name in names:
        try:
            workspace.store.delete(workspace.keys.packs + name, if_match=None)
        except SidecarError as error:
            log.debug("An old pack stays for now: %s", error)
            return


def remove_orphans(workspace: Workspace, root: Root) -> None:
    """Remove what a crash left under ``packs/``: unnamed for a day."""
    known = _named(root) | root.retired.keys()
    with suppress(SidecarError):  # nothing depends on it; the next pack looks again
        listing = workspace.store.list(workspace.keys.packs)
        old = time.time() - _ORPHAN_SECONDS
        names = {key[len(workspace.keys.packs) :]: info for key, info in listing.objects.items()}
        remove(workspace, [n for n, info in names.items() if n not in known and info.modified < old])
