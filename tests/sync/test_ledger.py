"""The ledger survives what happens to pods: kills, full disks, other homes, other areas, newer versions."""

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import Mock

import pytest
from msgspec.structs import replace

from sidecar.errors import FormatError, LedgerError
from sidecar.home.entries import FileStat
from sidecar.sync import ledger_file
from sidecar.sync.ledger import Ledger, LedgerBusy
from sidecar.sync.ledger_content import content_of
from sidecar.sync.ledger_file import LedgerFile
from sidecar.sync.marks import RACY_NS, Flushed, Mark, Settled, lasting

HOME = (1, 2)
STAT = FileStat("a/b.json", 3, 10**18, 10**18 + 1, 0o600, 77)
MARK = Mark('"e"', 3, "d" * 64, 3, "d" * 64, STAT, 10**18, 0o640, Settled("x" * 64, '"f"', STAT), '"l"')


def one(place: Path, name: str) -> Path:
    """The only file of that name below `place`."""
    (found,) = place.rglob(name)
    return found


def opened(state: Path, user: str = "ada", area: str = "s3://b/p/ada/", pod_uid: str | None = None) -> Ledger:
    return Ledger.open(state, user_id=user, area=area, home=HOME, pod_uid=pod_uid)


def content_left(place: Path) -> Mapping[str, Mark]:
    """The marks that a kill at this moment would leave."""
    content = content_of(LedgerFile(one(place, "ledger.json").parent))
    assert content is not None
    return content.marks


