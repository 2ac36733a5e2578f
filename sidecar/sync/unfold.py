"""Object plus journal: what a path's content is when every writer's entries are laid on top. Pure.

Promised: entries may come in any order, twice, with gaps, from several writers, and may be contained in the
object already; the result is the same, holds every line of each, and repeats none beyond its k-th occurrence.
A writer's own lines keep their order.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sidecar.area.journal import Entry, Lines, Void, Whole
from sidecar.sync.bodies import blocks
from sidecar.sync.compare import Version, Winner, winner
from sidecar.sync.merge import Readable, lines


@dataclass(frozen=True, slots=True)
class Placed:
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
    a line is added only while it occurs less than k times.
    """
    records = [record for writer in sorted(writers) for record in writers[writer]]
    if not records:
        return b""
    whole = hashlib.sha256()
    held: Counter[bytes] = Counter()
    for block in blocks(content):
        whole.update(block)
    for _, _, identity in lines(content, 0, content.size):
        held[identity] += 1
    size, ended = content.size, content.size == 0 or bytes(content.read(content.size - 1, 1)) == b"\n"
    added = bytearray()
    for record in records:
        exact = record.offset == size and record.base == whole.hexdigest()
        for number, line in enumerate(_split(record.data)):
            identity = hashlib.blake2b(line[:-1], digest_size=16).digest()
            if not exact and held[identity] >= record.counts.get(number, 1):
                continue
            piece = line if ended else b"\n" + line
            ended = True
            held[identity] += 1
            added += piece
            whole.update(piece)
            size += len(piece)
    return bytes(added)


def _split(data: bytes) -> list[bytes]:
    return [line + b"\n" for line in data.split(b"\n")[:-1]]


def contained(record: Lines, counts: Counter[bytes]) -> bool:
    """Whether every (line, k) of `record` is among `counts`, the lines of a local prefix (rule 3)."""
    return all(
        counts[hashlib.blake2b(line[:-1], digest_size=16).digest()] >= record.counts.get(number, 1)
        for number, line in enumerate(_split(record.data))
    )


@dataclass(frozen=True, slots=True)
class Chosen:
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
