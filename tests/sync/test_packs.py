"""Small files come back out of packs, in a few requests; what is wrong with a pack costs requests only."""

import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sidecar.area.keys import AreaKeys
from sidecar.area.manifest import FileEntry, PackEntry
from sidecar.area.manifest_format import Root
from sidecar.area.objects import ObjectInfo
from sidecar.area.packs import PackWriter
from sidecar.area.store import Store
from sidecar.errors import ObjectMissing
from sidecar.sync import picture, retirement
from sidecar.sync.arrivals import Wanted
from sidecar.sync.compare import RestoreStep
from sidecar.sync.erasure import erase
from sidecar.sync.packing import LOOSE_FILES
from sidecar.sync.prefetch import Prefetch
from sidecar.sync.unpacking import WORTH_FILES, by_pack
from tests import faults
from tests.fault_proxy import FaultProxy
from tests.sync.packed_area import (
    OWN,
    backed_up,
    edited_root,
    entries_of,
    gets,
    many,
    pack_keys,
)
from tests.sync.pods import T0, MakeSettings, Pod, conflicts, objects, pods


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


def test_a_plan_downloads_no_pack(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, second = backed_up(settings_for, bucket, tmp_path)
    opened: list[str] = []
    open_object = second.store.open

    def noted(key: str, **more: Any) -> Any:
        opened.append(key.removeprefix("user_data/ada/.claude-sidecar/"))
        return open_object(key, **more)

    monkeypatch.setattr(second.store, "open", noted)
    assert second.start(dry_run=True).files == 158
    assert len(opened) == 3, "more than the tombstone, the manifest and its part"
    assert not [key for key in opened if key.endswith(".tar.zst")]


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
    assert by_pack([Wanted(path, info, {path: entry}, RestoreStep.TAKE)] * WORTH_FILES) == {}
    rider = FileEntry('"e"', 10, T0, 0o600, "d", "p")
    there = ObjectInfo("a", 10, '"e"', 0.0)
    riders = [Wanted("plans/a.md", there, {"plans/a.md": rider}, RestoreStep.TAKE)] * WORTH_FILES
    assert by_pack(riders) == {"p": riders}
