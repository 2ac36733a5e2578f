"""Which deletions in a home may be mirrored, as pure decisions: what is absent, what was the client's own
clean-up, and how much may go at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from sidecar.home.entries import Scan
from sidecar.sync.compare import may_delete
from sidecar.sync.marks import Mark

# The client removes session data by age a few seconds after each start; this is its default for
# ``cleanupPeriodDays``. One day is for clocks, and for a file whose time was rounded.
CLEANUP_DAYS = 30
_MARGIN_DAYS = 1
_SESSION_DATA = (
    *("projects/", "todos/", "tasks/", "plans/", "jobs/", "teams/"),
    *("file-history/", "paste-cache/", "image-cache/", "uploads/"),
)
_DAY_NS = 86_400_000_000_000

# "At once" for the brake: a deletion that goes on while checkpoints pass is still one.
WINDOW_SECONDS = 3600.0


def absent(marks: Mapping[str, Mark], scan: Scan) -> list[str]:
    """The paths that the ledger knows in the area and that a scan did not find, nor pass over."""
    passed_over = {entry.path for entry in scan.refused}
    return [
        path
        for path, mark in marks.items()
        if mark.etag
        and path not in scan.files
        and path not in scan.links
        and path not in scan.directories
        and passed_over.isdisjoint(_with_parents(path))
    ]


def _with_parents(path: str) -> Iterable[str]:
    yield path
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def looks_like_cleanup(path: str, mtime_ns: int, now_ns: int, cleanup_days: float) -> bool:
    """Whether the client's own clean-up may have removed `path`: session data of that age, but no memory."""
    if not path.startswith(_SESSION_DATA) or "/memory/" in path:
        return False
    return now_ns - mtime_ns >= (cleanup_days - _MARGIN_DAYS) * _DAY_NS


class Brake(Struct, frozen=True):
    """What was deleted since `since` (seconds since the epoch) of the `known` paths that there were."""

    since: float
    known: int
    deleted: int


def braked(before: Brake | None, count: int, known: int, now: float) -> Brake | None:
    """The brake after `count` more deletions of `known` paths; None where they must not be done."""
    if before is None or not 0 <= now - before.since < WINDOW_SECONDS:
        before = Brake(now, known, 0)
    most_known = max(before.known, known + before.deleted)
    after = replace(before, known=most_known, deleted=before.deleted + count)
    return after if may_delete(after.deleted, after.known) and may_delete(count, known) else None
