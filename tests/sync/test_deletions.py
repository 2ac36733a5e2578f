"""``CLAUDE_SIDECAR_DELETIONS=mirror``: a deletion in the home follows into the bucket, and never too much."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sidecar.area.store import Store
from sidecar.home.entries import FileStat, Refused, Scan
from sidecar.settings import Settings
from sidecar.sync import picture
from sidecar.sync.deletion_rules import WINDOW_SECONDS, Brake, absent, braked, looks_like_cleanup
from sidecar.sync.deletions import candidates, remember
from sidecar.sync.flusher import Flusher
from sidecar.sync.marks import Mark
from tests.servers import Server, client
from tests.sync.machine import LOGS, PATHS, world_in
from tests.sync.memory_store import Fate
from tests.sync.pods import T0, MakeSettings, Pod, conflicts, objects, pods

DAY_NS = 86_400_000_000_000
LOG = "projects/-w/s.jsonl"
MEMORY = "CLAUDE.md"


def mirroring(
    settings_for: MakeSettings, bucket: str, tmp_path: Path, count: int = 1, **more: Any
) -> list[Pod]:
    return pods(settings_for, bucket, tmp_path, count, deletions="mirror", **more)


def fill(pod: Pod, count: int = 6) -> None:
    for number in range(count):
        pod.write(f"skills/{number}.md", f"skill {number}", mtime_ns=T0)


# -- decisions


def mark(etag: str = '"e"') -> Mark:
    return Mark(etag, 1, "d", 1, "d")


def test_absent_is_what_the_ledger_knows_in_the_bucket_and_no_scan_found_or_passed_over() -> None:
    marks = {path: mark() for path in ("here", "gone", "locked/a", "locked/b/c", "refused")}
    marks["never-shipped"] = mark(etag="")
    scan = Scan(
        files={"here": FileStat("here", 1, 0, 0, 0o600, 1)},
        refused=(Refused("locked", "may not be read"), Refused("refused", "too large")),
    )
    assert absent(marks, scan) == ["gone"]


@pytest.mark.parametrize(
    ("path", "days_old", "cleanup_days", "expected"),
    [
        (LOG, 31, 30, True),
        (LOG, 30, 30, True),
        (LOG, 12, 30, False),
        (LOG, 12, 7, True),
        ("projects/-w/memory/a.md", 400, 30, False),
        ("skills/a.md", 400, 30, False),
        ("plans/a.md", 31, 30, True),
        (LOG, 0, 0, True),
    ],
)
def test_old_session_data_that_goes_looks_like_the_clients_own_clean_up(
    path: str, days_old: int, cleanup_days: int, expected: bool
) -> None:
    now_ns = 1_000 * DAY_NS
    assert looks_like_cleanup(path, now_ns - days_old * DAY_NS, now_ns, cleanup_days) is expected


def test_the_brake_counts_what_went_within_the_hour() -> None:
    first = braked(None, 4, 10, now=1000.0)
    assert first == Brake(1000.0, 10, 4)
    assert braked(first, 1, 6, now=1001.0) == Brake(1000.0, 10, 5)
    assert braked(first, 2, 6, now=1001.0) is None, "six of ten within the hour"
    assert braked(first, 2, 6, now=1000.0 + WINDOW_SECONDS) == Brake(1000.0 + WINDOW_SECONDS, 6, 2)
    assert braked(None, 6, 10, now=0.0) is None
    assert braked(Brake(0.0, 2, 1), 3, 100, now=1.0) == Brake(0.0, 101, 4), "the area grew meanwhile"


# -- against a bucket


def test_a_deletion_follows_into_the_bucket_and_the_manifest_and_stays_done(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    pod, other = mirroring(settings_for, bucket, tmp_path, 2)
    pod.start()
    fill(pod)
    pod.append(LOG, "one\n")
    pod.backup()
    (pod.home / "skills/3.md").unlink()
    (pod.home / LOG).unlink()
    result = pod.backup()
    assert (result.deleted, result.deletions_refused, result.durable) == (2, 0, True)
    assert set(objects(s3, bucket)) == {f"skills/{n}.md" for n in (0, 1, 2, 4, 5)}
    with pod.open() as workspace:
        assert set(picture.read_if_any(workspace).files) == set(objects(s3, bucket))
        assert set(workspace.ledger.marks()) == set(objects(s3, bucket))
    before = pod.requests()
    assert pod.backup().deleted == 0
    assert pod.requests() == before, "an idle checkpoint sent a request"
    other.start()
    assert not (other.home / "skills/3.md").exists()
    assert {key for key in _keys(s3, bucket) if "probe" in key} == set()


def test_a_file_deleted_right_after_the_restore_is_deleted_too(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = mirroring(settings_for, bucket, tmp_path, 2)
    first.start()
    fill(first)
    first.backup()
    second.start()
    (second.home / "skills/0.md").unlink()
    assert second.backup().deleted == 1
    assert "skills/0.md" not in objects(s3, bucket)


def test_keep_is_the_default_and_deletes_nothing(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    fill(pod)
    pod.backup()
    (pod.home / "skills/3.md").unlink()
    assert pod.backup().deleted == 0
    assert "skills/3.md" in objects(s3, bucket)


def test_what_another_writer_changed_stays_and_is_not_asked_about_again(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = mirroring(settings_for, bucket, tmp_path)
    pod.start()
    fill(pod)
    pod.append(LOG, "one\n")
    pod.backup()
    s3.put_object(Bucket=bucket, Key=f"user_data/ada/.claude/{LOG}", Body=b"one\nother\n")
    s3.put_object(Bucket=bucket, Key="user_data/ada/.claude/skills/1.md", Body=b"theirs")
    for path in (LOG, "skills/1.md"):
        (pod.home / path).unlink()
    assert pod.backup().deleted == 0
    left = objects(s3, bucket)
    assert (left[LOG], left["skills/1.md"]) == (b"one\nother\n", b"theirs")
    before = pod.requests()
    pod.backup()
    assert pod.requests() == before


def test_more_than_half_at_once_is_refused_as_a_whole_said_and_counted(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (pod,) = mirroring(settings_for, bucket, tmp_path)
    pod.start()
    fill(pod, 6)
    pod.backup()
    for number in range(4):
        (pod.home / f"skills/{number}.md").unlink()
    result = pod.backup()
    assert (result.deleted, result.deletions_refused, result.durable) == (0, 4, True)
    assert len(objects(s3, bucket)) == 6
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("Nothing was deleted from the bucket: 4 of 6 files are gone from the home")
    # A person removes them: the sidecar takes note, and later deletions are not held up.
    for number in range(4):
        s3.delete_object(Bucket=bucket, Key=f"user_data/ada/.claude/skills/{number}.md")
    assert pod.backup().deletions_refused == 0
    (pod.home / "skills/4.md").unlink()
    assert pod.backup().deleted == 1


def test_a_deletion_that_goes_on_while_checkpoints_pass_is_still_one(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = mirroring(settings_for, bucket, tmp_path)
    pod.start()
    fill(pod, 10)
    pod.backup()
    for number in range(9):
        (pod.home / f"skills/{number}.md").unlink()
        if number in (2, 4, 6, 8):
            pod.backup()
    assert len(objects(s3, bucket)) == 5


def test_what_was_not_restored_skipped_or_left_out_is_never_deleted(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = mirroring(settings_for, bucket, tmp_path, 2)
    first.start()
    fill(first)
    first.backup()
    for key in (".credentials.json", "debug/log", "settings.json"):
        s3.put_object(Bucket=bucket, Key=f"user_data/ada/.claude/{key}", Body=b"{torn")
    assert {entry.path for entry in second.start().not_restored} == {"settings.json"}
    second.settings = replace(second.settings, exclude=("skills/2.md",))
    (second.home / "skills/2.md").unlink()
    assert second.backup().deleted == 0
    assert len(objects(s3, bucket)) == 9


def test_a_restore_that_was_cut_off_leads_to_no_deletion(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = mirroring(settings_for, bucket, tmp_path, 2, concurrency=1)
    first.start()
    fill(first)
    first.backup()
    asked = iter(range(100))
    second.start(stop=lambda: next(asked) >= 4)
    for path in list((second.home / "skills").iterdir())[:1]:
        path.unlink()
    second.backup()
    assert len(objects(s3, bucket)) == 6


def test_another_volume_under_the_same_ledger_is_no_deletion(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = mirroring(settings_for, bucket, tmp_path)
    pod.start()
    fill(pod)
    pod.backup()
    old = pod.home.rename(pod.home.parent / "old")
    pod.home.mkdir()
    (pod.home / "skills").mkdir()
    for number in range(4):  # a template brings some of the same files; fewer than half are missing
        shutil.copy2(old / f"skills/{number}.md", pod.home / f"skills/{number}.md")
    for _ in range(2):
        assert pod.backup().deleted == 0
    assert len(objects(s3, bucket)) == 6
    pod.merge()
    assert (pod.home / "skills/5.md").exists(), "what was never deleted comes back"


def test_the_clients_own_clean_up_does_not_wipe_the_backup(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (pod,) = mirroring(settings_for, bucket, tmp_path)
    pod.start()
    fill(pod, 20)
    now = time.time_ns()
    pod.write("settings.json", '{"cleanupPeriodDays": 10}')
    pod.write("projects/-w/old.jsonl", "{}\n", mtime_ns=now - 12 * DAY_NS)
    pod.write("projects/-w/memory/old.md", "x", mtime_ns=now - 12 * DAY_NS)
    pod.write("projects/-w/new.jsonl", "{}\n", mtime_ns=now - 2 * DAY_NS)
    pod.backup()
    for path in ("old.jsonl", "memory/old.md", "new.jsonl"):
        (pod.home / "projects/-w" / path).unlink()
    assert pod.backup().deleted == 2
    left = objects(s3, bucket)
    assert "projects/-w/old.jsonl" in left
    assert {"projects/-w/memory/old.md", "projects/-w/new.jsonl"}.isdisjoint(left)
    assert any("the client's own clean-up" in record.getMessage() for record in caplog.records)


def test_a_flushed_transcript_that_is_deleted_does_not_come_back_as_its_tail(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    pod, other = mirroring(settings_for, bucket, tmp_path, 2)
    pod.start()
    fill(pod)
    pod.append(LOG, "one\n")
    pod.backup()
    pod.append(LOG, "two\n")
    pod.write("skills/1.md", "changed")
    with pod.open() as workspace:
        assert Flusher(workspace).flush().files == 2
    for path in (LOG, "skills/1.md"):
        (pod.home / path).unlink()
    assert pod.backup().deleted == 2
    assert {LOG, "skills/1.md"}.isdisjoint(objects(s3, bucket))
    other.start()
    assert {LOG, "skills/1.md"}.isdisjoint(other.tree())
    for _ in range(3):
        pod.backup()
    assert {LOG, "skills/1.md"}.isdisjoint(objects(s3, bucket))
    assert objects(s3, bucket, "user_data/ada/.claude-sidecar/journal/") == {}
    pod.append(LOG, "anew\n")
    pod.backup()
    assert objects(s3, bucket)[LOG] == b"anew\n"


def test_what_another_writer_has_in_the_journal_stays(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    pod, other = mirroring(settings_for, bucket, tmp_path, 2)
    pod.start()
    fill(pod)
    pod.append(LOG, "one\n")
    pod.backup()
    other.start()
    other.append(LOG, "theirs\n")
    with other.open() as workspace:
        assert Flusher(workspace).flush().files == 1
    (pod.home / LOG).unlink()
    assert pod.backup().deleted == 0
    assert objects(s3, bucket)[LOG] == b"one\n"


def test_nothing_is_deleted_before_everything_else_is_in_the_bucket(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = mirroring(settings_for, bucket, tmp_path)
    pod.start()
    fill(pod)
    pod.backup()
    (pod.home / "skills/1.md").rename(pod.home / "skills/renamed.md")
    assert pod.backup(stop=lambda: True).deleted == 0
    assert "skills/1.md" in objects(s3, bucket)
    assert pod.backup().deleted == 1
    assert {"skills/1.md", "skills/renamed.md"} & set(objects(s3, bucket)) == {"skills/renamed.md"}


def test_a_file_behind_a_link_is_not_gone(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = mirroring(settings_for, bucket, tmp_path)
    pod.start()
    fill(pod)
    for number in range(2):
        pod.write(f"agents/{number}.md", "x")
    pod.backup()
    (pod.home / "agents").rename(pod.home / "moved")
    os.symlink("moved", pod.home / "agents")
    assert pod.backup().deleted == 0
    assert "agents/0.md" in objects(s3, bucket)


def test_a_store_that_ignores_conditions_mirrors_no_deletion_and_says_so(
    rclone_server: Server, settings_for: MakeSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = client(rclone_server)
    outside.create_bucket(Bucket="mirror-ignored")
    (pod,) = mirroring(settings_for, "mirror-ignored", tmp_path, server=rclone_server)
    pod.start()
    fill(pod)
    pod.backup()
    (pod.home / "skills/1.md").unlink()
    for _ in range(2):
        assert pod.backup().deletions_refused == 1
    assert "skills/1.md" in objects(outside, "mirror-ignored")
    assert "ignores conditions" in caplog.text
    outside.close()


def test_a_store_that_ignores_them_on_delete_alone_is_found_out(
    bucket: str, settings_for: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, s3: Any
) -> None:
    from sidecar.area.connection import Connection

    store = Store.connect(settings_for(bucket))
    assert store.probe_conditional_delete("p/")
    send = Connection.send_signed

    def forgetful(self: Connection, *arguments: Any, headers: Any = None, **more: Any) -> Any:
        return send(self, *arguments, **more)  # as a server does that does not know the header

    monkeypatch.setattr(Connection, "send_signed", forgetful)
    assert not store.probe_conditional_delete("p/")
    assert _keys(s3, bucket) == []


def _keys(s3: Any, bucket: str) -> list[str]:
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


JOURNAL = "user_data/ada/.claude-sidecar/journal/"


def test_a_deletion_that_was_refused_and_then_done_by_hand_does_not_hold_the_journal_up(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = mirroring(settings_for, bucket, tmp_path)
    pod.start()
    fill(pod)
    pod.append(LOG, "one\n")
    pod.backup()
    pod.append(LOG, "two\n")
    pod.write("skills/5.md", "changed")
    with pod.open() as workspace:
        assert Flusher(workspace).flush().files == 2
    for path in (LOG, *(f"skills/{number}.md" for number in range(4))):
        (pod.home / path).unlink()
    assert pod.backup().deletions_refused == 5
    for path in (LOG, *(f"skills/{number}.md" for number in range(4))):
        s3.delete_object(Bucket=bucket, Key=f"user_data/ada/.claude/{path}")
    for _ in range(3):
        pod.backup()
    assert objects(s3, bucket, JOURNAL) == {}, "an entry of a forgotten path stays for ever"
    assert objects(s3, bucket)[LOG] == b"two\n", "what only the journal had is nowhere"


@pytest.mark.parametrize("is_back", [False, True])
def test_what_was_journalled_in_another_home_does_not_hold_the_journal_up(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, is_back: bool
) -> None:
    (pod,) = mirroring(settings_for, bucket, tmp_path)
    pod.start()
    fill(pod)
    pod.append(LOG, "one\n")
    pod.backup()
    pod.append(LOG, "two\n")
    pod.write("skills/5.md", "changed")
    with pod.open() as workspace:
        assert Flusher(workspace).flush().files == 2
    old = pod.home.rename(pod.home.parent / "old")
    (pod.home / "skills").mkdir(parents=True)
    for number in range(4):
        shutil.copy2(old / f"skills/{number}.md", pod.home / f"skills/{number}.md")
    pod.backup()
    if is_back:
        pod.merge()
        assert (pod.home / LOG).read_text() == "one\ntwo\n"
        assert (pod.home / "skills/5.md").read_text() == "changed"
    for _ in range(3):
        pod.backup()
    assert objects(s3, bucket, JOURNAL) == {}, "an entry of a forgotten path stays for ever"
    left = objects(s3, bucket)
    assert (left[LOG], left["skills/5.md"]) == (b"one\ntwo\n", b"changed")


@pytest.mark.parametrize("path", [LOG, MEMORY])
def test_what_is_made_anew_in_another_home_does_not_settle_what_was_journalled_in_the_old_one(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, path: str
) -> None:
    (pod,) = mirroring(settings_for, bucket, tmp_path)
    pod.start()
    fill(pod)
    pod.append(path, "one\n")
    pod.backup()
    pod.append(path, "two\n")
    with pod.open() as workspace:
        assert Flusher(workspace).flush().durable
        (pod.home / path).unlink()
        remember(workspace, "home", [0, 0])  # what the ledger knows, it learned in another home
        assert candidates(workspace, Scan()) == []
        pod.append(path, "anew\n")
        assert Flusher(workspace).flush().durable
    for _ in range(4):
        pod.backup()
    assert objects(s3, bucket, JOURNAL) == {}
    kept = b"".join([objects(s3, bucket)[path], *conflicts(s3, bucket).values()])
    assert b"two\n" in kept, "what was durable is nowhere"
    assert b"anew\n" in kept


def test_what_was_journalled_in_another_home_and_is_deleted_in_this_one_does_not_come_back(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = mirroring(settings_for, bucket, tmp_path)
    pod.start()
    fill(pod)
    pod.append(LOG, "one\n")
    pod.backup()
    pod.append(LOG, "two\n")
    with pod.open() as workspace:
        assert Flusher(workspace).flush().files == 1
    old = pod.home.rename(pod.home.parent / "old")
    (pod.home / "skills").mkdir(parents=True)
    for number in range(4):
        shutil.copy2(old / f"skills/{number}.md", pod.home / f"skills/{number}.md")
    pod.backup()
    pod.merge()
    (pod.home / LOG).unlink()
    assert pod.backup().deleted == 1
    for _ in range(3):
        pod.backup()
    assert LOG not in objects(s3, bucket)
    assert objects(s3, bucket, JOURNAL) == {}


def test_what_only_the_journal_holds_stays_known_until_the_bucket_is_back(tmp_path: Path) -> None:
    with world_in(tmp_path, deletions="mirror") as world:
        (a, _) = world.pods
        for path in PATHS[:3]:
            world.append(a, path) if path in LOGS else world.edit(a, path)
        world.edit(a, MEMORY)
        world.run(a)
        world.backup(a)
        world.append(a, LOGS[0])
        world.edit(a, MEMORY)
        world.flush(a)
        flushed = {path: a.content(path) for path in (LOGS[0], MEMORY)}
        for path in flushed:
            world.delete(a, path)
        assert a.session
        workspace = a.session.workspace
        remember(workspace, "home", [0, 0])  # what the ledger knows, it learned in another home
        world.trouble(a, [Fate.UNREACHABLE] * 50)
        world.backup(a)
        assert workspace.ledger.known_paths().issuperset(flushed), "what is in no object was forgotten"
        world.backup(a)
        assert not workspace.ledger.known_paths().intersection(flushed)
        assert {path: world.bucket.objects[world.keys.object(path)].body for path in flushed} == flushed
        for _ in range(3):
            world.backup(a)
        assert not world.truth.account.entries
        world.settle()
