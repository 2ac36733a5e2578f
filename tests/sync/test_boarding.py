"""A pack is written anew out of the home and out of itself: no file that left the home keeps dead bytes."""

from pathlib import Path
from typing import Any

import pytest

from sidecar.area.manifest import Manifest
from sidecar.sync import picture, retirement
from tests import faults
from tests.fault_proxy import FaultProxy
from tests.sync.packed_area import OWN, entries_of, etag_of, gets, many, pack_keys, unpacked
from tests.sync.pods import T0, MakeSettings, Pod, objects, pods

LEFT = "skills/s/149.md"
SECRET = b"what somebody wants to be gone " * 40


def packed(make: MakeSettings, bucket: str, place: Path) -> tuple[Pod, Pod, str]:
    """150 files in one pack, whose name is the third; one of them is gone from the first pod's home since."""
    first, second = pods(make, bucket, place, 2)
    first.start()
    many(first)
    first.write(LEFT, SECRET, mode=0o640, mtime_ns=T0)
    first.backup()
    (first.home / LEFT).unlink()
    return first, second, entries_of(first)[LEFT].pack


def change_most(pod: Pod, turn: str = "") -> None:
    """A hundred of them: their pack is dead by half, and they are enough for a new one."""
    for n in range(40, 140):
        pod.write(f"skills/s/{n}.md", f"skill {n} of now {turn} " * (n + 1), mtime_ns=T0 + 1)
    assert pod.backup().durable


def manifest_of(pod: Pod) -> Manifest:
    with pod.open() as workspace:
        return picture.read_if_any(workspace)


def test_a_file_that_left_the_home_is_carried_over_into_the_new_pack(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    first, second, old = packed(settings_for, bucket, tmp_path)
    change_most(first)
    manifest = manifest_of(first)
    assert old not in manifest.packs
    assert manifest.files[LEFT].pack in manifest.packs
    result = second.start()
    assert (result.files, result.packed) == (150, 150)
    assert gets(second) < 12
    assert second.read(LEFT) == SECRET
    assert (second.home / LEFT).stat().st_mode & 0o777 == 0o640
    (second.home / LEFT).unlink()
    for path in first.home.rglob("*.md"):
        assert second.read(str(path.relative_to(first.home))) == path.read_bytes()


def test_what_was_removed_from_the_bucket_is_in_no_pack_any_more(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = packed(settings_for, bucket, tmp_path)
    s3.delete_object(Bucket=bucket, Key=f"user_data/ada/.claude/{LEFT}")
    assert any(SECRET in content for content in unpacked(s3, bucket))
    change_most(first)
    monkeypatch.setattr(retirement, "KEPT_SECONDS", 0)
    first.write("plans/one.md", "one")
    first.backup()
    assert unpacked(s3, bucket)
    assert not any(SECRET in content for content in unpacked(s3, bucket))
    second.start()
    assert not (second.home / LEFT).exists()


def test_a_version_that_was_replaced_in_the_bucket_is_not_carried_over(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second, _ = packed(settings_for, bucket, tmp_path)
    s3.put_object(Bucket=bucket, Key=f"user_data/ada/.claude/{LEFT}", Body=b"put by hand")
    change_most(first)
    manifest = manifest_of(first)
    assert manifest.files[LEFT].etag != etag_of(s3, bucket, LEFT)
    assert manifest.files[LEFT].pack == ""
    assert len(manifest.packs) == 1
    second.start()
    assert second.read(LEFT) == b"put by hand"


@pytest.mark.parametrize("damage", ["missing", "cut", "no pack", "denied"])
def test_what_cannot_be_had_from_the_old_pack_travels_alone_and_nothing_is_lost(
    damage: str,
    bucket: str,
    settings_for: MakeSettings,
    tmp_path: Path,
    s3: Any,
    fault_proxy: FaultProxy,
) -> None:
    first, second, old = packed(settings_for, bucket, tmp_path)
    key = OWN + "packs/" + old
    body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    if damage == "missing":
        s3.delete_object(Bucket=bucket, Key=key)
    elif damage == "denied":
        fault_proxy.on("GET", faults.answer(403, "AccessDenied"), part=old, times=None)
        paths = {"home": first.settings.home, "state_dir": first.settings.state_dir}
        first = Pod(settings_for(bucket, **paths, endpoint=fault_proxy.endpoint))
    else:
        bodies = {"cut": body[: len(body) // 2], "no pack": b"<html/>"}
        s3.put_object(Bucket=bucket, Key=key, Body=bodies[damage])
    change_most(first)
    manifest = manifest_of(first)
    assert old not in manifest.packs
    assert manifest.files[LEFT].pack == ""
    assert manifest.files["skills/s/3.md"].pack in manifest.packs, "the home has it"
    result = second.start()
    assert (result.files, result.packed, result.not_restored) == (150, 149, ())
    assert second.read(LEFT) == SECRET


def test_a_listing_and_the_old_pack_are_paid_for_only_where_a_file_is_not_in_the_home(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    first, _, _ = packed(settings_for, bucket, tmp_path)
    spent = []
    for put_back in (True, False):
        if put_back:
            first.write(LEFT, SECRET, mode=0o640, mtime_ns=T0)
            first.backup()
        else:
            (first.home / LEFT).unlink()
        before = first.store.requests
        change_most(first, str(put_back))
        after = first.store.requests
        spent.append({name: after[name].requests - before[name].requests for name in ("list", "get")})
    assert spent[1] == {"list": spent[0]["list"] + 1, "get": spent[0]["get"] + 1}


def test_dead_bytes_do_not_pile_up_where_each_pack_has_a_file_that_left_the_home(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second, _ = packed(settings_for, bucket, tmp_path)
    for turn in range(6):
        (first.home / f"skills/s/{turn}.md").unlink()
        (first.home / f"skills/s/{140 + turn}.md").unlink()
        change_most(first, str(turn))
    manifest = manifest_of(first)
    live = sum(entry.size for entry in manifest.files.values() if entry.pack)
    assert len(manifest.packs) <= 2
    assert sum(pack.content for pack in manifest.packs.values()) < 2 * live
    result = second.start()
    assert (result.files, result.packed) == (150, 150)
    assert objects(s3, bucket) == {
        str(path.relative_to(second.home)): path.read_bytes() for path in second.home.rglob("*.md")
    }


def test_a_backup_that_is_stopped_in_the_middle_leaves_every_file_where_it_rode(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second, old = packed(settings_for, bucket, tmp_path)
    for n in range(40, 140):
        first.write(f"skills/s/{n}.md", f"skill {n} of now " * (n + 1), mtime_ns=T0 + 1)
    assert first.backup(pack=False).durable
    first.write("plans/one.md", "one")
    asked = iter(range(1000))
    assert first.backup(stop=lambda: next(asked) > 120).durable
    assert manifest_of(first).files[LEFT].pack == old
    assert pack_keys(s3, bucket) == [OWN + "packs/" + old]
    second.start()
    assert second.read(LEFT) == SECRET
