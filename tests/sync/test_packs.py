"""Small files come back out of packs, in a few requests; what is wrong with a pack costs requests only."""

import hashlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from msgspec.structs import replace

from sidecar.area.download import Download
from sidecar.area.keys import AreaKeys
from sidecar.area.manifest import FileEntry, PackEntry
from sidecar.area.manifest_format import Root, decoded_root, encoded_root
from sidecar.area.objects import ObjectInfo
from sidecar.area.packs import PackWriter
from sidecar.area.store import Store
from sidecar.errors import ConditionFailed, ObjectMissing
from sidecar.sync import picture, retirement
from sidecar.sync.arrivals import Wanted
from sidecar.sync.checkpoint import checkpoint
from sidecar.sync.compare import RestoreStep
from sidecar.sync.erasure import erase
from sidecar.sync.initial import initial_sync
from sidecar.sync.packing import LOOSE_FILES
from sidecar.sync.parts import Parts
from sidecar.sync.prefetch import Prefetch
from sidecar.sync.unpacking import WORTH_FILES, by_pack
from tests import faults
from tests.fault_proxy import FaultProxy
from tests.servers import Server, client
from tests.sync.pods import T0, MakeSettings, Pod, conflicts, objects, pods
from tests.sync.test_round_trip import fill

OWN = "user_data/ada/.claude-sidecar/"
MANIFEST = OWN + "manifest.json.zst"


def many(pod: Pod, count: int = 150, stem: str = "skills/s") -> None:
    for n in range(count):
        # Old enough that the next checkpoint needs not look again whether they changed within a clock tick.
        pod.write(f"{stem}/{n}.md", f"skill {n} " * (n + 1), mode=0o640, mtime_ns=T0)


def backed_up(make: MakeSettings, bucket: str, place: Path) -> tuple[Pod, Pod]:
    first, second = pods(make, bucket, place, 2)
    first.start()
    fill(first)
    many(first)
    first.append("projects/-w/torn.jsonl", b'{"n": 1}\n')
    assert first.backup().durable
    return first, second


def pack_keys(s3: Any, bucket: str) -> list[str]:
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=OWN + "packs/").get("Contents", [])
    return [entry["Key"] for entry in listed if entry["Key"].endswith(".tar.zst")]


def gets(pod: Pod) -> int:
    return pod.store.requests["get"].requests


def edited_root(s3: Any, bucket: str, edit: Callable[[Root], Root]) -> None:
    body = s3.get_object(Bucket=bucket, Key=MANIFEST)["Body"].read()
    s3.put_object(Bucket=bucket, Key=MANIFEST, Body=encoded_root(edit(decoded_root(body, "k"))))


