"""What of a path is in the bucket, object, journal and conflict copies together: an account of its own.

It reads entries with the project's format and counts by itself: for each transcript the lines with their
occurrences, for other files the versions. What the bucket once held by ours must be held after every write,
unless an outside writer took it away, or a mirrored deletion.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from sidecar.area import journal
from sidecar.area.journal import Entry, Lines, Void, Whole
from sidecar.area.keys import AreaKeys
from sidecar.sync.compare import is_transcript
from tests.sync.memory_store import OUTSIDE, Change, Version


def lines_of(body: bytes) -> list[bytes]:
    """The lines; a last one without its end counts as a line."""
    lines = body.split(b"\n")
    return lines if lines[-1] else lines[:-1]


@dataclass
class Held:
    """One path's content in the bucket.

    ``kept``: the conflict copies. ``ever``: all lines that there were. ``sent_by``: when each writer sent a
    version last, to its object or aside. ``shown``: every version that was its object; ``told``: every one
    that was in the journal.
    """

    object: Version | None = None
    kept: list[bytes] = field(default_factory=list)
    sent_by: dict[str, int] = field(default_factory=dict)
    shown: set[bytes] = field(default_factory=set)
    told: set[bytes] = field(default_factory=set)
    known: Counter[bytes] = field(default_factory=Counter)
    ever: Counter[bytes] = field(default_factory=Counter)
    outside_at: int = -1


class Account:
    """The books. ``broken`` is where sentences go; ``looks``: what each client last saw, see `looked`."""

    def __init__(self, keys: AreaKeys, broken: list[str], *, mirrors: bool = False) -> None:
        self.keys = keys
        self.mirrors = mirrors
        self.results: dict[bytes, tuple[str, bytes]] = {}
        self.broken = broken
        self.entries: dict[str, Entry] = {}
        self.paths: dict[str, Held] = {}
        self.written: list[Entry] = []
        self.written_at: dict[tuple[str, int], int] = {}
        self.numbers: dict[str, bytes] = {}
        self.looks: dict[tuple[str, str], int] = {}
        self.begun: dict[str, int] = {}
        self.changes = 0
        self.removed = 0
        self.excused = 0

    def at(self, path: str) -> Held:
        return self.paths.setdefault(path, Held())

    def looked(self, by: str, key: str) -> None:
        """Client `by` asks for `key` now."""
        self.looks[by, key] = self.changes

    def begins(self, by: str) -> None:
        """Client `by` begins another operation: what it saw before proves nothing."""
        self.begun[by] = self.changes

    # -- the books are kept

    def watch(self, change: Change) -> None:
        self.changes += 1
        if change.key.startswith(self.keys.journal):
            self._journal(change)
        elif change.key.startswith(self.keys.conflicts) and change.new:
            path = change.key[len(self.keys.conflicts) :].split("/", 2)[2][:-9]
            self.at(path).kept.append(change.new.body)
            self.at(path).sent_by[change.new.metadata.get("writer", "")] = self.changes
        elif change.key.startswith(self.keys.objects):
            path = self.keys.path(change.key)
            held = self.at(path)
            held.object = change.new
            if change.new:
                held.shown.add(change.new.body)
            if change.new and change.by != OUTSIDE:
                held.sent_by[change.new.metadata.get("writer", "")] = self.changes
            if change.by == OUTSIDE:
                held.outside_at = self.changes
            self._settle(path, excused=change.by == OUTSIDE or (self.mirrors and change.new is None))

    def _journal(self, change: Change) -> None:
        if change.new is None:
            entry = self.entries.pop(change.key, None)
            if entry:
                self.removed += 1
                self._went(change, entry)
            return
        if self.numbers.setdefault(change.key, change.new.body) != change.new.body:
            self.broken.append(f"{change.key} names a second body")
        entry = journal.decoded(change.new.body, change.key)
        self.entries[change.key] = entry
        self.written.append(entry)
        self.written_at[entry.writer, entry.sequence] = self.changes
        for record in entry.records:
            if isinstance(record, Lines) and not record.data.endswith(b"\n"):
                self.broken.append(f"the entry {change.key} ends inside a line of {record.path}")
            if isinstance(record, Lines):  # the first occurrences were in the bucket before
                said = enumerate(record.data.split(b"\n")[:-1])
                for number, line in said:
                    self.at(record.path).ever |= Counter({line: record.counts.get(number, 1)})
            if isinstance(record, Whole):
                self.at(record.path).told.add(record.data)
            void = isinstance(record, Void) and self.at(record.path).object is None
            self._settle(record.path, excused=self.mirrors and void)

    def _went(self, change: Change, entry: Entry) -> None:
        for record in entry.records:
            overtaken = self._is_overtaken(change, record.path)
            if is_transcript(record.path):
                self._settle(record.path, excused=overtaken)
            elif isinstance(record, Whole) and not overtaken and not self.has_version(entry, record):
                self.broken.append(f"{record.path}: {record.data!r} went with {change.key} and is nowhere")

    def _is_overtaken(self, change: Change, path: str) -> bool:
        """The documented limit: an outside writer came between the look at the object and the removal."""
        looked_at = self.looks.get((change.by, self.keys.object(path)), -1)
        looked = change.late or looked_at >= self.begun.get(change.by, 0)
        return looked and self.at(path).outside_at > looked_at

    def _settle(self, path: str, *, excused: bool = False) -> None:
        """Nothing that was known is missing now; what an outside writer took is known no more."""
        if not is_transcript(path):
            return
        held, now = self.at(path), self.lines(path)
        # Of a line that stands twice, one may be in a copy and the other one in the journal.
        lost = held.known - (self.restorable(path) + self._kept_lines(path))
        if lost and not excused:
            self.broken.append(f"{path}: lines that were durable are in no object and entry: {dict(lost)}")
        self.excused += bool(lost and excused)
        torn = Counter(lines_of(held.object.body)[-1:]) if held.object else Counter[bytes]()
        self._check_results(now - held.known)
        held.known, held.ever = now, held.ever | now | torn

    def _check_results(self, new: Counter[bytes]) -> None:
        """A line that names a tool's result never comes before it (rule 14)."""
        for line in new.keys() & self.results.keys():
            path, body = self.results[line]
            if body not in self.versions(path):
                self.broken.append(f"{path} is not in the bucket, and a line that names it is: {line!r}")

    # -- what they say

    def records(self, path: str) -> dict[str, list[Lines | Whole]]:
        """By writer: the records of `path` in the order of their numbers, without what was declared void."""
        found: dict[str, list[Lines | Whole]] = {}
        for entry in sorted(self.entries.values(), key=lambda one: one.sequence):
            for record in entry.records:
                if record.path != path:
                    continue
                if isinstance(record, Void):
                    found[entry.writer] = []
                else:
                    found.setdefault(entry.writer, []).append(record)
        return found

    def restorable(self, path: str) -> Counter[bytes]:
        """The lines of a transcript that a restore must bring: of the object and of the journal."""
        held = self.at(path).object
        lines = Counter(held.body.split(b"\n")[:-1]) if held else Counter[bytes]()
        for records in self.records(path).values():
            for record in records:
                if isinstance(record, Lines):
                    for number, line in enumerate(record.data.split(b"\n")[:-1]):
                        lines[line] += lines[line] < record.counts.get(number, 1)
        return lines

    def lines(self, path: str) -> Counter[bytes]:
        """The lines of a transcript that the bucket holds, conflict copies included."""
        return self.restorable(path) | self._kept_lines(path)

    def _kept_lines(self, path: str) -> Counter[bytes]:
        kept = Counter[bytes]()
        for body in self.at(path).kept:
            kept |= Counter(lines_of(body))
        return kept

    def versions(self, path: str) -> set[bytes]:
        """The versions of another file that a restore may choose from."""
        held = self.at(path).object
        last = {
            records[-1].data
            for records in self.records(path).values()
            if records and isinstance(records[-1], Whole)
        }
        return last | ({held.body} if held else set())

    def has_version(self, entry: Entry, record: Whole) -> bool:
        """Whether a version that leaves the journal is kept, or was replaced by who made it."""
        held = self.at(record.path)
        if record.data in held.kept or record.data in held.shown:
            return True  # what goes from an object by ours is looked at elsewhere
        if held.object and held.object.metadata.get("writer") == entry.writer:
            return True
        if held.object and held.object.metadata.get("base") == record.sha256:
            return True
        if held.sent_by.get(entry.writer, -1) > self.written_at[entry.writer, entry.sequence]:
            return True  # its writer sent, or kept, what came after it
        return any(
            isinstance(other, Whole | Void)
            and other.path == record.path
            and (
                (one.writer == entry.writer and one.sequence > entry.sequence) or other.base == record.sha256
            )
            for one in self.written
            for other in one.records
        )

    def is_durable(self, path: str, content: bytes) -> bool:
        """Whether the bucket holds `content`, or held it: ours lose nothing after that."""
        if is_transcript(path):
            whole = content[: content.rfind(b"\n") + 1]
            return not Counter(lines_of(whole)) - self.at(path).ever
        held = self.at(path)
        return content in held.shown | held.told
