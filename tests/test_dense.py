"""A dictionary whose values rest as bytes behaves as one of objects."""

import json

import pytest

from sidecar.area.manifest import Changes, FileEntry, Manifest, changes_between
from sidecar.area.manifest_format import PART_SUFFIX, decoded_part, encoded_part, name_of
from sidecar.dense import Dense, members

ENTRIES = {f"{number}.md": FileEntry('"e"', number, -5, 0o600, "d" * 64) for number in range(2500)}
PACK = "a" * 64 + ".tar.zst"


def test_what_was_put_in_comes_out_equal() -> None:
    dense: Dense[FileEntry] = Dense(FileEntry, ENTRIES)
    assert (dense, len(dense), dense.get("none")) == (ENTRIES, 2500, None)
    with pytest.raises(KeyError):
        dense["none"]
    dense["0.md"] = FileEntry("", 2**64 - 1, -(2**63), 0, "é")
    dense.discard("1.md")
    dense.discard("none")
    assert dense["0.md"] == FileEntry("", 2**64 - 1, -(2**63), 0, "é")
    assert ("1.md" in dense, list(dense)[:2]) == (False, ["0.md", "2.md"])


def test_a_copy_is_changed_alone() -> None:
    dense: Dense[FileEntry] = Dense(FileEntry, ENTRIES)
    copy: Dense[FileEntry] = Dense(FileEntry, dense)
    copy.discard("0.md")
    copy["1.md"] = copy["2.md"]
    assert dense == ENTRIES
    assert list(copy.changed_since(dense)) == ["1.md"]


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2500])
def test_a_large_object_is_written_piece_by_piece(count: int) -> None:
    pairs = {f'"{number}é': [number] for number in range(count)}
    assert json.loads(b"{" + b"".join(members(pairs.items())) + b"}") == pairs


def test_a_large_part_is_read_as_it_was_written_and_the_same_changes_are_the_same_bytes() -> None:
    riding = {path: entry._replace(pack=PACK, offset=entry.size * 512) for path, entry in ENTRIES.items()}
    changes = Changes(
        {**riding, "alone.md": ENTRIES["0.md"], "gone.md": None}, {"d": (0o700, 1)}, {"l": ("t", 2)}
    )
    data = encoded_part(changes)
    assert decoded_part(data, name_of(data, PART_SUFFIX)) == changes
    assert (
        encoded_part(Changes(dict(reversed(changes.files.items())), changes.directories, changes.links))
        == data
    )


def test_what_changed_between_two_manifests_makes_the_one_of_the_other() -> None:
    new = {**ENTRIES, "1.md": ENTRIES["2.md"], "new.md": ENTRIES["3.md"]}
    del new["0.md"]
    changes = changes_between(Manifest(ENTRIES), Manifest(new))
    assert changes.files == {"1.md": ENTRIES["2.md"], "new.md": ENTRIES["3.md"], "0.md": None}
    assert Changes({**ENTRIES}).then(changes).settled().files == new
