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


def planned(
    manifest: Manifest, *, hot_paths: set[str] | None = None, here: set[str] | None = None
) -> list[str]:
    """The files that are to ride in new packs; those in `here` are in the home, or all."""
    found = plan(manifest, hot_paths or set(), set(manifest.files) if here is None else here)
    return sorted({*found.alone, *(path for path, e in manifest.files.items() if e.pack in found.packs)})


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
    assert planned(manifest, here=set(list(manifest.files)[1:])) == []


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


def test_a_pack_is_taken_in_or_written_anew_wherever_its_files_are() -> None:
    """Their bytes are in the pack: otherwise one file that left the home would keep dead bytes for ever."""
    files = in_pack("little", 70, 100)
    manifest = Manifest({**loose(LOOSE_FILES), **files}, packs={"little": PackEntry(3000, 7000)})
    assert len(planned(manifest, here=set(manifest.files) - set(files))) == LOOSE_FILES + 70
    dead = Manifest(in_pack("old", 10, MIB // 2), packs={"old": PackEntry(3 * DEAD_BYTES, 30 * MIB)})
    assert planned(dead, here=set()) == sorted(dead.files)


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


def test_a_pack_in_which_nobody_rides_any_more_brings_nobody_into_a_pack() -> None:
    """It goes by itself; otherwise a pack would be written for the one file that changed."""
    manifest = Manifest(loose(1), packs={"empty": PackEntry(3 * DEAD_BYTES, 30 * MIB)})
    assert planned(manifest) == []


def test_who_left_a_pack_travels_alone_unless_another_pod_packed_it_meanwhile() -> None:
    files = in_pack("old", 2, 100)
    first, second = sorted(files)
    theirs = {**files, second: files[second]._replace(pack="theirs", offset=512)}
    packed = Packed(left=dict.fromkeys(files, "old"))
    now = packed.on(Manifest(theirs, packs=dict.fromkeys(("old", "theirs"), PackEntry(10, 20))))
    assert (now.files[first].pack, now.files[second].pack) == ("", "theirs")
    assert list(named_in(now)) == ["theirs"]


@pytest.mark.parametrize("skew_seconds", [-KEPT_SECONDS + 1, 0, 5, KEPT_SECONDS - 1])
def test_what_another_pod_retired_just_now_is_kept_whatever_its_clock_says(skew_seconds: int) -> None:
    name, now = "p" * 64, 1_700_000_000
    before = Root(retired={name: now + skew_seconds})
    assert retirement.after(before, Root(), now) == ({name: now + skew_seconds}, [])


@pytest.mark.parametrize("skew_seconds", [-KEPT_SECONDS, KEPT_SECONDS])
def test_what_was_retired_long_ago_goes_and_so_does_what_a_wild_clock_retired(skew_seconds: int) -> None:
    name, now = "p" * 64, 1_700_000_000
    assert retirement.after(Root(retired={name: now + skew_seconds}), Root(), now) == ({}, [name])
