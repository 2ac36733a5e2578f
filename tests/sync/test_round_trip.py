"""A home outlives its pod: what one pod wrote, the next one has, to the byte, the mode and the nanosecond."""

import os
import tempfile
from pathlib import Path
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from sidecar.errors import BucketMissing, StoreUnreachable
from sidecar.sync import picture
from sidecar.sync.initial import initial_sync
from sidecar.sync.prefetch import Prefetch
from tests.sync.pods import T0, MakeSettings, Pod, objects, pods


def fill(pod: Pod) -> None:
    pod.write("settings.json", '{"theme": "dark"}', mode=0o644, mtime_ns=T0 + 123_456_789)
    pod.write(".claude.json", '{"numStartups": 1}', mtime_ns=T0)
    pod.write("projects/-w/s1.jsonl", '{"n": 1}\n{"n": 2}\n', mtime_ns=T0 + 5)
    pod.write("projects/-w/s1/tool-results/r.txt", "result", mtime_ns=T0 + 6)
    pod.write("skills/Ünïcödé name & more/run.sh", "#!/bin/sh\n", mode=0o755, mtime_ns=T0 + 7)
    pod.write("memory-of-%20-#?.md", "odd name", mtime_ns=T0 + 8)
    pod.write("plans/empty.md", b"", mtime_ns=T0 + 9)
    (pod.home / "todos").mkdir(mode=0o750)
    (pod.home / "skills/latest").symlink_to("Ünïcödé name & more")
    (pod.home / "plans/up").symlink_to("../settings.json")
    for directory in ("projects/-w/s1/tool-results", "projects/-w/s1", "projects/-w", "todos"):
        os.utime(pod.home / directory, ns=(T0, T0 + 77))


def test_a_home_comes_back_exactly(bucket: str, settings_for: MakeSettings, tmp_path: Path) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    assert first.start().action == "fresh"
    fill(first)
    assert first.backup().durable
    result = second.start()
    assert (result.action, result.files) == ("restored", 7)
    assert second.tree() == first.tree()


