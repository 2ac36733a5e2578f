"""What is hashed is what is sent: a file that changes under our hands is noticed, whatever its size."""

import hashlib
from pathlib import Path

import pytest

from sidecar.errors import FileChanged
from sidecar.home.beneath import Home
from sidecar.home.reads import open_file
from sidecar.sync import snapshots
from sidecar.sync.snapshots import Snapshot


@pytest.fixture(params=[snapshots.MEMORY_BYTES, 0], ids=["in memory", "in blocks"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(snapshots, "MEMORY_BYTES", request.param)
    return int(request.param)


SIZE = 3 * snapshots.BLOCK_BYTES + 12345
DATA = bytes(range(256)) * (SIZE // 256 + 1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(DATA[:SIZE])
    return path


@pytest.mark.parametrize("prefix", [0, 1, snapshots.BLOCK_BYTES, snapshots.BLOCK_BYTES + 1, SIZE])
def test_every_read_and_every_digest_is_of_the_same_bytes(file: Path, memory: int, prefix: int) -> None:
    with Home.open(file.parent) as home, open_file(home, "file") as opened:
        snapshot = Snapshot(opened, SIZE, [prefix, 7])
        assert snapshot.sha256 == hashlib.sha256(DATA[:SIZE]).hexdigest()
        assert snapshot.prefix_sha256(prefix) == hashlib.sha256(DATA[:prefix]).hexdigest()
        assert snapshot.prefix_sha256(7) == hashlib.sha256(DATA[:7]).hexdigest()
        for offset, length in ((0, SIZE), (0, 0), (5, 10), (snapshots.BLOCK_BYTES - 3, 7), (SIZE - 1, 1)):
            assert bytes(snapshot.read(offset, length)) == DATA[offset : offset + length]


def test_what_is_appended_later_is_not_part_of_it(file: Path, memory: int) -> None:
    with Home.open(file.parent) as home, open_file(home, "file") as opened:
        snapshot = Snapshot(opened, SIZE)
        with file.open("ab") as more:
            more.write(b"more")
        assert bytes(snapshot.read(0, SIZE)) == DATA[:SIZE]


def test_a_rewrite_in_place_is_noticed_or_does_not_matter(file: Path, memory: int) -> None:
    with Home.open(file.parent) as home, open_file(home, "file") as opened:
        snapshot = Snapshot(opened, SIZE)
        with file.open("r+b") as other:
            other.seek(snapshots.BLOCK_BYTES + 5)
            other.write(b"REWRITTEN")
        if snapshot.in_memory:
            assert bytes(snapshot.read(0, SIZE)) == DATA[:SIZE]
        else:
            assert bytes(snapshot.read(0, 100)) == DATA[:100]
            with pytest.raises(FileChanged):
                snapshot.read(snapshots.BLOCK_BYTES, 10)


def test_a_file_that_is_cut_short_is_noticed(file: Path) -> None:
    with Home.open(file.parent) as home, open_file(home, "file") as opened:
        with file.open("r+b") as other:
            other.truncate(100)
        with pytest.raises(FileChanged):
            Snapshot(opened, SIZE)
