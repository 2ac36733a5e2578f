"""Uniting transcripts, against a model that knows nothing of offsets: sequences and multisets of lines."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sidecar.sync import merge
from sidecar.sync.bodies import Bytes, Pieced

# Few distinct lines, so that duplicates, shared prefixes and crossings are the normal case.
LINE = st.sampled_from([b"a", b"b", b"c", b"", b"a\r", b"\0\0\0", b"{}"])
LINES = st.lists(LINE, max_size=8)


def file_of(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def united(remote: bytes, local: bytes) -> bytes:
    union = merge.unite(Bytes(remote), Bytes(local), len(local))
    body = Pieced(union.spans, Bytes(remote), Bytes(local))
    data = body.read(0, body.size)
    assert len(data) == union.size
    return data


def is_subsequence(part: list[bytes], whole: list[bytes]) -> bool:
    rest = iter(whole)
    return all(line in rest for line in part)


@given(LINES, LINES, LINES)
def test_a_union_is_the_multiset_maximum_and_begins_with_the_remote_version(
    shared: list[bytes], theirs: list[bytes], ours: list[bytes]
) -> None:
    remote, local = file_of(shared + theirs), file_of(shared + ours)
    result = united(remote, local)
    assert Counter(result.split(b"\n")[:-1]) == Counter(shared + theirs) | Counter(shared + ours)
    assert result.startswith(remote)
    assert is_subsequence(shared + theirs, result.split(b"\n"))


@given(LINES, LINES)
def test_uniting_twice_changes_nothing(theirs: list[bytes], ours: list[bytes]) -> None:
    once = united(file_of(theirs), file_of(ours))
    assert united(once, file_of(ours)) == once
    assert united(once, once) == once


@given(LINES, LINES)
def test_where_one_version_is_a_prefix_bytes_are_placed(shared: list[bytes], more: list[bytes]) -> None:
    short, long = file_of(shared), file_of(shared + more)
    assert united(short, long) == long
    assert united(long, short) == long


@given(LINES, st.integers(min_value=0, max_value=20))
def test_a_remote_version_torn_inside_a_line_is_healed_by_the_local_one(lines: list[bytes], cut: int) -> None:
    local = file_of(lines)
    torn = local[: min(cut, len(local))]
    assert united(torn, local) == local


def test_a_torn_remote_line_that_nobody_continues_is_kept_and_ended() -> None:
    assert united(b'x\n{"half', b"x\ny\n") == b'x\n{"half\ny\n'
    assert united(b'x\n{"half', b"x\n") == b'x\n{"half\n'


def test_legitimate_duplicate_lines_survive_a_divergence() -> None:
    assert united(b"p\nr\n", b"p\nd\nd\n") == b"p\nr\nd\nd\n"
    assert united(b"p\nd\nr\n", b"p\nd\nd\n") == b"p\nd\nr\nd\n"


def test_lines_longer_than_a_block_and_boundaries_on_blocks_are_whole() -> None:
    size = merge.BLOCK_BYTES
    for length in (size - 1, size, size + 1, 3 * size):
        line = b"x" * length
        assert united(b"r\n", line + b"\nend\n") == b"r\n" + line + b"\nend\n"
        spans = list(merge.lines(Bytes(line + b"\nend"), 0, length + 4))
        assert [(offset, count) for offset, count, _ in spans] == [(0, length + 1), (length + 1, 3)]


@given(LINES, LINES, LINES)
def test_a_rewrite_keeps_what_others_added_and_drops_what_the_old_version_had(
    old: list[bytes], foreign: list[bytes], new: list[bytes]
) -> None:
    remote, local = file_of(old + foreign), file_of(new)
    union = merge.rewritten(Bytes(remote), Bytes(local), len(local), len(file_of(old)))
    body = Pieced(union.spans, Bytes(remote), Bytes(local))
    result = body.read(0, body.size).split(b"\n")[:-1]
    assert result[: len(new)] == new
    added = result[len(new) :]
    assert is_subsequence(added, foreign)
    assert not Counter(foreign) - Counter(old + added + new), "a foreign line is nowhere"


@given(LINES, LINES, LINES)
def test_an_extension_is_the_object_and_exactly_the_new_bytes(
    shipped: list[bytes], foreign: list[bytes], more: list[bytes]
) -> None:
    remote, local = Bytes(file_of(shipped + foreign)), Bytes(file_of(shipped + more))
    union = merge.extend(remote, local, len(file_of(shipped)), local.size)
    body = Pieced(union.spans, remote, local)
    assert body.read(0, body.size) == file_of(shipped + foreign + more)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_the_common_prefix_is_exact(left: bytes, right: bytes) -> None:
    shared = merge.common_prefix(Bytes(left), Bytes(right), len(left), len(right))
    assert left[:shared] == right[:shared]
    assert shared == min(len(left), len(right)) or left[shared] != right[shared]
