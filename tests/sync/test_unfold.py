"""Object plus journal: entries in any order, twice, with gaps, contained already, of several writers."""

import hashlib
import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sidecar.area.journal import Entry, Lines, Record, Void, Whole, decoded, encoded
from sidecar.sync import unfold
from sidecar.sync.bodies import Bytes
from sidecar.sync.compare import Version

LINE = st.sampled_from([b"a", b"b", b"c", b"{}", b""])
FLUSHES = st.lists(st.lists(LINE, min_size=1, max_size=3), max_size=4)


def records_of(base: list[bytes], flushes: list[list[bytes]], path: str = "p") -> list[Lines]:
    """What a writer journals who starts from `base` and adds `flushes`."""
    records: list[Lines] = []
    content = b"".join(line + b"\n" for line in base)
    seen = Counter(base)
    for lines in flushes:
        counts: dict[int, int] = {}
        for number, line in enumerate(lines):
            seen[line] += 1
            if seen[line] > 1:
                counts[number] = seen[line]
        data = b"".join(line + b"\n" for line in lines)
        digest = hashlib.sha256(content).hexdigest()
        records.append(Lines(path, len(content), digest, data, 0, 0o600, counts))
        content += data
    return records


def entries_of(writer: str, records: list[Record]) -> list[Entry]:
    return [Entry(writer, number, 0, (record,)) for number, record in enumerate(records, 1)]


def laid(content: bytes, entries: list[Entry]) -> list[bytes]:
    placed = unfold.by_path(entries)
    added = unfold.missing(Bytes(content), placed["p"].lines) if placed else b""
    return (content + added).split(b"\n")[:-1]


@given(st.lists(LINE, max_size=4), FLUSHES, st.integers(0, 4), st.randoms(use_true_random=False))
def test_one_writer_comes_back_exactly_whatever_a_checkpoint_folded_already(
    base: list[bytes], flushes: list[list[bytes]], folded: int, chance: random.Random
) -> None:
    entries: list[Entry] = entries_of("w", list(records_of(base, flushes)))
    in_object = base + [line for lines in flushes[:folded] for line in lines]
    shuffled = entries + entries[:1]
    chance.shuffle(shuffled)
    content = b"".join(line + b"\n" for line in in_object)
    assert laid(content, shuffled) == base + [line for lines in flushes for line in lines]


@given(st.lists(LINE, max_size=3), FLUSHES, FLUSHES, st.booleans())
def test_two_writers_and_any_gap_lose_no_line_and_repeat_none_without_need(
    base: list[bytes], ours: list[list[bytes]], theirs: list[list[bytes]], gap: bool
) -> None:
    mine = entries_of("a", list(records_of(base, ours)))
    others = entries_of("b", list(records_of(base, theirs)))
    present = mine[1:] if gap else mine
    result = Counter(laid(b"".join(line + b"\n" for line in base), [*others, *present]))
    wanted = Counter(base + [line for lines in (ours[1:] if gap else ours) for line in lines])
    wanted |= Counter(base + [line for lines in theirs for line in lines])
    assert not wanted - result, "a line is missing"
    most = Counter(base + [line for lines in ours + theirs for line in lines])
    assert not result - most, "a line was repeated without need"


@given(FLUSHES, FLUSHES)
def test_laying_on_twice_changes_nothing(ours: list[list[bytes]], theirs: list[list[bytes]]) -> None:
    entries = [*entries_of("a", list(records_of([], ours))), *entries_of("b", list(records_of([], theirs)))]
    once = laid(b"", entries)
    assert laid(b"".join(line + b"\n" for line in once), entries) == once


def test_what_a_writer_voided_is_not_laid_on() -> None:
    records: list[Record] = [*records_of([], [[b"old"]]), Void("p"), *records_of([], [[b"new"]])]
    assert laid(b"", entries_of("w", records)) == [b"new"]


def whole(text: str, base: str = "", mtime_ns: int = 0) -> Whole:
    data = text.encode()
    return Whole("p", data, hashlib.sha256(data).hexdigest(), base, mtime_ns, 0o600)


def version(text: str, base: str = "", mtime_ns: int = 0) -> Version:
    return Version(hashlib.sha256(text.encode()).hexdigest(), mtime_ns, base)


NOW = 10**19


def test_a_chain_of_edits_descends_from_the_object_it_began_with() -> None:
    first = whole("1", base=version("0").digest)
    second = whole("2", base=first.sha256)
    chosen = unfold.choose(version("0", mtime_ns=10**18), {"w": [first, second]}, NOW)
    assert (chosen.whole, chosen.descends) == (second, True)


def test_an_object_made_from_the_journalled_version_wins() -> None:
    journalled = whole("1", mtime_ns=10**18)
    assert unfold.choose(version("2", base=journalled.sha256), {"w": [journalled]}, NOW).whole is None


def test_the_very_object_is_no_reason_to_write() -> None:
    assert unfold.choose(version("1"), {"w": [whole("1")]}, NOW).whole is None


def test_between_siblings_of_two_writers_the_later_one_is_chosen() -> None:
    older, newer = whole("older", mtime_ns=10**18), whole("newer", mtime_ns=2 * 10**18)
    assert unfold.choose(None, {"a": [newer], "b": [older]}, NOW).whole == newer
    assert unfold.choose(None, {"a": [older], "b": [newer]}, NOW).whole == newer


def test_a_version_that_another_writer_built_on_is_out_whatever_its_clock_says() -> None:
    first = whole("first", mtime_ns=9 * 10**18)
    second = whole("second", base=first.sha256, mtime_ns=10**18)
    assert unfold.choose(None, {"a": [first], "b": [second]}, NOW).whole == second


def test_an_entry_survives_its_way_through_the_bucket() -> None:
    records: tuple[Record, ...] = (*records_of([b"x"], [[b"a", b"a"]]), whole("w"), Void("p"))
    entry = Entry("writer", 7, 123, records, ended=True)
    assert decoded(encoded(entry), "it") == entry
