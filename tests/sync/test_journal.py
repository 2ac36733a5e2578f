"""Seconds, not minutes: what a flush made durable survives the pod, whoever checkpoints, in any order."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.area import journal
from sidecar.sync import journal_reader
from sidecar.sync.flusher import Flusher
from sidecar.sync.initial import backup_home, restore_area
from sidecar.sync.results import BackupResult
from tests.sync.pods import T0, MakeSettings, Pod, conflicts, objects, pods

LOG = "projects/-w/s.jsonl"


class Running:
    """A pod whose sidecar runs: the workspace stays open, the flusher remembers."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        pod.start()
        self.workspace = pod.open()
        self.flusher = Flusher(self.workspace)

    def flush(self) -> BackupResult:
        return self.flusher.flush()

    def checkpoint(self) -> BackupResult:
        return backup_home(self.workspace)

    def crash(self) -> None:
        self.workspace.close()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.sync.initial.WAIT_FOR_OTHERS_SECONDS", 0.0)


@pytest.fixture
def run() -> Iterator[Any]:
    running: list[Running] = []

    def make(pod: Pod) -> Running:
        running.append(Running(pod))
        return running[-1]

    yield make
    for one in running:
        one.workspace.close()


def entries(s3: Any, bucket: str) -> list[str]:
    return sorted(objects(s3, bucket, "user_data/ada/.claude-sidecar/journal/"))


def lines(data: bytes) -> list[str]:
    assert data.endswith(b"\n") or not data
    return data.decode().split("\n")[:-1]


