"""The manifest: no pod takes back what another knows of an area, a change is little, and damage is mended."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from msgspec.structs import replace

from sidecar.area.download import Download
from sidecar.area.manifest import PackEntry
from sidecar.area.manifest_format import Root
from sidecar.errors import ConditionFailed
from sidecar.sync import picture
from sidecar.sync.checkpoint import checkpoint
from sidecar.sync.initial import initial_sync
from sidecar.sync.parts import Parts
from tests.servers import Server, client
from tests.sync.packed_area import (
    MANIFEST,
    OWN,
    backed_up,
    edited_root,
    entries_of,
    etag_of,
    gets,
    many,
    pack_keys,
)
from tests.sync.pods import T0, MakeSettings, Pod, objects, pods


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
