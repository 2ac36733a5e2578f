"""The cost rule of packs: what rides, when that pays, and what is taken in on the way."""

import pytest
from msgspec.structs import replace

from sidecar.area.manifest import FileEntry, Manifest, PackEntry
from sidecar.area.manifest_format import Root
from sidecar.area.packs import MAX_MEMBER_BYTES
from sidecar.sync import retirement
from sidecar.sync.packing import DEAD_BYTES, LOOSE_BYTES, LOOSE_FILES, Packed, hot, named_in, plan
from sidecar.sync.retirement import KEPT_SECONDS

MIB = 1024 * 1024


def loose(count: int, size: int = 100, stem: str = "plans/n") -> dict[str, FileEntry]:
    return {f"{stem}{n:04}.md": FileEntry(f'"{n}"', size, 0, 0o600, f"{n:064}") for n in range(count)}


def in_pack(name: str, count: int, size: int) -> dict[str, FileEntry]:
    return {path: entry._replace(pack=name) for path, entry in loose(count, size, f"{name}/").items()}


def planned(manifest: Manifest, *, hot_paths: set[str] | None = None) -> list[str]:
    return plan(manifest, hot_paths or set(), set(manifest.files))


def test_a_few_files_travel_alone_and_one_more_brings_all_of_them_into_a_pack() -> None:
    assert planned(Manifest(loose(LOOSE_FILES - 1))) == []
    assert len(planned(Manifest(loose(LOOSE_FILES)))) == LOOSE_FILES


def test_few_files_that_are_large_together_pay_too() -> None:
    assert planned(Manifest(loose(4, LOOSE_BYTES // 4 - 1))) == []
    assert len(planned(Manifest(loose(4, LOOSE_BYTES // 4)))) == 4


def test_what_is_large_or_grows_or_is_checked_before_it_is_restored_travels_alone() -> None:
    files = loose(LOOSE_FILES)
    apart = {
        "plans/large.bin": FileEntry('"l"', MAX_MEMBER_BYTES + 1, 0, 0o600, "l"),
        "projects/p/s.jsonl": FileEntry('"t"', 10, 0, 0o600, "t"),
        "settings.json": FileEntry('"s"', 10, 0, 0o600, "s"),
    }
    assert planned(Manifest({**files, **apart}), hot_paths={"projects/p/s.jsonl"}) == sorted(files)
    assert "projects/p/s.jsonl" in planned(Manifest({**files, **apart}))


def test_what_is_another_version_here_is_not_packed() -> None:
    manifest = Manifest(loose(LOOSE_FILES))
    assert plan(manifest, set(), set(list(manifest.files)[1:])) == []


def test_a_transcript_is_hot_when_it_grew_between_two_manifests_and_only_then() -> None:
    before = Manifest({"a.jsonl": FileEntry('"1"', 1, 0, 0, ""), "b.jsonl": FileEntry('"1"', 1, 0, 0, "")})
    after = replace(before, files={**before.files, "a.jsonl": FileEntry('"2"', 2, 0, 0, "")})
    new = replace(after, files={**after.files, "c.jsonl": FileEntry('"1"', 1, 0, 0, "")})
    assert hot(before, new) == {"a.jsonl"}
    assert hot(new, new) == set()


def test_small_packs_are_taken_in_and_large_ones_are_left() -> None:
    manifest = Manifest(
        {**loose(LOOSE_FILES), **in_pack("little", 70, 100), **in_pack("large", 1000, 100)},
        packs={"little": PackEntry(3000, 7000), "large": PackEntry(40_000, 100_000)},
    )
    taken = planned(manifest)
    assert len(taken) == LOOSE_FILES + 70
    assert not any(path.startswith("large/") for path in taken)


def test_a_pack_that_is_dead_by_half_is_rewritten_when_that_is_worth_it() -> None:
    files = in_pack("old", 10, MIB // 2)
    dead = PackEntry(3 * DEAD_BYTES, 30 * MIB)
    assert planned(Manifest(files, packs={"old": dead})) == sorted(files)
    assert planned(Manifest(files, packs={"old": PackEntry(DEAD_BYTES // 2, 30 * MIB)})) == []
    assert planned(Manifest(files, packs={"old": PackEntry(3 * DEAD_BYTES, 9 * MIB)})) == []


def test_a_pack_of_which_a_file_is_elsewhere_by_now_is_left_as_it_is() -> None:
    manifest = Manifest(
        {**loose(LOOSE_FILES), **in_pack("little", 70, 100)}, packs={"little": PackEntry(3000, 7000)}
    )
    here = set(manifest.files) - {"little/0003.md"}
    assert len(plan(manifest, set(), here)) == LOOSE_FILES


def test_a_file_whose_pack_nobody_knows_travels_alone() -> None:
    files = in_pack("unknown", LOOSE_FILES, 100)
    assert planned(Manifest(files)) == sorted(files)


def test_what_changed_while_it_was_packed_keeps_its_own_version() -> None:
    files = loose(2)
    first, second = sorted(files)
    packed = Packed(
        {path: entry._replace(pack="p", offset=512) for path, entry in files.items()},
        {"p": PackEntry(10, 20)},
    )
    moved_on = Manifest({**files, second: files[second]._replace(etag='"newer"')})
    now = packed.on(moved_on)
    assert (now.files[first].pack, now.files[second].pack) == ("p", "")
    assert named_in(now) == {"p": PackEntry(10, 20)}
    assert named_in(packed.on(Manifest())) == {}


def test_a_dead_pack_that_cannot_be_rewritten_brings_nobody_else_into_a_pack() -> None:
    """Otherwise each checkpoint would write a pack for the one file that changed."""
    files = in_pack("old", 10, MIB // 2)
    manifest = Manifest({**files, **loose(1)}, packs={"old": PackEntry(3 * DEAD_BYTES, 30 * MIB)})
    here = set(manifest.files) - {"old/0003.md"}
    assert plan(manifest, set(), here) == []


def test_a_pack_that_cannot_be_taken_in_takes_nothing_else_along() -> None:
    """What is new decides how large a pack may be that is written again, not what is left where it is."""
    stuck = in_pack("stuck", 10, 600)
    manifest = Manifest(
        {**loose(LOOSE_FILES), **stuck, **in_pack("larger", 140, 100)},
        packs={"stuck": PackEntry(3000, 6000), "larger": PackEntry(6000, 14_000)},
    )
    here = set(manifest.files) - {"stuck/0003.md"}
    assert len(plan(manifest, set(), here)) == LOOSE_FILES


@pytest.mark.parametrize("skew_seconds", [-KEPT_SECONDS + 1, 0, 5, KEPT_SECONDS - 1])
def test_what_another_pod_retired_just_now_is_kept_whatever_its_clock_says(skew_seconds: int) -> None:
    name, now = "p" * 64, 1_700_000_000
    before = Root(retired={name: now + skew_seconds})
    assert retirement.after(before, Root(), now) == ({name: now + skew_seconds}, [])


@pytest.mark.parametrize("skew_seconds", [-KEPT_SECONDS, KEPT_SECONDS])
def test_what_was_retired_long_ago_goes_and_so_does_what_a_wild_clock_retired(skew_seconds: int) -> None:
    name, now = "p" * 64, 1_700_000_000
    assert retirement.after(Root(retired={name: now + skew_seconds}), Root(), now) == ({}, [name])
