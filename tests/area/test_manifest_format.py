"""What rests in the bucket under the manifest's key may be anything: it is read whole, or called damaged."""

import sys
from typing import Any

import orjson
import pytest

from sidecar.area.manifest import Changes, FileEntry, PackEntry
from sidecar.area.manifest_format import (
    PART_SUFFIX,
    Root,
    decoded_part,
    decoded_root,
    encoded_root,
    name_of,
)
from sidecar.errors import FormatError, ObjectDamaged

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PART, PACK = "0" * 64 + ".json.zst", "a" * 64 + ".tar.zst"
ROOT = Root(
    Changes({"a.md": FileEntry('"e"', 1, 2, 0o600, "d", PACK, 512), "b.md": None}, {"d": (0o700, 1)}, {}),
    ((PART, 10),),
    {PACK: PackEntry(10, 20)},
    {"b" * 64 + ".tar.zst": 5},
    7,
    "writer",
)


def document(**changed: Any) -> bytes:
    whole = orjson.loads(zstd.decompress(encoded_root(ROOT)))
    return zstd.compress(orjson.dumps({**whole, **changed}))


def test_a_document_that_is_nested_without_end_is_damaged() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    whole = zstd.decompress(document(directories={"d": "deep"}))
    data = zstd.compress(whole.replace(b'"deep"', deep))
    with pytest.raises(ObjectDamaged):
        decoded_root(data, "k")
    with pytest.raises(ObjectDamaged):
        decoded_part(data, name_of(data, PART_SUFFIX))


def test_a_root_is_read_as_it_was_written() -> None:
    assert decoded_root(encoded_root(ROOT), "k") == ROOT
    assert decoded_root(document(), "k") == ROOT


@pytest.mark.parametrize(
    "changed",
    [
        {"parts": [["../../../bob/.claude/x", 1]]},
        {"parts": [["a\0b", 1]]},
        {"packs": {"../manifest.json.zst": [1, 1]}},
        {"retired": {"../../.claude/settings.json": 0}},
        {"pack_names": ["../journal/x"]},
        {"generation": 1e300},
        {"generation": 2**64 - 1},
        {"retired": {PACK: -1e300}},
        {"packs": {PACK: [-1, 1]}},
        {"files": {"a.md": ['"e"', 1e300, 0, 0, ""]}},
        {"files": {"a.md": ['"e"', 1, 1e300, 0, ""]}},
        {"files": {"a.md": ['"e"', float(2**70), 0, 0, ""]}},
        {"files": {"a.md": ['"e"', -1, 0, 0, ""]}},
        {"packed": {"a.md": [5, 0]}},
        {"directories": {"d": [0o700, 1e300]}},
        {"links": {"l": ["x", 1e300]}},
        {"files": []},
        {"links": 5},
    ],
    ids=str,
)
def test_what_no_manifest_of_ours_says_is_damage_and_can_be_replaced(changed: dict[str, Any]) -> None:
    with pytest.raises(ObjectDamaged):
        decoded_root(document(**changed), "k")


@pytest.mark.parametrize(
    "data", [b"", b"<html/>", zstd.compress(b"{}"), zstd.compress(b"[1]"), document()[:-9]]
)
def test_what_is_no_manifest_is_damage(data: bytes) -> None:
    with pytest.raises(ObjectDamaged):
        decoded_root(data, "k")


def test_one_minor_version_ahead_is_read_and_two_are_left_alone() -> None:
    assert decoded_root(document(version="1.2"), "k") == ROOT
    with pytest.raises(FormatError):
        decoded_root(document(version="1.3"), "k")


def test_a_window_that_would_take_the_memory_of_a_restore_is_damage() -> None:
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    wide = compressor.compress(zstd.decompress(encoded_root(ROOT))) + compressor.flush()
    assert zstd.decompress(wide) == zstd.decompress(encoded_root(ROOT))
    with pytest.raises(ObjectDamaged):
        decoded_root(wide, "k")
