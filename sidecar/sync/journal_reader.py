"""Reading the journal: all entries of an area, or those of one writer that are not settled yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from msgspec import Struct, field

from sidecar.area import journal
from sidecar.area.journal import Entry, Record, Void
from sidecar.area.objects import ObjectInfo
from sidecar.errors import (
    AccessDenied,
    FormatError,
    ObjectArchived,
    ObjectDamaged,
    ObjectMissing,
    SidecarError,
)
from sidecar.logs import log
from sidecar.sync.transfers import Job, run_jobs
from sidecar.sync.workspace import Workspace

# A writer that wrote this recently and left no end mark is alive (another pod, or one that ends).
ALIVE_SECONDS = 60.0


class Journal(Struct, frozen=True):
    """All entries of an area. ``unread``: keys that could not be understood: nothing of theirs is folded.

    ``denied``: a policy that knows only ``.claude/``: there is no journal for us.
    """

    entries: tuple[Entry, ...] = ()
    keys: dict[tuple[str, int], ObjectInfo] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    denied: bool = False

    def alive(self, now: float, own_writer: str) -> set[str]:
        """The other writers that are at work: wrote within a minute, and no end mark as their last entry (a
        sidecar that was restarted goes on behind one)."""
        newest: dict[str, float] = {}
        last: dict[str, int] = {}
        for (writer, number), info in self.keys.items():
            last[writer] = max(number, last.get(writer, 0))
            newest[writer] = max(info.modified, newest.get(writer, 0.0))
        ended = {e.writer for e in self.entries if e.ended and e.sequence == last.get(e.writer)}
        return {w for w, at in newest.items() if now - at < ALIVE_SECONDS and w not in ended | {own_writer}}


def read_journal(workspace: Workspace) -> Journal:
    """Every entry of the area. The listing is complete before the first object is read (rule 16).

    Raises
    ------
    StoreError: the journal cannot be read: that is never taken for an empty one.
    """
    try:
        keys = _listed(workspace)
    except AccessDenied as error:
        workspace.own_area_denied("The journal may not be read", error)
        return Journal(denied=True)
    entries: list[Entry] = []
    unread: list[str] = []
    gone: dict[str, int] = {}
    names = {info.key: name for name, info in keys.items()}
    for key, found in _read(workspace, keys.values()):
        if isinstance(found, Entry):
            entries.append(found)
        elif isinstance(found, ObjectMissing):
            writer, number = names[key]
            gone[writer] = max(number, gone.get(writer, 0))
        else:
            unread.append(key)
    # A writer's entries go oldest first: with one, those before it went as well, and what declared them void.
    left = tuple(entry for entry in entries if entry.sequence > gone.get(entry.writer, 0))
    return Journal(left, keys, tuple(unread))


def _listed(workspace: Workspace) -> dict[tuple[str, int], ObjectInfo]:
    prefix = workspace.keys.journal
    listing = workspace.store.list(prefix, expected=False)
    named = ((journal.parsed(key[len(prefix) :]), info) for key, info in listing.objects.items())
    return {name: info for name, info in named if name}


def _read(workspace: Workspace, infos: Iterable[ObjectInfo]) -> Iterable[tuple[str, Entry | SidecarError]]:
    """By key the entry, or why there is none: it is gone, or cannot be understood."""
    jobs = [Job(info.key, info.size, lambda info=info: read_entry(workspace, info.key)) for info in infos]  # type: ignore[misc]
    for done in run_jobs(jobs, workers=workspace.settings.concurrency):
        if isinstance(done.error, ObjectMissing):
            yield done.job.name, done.error  # folded meanwhile: the objects, listed after this, hold it
        elif isinstance(done.error, (ObjectDamaged, FormatError, ObjectArchived)):
            log.warning("%s", done.error)
            yield done.job.name, done.error
        elif done.error:
            raise done.error
        elif done.value:
            yield done.job.name, done.value


def read_entry(workspace: Workspace, key: str) -> Entry:
    """The entry at `key`, checked as a whole."""
    with workspace.store.open(key) as download:
        return journal.decoded(download.read(), key)


def own_records(workspace: Workspace, path: str, after: int, upto: int) -> list[Record]:
    """This writer's records of `path` in its entries after one sequence and up to another.

    What it declared void is left out; an entry that somebody removed was proven to be in the objects.
    """
    found: list[Record] = []
    for sequence, entry in workspace.ledger.entries().items():
        if after < sequence <= upto and path in entry.paths:
            key = workspace.keys.journal + journal.name(workspace.ledger.writer, sequence)
            try:
                records = read_entry(workspace, key).records
            except ObjectMissing:
                workspace.ledger.entry_removed(sequence)
                continue
            for record in records:
                if record.path == path:
                    found = [] if isinstance(record, Void) else [*found, record]
    return found


def wait_for_the_living(
    workspace: Workspace, *, seconds: float, pause: Callable[[float], None] = time.sleep
) -> Journal:
    """The journal, read again while another writer is at work, for `seconds` at most; then a WARNING."""
    deadline = time.monotonic() + seconds
    while True:
        read = read_journal(workspace)
        alive = read.alive(time.time(), workspace.ledger.writer)
        if not alive:
            return read
        if time.monotonic() >= deadline:
            log.warning(
                "Another writer of %s is at work (%s); going on with what it has written so far",
                workspace.objects_url,
                ", ".join(sorted(alive)),
            )
            return read
        pause(min(1.0, seconds / 5))