def test_what_was_flushed_survives_a_pod_that_never_made_a_checkpoint(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, run: Any
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    a = run(first)
    first.append(LOG, '{"n": 1}\n{"half')
    first.write("settings.json", '{"v": 1}', mode=0o640, mtime_ns=T0)
    result = a.flush()
    assert (result.durable, result.files) == (True, 2)
    assert not objects(s3, bucket)
    assert len(entries(s3, bucket)) == 1
    a.crash()
    assert second.start().action == "restored"
    assert second.read(LOG) == b'{"n": 1}\n'
    assert second.read("settings.json") == b'{"v": 1}'
    assert (second.home / "settings.json").stat().st_mtime_ns == T0
    assert (second.home / "settings.json").stat().st_mode & 0o777 == 0o640


def test_a_flush_is_one_request_with_the_new_bytes_only(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, run: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    a = run(pod)
    for number in range(10):
        pod.append(f"projects/-w/{number}.jsonl", "x" * 200_000 + "\n")
    a.checkpoint()
    before = pod.store.requests["put"]
    for number in range(10):
        pod.append(f"projects/-w/{number}.jsonl", f'{{"n": "{number}"}}\n' * 50)
    assert a.flush().files == 10
    after = pod.store.requests["put"]
    assert after.requests - before.requests == 1
    assert after.bytes_sent - before.bytes_sent < 8192
    assert a.flush().files == 0
    assert pod.store.requests["put"].requests == after.requests


def test_a_checkpoint_folds_the_journal_and_a_second_one_removes_it(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, run: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    a = run(pod)
    pod.append(LOG, "one\n")
    pod.write("CLAUDE.md", "memory")
    a.flush()
    a.checkpoint()
    assert objects(s3, bucket) == {LOG: b"one\n", "CLAUDE.md": b"memory"}
    assert len(entries(s3, bucket)) == 1
    a.checkpoint()
    assert not entries(s3, bucket)
    pod.append(LOG, "two\n")
    a.flush()
    assert len(entries(s3, bucket)) == 1


def test_an_entry_is_not_removed_while_the_object_is_another_version(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, run: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    a = run(pod)
    pod.append(LOG, "one\n")
    a.flush()
    a.checkpoint()
    s3.put_object(Bucket=bucket, Key=f"user_data/ada/.claude/{LOG}", Body=b"stale\n")
    a.checkpoint()
    a.checkpoint()
    assert len(entries(s3, bucket)) == 1
    assert objects(s3, bucket) == {LOG: b"stale\none\n"}, "the file may never change again"
    a.checkpoint()
    assert not entries(s3, bucket)


def test_two_pods_flush_and_die_and_the_third_has_the_union_and_folds_it(
    bucket: str,
    settings_for: MakeSettings,
    tmp_path: Path,
    s3: Any,
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, third, fourth = pods(settings_for, bucket, tmp_path, 4)
    a = run(first)
    first.append(LOG, "one\n")
    a.checkpoint()
    b = run(second)
    first.append(LOG, "a1\nsame\nsame\n")
    second.append(LOG, "b1\n")
    a.flush()
    b.flush()
    a.crash()
    b.crash()
    c = run(third)
    assert lines(third.read(LOG))[0] == "one"
    assert sorted(lines(third.read(LOG))) == ["a1", "b1", "one", "same", "same"]
    monkeypatch.setattr("sidecar.sync.journal_reader.ALIVE_SECONDS", -1.0)
    for _ in range(3):
        c.checkpoint()
    assert sorted(lines(objects(s3, bucket)[LOG])) == ["a1", "b1", "one", "same", "same"]
    assert not entries(s3, bucket)
    fourth.start()
    assert fourth.read(LOG) == third.read(LOG)


def test_nothing_foreign_is_flushed_again(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, run: Any
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    a = run(first)
    first.append(LOG, "one\n")
    a.flush()
    a.crash()
    b = run(second)
    assert b.flush().files == 0
    second.append(LOG, "two\n")
    b.flush()
    assert len(entries(s3, bucket)) == 2
    newest = [key for key in entries(s3, bucket) if key.startswith(b.workspace.ledger.writer)]
    body = s3.get_object(Bucket=bucket, Key=f"user_data/ada/.claude-sidecar/journal/{newest[0]}")[
        "Body"
    ].read()
    assert [record.data for record in journal.decoded(body, "it").records] == [b"two\n"]


def test_a_rewrite_is_not_undone_by_the_journal_and_loses_nothing(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, run: Any
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    a = run(first)
    first.append(LOG, "one\ntwo\n")
    a.checkpoint()
    first.append(LOG, "three\n")
    a.flush()
    first.write(LOG, "one\nrewound\n")
    assert a.flush().durable
    a.crash()
    second.start()
    assert lines(second.read(LOG)) == ["one", "rewound"]
    kept = b"".join(conflicts(s3, bucket).values())
    assert b"two\n" in kept
    assert b"three\n" in kept


def test_a_file_that_was_flushed_and_deleted_is_kept_by_the_bucket(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, run: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    a = run(pod)
    pod.append(LOG, "one\n")
    pod.write("plans/p.md", "plan")
    a.flush()
    (pod.home / LOG).unlink()
    (pod.home / "plans/p.md").unlink()
    for _ in range(3):
        a.checkpoint()
    assert objects(s3, bucket) == {LOG: b"one\n", "plans/p.md": b"plan"}
    assert not entries(s3, bucket)


def test_a_journalled_edit_beats_the_object_that_it_was_made_from(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, run: Any
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    a = run(first)
    first.write("settings.json", '{"v": 1}', mtime_ns=T0)
    a.checkpoint()
    for version in (2, 3):
        first.write("settings.json", f'{{"v": {version}}}', mtime_ns=T0)
        a.flush()
    a.crash()
    b = run(second)
    assert second.read("settings.json") == b'{"v": 3}'
    b.checkpoint()
    assert objects(s3, bucket)["settings.json"] == b'{"v": 3}'
    assert not conflicts(s3, bucket)


def test_a_restarted_sidecar_goes_on_where_its_ledger_says(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, run: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    a = run(pod)
    pod.append(LOG, "one\n")
    a.flush()
    a.crash()
    pod.append(LOG, "two\n")
    again = Running(pod)
    try:
        assert again.flush().files == 1
        assert again.flush().files == 0
        names = entries(s3, bucket)
        assert [journal.parsed(name) for name in names] == [
            (again.workspace.ledger.writer, 1),
            (again.workspace.ledger.writer, 2),
        ]
    finally:
        again.crash()


@pytest.mark.parametrize("damage", [b"", b"not zstd", None])
def test_a_damaged_entry_is_reported_and_not_applied_in_part(
    damage: bytes | None,
    bucket: str,
    settings_for: MakeSettings,
    tmp_path: Path,
    s3: Any,
    run: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    a = run(first)
    first.append(LOG, "one\n")
    a.flush()
    first.append(LOG, "two\n")
    a.flush()
    a.crash()
    key = f"user_data/ada/.claude-sidecar/journal/{entries(s3, bucket)[1]}"
    whole = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    s3.put_object(Bucket=bucket, Key=key, Body=whole[:-5] if damage is None else damage)
    result = second.start()
    assert result.synced
    assert second.read(LOG) == b"one\n"
    assert "is damaged and is not applied" in caplog.text
    assert any("journal" in entry.path for entry in result.not_restored)
    second.append(LOG, "three\n")
    for _ in range(3):
        second.backup()
    assert any(key.endswith(name) for name in entries(s3, bucket)), "a damaged entry was removed"


def test_a_large_new_transcript_goes_straight_to_its_object(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, run: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    a = run(pod)
    pod.append(LOG, ("x" * 1000 + "\n") * 6000)
    assert a.flush().durable
    assert not entries(s3, bucket)
    assert len(objects(s3, bucket)[LOG]) == 6000 * 1001


def test_a_restore_into_a_live_home_settles_no_entry_of_ours(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, run: Any
) -> None:
    first, second, third = pods(settings_for, bucket, tmp_path, 3)
    a = run(first)
    first.append(LOG, "a1\n")
    a.checkpoint()
    b = run(second)
    first.append(LOG, "a2\n")
    a.flush()
    second.append(LOG, "b1\n")
    b.flush()
    restore_area(a.workspace)
    assert lines(first.read(LOG)) == ["a1", "a2", "b1"]
    (first.home / LOG).unlink()
    for _ in range(3):
        a.checkpoint()
    b.crash()
    third.start()
    assert sorted(lines(third.read(LOG))) == ["a1", "a2", "b1"]


def test_a_file_that_became_a_directory_in_the_journal_does_not_stop_a_restore(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, run: Any
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    a = run(first)
    first.write("notes", "a file")
    a.flush()
    (first.home / "notes").unlink()
    first.write("notes/x", "in a directory")
    first.append("projects/z.jsonl", "after it\n")
    a.flush()
    a.crash()
    result = second.start()
    assert result.synced, result
    assert second.read("notes/x") == b"in a directory"
    assert second.read("projects/z.jsonl") == b"after it\n"
    assert [entry.path for entry in result.not_restored] == ["notes"]


def test_an_entry_that_another_pod_folded_does_not_block_our_own_fold(
    bucket: str,
    settings_for: MakeSettings,
    tmp_path: Path,
    s3: Any,
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sidecar.sync.journal_reader.ALIVE_SECONDS", -1.0)
    first, second = pods(settings_for, bucket, tmp_path, 2)
    a = run(first)
    first.append(LOG, "one\n")
    a.flush()
    b = run(second)
    for _ in range(3):
        b.checkpoint()
    assert not entries(s3, bucket)
    (first.home / LOG).unlink()
    first.write("CLAUDE.md", "x")
    a.flush()
    for _ in range(3):
        assert a.checkpoint().error is None
    assert not entries(s3, bucket)
    assert lines(objects(s3, bucket)[LOG]) == ["one"]


def test_a_sidecar_that_goes_on_behind_its_end_mark_is_at_work_again(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, run: Any
) -> None:
    """Kubernetes restarted its container; the ledger, and so the writer, are the same."""
    pod, other = pods(settings_for, bucket, tmp_path, 2)
    running: Running = run(pod)
    pod.append(LOG, "one\n")
    running.flush()
    running.flusher.say_ended()
    writer = running.workspace.ledger.writer
    with other.open() as workspace:
        assert journal_reader.read_journal(workspace).alive(time.time(), workspace.ledger.writer) == set()
        pod.append(LOG, "two\n")
        running.flush()
        assert journal_reader.read_journal(workspace).alive(time.time(), workspace.ledger.writer) == {writer}


def test_a_dead_writers_rewind_is_folded_and_not_undone(
    bucket: str,
    settings_for: MakeSettings,
    tmp_path: Path,
    s3: Any,
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sidecar.sync.journal_reader.ALIVE_SECONDS", -1.0)
    first, second = pods(settings_for, bucket, tmp_path, 2)
    a = run(first)
    first.append(LOG, "one\ntwo\nthree\n")
    a.flush()
    first.write(LOG, "one\nTWO\n")
    a.flush()
    a.crash()
    b = run(second)
    (second.home / LOG).unlink()
    for _ in range(4):
        b.checkpoint()
    assert not entries(s3, bucket)
    assert lines(objects(s3, bucket)[LOG]) == ["one", "TWO"]
