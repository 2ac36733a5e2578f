"""What is wrong with a manifest or a pack is named with its reason, and left as it is."""

import hashlib
import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sidecar.area import manifest_format
from sidecar.area.keys import AreaKeys
from sidecar.area.manifest import FileEntry, PackEntry
from sidecar.area.manifest_format import Root, encoded_root, name_of
from sidecar.area.packs import MAX_MEMBER_BYTES, SUFFIX, PackWriter
from sidecar.home.beneath import Home
from sidecar.home.rules import Rules
from sidecar.sync import pack_inspection, retirement
from sidecar.sync.findings import Finding, Kind
from sidecar.sync.inspection import Inspection, ManifestSeen, inspect
from sidecar.sync.pack_inspection import read_content
from sidecar.sync.views import Sides
from tests import faults
from tests.fault_proxy import FaultProxy
from tests.servers import Server, client
from tests.sync.packed_area import MANIFEST, OWN, edited_root, entries_of, many, pack_keys
from tests.sync.pods import MakeSettings, Pod, objects, pods

AREA = "user_data/ada/"


def looked(pod: Pod, place: Path, **options: Any) -> Inspection:
    with Home.open(pod.home) as home:
        rules = Rules(include=pod.settings.include, exclude=pod.settings.exclude)
        sides = Sides(pod.settings, pod.store, AreaKeys("user_data", "ada"), home, rules)
        return inspect(sides, spool_directory=place, **options)


def differences(inspection: Inspection) -> list[Finding]:
    return [finding for finding in inspection.findings if not finding.by_design]


def kinds(inspection: Inspection) -> set[tuple[str, str]]:
    return {(found.path, found.kind.value) for found in differences(inspection)}


@pytest.fixture
def pod(bucket: str, settings_for: MakeSettings, tmp_path: Path) -> Pod:
    """A pod whose 150 small files ride in one pack."""
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    many(pod)
    pod.backup()
    return pod


@pytest.fixture
def unchanged(bucket: str, s3: Any) -> Iterator[Callable[[], None]]:
    """``unchanged()`` notes what the area holds; in the end it holds the same."""
    noted: list[dict[str, bytes]] = []
    yield lambda: noted.append(objects(s3, bucket, AREA))
    assert noted[-1] == objects(s3, bucket, AREA)


def the_pack(s3: Any, bucket: str) -> tuple[str, bytes]:
    """The one pack: what findings call it, and its bytes."""
    (key,) = pack_keys(s3, bucket)
    return key[len(AREA) :], s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def lie(s3: Any, bucket: str, path: str, entry: FileEntry) -> None:
    def edit(root: Root) -> Root:
        root.changes.files[path] = entry
        return root

    edited_root(s3, bucket, edit)


def test_a_healthy_area_says_so(
    bucket: str, pod: Pod, tmp_path: Path, s3: Any, unchanged: Callable[[], None]
) -> None:
    unchanged()
    inspection = looked(pod, tmp_path)
    assert inspection.findings == ()
    assert inspection.manifest == ManifestSeen(1, 150, 0, 2)
    assert (inspection.packs, inspection.packs_read) == (1, 1)
    _, body = the_pack(s3, bucket)
    content = sum(len(data) for _, _, _, data in pod.tree().values())
    assert inspection.bytes == 2 * content + len(body), "the home, the objects and the pack"


