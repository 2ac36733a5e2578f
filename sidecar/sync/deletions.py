"""``CLAUDE_SIDECAR_DELETIONS=mirror``: what was deleted in the home is deleted in the area, with great care.

A file counts as deleted only if this ledger knew it, the home is still the one that the ledger knew it in,
the file is certainly not there, no rule leaves it out, and it does not look like the client's own clean-up.
Its object goes only if it is exactly the version that the ledger knew: what another writer changed stays.
Never more than half of an area goes at once (within an hour); then nothing goes. Everything else is in the
bucket before anything is deleted. A deletion that fails is a WARNING, and the next checkpoint tries again.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from sidecar.errors import HomeError, SidecarError
from sidecar.home.entries import Scan
from sidecar.home.reads import open_file
from sidecar.logs import log
from sidecar.sync import fold
from sidecar.sync.deletion_rules import CLEANUP_DAYS, absent, looks_like_cleanup
from sidecar.sync.marks import Mark
from sidecar.sync.workspace import Workspace

_SETTINGS_BYTES = 1024 * 1024
# Where the ledger's header keeps what this module remembers.
_HOME, _BRAKE, _CONDITIONS = "home", "deletions", "conditions"


def candidates(workspace: Workspace, scan: Scan) -> list[str]:
    """The paths that were deleted in the home and whose objects may follow, brake and conditions aside."""
    if workspace.settings.deletions != "mirror" or not workspace.ledger.header.restored:
        return []
    marks = workspace.ledger.marks()
    missing = [path for path in absent(marks, scan) if is_gone(workspace, path)]
    if not _same_home(workspace, missing) or not missing:
        return []
    missing = [path for path in missing if not workspace.refusal(path)]
    return _without_cleanup(workspace, missing, marks)


def note_home(workspace: Workspace) -> None:
    """Before a ledger learns anything: note the home in which it does."""
    header = workspace.ledger.header
    if _HOME not in header.extra and not workspace.ledger.marks():
        remember(workspace, _HOME, list(workspace.home.identity))


def _same_home(workspace: Workspace, missing: list[str]) -> bool:
    """Whether the ledger learned what it knows in this home; if not, what is missing is not known any more.

    Another volume at the same path reads as "nearly everything was deleted" otherwise.
    """
    if workspace.ledger.header.extra.get(_HOME) == list(workspace.home.identity):
        return True
    if not forget(workspace, missing):
        return False
    remember(workspace, _HOME, list(workspace.home.identity))
    if missing:
        log.warning(
            "The home %s is another directory than before: %d files that it lacks are not taken for deleted",
            workspace.home.root,
            len(missing),
        )
    return False


def forget(workspace: Workspace, paths: Iterable[str]) -> bool:
    """Forget `paths`, which the home lacks; False where some must wait for the bucket.

    What only own entries hold goes into its object first: a new file of that name would settle them unseen.
    """
    ledger, entries = workspace.ledger, workspace.ledger.entries()
    carried = {path for entry in entries.values() for path in entry.paths}
    all_done = True
    for path in paths:
        flushed = ledger.flushed(path)
        try:
            after = flushed.folded if flushed else 0
            done = path not in carried or fold.settle_orphan(workspace, path, after, ledger.sequence)
        except SidecarError as error:
            log.warning("What only the journal holds of %s is not in its object yet: %s", path, error)
            done = False
        if done:
            ledger.forget(path)
        all_done = all_done and done
    return all_done


def is_gone(workspace: Workspace, path: str) -> bool:
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


def remember(workspace: Workspace, name: str, value: Any) -> None:
    """Note `value` in the ledger's header."""
    header = workspace.ledger.header
    workspace.ledger.set_header(replace(header, extra={**header.extra, name: value}))
