"""What a ledger holds, and how the lines of its log change that.

A line is a change that was acknowledged; what is unknown in it is damage, never passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Raw, Struct, convert, field, json

from sidecar.dense import Dense
from sidecar.sync.ledger_file import LedgerFile
from sidecar.sync.marks import (
    Flushed,
    Header,
    Mark,
    OwnEntry,
    header_document,
    header_of,
    packed_entry,
    packed_flushed,
    unpacked_entry,
    unpacked_flushed,
)


def _no_marks() -> Dense[Mark]:
    return Dense(Mark)


class Content(Struct):
    header: Header
    marks: Dense[Mark] = field(default_factory=_no_marks)
    flushed: dict[str, Flushed] = field(default_factory=dict)
    entries: dict[int, OwnEntry] = field(default_factory=dict)
    sequence: int = 0
    learned: dict[str, bool] = field(default_factory=dict)
    taken: dict[str, bool] = field(default_factory=dict)
    doubts: set[int] = field(default_factory=set)

    def apply(self, line: list[Any]) -> None:
        """Apply one line of the log."""
        kind = line[0]
        if kind == "mark":
            self.set_mark(line[1], convert(line[2], Mark), told=len(line) > 3)
        elif kind == "marks":
            for path, fields in line[1].items():
                self.set_mark(path, convert(fields, Mark), told=len(line) > 2)
        elif kind == "take":
            self.take()
        elif kind == "told":
            self.taken = {}
        elif kind == "header":
            self.header = header_of(line[1])
        elif kind == "forget":
            self.marks.discard(line[1])
            self.flushed.pop(line[1], None)
        elif kind == "flushed":
            self.flushed[line[1]] = unpacked_flushed(line[2])
        elif kind == "sequence":
            self.sequence = max(self.sequence, line[1])
        else:
            self._apply_to_entries(kind, *line[1:])

    def _apply_to_entries(self, kind: str, number: int, fields: list[Any] | None = None) -> None:
        if kind == "entry" and fields:
            self.entries[number] = unpacked_entry(fields)
            self.doubts.discard(number)
        elif kind == "removed":
            self.entries.pop(number, None)
            self.doubts.discard(number)
        elif kind == "tried":
            self.doubts.add(number)
        else:
            raise ValueError(f"an unknown change: {kind}")

    def set_mark(self, path: str, mark: Mark, *, told: bool) -> None:
        """Note `mark`; unless the manifest was what `told` it, the manifest is to hear of it."""
        before = self.marks.get(path)
        self.marks[path] = mark
        if not told:
            is_new = before is None or before.etag != mark.etag
            self.learned[path] = is_new or self.learned.get(path, False)

    def take(self) -> None:
        for path, is_new in self.learned.items():
            self.taken[path] = is_new or self.taken.get(path, False)
        self.learned = {}

    def document(self) -> dict[str, Any]:
        """All but the marks, which rest in the snapshot as they are."""
        return {
            "header": header_document(self.header),
            "flushed": {path: packed_flushed(value) for path, value in self.flushed.items()},
            "entries": {str(number): packed_entry(entry) for number, entry in self.entries.items()},
            "sequence": self.sequence,
            "learned": self.learned,
            "taken": self.taken,
            "doubts": sorted(self.doubts),
        }

    @classmethod
    def of(cls, document: Mapping[str, Any], marks: dict[str, Raw]) -> Content:
        """What a snapshot says; `marks` is empty afterwards: both at once would be the peak of a start."""
        return cls(
            header_of(document["header"]),
            Dense(Mark, _taken_from(marks)),
            {path: unpacked_flushed(fields) for path, fields in document["flushed"].items()},
            {int(number): unpacked_entry(fields) for number, fields in document["entries"].items()},
            int(document["sequence"]),
            dict(document.get("learned", {})),
            dict(document.get("taken", {})),
            set(document.get("doubts", ())),
        )


def _taken_from(marks: dict[str, Raw]) -> Iterator[tuple[str, Mark]]:
    decode = json.Decoder(Mark).decode
    while marks:
        path, data = marks.popitem()
        yield path, decode(data)


def content_of(file: LedgerFile) -> Content | None:
    """What `file` holds, as far as it was acknowledged; None where that cannot be read."""
    read = file.read()
    if read is None:
        return None
    try:
        content = Content.of(read.document, read.marks)
        for line in file.lines():
            content.apply(line)
        return content
    except (ValueError, LookupError, TypeError, OverflowError):
        file.say_damaged()
        return None
