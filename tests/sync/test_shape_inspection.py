"""Directories and links, which only the manifest carries: every difference is named, nothing is mended."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sidecar.area.keys import AreaKeys
from sidecar.area.manifest_format import Root
from sidecar.home.beneath import Home
from sidecar.home.rules import Rules
from sidecar.sync.inspection import Inspection, inspect
from sidecar.sync.views import Sides
from tests.sync.packed_area import edited_root, many
from tests.sync.pods import T0, MakeSettings, Pod, pods


def looked(pod: Pod, place: Path, **options: Any) -> Inspection:
    with Home.open(pod.home) as home:
        rules = Rules(include=pod.settings.include, exclude=pod.settings.exclude)
        sides = Sides(pod.settings, pod.store, AreaKeys("user_data", "ada"), home, rules)
        return inspect(sides, spool_directory=place, **options)


def told(inspection: Inspection, *, by_design: bool = False) -> dict[str, str]:
    return {f.path: f.kind.value for f in inspection.findings if f.by_design == by_design}


def reasons(inspection: Inspection) -> dict[str, str]:
    return {found.path: found.reason for found in inspection.findings}


def filled(pod: Pod) -> Pod:
    pod.start()
    pod.write("skills/a/SKILL.md", "a", mtime_ns=T0)
    (pod.home / "plans/empty").mkdir(parents=True)
    (pod.home / "plans").chmod(0o750)
    (pod.home / "skills/latest").symlink_to("a")
    pod.backup()
    return pod


@pytest.fixture
def pod(bucket: str, settings_for: MakeSettings, tmp_path: Path) -> Pod:
    return filled(pods(settings_for, bucket, tmp_path, 1)[0])


def test_a_shape_in_step_is_equal_in_two_pods(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    filled(first)
    second.start()
    for one in (first, second):
        inspection = looked(one, tmp_path)
        assert inspection.findings == ()
        assert inspection.manifest is not None
        assert (inspection.manifest.directories, inspection.manifest.links) == (4, 1)


def test_what_the_home_has_and_the_manifest_lacks_is_not_uploaded(pod: Pod, tmp_path: Path) -> None:
    (pod.home / "plans/more").mkdir()
    (pod.home / "skills/other").symlink_to("a")
    pod.write("agents/new.md", "new")
    assert told(looked(pod, tmp_path)) == {
        "plans/more": "not_uploaded",
        "skills/other": "not_uploaded",
        "agents/new.md": "not_uploaded",
    }
    assert told(looked(pod, tmp_path), by_design=True) == {"agents": "manifest_behind"}
    pod.backup()
    assert looked(pod, tmp_path).findings == ()


def test_what_the_home_lacks_was_deleted_or_not_restored(pod: Pod, tmp_path: Path) -> None:
    (pod.home / "plans/empty").rmdir()
    (pod.home / "skills/latest").unlink()
    paths = {"plans/empty", "skills/latest"}
    assert told(looked(pod, tmp_path)) == dict.fromkeys(paths, "deleted_locally")
    pod.settings = replace(pod.settings, state_dir=tmp_path / "no-state")
    assert told(looked(pod, tmp_path)) == dict.fromkeys(paths, "not_restored")


def test_a_mode_and_a_target_that_differ_are_named_with_both(pod: Pod, tmp_path: Path) -> None:
    (pod.home / "plans").chmod(0o700)
    (pod.home / "skills/latest").unlink()
    (pod.home / "skills/latest").symlink_to("../plans")
    inspection = looked(pod, tmp_path)
    assert told(inspection) == {"plans": "times_differ", "skills/latest": "link_differs"}
    assert reasons(inspection) == {
        "plans": "the directory's mode is 0700 in the home and 0750 in the manifest",
        "skills/latest": "the link leads to ../plans in the home and to a in the manifest",
    }
    pod.backup()
    assert looked(pod, tmp_path).findings == ()


def test_what_stands_instead_is_named(pod: Pod, tmp_path: Path) -> None:
    pod.settings = replace(pod.settings, state_dir=tmp_path / "no-state")
    (pod.home / "skills/latest").unlink()
    (pod.home / "skills/latest").mkdir()
    (pod.home / "plans/empty").rmdir()
    pod.write("plans/empty", "a file")
    inspection = looked(pod, tmp_path)
    assert told(inspection)["skills/latest"] == "not_restored"
    assert "the home has a directory: it is not made" in reasons(inspection)["skills/latest"]
    assert ("plans/empty", "the manifest has a directory there and the home has a file: it is not made") in {
        (found.path, found.reason) for found in inspection.findings
    }


def edited(pod: Pod, s3: Any, bucket: str, edit: Callable[[Root], None]) -> None:
    def edit_and_return(root: Root) -> Root:
        edit(root)
        return root

    edited_root(s3, bucket, edit_and_return)


def test_a_link_that_leads_out_is_a_lie_and_what_the_rules_leave_out_is_passed_over(
    bucket: str, pod: Pod, tmp_path: Path, s3: Any
) -> None:
    def edit(root: Root) -> None:
        root.changes.links["skills/out"] = ("../../etc", T0)
        root.changes.directories["debug"] = (0o700, T0)
        root.changes.directories["../up"] = (0o700, T0)

    edited(pod, s3, bucket, edit)
    inspection = looked(pod, tmp_path)
    assert told(inspection) == {"skills/out": "manifest_lies"}
    assert told(inspection, by_design=True) == {"debug": "passed_over", "../up": "passed_over"}


def test_what_a_refused_directory_holds_is_told_once(
    bucket: str, pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pod.home / "plans/empty").rmdir()
    (pod.home / "plans").rmdir()
    os.mkfifo(pod.home / "plans")
    assert told(looked(pod, tmp_path)) == {"plans": "refused"}


def test_the_smallest_sample_reads_one_object_and_one_pack(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    many(pod)
    pod.backup()
    inspection = looked(pod, tmp_path, fraction=1e-9)
    assert inspection.findings == ()
    assert (inspection.read, inspection.packs_read) == (1, 1)
