"""Reading the journal: all entries of an area, or those of one writer that are not settled yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from msgspec import Struct, field

from sidecar.area import journal
from sidecar.area.journal import Entry, Record, Void
from sidecar.area.objects import ObjectInfo
from sidecar.errors import AccessDenied, FormatError, ObjectArchived, ObjectDamaged, ObjectMissing
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
        """The other writers that are at work: wrote within a minute and left no end mark."""
        newest: dict[str, float] = {}
        for (writer, _), info in self.keys.items():
            newest[writer] = max(info.modified, newest.get(writer, 0.0))
        ended = {entry.writer for entry in self.entries if entry.ended}
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
    for info, entry in _read(workspace, keys.values()):
        if entry is None:
            unread.append(info.key)
        else:
            entries.append(entry)
    return Journal(tuple(entries), keys, tuple(unread))


def _listed(workspace: Workspace) -> dict[tuple[str, int], ObjectInfo]:
    prefix = workspace.keys.journal
    listing = workspace.store.list(prefix, expected=False)
    named = ((journal.parsed(key[len(prefix) :]), info) for key, info in listing.objects.items())
    return {name: info for name, info in named if name}


def _read(workspace: Workspace, infos: Iterable[ObjectInfo]) -> Iterable[tuple[ObjectInfo, Entry | None]]:
    jobs = [Job(info.key, info.size, lambda info=info: read_entry(workspace, info.key)) for info in infos]  # type: ignore[misc]
    by_key = {info.key: info for info in infos}
    for done in run_jobs(jobs, workers=workspace.settings.concurrency):
        if isinstance(done.error, ObjectMissing):
            continue  # folded meanwhile: the objects, listed after this, hold it
        if isinstance(done.error, (ObjectDamaged, FormatError, ObjectArchived)):
            log.warning("%s", done.error)
            yield by_key[done.job.name], None
        elif done.error:
            raise done.error
        elif done.value:
            yield by_key[done.job.name], done.value


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
