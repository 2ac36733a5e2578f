"""Who wins: the tables of the protocol, row by row."""

import pytest

from sidecar.sync.compare import (
    CLOCK_ERROR_NS,
    Local,
    RestoreStep,
    TranscriptStep,
    Version,
    Winner,
    clashes,
    may_delete,
    restore_step,
    transcript_step,
    urgency,
    winner,
)
from sidecar.sync.marks import Mark

MARK = Mark('"e1"', 100, "digest-of-object", 100, "digest-of-object")
UNITED = Mark('"e1"', 150, "digest-of-union", 100, "digest-of-prefix")


@pytest.mark.parametrize(
    ("local", "mark", "etag", "transcript", "step"),
    [
        (Local.ABSENT, None, '"e1"', False, RestoreStep.TAKE),
        (Local.ABSENT, MARK, '"e1"', False, RestoreStep.NOTHING),
        (Local.ABSENT, MARK, '"e2"', True, RestoreStep.NOTHING),
        (Local.NEW, None, '"e1"', False, RestoreStep.MEET),
        (Local.NEW, None, '"e1"', True, RestoreStep.APPEND),
        (Local.SAME, MARK, '"e1"', False, RestoreStep.NOTHING),
        (Local.SAME, MARK, '"e2"', False, RestoreStep.REPLACE),
        (Local.SAME, MARK, '"e2"', True, RestoreStep.APPEND),
        (Local.CHANGED, MARK, '"e1"', False, RestoreStep.NOTHING),
        (Local.CHANGED, MARK, '"e2"', False, RestoreStep.NOTHING),
        (Local.CHANGED, MARK, '"e2"', True, RestoreStep.APPEND),
    ],
)
def test_a_restore_takes_what_is_missing_and_never_undoes_a_local_change(
    local: Local, mark: Mark | None, etag: str, transcript: bool, step: RestoreStep
) -> None:
    assert restore_step(local, mark, etag, transcript=transcript) is step


@pytest.mark.parametrize(
    ("mark", "end", "begins", "step"),
    [
        (None, 10, False, TranscriptStep.CREATE),
        (MARK, 100, True, TranscriptStep.NOTHING),
        (MARK, 120, True, TranscriptStep.GROW),
        (UNITED, 100, True, TranscriptStep.NOTHING),
        (UNITED, 120, True, TranscriptStep.EXTEND),
        (UNITED, 400, True, TranscriptStep.EXTEND),
        (MARK, 120, False, TranscriptStep.REWRITE),
        (MARK, 50, False, TranscriptStep.REWRITE),
        (MARK.cleared(), 120, True, TranscriptStep.UNITE),
        (MARK.cleared(), 120, False, TranscriptStep.UNITE),
    ],
)
def test_a_transcript_goes_up_alone_only_over_the_object_that_it_contains(
    mark: Mark | None, end: int, begins: bool, step: TranscriptStep
) -> None:
    assert transcript_step(mark, end, begins_with_mark=begins) is step


NOW = 2_000_000_000_000_000_000
MINUTE = 60_000_000_000


@pytest.mark.parametrize(
    ("local", "remote", "known", "expected"),
    [
        (Version("x", 1), Version("x", 9), False, Winner.EQUAL),
        (Version("x", NOW), Version("y", 1), False, Winner.REMOTE),
        (Version("x", 1, base="b"), Version("y", 9, base="x"), True, Winner.REMOTE_DESCENDS),
        (Version("x", 1, base="y"), Version("y", 9), True, Winner.LOCAL),
        (Version("x", NOW, base="b"), Version("y", NOW - 2 * MINUTE, base="b"), True, Winner.LOCAL),
        (Version("x", NOW, base="b"), Version("y", NOW - MINUTE // 2, base="b"), True, Winner.REMOTE),
        (Version("x", NOW - 5 * MINUTE, base="b"), Version("y", NOW, base="b"), True, Winner.REMOTE),
        # A clock that runs ahead does not win for ever: the future counts as now.
        (Version("x", NOW, base="b"), Version("y", NOW + 10**15, base="b"), True, Winner.REMOTE),
        (Version("x", NOW + 10**15, base="b"), Version("y", NOW, base="b"), True, Winner.REMOTE),
    ],
)
def test_ancestry_decides_first_and_clocks_only_between_siblings(
    local: Version, remote: Version, known: bool, expected: Winner
) -> None:
    assert winner(local, remote, known=known, now_ns=NOW) is expected


def test_the_clocks_may_err_by_a_minute() -> None:
    base, other = Version("x", NOW, base="b"), Version("y", NOW - CLOCK_ERROR_NS, base="b")
    assert winner(base, other, known=True, now_ns=NOW) is Winner.REMOTE


def test_of_a_file_and_a_directory_at_one_name_the_newer_side_stays() -> None:
    assert set(clashes({"a": 1.0, "a/b": 2.0, "a/c": 0.5, "ab": 3.0})) == {"a"}
    assert set(clashes({"a": 3.0, "a/b": 2.0, "a/c/d": 0.5})) == {"a/b", "a/c/d"}
    assert clashes({"a": 1.0, "b/c": 1.0}) == {}
    assert set(clashes({"a": 1.0, "a/b": 1.0})) == {"a"}


def test_configuration_comes_before_the_newest_sessions_and_plugins_last() -> None:
    paths = {"plugins/x/y": 9, "projects/p/old.jsonl": 1, "projects/p/new.jsonl": 5, "settings.json": 0}
    ordered = sorted(paths, key=lambda path: urgency(path, paths[path]))
    assert ordered == ["settings.json", "projects/p/new.jsonl", "projects/p/old.jsonl", "plugins/x/y"]


def test_mirror_brakes_at_half_of_an_area() -> None:
    assert may_delete(5, 10)
    assert not may_delete(6, 10)