def test_what_was_recorded_is_there_after_a_kill(tmp_path: Path) -> None:
    program = f"""
import os, sys
from pathlib import Path
from tests.sync.test_ledger import MARK, opened
ledger = opened(Path({str(tmp_path)!r}))
for number in range(100):
    ledger.record(f"path-{{number}}", MARK)
ledger.forget("path-5")
os.kill(os.getpid(), 9)
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False, cwd=Path.cwd())
    assert ended.returncode == -9
    with opened(tmp_path) as ledger:
        assert ledger.marks() == {f"path-{n}": MARK for n in range(100) if n != 5}


def test_a_note_is_known_at_once_and_on_disk_ahead_of_what_is_recorded_after_it(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        log = one(tmp_path, "ledger.log")
        begun = log.stat().st_size
        ledger.note("first", MARK)
        ledger.note("second", MARK)
        assert (ledger.mark("first"), ledger.mark("second")) == (MARK, MARK)
        assert log.stat().st_size == begun
        ledger.forget("second")
        assert set(content_left(tmp_path)) == {"first"}


def test_notes_are_on_disk_once_they_are_settled_or_many(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.note("settled", MARK)
        ledger.settle()
        assert set(content_left(tmp_path)) == {"settled"}
        for number in range(100):
            ledger.note(f"path-{number}", MARK)
        assert len(content_left(tmp_path)) > 64
        assert list(ledger.take_learned()) == ["settled", *(f"path-{number}" for number in range(100))]


def test_what_a_full_disk_did_not_take_of_the_notes_is_on_disk_later(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        log = one(tmp_path, "ledger.log")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + 20, limits[1]))
        try:
            ledger.note("noted", MARK)
            with pytest.raises(LedgerError, match="state directory"):
                ledger.settle()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        ledger.settle()
        assert set(content_left(tmp_path)) == {"noted"}


def test_notes_of_another_home_are_dropped_with_all_else(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.note("noted", MARK)
        ledger.start_over(HOME, None)
        ledger.record("after", MARK)
        assert set(content_left(tmp_path)) == {"after"}


def test_a_torn_last_line_counts_as_never_written(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.record("whole", MARK)
        ledger.record("torn", MARK)
    log = one(tmp_path, "ledger.log")
    os.truncate(log, log.stat().st_size - 7)
    with opened(tmp_path) as ledger:
        assert set(ledger.marks()) == {"whole"}
        ledger.record("after", MARK)
    with opened(tmp_path) as ledger:
        assert set(ledger.marks()) == {"whole", "after"}


def test_a_full_disk_is_said_and_leaves_no_half_line(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.record("before", MARK)
        log = one(tmp_path, "ledger.log")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + 20, limits[1]))
        try:
            with pytest.raises(LedgerError, match="state directory"):
                ledger.record("during", MARK)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert ledger.mark("during") is None
        ledger.record("after", MARK)
    with opened(tmp_path) as ledger:
        assert set(ledger.marks()) == {"before", "after"}


def test_a_ledger_of_another_area_does_not_count(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.record("path", MARK)
        ledger.set_header(replace(ledger.header, restored=True))
        writer = ledger.writer
    with opened(tmp_path, area="s3://another/p/ada/") as ledger:
        assert not ledger.marks()
        assert not ledger.header.restored
        assert ledger.writer != writer


def test_each_user_has_a_ledger_of_its_own_and_a_restart_keeps_the_writer(tmp_path: Path) -> None:
    with opened(tmp_path) as ada, opened(tmp_path, user="bob") as bob:
        ada.record("path", MARK)
        assert not bob.marks()
        writer = ada.writer
    with opened(tmp_path) as ada:
        assert ada.writer == writer


def test_a_fresh_ledger_is_a_fresh_writer_in_the_same_pod(tmp_path: Path) -> None:
    with opened(tmp_path / "one", pod_uid="uid") as one, opened(tmp_path / "two", pod_uid="uid") as two:
        assert one.writer.startswith("uid-")
        assert one.writer != two.writer
        before = one.writer
        one.start_over(HOME, "uid")
        assert one.writer != before


def test_two_processes_never_share_a_ledger(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(LedgerBusy, match="another claude-sidecar process"):
        opened(tmp_path)


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.record("path", MARK)
        ledger.save()
    file = one(tmp_path, "ledger.json")
    newer = file.read_bytes().replace(b'"version":"1.1"', b'"version":"2.0"')
    file.write_bytes(newer)
    with pytest.raises(FormatError, match=r"2\.0"):
        opened(tmp_path)
    assert file.read_bytes() == newer


def test_a_damaged_snapshot_starts_anew_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path) as ledger:
        ledger.record("path", MARK)
    one(tmp_path, "ledger.json").write_bytes(b'{"version":"1.0","header":{}}')
    with opened(tmp_path) as ledger:
        assert not ledger.marks()
    assert "damaged" in caplog.text


def test_a_state_directory_that_is_a_file_gets_a_sentence(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("")
    with pytest.raises(LedgerError, match="CLAUDE_SIDECAR_STATE_DIR"):
        opened(place)


def test_times_prove_nothing_for_a_file_that_changed_a_moment_ago() -> None:
    assert lasting(STAT, STAT.mtime_ns + RACY_NS + 1) == STAT
    assert lasting(STAT, STAT.mtime_ns + RACY_NS - 1) is None
    assert lasting(STAT, STAT.mtime_ns - 5) is None


def test_a_log_that_could_not_be_begun_on_a_full_disk_is_begun_with_its_next_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise all that follows would not count, and a key in the journal would be used twice (rule 12)."""
    with opened(tmp_path) as ledger:
        ledger.record("before", MARK)
        with monkeypatch.context() as full, pytest.raises(LedgerError):
            full.setattr(os, "write", Mock(side_effect=OSError(errno.ENOSPC, "full")))
            ledger.save()
        ledger.record("after", MARK)
        number = ledger.next_sequence()
    with opened(tmp_path) as ledger:
        assert set(ledger.marks()) == {"before", "after"}
        assert ledger.next_sequence() > number