def test_a_restore_of_many_small_files_is_a_few_requests(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = backed_up(settings_for, bucket, tmp_path)
    result = second.start()
    assert result.files == 158
    assert second.tree() == first.tree()
    assert len(pack_keys(s3, bucket)) == 1
    assert gets(second) < 10, "manifest, its part, the pack, and what is checked before it is restored"
    assert second.backup().files == 0, "what came out of a pack is known to be equal"
    assert first.backup().files == 0


def test_only_the_version_that_the_listing_shows_comes_out_of_a_pack(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = backed_up(settings_for, bucket, tmp_path)
    s3.put_object(Bucket=bucket, Key="user_data/ada/.claude/skills/s/3.md", Body=b"put by hand")
    s3.delete_object(Bucket=bucket, Key="user_data/ada/.claude/skills/s/4.md")
    second.start()
    assert second.read("skills/s/3.md") == b"put by hand"
    assert not (second.home / "skills/s/4.md").exists()
    assert second.read("skills/s/5.md") == first.read("skills/s/5.md")


@pytest.mark.parametrize("damage", ["missing", "cut", "other", "no pack"])
def test_a_pack_that_is_damaged_or_gone_costs_requests_only(
    damage: str, bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = backed_up(settings_for, bucket, tmp_path)
    (key,) = pack_keys(s3, bucket)
    body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    other = body[:500] + os.urandom(20) + body[520:]
    bodies = {"cut": body[: len(body) // 2], "other": other, "no pack": b"<html/>"}
    if damage == "missing":
        s3.delete_object(Bucket=bucket, Key=key)
    else:
        s3.put_object(Bucket=bucket, Key=key, Body=bodies[damage])
    result = second.start()
    assert (result.action, result.not_restored) == ("restored", ())
    assert second.tree() == first.tree()


def test_a_manifest_that_lies_about_a_pack_costs_requests_only(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = backed_up(settings_for, bucket, tmp_path)
    offsets = {"skills/s/1.md": 0, "skills/s/2.md": 10**15, "skills/s/3.md": -5, "skills/s/4.md": 1024}

    with first.open() as workspace:
        whole = picture.read_if_any(workspace)

    def lie(root: Root) -> Root:
        for path, offset in offsets.items():
            root.changes.files[path] = whole.files[path]._replace(offset=offset)
        return root

    edited_root(s3, bucket, lie)
    second.start()
    assert second.tree() == first.tree()


def test_what_the_agent_wrote_meanwhile_is_met_and_not_replaced(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = backed_up(settings_for, bucket, tmp_path)
    second.write("skills/s/7.md", "the agent's own")
    second.write("skills/s/8.md", first.read("skills/s/8.md"))
    second.start()
    assert second.read("skills/s/7.md") == first.read("skills/s/7.md"), "without a base the bucket's stays"
    assert list(conflicts(s3, bucket).values()) == [b"the agent's own"]


def test_a_transcript_from_elsewhere_without_its_last_newline_gets_one_out_of_a_pack_as_well(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second, third = pods(settings_for, bucket, tmp_path, 3)
    s3.put_object(Bucket=bucket, Key="user_data/ada/.claude/projects/-w/t.jsonl", Body=b'{"n": 1}')
    for n in range(LOOSE_FILES):
        s3.put_object(Bucket=bucket, Key=f"user_data/ada/.claude/plans/{n}.md", Body=b"%d" % n)
    for pod in (first, second, third):
        pod.start()
        pod.backup()
        assert pod.read("projects/-w/t.jsonl") == b'{"n": 1}\n'
    assert objects(s3, bucket)["projects/-w/t.jsonl"] in (b'{"n": 1}', b'{"n": 1}\n')


def test_a_change_of_three_files_among_five_thousand_sends_little(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    first.start()
    for n in range(5000):
        first.write(f"todos/{n % 50}/{n}.json", f'{{"todo": {n}}}')
    first.backup()
    before = first.store.requests
    sent = sum(flow.bytes_sent for flow in before.values())
    received = sum(flow.bytes_received for flow in before.values())
    for n in range(3):
        first.write(f"todos/1/{n * 50 + 1}.json", f'{{"todo": {n}, "done": true}}')
    assert first.backup().files == 3
    after = first.store.requests
    assert sum(flow.bytes_sent for flow in after.values()) - sent < 8 * 1024
    assert sum(flow.bytes_received for flow in after.values()) - received < 8 * 1024
    second.start()
    assert second.tree() == first.tree()
    assert gets(second) < 12


def test_old_packs_go_an_hour_after_the_last_manifest_named_them(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = backed_up(settings_for, bucket, tmp_path)
    old = pack_keys(s3, bucket)
    many(first, stem="skills/t")
    first.backup()
    assert len(pack_keys(s3, bucket)) == 2, "the first one was taken in, and stays for who reads it now"
    monkeypatch.setattr(retirement, "KEPT_SECONDS", 0)
    first.write("plans/one.md", "more")
    first.backup()
    left = pack_keys(s3, bucket)
    assert len(left) == 1
    assert left != old
    second.start()
    assert second.tree() == first.tree()


def test_what_a_crash_left_unnamed_is_removed_after_a_day(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = pods(settings_for, bucket, tmp_path, 2)
    orphan = OWN + "packs/" + "0" * 64 + ".tar.zst"
    s3.put_object(Bucket=bucket, Key=orphan, Body=b"left by a crash")
    first.start()
    many(first)
    first.backup()
    assert orphan in pack_keys(s3, bucket), "it may be another pod's, who names it in a moment"
    monkeypatch.setattr(retirement, "_ORPHAN_SECONDS", -60)
    many(first, stem="skills/more")
    first.backup()
    assert orphan not in pack_keys(s3, bucket)


def test_two_pods_commit_into_one_manifest_and_neither_takes_the_other_back(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = backed_up(settings_for, bucket, tmp_path)
    second.start()
    first.write("skills/s/0.md", "changed by the first")
    first.backup()
    second.write("plans/second.md", "of the second")  # it knows an older version of the other file
    second.backup()
    with second.open() as workspace:
        entries = picture.read_if_any(workspace).files
    head = s3.head_object(Bucket=bucket, Key="user_data/ada/.claude/skills/s/0.md")
    assert entries["skills/s/0.md"].etag == head["ETag"]
    assert "plans/second.md" in entries


def test_a_missing_part_of_the_manifest_is_replaced_by_the_next_checkpoint(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second, third = pods(settings_for, bucket, tmp_path, 3)
    first.start()
    many(first, 400)
    first.backup()
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=OWN + "packs/")["Contents"]
    (part,) = [entry["Key"] for entry in listed if entry["Key"].endswith(".json.zst")]
    s3.delete_object(Bucket=bucket, Key=part)
    second.start()
    assert second.tree().keys() == first.tree().keys()
    second.write("plans/new.md", "new")
    second.backup()
    third.start()
    assert third.tree().keys() == second.tree().keys()
    assert gets(third) < 12


def test_a_policy_that_hides_the_packs_costs_requests_only(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, fault_proxy: FaultProxy
) -> None:
    first, _ = backed_up(settings_for, bucket, tmp_path)
    denied = faults.answer(403, "AccessDenied")
    fault_proxy.on("GET", denied, part=".tar.zst", times=None)
    settings = settings_for(
        bucket,
        home=str(tmp_path / "pod-3" / ".claude"),
        state_dir=tmp_path / "state-3",
        endpoint=fault_proxy.endpoint,
    )
    third = Pod(settings)
    result = third.start()
    assert (result.action, result.not_restored) == ("restored", ())
    assert third.tree() == first.tree()
    assert fault_proxy.seen("GET", ".tar.zst")


def test_a_plan_downloads_no_pack(bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any) -> None:
    _, second = backed_up(settings_for, bucket, tmp_path)
    assert second.start(dry_run=True).files == 158
    assert gets(second) <= 3, "the tombstone, the manifest and its part"


def test_the_last_checkpoint_of_a_pod_packs_nothing_and_one_that_is_stopped_names_no_half_pack(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    first.start()
    many(first)
    assert first.backup(pack=False).durable
    assert pack_keys(s3, bucket) == []
    first.write("plans/one.md", "one")
    asked = iter(range(1000))
    assert first.backup(stop=lambda: next(asked) > 20).durable
    assert pack_keys(s3, bucket) == []
    first.write("plans/one.md", "two")
    first.backup()
    assert len(pack_keys(s3, bucket)) == 1
    second.start()
    assert second.tree() == first.tree()


def test_a_pack_that_is_larger_than_the_manifest_says_is_not_held_in_memory(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = backed_up(settings_for, bucket, tmp_path)
    edited_root(s3, bucket, lambda root: replace(root, packs={n: PackEntry(1, 1) for n in root.packs}))
    assert second.start().packed == 0
    assert second.tree() == first.tree()


def test_however_many_packs_a_manifest_names_a_few_come_at_once(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, second = backed_up(settings_for, bucket, tmp_path)
    names = [f"{n:064}.tar.zst" for n in range(200)]
    edited_root(s3, bucket, lambda root: replace(root, packs=dict.fromkeys(names, PackEntry(1, 1))))
    guard, counts = threading.Lock(), [0, 0]

    def opened(store: Store, key: str, **options: Any) -> Any:
        if not key.endswith(".tar.zst"):
            return really(store, key, **options)
        with guard:
            counts[0] += 1
            counts[1] = max(counts)
        time.sleep(0.005)
        with guard:
            counts[0] -= 1
        raise ObjectMissing(key)

    really = Store.open
    monkeypatch.setattr(Store, "open", opened)
    with second.open(live=False) as workspace:
        prefetch = Prefetch(workspace)
        assert len(prefetch.manifest().packs) == 200
        for name in names:
            with pytest.raises(ObjectMissing):
                list(prefetch.chunks(name))
    assert 0 < counts[1] <= 8


def test_a_manifest_that_breaks_off_and_is_another_one_then_is_read_again(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = backed_up(settings_for, bucket, tmp_path)
    really, changed = Download.read, iter([True])

    def read(download: Download) -> bytes:
        if download.info.key == MANIFEST and next(changed, False):
            raise ConditionFailed("it broke off, and it is another version now")
        return really(download)

    monkeypatch.setattr(Download, "read", read)
    result = second.start()
    assert (result.action, result.packed > 100) == ("restored", True)
    assert second.tree() == first.tree()


def entries_of(pod: Pod) -> dict[str, FileEntry]:
    with pod.open() as workspace:
        return picture.read_if_any(workspace).files


def etag_of(s3: Any, bucket: str, path: str) -> str:
    return str(s3.head_object(Bucket=bucket, Key=f"user_data/ada/.claude/{path}")["ETag"])


def test_what_was_uploaded_before_a_kill_is_in_the_manifest_after_the_next_checkpoint(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = backed_up(settings_for, bucket, tmp_path)
    first.write("skills/s/3.md", "changed", mtime_ns=T0)
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(picture, "_put", Mock(side_effect=KeyboardInterrupt))
        first.backup()
    first.write("skills/s/4.md", "changed too")
    first.backup()
    for path in ("skills/s/3.md", "skills/s/4.md"):
        assert entries_of(first)[path].etag == etag_of(s3, bucket, path)


def test_a_pod_that_only_restored_a_file_does_not_take_back_what_another_says_of_it(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = backed_up(settings_for, bucket, tmp_path)
    (second.home / "skills/s").mkdir(parents=True)
    second.write("skills/s/6.md", first.read("skills/s/6.md"))
    with second.open(live=False) as workspace:
        initial_sync(workspace)
        paths = ("skills/s/3.md", "skills/s/6.md", "projects/-w/torn.jsonl")
        for path in paths:
            first.append(path, b'{"changed": 1}\n')
        first.backup()
        second.write("plans/second.md", "of the second")
        assert checkpoint(workspace).files == 1
    for path in paths:
        assert entries_of(first)[path].etag == etag_of(s3, bucket, path), path


def test_a_pod_that_only_touched_a_file_does_not_take_back_what_another_says_of_it(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = backed_up(settings_for, bucket, tmp_path)
    second.start()
    first.write("skills/s/3.md", "changed")
    first.backup()
    os.utime(second.home / "skills/s/3.md")
    os.utime(second.home / "skills/s/5.md", ns=(T0 + 5, T0 + 5))
    second.backup()
    assert entries_of(first)["skills/s/3.md"].etag == etag_of(s3, bucket, "skills/s/3.md")
    assert entries_of(first)["skills/s/5.md"].mtime_ns == T0 + 5


def test_what_a_restore_finds_stale_in_the_manifest_is_right_after_the_next_checkpoint(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    _, second = backed_up(settings_for, bucket, tmp_path)
    s3.put_object(Bucket=bucket, Key="user_data/ada/.claude/skills/s/3.md", Body=b"put by hand")
    second.start()
    second.write("plans/second.md", "of the second")
    second.backup()
    assert entries_of(second)["skills/s/3.md"].etag == etag_of(s3, bucket, "skills/s/3.md")


@pytest.mark.parametrize("damage", ["missing", "cut", "swapped", "lies"])
def test_a_pack_that_a_restore_finds_bad_is_written_anew_by_the_next_checkpoint(
    damage: str, bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second, third = pods(settings_for, bucket, tmp_path, 3)
    first.start()
    many(first)
    first.backup()
    (key,) = pack_keys(s3, bucket)
    body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    if damage == "missing":
        s3.delete_object(Bucket=bucket, Key=key)
    elif damage == "lies":
        entry = entries_of(first)["skills/s/3.md"]
        edited_root(s3, bucket, lambda root: lying(root, "skills/s/3.md", entry._replace(offset=0)))
    else:
        bodies = {"cut": body[:-100], "swapped": PackWriter().finished()}
        s3.put_object(Bucket=bucket, Key=key, Body=bodies[damage])
    assert second.start().not_restored == ()
    second.write("plans/new.md", "new")
    second.backup()
    assert third.start().packed >= 150
    assert third.tree() == second.tree()


def lying(root: Root, path: str, entry: FileEntry) -> Root:
    root.changes.files[path] = entry
    return root


def test_an_archived_manifest_and_pack_are_replaced_by_the_next_checkpoint(
    moto_server: Server, settings_for: MakeSettings, tmp_path: Path
) -> None:
    bucket = f"archived-{os.urandom(4).hex()}"
    with closing(client(moto_server)) as outside:
        outside.create_bucket(Bucket=bucket)
        first, second, third = pods(settings_for, bucket, tmp_path, 3, server=moto_server)
        first.start()
        many(first)
        first.backup()
        for key in (MANIFEST, *pack_keys(outside, bucket)):
            body = outside.get_object(Bucket=bucket, Key=key)["Body"].read()
            outside.put_object(Bucket=bucket, Key=key, Body=body, StorageClass="GLACIER")
        second.start()
        second.write("plans/new.md", "new")
        second.backup()
        assert third.start().packed >= 150
        assert third.tree() == second.tree()


def test_nothing_of_a_forgotten_user_is_packed(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, _ = pods(settings_for, bucket, tmp_path, 2)
    first.start()
    many(first)
    first.backup(pack=False)
    many(first, 10, stem="skills/t")

    asked = iter(range(1000))

    def forgotten() -> bool:
        if next(asked) == 50:
            erase(first.store, AreaKeys("user_data", "ada"), now=datetime.now(UTC))
        return False

    assert first.backup(stop=forgotten).kind == "forgotten"
    assert list(objects(s3, bucket, "user_data/ada/")) == [".claude-sidecar/forgotten"]


def test_settings_and_the_newest_sessions_come_before_the_packs_when_a_restore_is_cut_off(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2, concurrency=1)
    first.start()
    many(first)
    first.write("settings.json", '{"a": 1}')
    first.backup()
    asked = iter(range(1000))
    result = second.start(stop=lambda: next(asked) >= 1)
    assert (result.action, result.packed) == ("failed", 0)
    assert set(second.tree()) == {"settings.json"}
    result = second.start()
    assert (result.action, result.packed) == ("restored", 150)
    assert second.tree() == first.tree()


@pytest.mark.parametrize(
    ("path", "size"), [(".claude.json", 10), ("plans/a.md", 9), ("plans/b.bin", 1024 * 1024 + 1)]
)
def test_only_what_may_ride_comes_out_of_a_pack_whatever_the_manifest_says(path: str, size: int) -> None:
    """Settings are looked at before they are put in place: half a file would stop the client."""
    entry = FileEntry('"e"', size, T0, 0o600, "d", "p")
    info = ObjectInfo(path, 10 if size < 100 else size, '"e"', 0.0)
    assert by_pack([Wanted(path, info, entry, RestoreStep.TAKE)] * WORTH_FILES) == {}
    rider = FileEntry('"e"', 10, T0, 0o600, "d", "p")
    riders = [Wanted("plans/a.md", ObjectInfo("a", 10, '"e"', 0.0), rider, RestoreStep.TAKE)] * WORTH_FILES
    assert by_pack(riders) == {"p": riders}


def test_pods_that_commit_at_the_same_time_leave_a_manifest_that_says_what_the_objects_are(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    *writers, last = pods(settings_for, bucket, tmp_path, 4)
    writers[0].start()
    many(writers[0], 70, stem="skills/shared")
    writers[0].backup()

    def live(number: int, pod: Pod) -> None:
        pod.start()
        for turn in range(3):
            many(pod, 70, stem=f"skills/{number}-{turn}")
            pod.write(f"skills/shared/{number}.md", f"{number} in turn {turn}")
            pod.append("projects/-w/shared.jsonl", f'{{"pod": {number}, "turn": {turn}}}\n')
            assert pod.backup().durable

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(live, range(3), writers))
    for _ in range(2):  # what was lost to a faster pod at the end
        for pod in writers:
            pod.write("plans/touch.md", os.urandom(8))
            pod.backup()
    result = last.start()
    assert result.not_restored == ()
    assert result.packed > 600
    assert gets(last) < 60
    # Who wrote last need not have committed last: a restore has met that, and the next checkpoint mends it.
    last.write("plans/last.md", "last")
    last.backup()
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="user_data/ada/.claude/")["Contents"]
    truth = {entry["Key"].split("/.claude/")[1]: entry["ETag"] for entry in listed}
    assert {path: entry.etag for path, entry in entries_of(last).items()} == truth


def test_only_parts_are_removed_from_where_parts_are_kept(tmp_path: Path) -> None:
    part = tmp_path / ("0" * 64 + ".json.zst")
    for file in (tmp_path / "a stranger's", part):
        file.write_bytes(b"")
    Parts(Mock(), "", tmp_path).forget_others(())
    assert [file.name for file in tmp_path.iterdir()] == ["a stranger's"]


def test_many_packs_do_not_make_each_small_change_a_part(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, _ = backed_up(settings_for, bucket, tmp_path)
    listing = entries_of(first)
    names = [hashlib.sha256(b"%d" % n).hexdigest() + ".tar.zst" for n in range(300)]

    def crowded(root: Root) -> Root:
        for n, name in enumerate(names):
            root.changes.files[f"skills/x/{n}.md"] = listing["skills/s/1.md"]._replace(pack=name)
        return replace(root, packs={**root.packs, **dict.fromkeys(names, PackEntry(1, 1))})

    edited_root(s3, bucket, crowded)
    first.write("plans/1.md", "one")
    first.backup()
    parts = len(objects(s3, bucket, OWN + "packs/"))
    first.write("plans/2.md", "two")
    first.backup()
    assert len(objects(s3, bucket, OWN + "packs/")) == parts