@pytest.mark.skipif(
    not os.access("/dev/shm", os.W_OK), reason="needs /dev/shm: a volume in memory has any year"
)
def test_times_that_64_bits_cannot_carry_are_the_nearest_that_they_can(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    """A volume in memory takes them; noted as they are, neither ledger nor manifest could be read again."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        first, second = pods(settings_for, bucket, Path(memory), 2)
        first.start()
        fill(first)
        far = ["settings.json", "projects/-w/s1.jsonl", "todos", "skills/latest"]
        for path in far:
            os.utime(first.home / path, (253_402_214_400, 253_402_214_400), follow_symlinks=False)
        assert first.backup().durable
        assert first.backup().files == 0, "the ledger was not read, or nothing in it is as it is"
        second.start()
        for path in far:
            assert (second.home / path).lstat().st_mtime_ns == 2**63 - 1
        assert {path: seen[3] for path, seen in second.tree().items()} == {
            path: seen[3] for path, seen in first.tree().items()
        }
        with second.open() as workspace:
            assert not picture.read(workspace.store, workspace.keys).problem


def test_without_the_manifest_bytes_modes_and_mtimes_come_back_all_the_same(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    first.start()
    fill(first)
    first.backup()
    s3.delete_object(Bucket=bucket, Key="user_data/ada/.claude-sidecar/manifest.json.zst")
    second.start()
    files = {path: seen for path, seen in first.tree().items() if seen[0] == "file"}
    assert {path: seen for path, seen in second.tree().items() if seen[0] == "file"} == files


def test_an_area_without_a_manifest_is_known_to_be_likely_empty(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    with first.open(live=False) as workspace:
        prefetch = Prefetch(workspace)
        prefetch.manifest()
        assert prefetch.found_none
    first.start()
    fill(first)
    first.backup()
    for damage in (b"", b"not one"):
        with second.open(live=False) as workspace:
            prefetch = Prefetch(workspace)
            prefetch.manifest()
            assert not prefetch.found_none
        s3.put_object(Bucket=bucket, Key="user_data/ada/.claude-sidecar/manifest.json.zst", Body=damage)


@pytest.mark.parametrize("damage", [b"", b"not zstd", b"\x28\xb5\x2f\xfd\x00"])
def test_a_damaged_manifest_costs_speed_only(
    damage: bytes, bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    first.start()
    fill(first)
    first.backup()
    s3.put_object(Bucket=bucket, Key="user_data/ada/.claude-sidecar/manifest.json.zst", Body=damage)
    assert second.start().synced
    assert second.read("settings.json") == first.read("settings.json")
    second.append("projects/-w/s1.jsonl", "{}\n")
    assert second.backup().durable
    (third,) = pods(settings_for, bucket, tmp_path / "more", 1)
    third.start()
    assert (third.home / "skills/latest").exists() is False  # carried by the manifest alone
    assert third.read("projects/-w/s1.jsonl").endswith(b"{}\n")


def test_only_what_changed_travels(bucket: str, settings_for: MakeSettings, tmp_path: Path) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    fill(pod)
    assert pod.backup().files == 7
    before = pod.requests()
    assert pod.backup().files == 0
    assert pod.requests() == before, "an idle checkpoint sent a request"
    pod.append("projects/-w/s1.jsonl", '{"n": 3}\n')
    assert pod.backup().files == 1


def test_a_second_start_in_the_same_pod_touches_nothing(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, _ = pods(settings_for, bucket, tmp_path, 2)
    first.start()
    fill(first)
    first.backup()
    s3.put_object(Bucket=bucket, Key="user_data/ada/.claude/settings.json", Body=b'{"theme": "other"}')
    before = first.tree()
    assert first.start().action == "already_synced"
    assert first.tree() == before


def test_a_home_that_is_there_before_the_area_is_the_first_backup(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    fill(pod)
    result = pod.start()
    assert (result.action, result.files) == ("uploaded", 7)
    url = f"s3://{bucket}/user_data/ada/.claude/"
    assert [record.getMessage() for record in caplog.records] == [
        f"Checking if .claude data exists in S3: {url}",
        "No .claude data found in S3 for user ada, checking for local .claude data to backup",
        f"Backing up .claude from {pod.home} to {url}",
        ".claude backup completed: Successfully backed up 7 files to S3",
        "Initial backup completed for user ada: 7 files backed up to S3",
    ]


def test_secrets_caches_and_locks_stay_out_in_both_directions(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    first.start()
    kept_out = [".credentials.json", "debug/log.txt", "sessions/1.key", "history.jsonl.lock", "statsig/x"]
    for path in [*kept_out, "CLAUDE.md"]:
        first.write(path, "x")
    first.backup()
    assert set(objects(s3, bucket)) == {"CLAUDE.md"}
    for path in kept_out:
        s3.put_object(Bucket=bucket, Key=f"user_data/ada/.claude/{path}", Body=b"older server")
    result = second.start()
    assert set(second.tree()) == {"CLAUDE.md"}
    assert {entry.path for entry in result.skipped} == set(kept_out)
    second.backup()
    assert objects(s3, bucket)[".credentials.json"] == b"older server"


def test_a_bucket_that_cannot_be_read_is_never_empty(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    (missing,) = pods(settings_for, bucket + "-typo", tmp_path / "a", 1)
    (away,) = pods(settings_for, bucket, tmp_path / "b", 1, endpoint="http://127.0.0.1:9")
    for pod, error in ((missing, BucketMissing), (away, StoreUnreachable)):
        pod.store = type(pod.store).connect(pod.settings, outage_seconds=0.5)
        pod.write("settings.json", "{}")
        with pytest.raises(error):
            pod.start()
        with pod.open() as workspace:
            assert not workspace.ledger.header.restored


def test_a_restore_that_was_cut_off_is_finished_by_the_next(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2, concurrency=1)
    first.start()
    fill(first)
    first.backup()
    count = 0

    def stop() -> bool:
        nonlocal count
        count += 1
        return count > 3

    cut = second.start(stop=stop)
    assert cut.files == 3
    assert len(cut.not_restored) == 4
    assert second.start().action == "restored"
    assert {p for p, seen in second.tree().items() if seen[0] == "file"} == {
        p for p, seen in first.tree().items() if seen[0] == "file"
    }


def test_a_dry_run_tells_and_moves_nothing(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    first.start()
    fill(first)
    planned = first.backup(dry_run=True)
    assert (planned.files, planned.dry_run) == (7, True)
    assert not objects(s3, bucket)
    first.backup()
    plan = second.start(dry_run=True)
    assert (plan.files, plan.dry_run) == (7, True)
    assert not second.tree()
    assert second.start().files == 7


def test_a_dry_run_of_an_empty_area_leaves_the_search_for_other_journals_to_the_real_one(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    with pod.open(live=False) as workspace:
        assert initial_sync(workspace, dry_run=True).action == "fresh"
        assert workspace.ledger.header.foreign_entries
        assert initial_sync(workspace).action == "fresh"
        assert not workspace.ledger.header.foreign_entries


def test_an_emptied_home_is_a_new_home_not_a_mass_deletion(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    fill(pod)
    pod.backup()
    before = objects(s3, bucket)
    for path in sorted(pod.home.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert pod.start().action == "restored"
    assert pod.read("settings.json") == b'{"theme": "dark"}'
    assert objects(s3, bucket) == before


def test_a_deletion_in_the_home_leaves_the_bucket_alone(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    fill(pod)
    pod.backup()
    (pod.home / "settings.json").unlink()
    pod.backup()
    pod.merge()
    assert not (pod.home / "settings.json").exists()
    assert "settings.json" in objects(s3, bucket)


def test_a_directory_that_the_rules_leave_out_is_not_made_from_a_manifest(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    first.start()
    (first.home / "debug").mkdir()
    (first.home / "plans").mkdir()
    first.write("debug/latest.txt", "x")
    first.settings = replace(first.settings, include=("debug/**",))
    first.backup()
    second.start()
    assert (second.home / "plans").is_dir()
    assert not (second.home / "debug").exists()


def test_a_restore_that_was_cut_off_leaves_no_directory_as_it_was_made_on_the_way(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2, concurrency=1)
    first.start()
    fill(first)
    for directory in ("plans", "projects", "projects/-w"):
        (first.home / directory).chmod(0o750)
        os.utime(first.home / directory, ns=(T0, T0 + 5))
    first.backup()
    asked = iter(range(100))
    assert not second.start(stop=lambda: next(asked) > 3).synced
    assert second.start().synced
    assert second.tree() == first.tree()


def test_a_name_that_is_not_utf8_is_refused_and_every_answer_can_still_be_encoded(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    pod.write("agents/fine.md", "x")
    (pod.home / os.fsdecode(b"agents/\xff.md")).write_text("x")
    result = pod.backup()
    assert result.files == 1
    assert [entry.path for entry in result.refused] == ["agents/\\udcff.md"]
    assert b"udcff" in orjson.dumps(result.as_dict())


def test_a_link_that_leads_elsewhere_and_a_new_mode_of_a_directory_travel_by_themselves(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    first.start()
    first.write("skills/a/SKILL.md", "a", mtime_ns=T0)
    first.write("skills/b/SKILL.md", "b", mtime_ns=T0)
    (first.home / "skills/latest").symlink_to("a")
    first.backup()
    (first.home / "skills/latest").unlink()
    (first.home / "skills/latest").symlink_to("b")
    (first.home / "skills/a").chmod(0o750)
    first.backup()
    second.start()
    assert (second.home / "skills/latest").readlink() == Path("b")
    assert (second.home / "skills/a").stat().st_mode & 0o777 == 0o750
    before = first.requests()
    first.backup()
    assert first.requests() == before, "said once"


def test_a_file_in_the_place_of_a_directory_that_the_store_still_has_is_pending_for_that_reason(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    """SeaweedFS keeps objects as files."""
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    paths = ("skills/b", "projects/-w/s.jsonl")
    for path in paths:
        pod.write(f"{path}/x", "below")
    pod.backup()
    for path in paths:
        (pod.home / path / "x").unlink()
        (pod.home / path).rmdir()
        pod.write(path, "a line\n")
    result = pod.backup()
    reason = "the store takes no object at this name while it has others below it"
    assert {entry.path: entry.reason for entry in result.pending} == dict.fromkeys(paths, reason)
    assert not result.durable
