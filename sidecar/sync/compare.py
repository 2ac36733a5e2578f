"""Who wins: the decisions of a sync as pure functions over plain values.

For each path three things are known: local, remote, and the ledger's mark. What to do is decided here and
nowhere else; doing it is the business of `restore`, `whole_files` and `transcripts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from msgspec import Struct

from sidecar.sync.marks import Mark

# Two hosts' clocks: a version counts as newer only beyond this. NTP keeps nodes within a second; a minute
# forgives a node whose time service is broken and nobody noticed yet.
CLOCK_ERROR_NS = 60_000_000_000


def is_transcript(path: str) -> bool:
    """True for files of whole lines that only grow: they are united, never chosen between."""
    return path.endswith(".jsonl")


class Local(Enum):
    """The local side of a path against its mark."""

    ABSENT = "absent"
    NEW = "new"
    SAME = "same"
    CHANGED = "changed"


class RestoreStep(Enum):
    """What a restore does with a path that the area holds."""

    NOTHING = "nothing"
    TAKE = "take"
    """Write the remote version into the home."""
    REPLACE = "replace"
    """Write the remote version over the local file, which is exactly what the mark knows."""
    APPEND = "append"
    """Bring the lines that the local transcript lacks."""
    MEET = "meet"
    """Both are there and nothing is known: equal bytes are adopted, otherwise the remote version wins."""


def restore_step(local: Local, mark: Mark | None, remote_etag: str, *, transcript: bool) -> RestoreStep:
    """What to do with one path of the area. A local change is never undone: the checkpoint settles it."""
    if local is Local.ABSENT:
        return RestoreStep.TAKE if mark is None else RestoreStep.NOTHING
    if mark is None or local is Local.NEW:
        return RestoreStep.APPEND if transcript else RestoreStep.MEET
    if mark.etag == remote_etag:
        return RestoreStep.NOTHING
    if transcript:
        return RestoreStep.APPEND
    return RestoreStep.REPLACE if local is Local.SAME else RestoreStep.NOTHING


class TranscriptStep(Enum):
    """How a transcript goes up."""

    NOTHING = "nothing"
    CREATE = "create"
    """No object is known: the local version, if absent."""
    GROW = "grow"
    """The object is a prefix of the local version: the local version, over exactly that object."""
    EXTEND = "extend"
    """The object holds more than the local version: the object and what is new, over exactly that object."""
    REWRITE = "rewrite"
    """The local version was rewritten: the object is kept as a conflict copy, then displaced."""
    UNITE = "unite"
    """Read the object and bring both together."""


def transcript_step(mark: Mark | None, local_end: int, *, begins_with_mark: bool) -> TranscriptStep:
    """How to ship ``local[:local_end]``, a whole number of lines (rules 1 and 2).

    `begins_with_mark`: whether the local file still begins with the prefix of mark (b).
    """
    if mark is None:
        return TranscriptStep.CREATE
    if not mark.etag:
        return TranscriptStep.UNITE
    if not begins_with_mark:
        return TranscriptStep.REWRITE
    if local_end <= mark.local_size:
        return TranscriptStep.NOTHING
    if (mark.size, mark.digest) == (mark.local_size, mark.local_digest):
        return TranscriptStep.GROW
    return TranscriptStep.EXTEND


class Version(Struct, frozen=True):
    """One side of a whole file: ``digest`` of its bytes, ``base`` of what it was made from, if known."""

    digest: str
    mtime_ns: int
    base: str = ""


class Winner(Enum):
    """Whose bytes stay in the area."""

    EQUAL = "equal"
    LOCAL = "local"
    REMOTE = "remote"
    REMOTE_DESCENDS = "remote_descends"
    """The remote version was made from the local one: nothing is displaced, no copy is needed."""


def winner(local: Version, remote: Version, *, known: bool, now_ns: int, own: bool = False) -> Winner:
    """Who wins where both sides of a whole file hold something (rules 8 and 9).

    `known`: the ledger has a base for this path; without one the remote version wins, so that a fresh
    client's first settings never beat the user's own. `own`: this writer sent the remote version itself and
    never heard of it: what is local came after. Clocks decide only between true siblings, and a time in the
    future counts as now.
    """
    if local.digest == remote.digest:
        return Winner.EQUAL
    if own:
        return Winner.LOCAL
    if remote.base == local.digest:
        return Winner.REMOTE_DESCENDS
    if known and local.base == remote.digest:
        return Winner.LOCAL
    if not known:
        return Winner.REMOTE
    local_ns, remote_ns = min(local.mtime_ns, now_ns), min(remote.mtime_ns, now_ns)
    return Winner.LOCAL if local_ns > remote_ns + CLOCK_ERROR_NS else Winner.REMOTE


def clashes(modified: Mapping[str, float]) -> dict[str, str]:
    """The paths that cannot be in one home with another one (``a`` beside ``a/b``), each with the reason.

    `modified`: by path, when the store took the object, in seconds. The side with the newest object stays:
    somebody made it last. The other side is not restored and not touched.
    """
    newest_in: dict[str, float] = {}
    for path, at in modified.items():
        directory = path.rpartition("/")[0]
        if newest_in.get(directory, at) <= at:
            newest_in[directory] = at
    newest_below = dict(newest_in)
    for directory, at in newest_in.items():
        for parent in _parents(directory):
            newest_below[parent] = max(at, newest_below.get(parent, at))
    clashing = modified.keys() & newest_below.keys()
    files = {path for path in clashing if modified[path] > newest_below[path]}
    lost = dict.fromkeys(clashing - files, "a newer directory stands at this name")
    for path in modified if files else ():
        above = next((parent for parent in _parents(path) if parent in files), None)
        if above is not None:
            lost[path] = f"a newer file stands at {above}"
    return lost


def _parents(path: str) -> Iterable[str]:
    at = path.rfind("/")
    while at > 0:
        yield path[:at]
        at = path.rfind("/", 0, at)


def urgency(path: str, mtime_ns: int) -> tuple[int, int]:
    """The order of a restore that may not fit: configuration and memory, then sessions, newest first."""
    if path.startswith("projects/"):
        return (1, -mtime_ns)
    if path.startswith("plugins/"):
        return (2, -mtime_ns)
    return (0, -mtime_ns)


def may_delete(deleted: int, known: int) -> bool:
    """The brake of ``mirror``: never more than half of an area at once."""
    return deleted * 2 <= known
