"""A pack is a tar that any tool reads, and gives exactly the bytes that were put into it, or says no."""

import io
import os
import tarfile
from collections.abc import Iterator

import pytest

from sidecar.area.packs import PackReader, PackWriter, zstd
from sidecar.errors import ObjectDamaged

LONG = "projects/-home-ü/" + "x" * 90
FILES = {
    "plans/a.md": b"a",
    "plans/empty.md": b"",
    "skills/exactly.bin": os.urandom(512),
    LONG + "/notes.md": b"long name\n" * 300,
    "todos/0123456789.json": b"{}" * 70_000,
}


def packed() -> tuple[bytes, dict[str, int]]:
    writer = PackWriter()
    offsets = {path: writer.add(path, data, 1_700_000_000_000_000_000, 0o640) for path, data in FILES.items()}
    return writer.finished(), offsets


def in_pieces(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def test_any_tar_reads_it() -> None:
    data, _ = packed()
    with tarfile.open(fileobj=io.BytesIO(zstd.decompress(data))) as tar:
        members = {member.name: member for member in tar.getmembers()}
        assert list(members) == list(FILES)
        for path, member in members.items():
            opened = tar.extractfile(member)
            assert opened and opened.read() == FILES[path]
            assert (member.mode, member.mtime, member.uid) == (0o640, 1_700_000_000, 0)


@pytest.mark.parametrize("piece", [1, 100, 1_000_000])
def test_each_file_is_found_at_its_offset_however_the_pack_arrives(piece: int) -> None:
    data, offsets = packed()
    reader = PackReader(in_pieces(data, piece), "it")
    for path in ("plans/empty.md", "skills/exactly.bin", "todos/0123456789.json"):
        assert reader.read(offsets[path], len(FILES[path])) == FILES[path]


@pytest.mark.parametrize("cut", [0, 1, 50, -1])
def test_a_pack_that_was_cut_short_is_damaged(cut: int) -> None:
    data, offsets = packed()
    reader = PackReader(in_pieces(data[:cut], 100), "it")
    last = "todos/0123456789.json"
    with pytest.raises(ObjectDamaged, match="the pack it is damaged"):
        reader.read(offsets[last], len(FILES[last]) + 1100)


@pytest.mark.parametrize(("offset", "size"), [(10**15, 1), (0, -1), (0, 10**15), (400_000, 1)])
def test_an_offset_that_it_does_not_have_is_refused(offset: int, size: int) -> None:
    data, _ = packed()
    with pytest.raises(ObjectDamaged):
        PackReader(in_pieces(data, 1000), "it").read(offset, size)


def test_what_is_no_pack_is_damaged() -> None:
    with pytest.raises(ObjectDamaged):
        PackReader(in_pieces(b"<html>login</html>", 5), "it").read(0, 1)


def test_it_is_full_before_it_outgrows_what_a_restore_holds_in_memory() -> None:
    writer = PackWriter()
    while not writer.is_full:
        writer.add("a/b.bin", os.urandom(1024 * 1024), 0, 0o600)
    assert 6 * 1024 * 1024 <= len(writer.finished()) < 8 * 1024 * 1024


def test_a_window_that_would_take_the_memory_of_a_restore_is_damage() -> None:
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    wide = compressor.compress(b"x" * 1000) + compressor.flush()
    with pytest.raises(ObjectDamaged):
        PackReader(in_pieces(wide, 100), "it").read(0, 100)


def test_a_bomb_is_unpacked_no_further_than_what_is_asked_for() -> None:
    bomb = zstd.compress(bytes(64 * 1024 * 1024))
    given: list[bytes] = []

    def pieces() -> Iterator[bytes]:
        for piece in in_pieces(bomb, 100):
            given.append(piece)
            yield piece

    assert PackReader(pieces(), "it").read(512, 100) == bytes(100)
    assert len(given) < len(bomb) / 100 / 2