@pytest.mark.parametrize("damage", ["cut", "longer", "other", "no pack"])
def test_a_damaged_pack_is_named_with_what_that_costs(
    damage: str, bucket: str, pod: Pod, tmp_path: Path, s3: Any, unchanged: Callable[[], None]
) -> None:
    name, body = the_pack(s3, bucket)
    bodies = {
        "cut": (body[: len(body) // 2], range(1, 151)),
        "longer": (body + b"more", [0]),
        "other": (body[:500] + os.urandom(20) + body[520:], range(1, 151)),
        "no pack": (b"<html/>", [150]),
    }
    data, lost = bodies[damage]
    s3.put_object(Bucket=bucket, Key=AREA + name, Body=data)
    unchanged()
    inspection = looked(pod, tmp_path)
    (found,) = differences(inspection)
    assert (found.path, found.kind) == (name, Kind.PACK_DAMAGED)
    count = int(found.reason.split(" of its 150 files")[0].split()[-1])
    assert count in lost, found.reason


def test_a_missing_pack_is_named(
    bucket: str, pod: Pod, tmp_path: Path, s3: Any, unchanged: Callable[[], None]
) -> None:
    name, _ = the_pack(s3, bucket)
    s3.delete_object(Bucket=bucket, Key=AREA + name)
    unchanged()
    inspection = looked(pod, tmp_path, fraction=0.0001)
    assert kinds(inspection) == {(name, "pack_missing")}, "presence is looked at whatever the sample"
    assert "150 of its 150 files come from their objects" in differences(inspection)[0].reason


def test_an_archived_pack_is_named(moto_server: Server, settings_for: MakeSettings, tmp_path: Path) -> None:
    bucket = f"archived-{os.urandom(4).hex()}"
    with closing(client(moto_server)) as outside:
        outside.create_bucket(Bucket=bucket)
        (pod,) = pods(settings_for, bucket, tmp_path, 1, server=moto_server)
        pod.start()
        many(pod)
        pod.backup()
        name, body = the_pack(outside, bucket)
        outside.put_object(Bucket=bucket, Key=AREA + name, Body=body, StorageClass="GLACIER")
        (found,) = differences(looked(pod, tmp_path))
    assert (found.path, found.kind) == (name, Kind.PACK_DAMAGED)
    assert "archived" in found.reason


def test_a_manifest_that_says_other_bytes_of_an_object_is_found_out_on_both_sides(
    bucket: str, pod: Pod, tmp_path: Path, s3: Any, unchanged: Callable[[], None]
) -> None:
    """The right ETag and another digest: neither the object nor the pack has such bytes."""
    lie(s3, bucket, "skills/s/3.md", entries_of(pod)["skills/s/3.md"]._replace(digest="0" * 64))
    unchanged()
    found = differences(looked(pod, tmp_path))
    assert {(one.path, one.kind) for one in found} == {("skills/s/3.md", Kind.MANIFEST_LIES)}
    assert len(found) == 2


def test_bytes_that_are_forged_in_manifest_and_pack_together_are_found_out_by_the_object(
    bucket: str, pod: Pod, tmp_path: Path, s3: Any, unchanged: Callable[[], None]
) -> None:
    """A restore cannot see this. So also what no home has any more is read."""
    writer, forged = PackWriter(), b"forged".ljust(len(pod.read("skills/s/3.md")))
    offset = writer.add("skills/s/3.md", forged, 0, 0o600)
    pack = writer.finished()
    name = name_of(pack, SUFFIX)
    s3.put_object(Bucket=bucket, Key=OWN + "packs/" + name, Body=pack)
    entry = entries_of(pod)["skills/s/3.md"]
    digest = hashlib.sha256(forged).hexdigest()
    lie(s3, bucket, "skills/s/3.md", entry._replace(digest=digest, pack=name, offset=offset))
    edited_root(
        s3,
        bucket,
        lambda root: replace(root, packs={**root.packs, name: PackEntry(len(pack), len(forged))}),
    )
    unchanged()
    assert kinds(looked(pod, tmp_path)) == {("skills/s/3.md", "manifest_lies")}
    (pod.home / "skills/s/3.md").unlink()
    assert kinds(looked(pod, tmp_path)) == {
        ("skills/s/3.md", "deleted_locally"),
        ("skills/s/3.md", "manifest_lies"),
    }


@pytest.mark.parametrize(
    "fields", [{"offset": 0}, {"offset": -5}, {"offset": 10**15}, {"size": 0}, {"size": 2**40}]
)
def test_a_place_in_a_pack_that_is_not_there_is_a_lie_about_that_file_alone(
    fields: dict[str, int],
    bucket: str,
    pod: Pod,
    tmp_path: Path,
    s3: Any,
    unchanged: Callable[[], None],
) -> None:
    lie(s3, bucket, "skills/s/3.md", entries_of(pod)["skills/s/3.md"]._replace(**fields))
    unchanged()
    assert kinds(looked(pod, tmp_path)) == {("skills/s/3.md", "manifest_lies")}


def test_a_pack_with_another_size_than_the_manifest_says_is_read_whatever_the_sample(
    bucket: str, pod: Pod, tmp_path: Path, s3: Any, unchanged: Callable[[], None]
) -> None:
    name, body = the_pack(s3, bucket)
    edited_root(s3, bucket, lambda root: replace(root, packs={n: PackEntry(1, 1) for n in root.packs}))
    unchanged()
    inspection = looked(pod, tmp_path, fraction=0.0001)
    assert [(one.path, one.kind, one.reason) for one in differences(inspection)] == [
        (name, Kind.MANIFEST_LIES, f"the manifest says that it has 1 bytes, and it has {len(body)}")
    ]
    assert inspection.packs_read == 1


def test_a_pack_that_only_files_name_is_a_lie(
    bucket: str, pod: Pod, tmp_path: Path, s3: Any, unchanged: Callable[[], None]
) -> None:
    name, _ = the_pack(s3, bucket)
    edited_root(s3, bucket, lambda root: replace(root, packs={}))
    unchanged()
    assert kinds(looked(pod, tmp_path)) == {(name, "manifest_lies")}


def test_a_stale_entry_is_counted_and_is_no_difference(
    bucket: str, pod: Pod, tmp_path: Path, s3: Any, unchanged: Callable[[], None]
) -> None:
    """It is legal: two pods wrote one file, or somebody else did. It costs a restore one request."""
    lie(s3, bucket, "skills/s/3.md", entries_of(pod)["skills/s/3.md"]._replace(etag='"an older one"'))
    unchanged()
    inspection = looked(pod, tmp_path)
    assert differences(inspection) == []
    assert [(one.path, one.kind) for one in inspection.findings] == [("skills/s/3.md", Kind.MANIFEST_BEHIND)]
    assert inspection.manifest == ManifestSeen(1, 150, 1, 2)


@pytest.mark.parametrize("what", ["root", "part", "part gone"])
def test_a_damaged_manifest_is_a_difference_and_says_which_object_it_is(
    what: str, bucket: str, pod: Pod, tmp_path: Path, s3: Any, unchanged: Callable[[], None]
) -> None:
    (part,) = [key for key in objects(s3, bucket, OWN) if key.endswith(".json.zst") and "packs/" in key]
    if what == "part gone":
        s3.delete_object(Bucket=bucket, Key=OWN + part)
    else:
        s3.put_object(Bucket=bucket, Key=MANIFEST if what == "root" else OWN + part, Body=b"damage")
    unchanged()
    inspection = looked(pod, tmp_path)
    (found,) = differences(inspection)
    assert (found.path, found.kind) == (".claude-sidecar/manifest.json.zst", Kind.MANIFEST_DAMAGED)
    assert (MANIFEST if what == "root" else part.removeprefix("packs/")) in found.reason
    assert (inspection.manifest, inspection.packs) == (None, 0)


def test_a_manifest_of_another_version_cannot_be_judged(
    bucket: str,
    pod: Pod,
    tmp_path: Path,
    s3: Any,
    unchanged: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(manifest_format, "FORMAT_MAJOR", 2)
        s3.put_object(Bucket=bucket, Key=MANIFEST, Body=encoded_root(Root()))
    unchanged()
    (found,) = differences(looked(pod, tmp_path))
    assert found.kind is Kind.COULD_NOT_TELL
    assert "format 2." in found.reason


def test_without_a_manifest_there_is_nothing_to_say(bucket: str, pod: Pod, tmp_path: Path, s3: Any) -> None:
    s3.delete_object(Bucket=bucket, Key=MANIFEST)
    inspection = looked(pod, tmp_path)
    assert differences(inspection) == []
    assert (inspection.manifest, inspection.packs) == (None, 0)


def test_packs_that_may_not_be_read_cannot_be_told(
    bucket: str, pod: Pod, tmp_path: Path, settings_for: MakeSettings, fault_proxy: FaultProxy
) -> None:
    fault_proxy.on("GET", faults.answer(403, "AccessDenied"), part=".tar.zst", times=None)
    paths = {"home": pod.settings.home, "state_dir": pod.settings.state_dir}
    denied = Pod(settings_for(bucket, **paths, endpoint=fault_proxy.endpoint))
    (found,) = differences(looked(denied, tmp_path))
    assert found.path.endswith(".tar.zst")
    assert (found.kind, " was denied" in found.reason) == (Kind.COULD_NOT_TELL, True)


def test_a_sample_reads_some_of_the_packs(bucket: str, pod: Pod, tmp_path: Path, s3: Any) -> None:
    writers = [PackWriter() for _ in range(30)]
    packs = {}
    for number, writer in enumerate(writers):
        writer.add(f"{number}", b"%d" % number, 0, 0o600)
        data = writer.finished()
        packs[name_of(data, SUFFIX)] = PackEntry(len(data), 1)
        s3.put_object(Bucket=bucket, Key=OWN + "packs/" + name_of(data, SUFFIX), Body=data)
    edited_root(s3, bucket, lambda root: replace(root, packs={**root.packs, **packs}))
    first = looked(pod, tmp_path, fraction=0.2, seed="a")
    assert first.packs == 31
    assert 1 <= first.packs_read <= 15
    assert looked(pod, tmp_path, fraction=0.2, seed="a").packs_read == first.packs_read
    assert looked(pod, tmp_path).packs_read == 31


def test_a_pack_that_is_replaced_meanwhile_is_looked_for_again_and_not_reported(
    bucket: str, pod: Pod, tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, replaced = Sides.view, iter([True])

    def view_then_pack(self: Sides) -> Any:
        seen = view(self)
        if next(replaced, False):
            monkeypatch.setattr(retirement, "KEPT_SECONDS", 0)
            many(pod, stem="skills/t")
            pod.backup()
            pod.write("plans/one.md", "one")
            pod.backup()
        return seen

    monkeypatch.setattr(Sides, "view", view_then_pack)
    inspection = looked(pod, tmp_path)
    assert next(replaced, None) is None
    assert differences(inspection) == []


def test_a_pack_is_read_in_little_memory(tmp_path: Path) -> None:
    writer = PackWriter()
    riders: dict[str, FileEntry] = {}
    for number in range(100):
        data = bytes([number]) * MAX_MEMBER_BYTES
        offset = writer.add(str(number), data, 0, 0o600)
        digest = hashlib.sha256(data).hexdigest()
        riders[str(number)] = FileEntry('"e"', len(data), 0, 0o600, digest, "p", offset)
    pack = writer.finished()
    name = name_of(pack, SUFFIX)
    tracemalloc.start()
    try:
        content = read_content(iter([pack]), name, riders)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert content == pack_inspection.Content(name.partition(".")[0], len(pack), ())
    assert peak < 8 * 1024 * 1024
