"""Object plus journal: what a path's content is when every writer's entries are laid on top. Pure.

Promised: entries may come in any order, twice, with gaps, from several writers, and may be contained in the
object already; the result is the same, holds every line of each, and repeats none beyond its k-th occurrence.
A line comes behind every line that its writer's file held when it was written, whoever wrote that and whoever
journalled either of them too: a writer's own lines keep their order, and a session that went from pod to pod
comes back as it was written. Lines that were written at once, in two files, come in any order.

Why offsets tell the order. What holds a line (a home, an object, the two with the journal on top) holds all
that its writer had read when it was written. So whoever wrote y after x has x, and all that is in front of x,
in front of y: y's offset in its writer's file is the larger one. Who journals x without having written it has
no less in front of it than its writer. So what a line goes on from stands in front of it in the same flush,
or in one with a smaller offset, or in the object.

Not promised: this, where somebody took lines away, and the file or object is no such set: after a rewind, a
deletion, or an outside writer's stale copy.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct, field

from sidecar.area.journal import Entry, Lines, Void, Whole
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

    A line is added only while it occurs less than k times. The flushes stand in the order of their offsets.
    """
    in_order = _in_order(writers)
    if not in_order:
        return b""
    held = Counter(identity for _, _, identity in lines(content, 0, content.size))
    ended = content.size == 0 or bytes(content.read(content.size - 1, 1)) == b"\n"
    added = bytearray()
    for record in in_order:
        for number, line in enumerate(_split(record.data)):
            identity = _identity(line)
            if held[identity] < record.counts.get(number, 1):
                held[identity] += 1
                added += line if ended else b"\n" + line
                ended = True
    return bytes(added)


def _in_order(writers: Mapping[str, Sequence[Lines]]) -> list[Lines]:
    """All flushes by offset; each writer's in its order also where its offsets begin anew, after a rewind."""
    reached: list[tuple[int, Lines]] = []
    for name in sorted(writers):
        offset = 0
        for record in writers[name]:
            offset = max(offset, record.offset)
            reached.append((offset, record))
    return [record for _, record in sorted(reached, key=lambda one: one[0])]


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
