"""Object plus journal: what a path's content is when every writer's entries are laid on top. Pure.

Promised: entries may come in any order, twice, with gaps, from several writers, and may be contained in the
object already; the result is the same, holds every line of each, and repeats none beyond its k-th occurrence.
A writer's own lines keep their order, also those that another writer journalled too. Not promised: that,
where three writers and more hold each other's lines in contrary orders.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct, field

from sidecar.area.journal import Entry, Lines, Void, Whole
from sidecar.sync.bodies import blocks
from sidecar.sync.compare import Version, Winner, winner
from sidecar.sync.merge import Readable, lines


class Placed(Struct, frozen=True):
    """One path's records of all writers, each writer's in the order of its sequence.

    ``numbers``: of the entries that the records of ``wholes`` stand in.
    """

    lines: dict[str, list[Lines]] = field(default_factory=dict)
    wholes: dict[str, list[Whole]] = field(default_factory=dict)
    numbers: dict[str, list[int]] = field(default_factory=dict)

    def wholes_since(self, writer: str, sequence: int) -> dict[str, list[Whole]]:
        """``wholes`` without those of `writer` up to entry `sequence`: it went on from them to the object.

        Its clock may have been set back since; the order of its own versions is known without it.
        """
        numbered = {
            name: list(zip(self.numbers[name], records, strict=True)) for name, records in self.wholes.items()
        }
        left = {
            name: [record for number, record in records if name != writer or number > sequence]
            for name, records in numbered.items()
        }
        return {name: records for name, records in left.items() if records}


def by_path(entries: Iterable[Entry]) -> dict[str, Placed]:
    """The records of `entries` by path; an entry that came twice counts once."""
    ordered = {(entry.writer, entry.sequence): entry for entry in entries}
    placed: dict[str, Placed] = {}
    for (writer, number), entry in sorted(ordered.items()):
        for record in entry.records:
            place = placed.setdefault(record.path, Placed())
            if isinstance(record, Void):
                place.lines.pop(writer, None)
                place.wholes.pop(writer, None)
                place.numbers.pop(writer, None)
            elif isinstance(record, Lines):
                place.lines.setdefault(writer, []).append(record)
            else:
                place.wholes.setdefault(writer, []).append(record)
                place.numbers.setdefault(writer, []).append(number)
    return placed


def missing(content: Readable, writers: Mapping[str, Sequence[Lines]]) -> bytes:
    """The lines of `writers` that `content` lacks, to be written behind it.

    Where a writer's record continues exactly what is there so far, its bytes are placed. Where it does not,
    a line is added only while it occurs less than k times, and what another writer has in front of it first:
    a pod may have journalled another one's line, whose earlier lines are in that one's entries alone.
    """
    if not any(writers.values()):
        return b""
    return _Laying(content, [writers[writer] for writer in sorted(writers)]).all()


class _Queue(Struct):
    """One writer's lines in their order; the first ``laid`` of them are laid.

    ``places``: where each line stands first. ``follows``: the size of a content that its next line continues
    exactly. ``busy``: one of its lines is being laid.
    """

    lines: Iterator[tuple[Lines, int, bytes, bytes]]
    places: Mapping[bytes, int]
    laid: int = 0
    follows: int = -1
    busy: bool = False


class _Laying:
    """What is laid behind `content`, line by line."""

    def __init__(self, content: Readable, writers: Sequence[Sequence[Lines]]) -> None:
        self._whole = hashlib.sha256()
        for block in blocks(content):
            self._whole.update(block)
        self._held = Counter(identity for _, _, identity in lines(content, 0, content.size))
        self._size = content.size
        self._ended = content.size == 0 or bytes(content.read(content.size - 1, 1)) == b"\n"
        self._added = bytearray()
        alone = len(writers) == 1
        self._queues = [_Queue(_steps(one), {} if alone else _places(one)) for one in writers]

    def all(self) -> bytes:
        for queue in self._queues:
            self._lay(queue, None)
        return bytes(self._added)

    def _lay(self, queue: _Queue, end: int | None) -> None:
        """The lines of `queue` in front of its line number `end`; None: all of them."""
        queue.busy = True
        while queue.laid != end and (step := next(queue.lines, None)):
            queue.laid += 1
            record, number, line, identity = step
            if number == 0:
                exact = record.offset == self._size and record.base == self._whole.hexdigest()
                queue.follows = self._size if exact else -1
            if queue.follows == self._size:
                self._add(line, identity)
                queue.follows = self._size
            elif self._held[identity] < record.counts.get(number, 1):
                self._lay_in_front_of(identity)
                if self._held[identity] < record.counts.get(number, 1):
                    self._add(line, identity)
        queue.busy = False

    def _lay_in_front_of(self, identity: bytes) -> None:
        """What other writers have in front of this line; where two say the contrary, one of them is right."""
        for other in self._queues:
            place = other.places.get(identity, 0)
            if place > other.laid and not other.busy:
                self._lay(other, place)

    def _add(self, line: bytes, identity: bytes) -> None:
        piece = line if self._ended else b"\n" + line
        self._ended = True
        self._held[identity] += 1
        self._added += piece
        self._whole.update(piece)
        self._size += len(piece)


def _steps(records: Sequence[Lines]) -> Iterator[tuple[Lines, int, bytes, bytes]]:
    """Each line with its record, its number in that, and its identity."""
    for record in records:
        for number, line in enumerate(_split(record.data)):
            yield record, number, line, _identity(line)


def _places(records: Sequence[Lines]) -> dict[bytes, int]:
    places: dict[bytes, int] = {}
    for place, (_, _, _, identity) in enumerate(_steps(records)):
        places.setdefault(identity, place)
    return places


def _identity(line: bytes) -> bytes:
    return hashlib.blake2b(line[:-1], digest_size=16).digest()


def _split(data: bytes) -> list[bytes]:
    return [line + b"\n" for line in data.split(b"\n")[:-1]]


def contained(record: Lines, counts: Counter[bytes]) -> bool:
    """Whether every (line, k) of `record` is among `counts`, the lines of a local prefix (rule 3)."""
    return all(
        counts[_identity(line)] >= record.counts.get(number, 1)
        for number, line in enumerate(_split(record.data))
    )


class Chosen(Struct, frozen=True):
    """The version of a whole file that a restore prefers. ``whole`` None: the object's.

    ``descends``: the chosen version was made from the object, which is then no loser.
    """

    whole: Whole | None
    descends: bool = False


def choose(obj: Version | None, writers: Mapping[str, Sequence[Whole]], now_ns: int) -> Chosen:
    """The winner among the object and the last version of each writer: ancestry first, mtime second (rule 9).

    `obj`: the object's version, None where there is none.
    """
    candidates = [
        wholes[-1]
        for writer, wholes in sorted(writers.items())
        if not _outdated(writer, wholes[-1], writers, obj)
    ]
    best = max(candidates, key=lambda whole: (min(whole.mtime_ns, now_ns), whole.sha256), default=None)
    if best is None or obj is None or obj.digest == best.sha256:
        return Chosen(best if obj is None else None)
    if any(whole.base == obj.digest for wholes in writers.values() for whole in wholes):
        return Chosen(best, descends=True)
    verdict = winner(Version(best.sha256, best.mtime_ns, best.base), obj, known=True, now_ns=now_ns)
    return Chosen(best) if verdict is Winner.LOCAL else Chosen(None)


def _outdated(writer: str, whole: Whole, writers: Mapping[str, Sequence[Whole]], obj: Version | None) -> bool:
    """True where another writer, or the object, names this very version as its base."""
    if obj is not None and obj.base == whole.sha256:
        return True
    others = (other for name, wholes in writers.items() if name != writer for other in wholes)
    return any(other.base == whole.sha256 for other in others)