def test_cut_at_any_byte_the_log_says_what_was_acknowledged_before_and_no_more(tmp_path: Path) -> None:
    states: dict[int, tuple[Mapping[str, Mark], bool, int]] = {}
    with opened(tmp_path) as ledger:
        log = one(tmp_path, "ledger.log")
        for number in range(3):
            ledger.record_all({f"{number}/{n}": MARK for n in range(2)}, told=number == 1)
            states[log.stat().st_size] = (ledger.marks(), ledger.header.restored, ledger.header.generation)
            ledger.set_header(replace(ledger.header, restored=True, generation=number))
            states[log.stat().st_size] = (ledger.marks(), ledger.header.restored, ledger.header.generation)
    whole = log.read_bytes()
    directory, content = log.parent, log
    for size in range(min(states), len(whole)):
        content.write_bytes(whole[:size])
        found = content_of(LedgerFile(directory))
        acknowledged = states[max(end for end in states if end <= size + 1)]
        assert found
        assert (found.marks, found.header.restored, found.header.generation) == acknowledged


def test_a_long_log_becomes_a_snapshot_whatever_its_lines_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_file, "_LONG_BYTES", 10_000)
    with opened(tmp_path) as ledger:
        log = one(tmp_path, "ledger.log")
        for _ in range(200):
            ledger.record_all({"a": MARK, "b": MARK})
            ledger.set_header(replace(ledger.header, generation=ledger.header.generation + 1))
        assert log.stat().st_size < 20_000
        before = ledger.header
    with opened(tmp_path) as ledger:
        assert (ledger.header, ledger.marks()) == (before, {"a": MARK, "b": MARK})


