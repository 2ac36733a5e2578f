"""How two versions of a file differ, as lines for a person: pure, and bounded in time and memory.

Text by a unified diff; transcripts by counts of lines, because theirs are long and private; anything else by
sizes and digests.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator

from msgspec import Struct

from sidecar.sync import merge
from sidecar.sync.bodies import sha256
from sidecar.sync.compare import is_transcript
from sidecar.sync.merge import Readable

# Beyond these a diff could take minutes (it is quadratic): counts of lines are told instead.
_MAX_TEXT_BYTES = 1024 * 1024
_MAX_DIFFERING_LINES = 2000
_CONTEXT = 3
_MAX_LINE = 500


class Comparison(Struct, frozen=True):
    """``kind``: ``same``, ``absent``, ``text``, ``lines`` or ``binary``; ``lines``: what to show of it."""

    kind: str
    lines: tuple[str, ...]


def compared(kept: Readable, current: Readable | None, path: str) -> Comparison:
    """`kept` against `current`. A line with ``+`` is what taking `kept` back would bring."""
    if current is None:
        return Comparison("absent", (f"There is no current version; the kept one has {kept.size:,} bytes.",))
    kept_sha256, current_sha256 = sha256(kept), sha256(current)
    if kept_sha256 == current_sha256:
        return Comparison("same", ("Both have the same bytes.",))
    if is_transcript(path):
        return Comparison("lines", _line_counts(kept, current))
    ours, theirs = _text(kept), _text(current)
    if ours is None or theirs is None:
        sizes = (f"kept:    {kept.size:,} bytes, SHA-256 {kept_sha256}",)
        return Comparison("binary", (*sizes, f"current: {current.size:,} bytes, SHA-256 {current_sha256}"))
    diff = _unified(theirs, ours)
    return Comparison("text", diff) if diff else Comparison("lines", _line_counts(kept, current))


def _line_counts(kept: Readable, current: Readable) -> tuple[str, ...]:
    counts = [Counter(one for _, _, one in merge.lines(side, 0, side.size)) for side in (kept, current)]
    ours, theirs = counts
    more, less = (ours - theirs).total(), (theirs - ours).total()
    return (
        f"The kept version has {ours.total():,} lines, {more:,} of which the current one lacks.",
        f"The current one has {theirs.total():,} lines, {less:,} of which the kept one lacks.",
    )


def _text(source: Readable) -> list[str] | None:
    """The lines of `source`; None where it is no text, or too long for a diff."""
    if source.size > _MAX_TEXT_BYTES:
        return None
    data = bytes(source.read(0, source.size))
    if b"\0" in data:
        return None
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        return None
    last = lines.pop()
    return [*lines, f"{last} (without a line end)"] if last else lines


def _unified(old: list[str], new: list[str]) -> tuple[str, ...]:
    """The unified diff; empty where it would take too long. Only what lies between equal ends is compared."""
    start = _equal(old, new, 1)
    end = min(_equal(old, new, -1), len(old) - start, len(new) - start)
    if max(len(old), len(new)) - start - end > _MAX_DIFFERING_LINES:
        return ()
    start, end = max(0, start - _CONTEXT), max(0, end - _CONTEXT)
    a, b = old[start : len(old) - end], new[start : len(new) - end]
    return tuple(_hunks(a, b, start))


def _equal(old: list[str], new: list[str], step: int) -> int:
    count = 0
    for left, right in zip(old[::step], new[::step], strict=False):
        if left != right:
            break
        count += 1
    return count


def _hunks(a: list[str], b: list[str], start: int) -> Iterator[str]:
    for group in difflib.SequenceMatcher(None, a, b).get_grouped_opcodes(_CONTEXT):
        _, a1, _, b1, _ = group[0]
        _, _, a2, _, b2 = group[-1]
        yield f"@@ -{_range(start + a1, a2 - a1)} +{_range(start + b1, b2 - b1)} @@"
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                yield from (_cut(" " + line) for line in a[i1:i2])
            else:
                yield from (_cut("-" + line) for line in a[i1:i2])
                yield from (_cut("+" + line) for line in b[j1:j2])


def _range(at: int, count: int) -> str:
    return f"{at + 1 if count else at},{count}"


def _cut(line: str) -> str:
    return line if len(line) <= _MAX_LINE else f"{line[:_MAX_LINE]}… ({len(line) - _MAX_LINE:,} more)"
