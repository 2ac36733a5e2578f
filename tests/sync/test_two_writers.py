"""Several writers of one user, and writers that know nothing of us: nothing that was seen is lost."""

from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import UserError
from tests.sync.pods import T0, MakeSettings, conflicts, objects, pods

LOG = "projects/-w/s.jsonl"


def lines(data: bytes) -> list[str]:
    assert data.endswith(b"\n") or not data
    return data.decode().split("\n")[:-1]


def test_two_pods_end_with_the_union_of_a_transcript(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    a, b = pods(settings_for, bucket, tmp_path, 2)
    a.start()
    a.append(LOG, "one\n")
    a.backup()
    b.start()
    a.append(LOG, "a1\n")
    b.append(LOG, "b1\n")
    for pod in (a, b, a, b):
        assert pod.backup().durable
    assert sorted(lines(objects(s3, bucket)[LOG])) == ["a1", "b1", "one"]
    assert not conflicts(s3, bucket)


def test_after_a_union_the_next_line_goes_on_top_of_it_and_not_over_it(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    a, b = pods(settings_for, bucket, tmp_path, 2)
    a.start()
    a.append(LOG, "a1\n")
    b.start()
    b.append(LOG, "b1\n")
    b.backup()
    a.backup()  # united: the object holds more than the file of a
    a.append(LOG, "a3\n")
    a.backup()
    assert lines(objects(s3, bucket)[LOG]) == ["b1", "a1", "a3"]


def test_duplicate_lines_of_one_writer_survive_a_union(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    a, b = pods(settings_for, bucket, tmp_path, 2)
    a.start()
    a.append(LOG, "same\nsame\n")
    b.start()
    b.append(LOG, "b1\n")
    b.backup()
    a.backup()
    assert lines(objects(s3, bucket)[LOG]) == ["b1", "same", "same"]


def test_a_stale_copy_put_back_by_an_outside_writer_is_healed(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (a,) = pods(settings_for, bucket, tmp_path, 1)
    a.start()
    a.append(LOG, "one\ntwo\n")
    a.backup()
    s3.put_object(Bucket=bucket, Key=f"user_data/ada/.claude/{LOG}", Body=b"one\n")
    a.append(LOG, "three\n")
    a.backup()
    assert lines(objects(s3, bucket)[LOG]) == ["one", "two", "three"]


def test_a_rewritten_transcript_displaces_its_old_version_but_not_foreign_lines(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    a, b = pods(settings_for, bucket, tmp_path, 2)
    a.start()
    a.append(LOG, "one\ntwo\nthree\n")
    a.backup()
    b.start()
    b.append(LOG, "foreign\n")
    b.backup()
    a.append(LOG, "four\n")
    a.backup()
    a.write(LOG, "one\nrewound\n")
    result = a.backup()
    assert result.conflicts == (LOG,)
    kept = next(iter(conflicts(s3, bucket).values()))
    assert "three" in lines(kept)
    after = lines(objects(s3, bucket)[LOG])
    assert after[:2] == ["one", "rewound"]
    assert "foreign" in after


def test_a_torn_last_line_stays_local_until_it_is_whole(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (a,) = pods(settings_for, bucket, tmp_path, 1)
    a.start()
    a.append(LOG, 'whole\n{"half')
    a.backup()
    assert objects(s3, bucket)[LOG] == b"whole\n"
    a.append(LOG, '": 1}\n')
    a.backup()
    assert objects(s3, bucket)[LOG] == b'whole\n{"half": 1}\n'


def test_a_restored_transcript_ends_in_a_newline(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (a,) = pods(settings_for, bucket, tmp_path, 1)
    s3.put_object(Bucket=bucket, Key=f"user_data/ada/.claude/{LOG}", Body=b'x\n{"torn')
    a.start()
    assert a.read(LOG) == b'x\n{"torn\n'
    a.append(LOG, "next\n")
    a.backup()
    assert objects(s3, bucket)[LOG] == b'x\n{"torn\nnext\n'


def test_a_restore_into_a_live_home_appends_and_the_next_checkpoint_unites(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    a, b = pods(settings_for, bucket, tmp_path, 2)
    a.start()
    a.append(LOG, "one\n")
    a.backup()
    b.start()
    b.append(LOG, "b1\n")
    b.backup()
    a.append(LOG, "a1\n")
    inode = (a.home / LOG).stat().st_ino
    a.merge()
    assert lines(a.read(LOG)) == ["one", "a1", "b1"]
    assert (a.home / LOG).stat().st_ino == inode
    a.merge()
    assert lines(a.read(LOG)) == ["one", "a1", "b1"]
    a.backup()
    assert sorted(lines(objects(s3, bucket)[LOG])) == ["a1", "b1", "one"]


def test_a_fresh_clients_first_settings_never_beat_the_users_own(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    a, b = pods(settings_for, bucket, tmp_path, 2)
    a.start()
    a.write(".claude.json", '{"theme": "mine"}', mtime_ns=T0)
    a.backup()
    b.write(".claude.json", '{"theme": "first start"}')
    b.start()
    assert b.read(".claude.json") == b'{"theme": "mine"}'
    assert list(conflicts(s3, bucket).values()) == [b'{"theme": "first start"}']


def test_of_two_edits_the_later_one_stays_and_the_other_is_kept_aside(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    a, b = pods(settings_for, bucket, tmp_path, 2)
    a.start()
    a.write("settings.json", '{"v": 0}', mtime_ns=T0)
    a.backup()
    b.start()
    hour = 3600 * 10**9
    b.write("settings.json", '{"v": "older"}', mtime_ns=T0 + hour)
    b.backup()
    a.write("settings.json", '{"v": "newer"}', mtime_ns=T0 + 2 * hour)
    assert a.backup().conflicts == ("settings.json",)
    assert objects(s3, bucket)["settings.json"] == b'{"v": "newer"}'
    assert list(conflicts(s3, bucket).values()) == [b'{"v": "older"}']


def test_a_lost_conflict_is_settled_once_and_the_next_edit_does_not_overwrite_unseen(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    a, b = pods(settings_for, bucket, tmp_path, 2)
    a.start()
    a.write("settings.json", '{"v": 0}', mtime_ns=T0)
    a.backup()
    b.start()
    b.write("settings.json", '{"v": "b"}', mtime_ns=T0 + 3600 * 10**9)
    b.backup()
    a.write("settings.json", '{"v": "a"}', mtime_ns=T0 + 10**9)
    a.backup()
    for _ in range(3):
        assert a.backup().files == 0
    assert list(conflicts(s3, bucket).values()) == [b'{"v": "a"}']
    a.write("settings.json", '{"v": "a2"}', mtime_ns=T0 + 7200 * 10**9)
    a.backup()
    assert objects(s3, bucket)["settings.json"] == b'{"v": "a2"}'
    assert sorted(conflicts(s3, bucket).values()) == [b'{"v": "a"}', b'{"v": "b"}']


def test_an_object_that_was_deleted_by_another_comes_back_only_with_a_change(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (a,) = pods(settings_for, bucket, tmp_path, 1)
    a.start()
    a.write("settings.json", "{}")
    a.append(LOG, "one\n")
    a.backup()
    for path in ("settings.json", LOG):
        s3.delete_object(Bucket=bucket, Key=f"user_data/ada/.claude/{path}")
    a.backup()
    assert not objects(s3, bucket)
    a.write("settings.json", '{"v": 2}')
    a.append(LOG, "two\n")
    assert a.backup().durable
    assert objects(s3, bucket) == {"settings.json": b'{"v": 2}', LOG: b"one\ntwo\n"}


def test_a_lost_ledger_costs_no_conflict_where_both_sides_are_equal(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    a, b = pods(settings_for, bucket, tmp_path, 2)
    a.start()
    for number in range(20):
        a.write(f"plans/{number}.md", f"plan {number}")
    a.append(LOG, "one\n")
    a.backup()
    b.settings = b.settings.__class__(**{**_fields(b.settings), "home": str(a.home)})
    before = objects(s3, bucket)
    assert b.start().files == 0
    assert b.backup().files == 0
    assert objects(s3, bucket) == before
    assert not conflicts(s3, bucket)


def _fields(settings: Any) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


def test_users_never_meet(bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any) -> None:
    a, b = pods(settings_for, bucket, tmp_path, 2)
    b.user = "ada2"
    for pod in (a, b):
        pod.start()
        pod.write("CLAUDE.md", pod.user)
        pod.backup()
    assert objects(s3, bucket) == {"CLAUDE.md": b"ada"}
    assert objects(s3, bucket, "user_data/ada2/.claude/") == {"CLAUDE.md": b"ada2"}


def test_a_home_that_holds_one_users_files_is_refused_to_another_also_after_a_restart(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    pod.write("CLAUDE.md", "ada's own")
    pod.backup()
    pod.user = "mallory"
    with pytest.raises(UserError, match="another user") as refused:
        pod.start()
    assert "{user_id}" in refused.value.hint
    assert not objects(s3, bucket, "user_data/mallory/")