def test_what_the_manifest_has_not_heard_of_outlives_the_process(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.record("told", MARK, told=True)
        ledger.record("new", MARK)
        ledger.record_all({"all told": MARK}, told=True)
        assert ledger.take_learned() == {"new": True}
        ledger.record("new", replace(MARK, mtime_ns=5))
        ledger.record("told", replace(MARK, mtime_ns=5))
    with opened(tmp_path) as ledger:
        assert ledger.take_learned() == {"new": True, "told": False}
        ledger.record("all told", replace(MARK, etag='"2"'))
        ledger.told()
    for _ in range(2):
        with opened(tmp_path) as ledger:
            assert ledger.take_learned() == {"all told": True}


def test_a_ledger_to_which_nothing_was_added_is_not_written_anew(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.record("a", MARK)
    with opened(tmp_path):
        before = one(tmp_path, "ledger.json").stat()
    with opened(tmp_path) as ledger:
        assert one(tmp_path, "ledger.json").stat() == before
        ledger.record("b", MARK)
    with opened(tmp_path) as ledger:
        assert ledger.marks() == {"a": MARK, "b": MARK}
        assert one(tmp_path, "ledger.json").stat().st_ino != before.st_ino, "what was added is in a new one"


def test_a_ledger_of_an_older_format_is_written_anew_before_anything_is_added(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.record("a", MARK)
    opened(tmp_path).close()
    snapshot = one(tmp_path, "ledger.json")
    snapshot.write_bytes(snapshot.read_bytes().replace(b'"version":"1.1"', b'"version":"1.0"'))
    with opened(tmp_path) as ledger:
        assert ledger.marks() == {"a": MARK}
        assert b'"version":"1.1"' in snapshot.read_bytes()


# As every version since 1.0 wrote it.
_SNAPSHOT = (
    '{"version":"1.1","epoch":"00ff","header":{"user_id":"ada","area":"s3://b/p/ada/","writer":"pod-1",'
    '"home":[1,2],"restored":true,"compared":false,"foreign_entries":true,"generation":3,"directories":["a"],'
    '"links":[],"not_restored":0,"extra":{}},"marks":{"é.md":["\\"e\\"",3,"dd",3,"dd",'
    '["é.md",3,-5,18446744073709551615,384,77],18446744073709551615,416,null,""],'
    '"b":["",0,"",0,"",null,0,384,["xx","\\"f\\"",null],"l"]},'
    '"flushed":{"b":[3,"dd",2,["b",3,4,5,384,7],1,9,"ee"]},"entries":{"2":[["b"],12,false]},"sequence":2,'
    '"learned":{"b":true},"taken":{},"doubts":[]}'
)
_LOG = '["epoch","00ff"]\n["marks",{"c":["1",1,"d",1,"d",null,2,384,null,""]},true]\n["forget","b"]\n'


def test_the_format_is_read_and_written_as_it_always_was(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text(_SNAPSHOT)
    content = content_of(LedgerFile(tmp_path))
    assert content
    stat = FileStat("é.md", 3, -5, 2**64 - 1, 0o600, 77)
    assert content.marks == {
        "é.md": Mark('"e"', 3, "dd", 3, "dd", stat, 2**64 - 1, 0o640),
        "b": Mark("", 0, "", 0, "", settled=Settled("xx", '"f"'), loser="l"),
    }
    assert content.flushed["b"].tried == (9, "ee")
    copy = tmp_path / "copy"
    copy.mkdir()
    LedgerFile(copy).replace(content.document(), content.marks)
    before, after = json.loads(_SNAPSHOT), json.loads((copy / "ledger.json").read_text())
    assert after | {"epoch": "00ff"} == before
    (tmp_path / "ledger.log").write_text(_LOG)
    content = content_of(LedgerFile(tmp_path))
    assert content
    assert (set(content.marks), content.marks["c"]) == ({"é.md", "c"}, Mark("1", 1, "d", 1, "d", mtime_ns=2))


@pytest.mark.parametrize(
    "damage", [('"dd",3', '"dd","3"'), ("[1,2]", "7"), ('["é.md",3,', '["é.md",'), ("}", "")]
)
def test_a_value_of_another_kind_is_damage(tmp_path: Path, damage: tuple[str, str]) -> None:
    (tmp_path / "ledger.json").write_text(_SNAPSHOT.replace(*damage))
    assert content_of(LedgerFile(tmp_path)) is None


def test_thousands_of_marks_are_written_and_read_again(tmp_path: Path) -> None:
    marks = {f"{number}.md": replace(MARK, size=number) for number in range(2500)}
    with opened(tmp_path) as ledger:
        ledger.record_all(marks)
        ledger.save()
    with opened(tmp_path) as ledger:
        assert ledger.marks() == marks


def test_a_number_given_before_a_file_is_read_is_new_also_where_no_entry_is_left(tmp_path: Path) -> None:
    """A flush beside the reading has the reader declare the older entries void: under a key of its own."""
    with opened(tmp_path) as ledger:
        used = ledger.next_sequence()
        ledger.record_flush(used, 10, {"a": Flushed(3, "d" * 64, 0)})
        ledger.entry_removed(used)
        given = ledger.known("a").number
        assert given > used, "a key would name a second body"
        assert ledger.next_sequence() > given


@pytest.mark.parametrize("tried_before", [False, True])
def test_what_a_flush_tried_beside_a_settling_is_kept(tmp_path: Path, tried_before: bool) -> None:
    """Its answer is lost: the next flush must see whether the file still goes on from it."""
    flushed, later = Flushed(3, "d" * 64, 0), Flushed(9, "e" * 64, 0)
    with opened(tmp_path) as ledger:
        ledger.record_flush(ledger.next_sequence(), 10, {"a": flushed})
        if tried_before:
            ledger.trying(ledger.next_sequence(), {"a": (flushed, Flushed(6, "f" * 64, 0))})
        known = ledger.known("a")
        ledger.trying(ledger.next_sequence(), {"a": (flushed, later)})
        ledger.fold("a", known.flushed, flushed)
        now = ledger.flushed("a")
    assert now and now.tried == (later.size, later.digest)


def test_what_was_tried_before_a_settling_is_settled_with_it(tmp_path: Path) -> None:
    flushed = Flushed(3, "d" * 64, 0)
    with opened(tmp_path) as ledger:
        ledger.trying(ledger.next_sequence(), {"a": (flushed, Flushed(6, "f" * 64, 0))})
        ledger.fold("a", ledger.known("a").flushed, Flushed(6, "f" * 64, 0))
        now = ledger.flushed("a")
    assert now and now.tried is None


def test_a_number_that_no_ledger_can_hold_is_damage(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text(_SNAPSHOT)
    (tmp_path / "ledger.log").write_text(_LOG + f'["mark","d",["1",1,"d",1,"d",null,{2**64},384,null,""]]\n')
    assert content_of(LedgerFile(tmp_path)) is None
