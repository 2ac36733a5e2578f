from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sidecar.errors import FileChanged
from sidecar.home import batches
from sidecar.home.batches import WholeFile, write_batch
from sidecar.home.beneath import Home
from sidecar.home.entries import FileStat
from sidecar.home.rules import Rules
from sidecar.home.scan import scan
from tests.home.conftest import put


def test_a_file_that_fails_does_not_stop_the_others(root: Path, home: Home) -> None:
    put(root, "b", b"the agent's")
    outcomes = write_batch(home, [WholeFile(path, b"new", 1, 0o600) for path in ("a", "b", "b/c", "d")])
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "FileStat",
        "FileChanged",
        "HomeError",
        "FileStat",
    ]
    assert isinstance(outcomes[1], FileChanged)
    assert (root / "b").read_bytes() == b"the agent's"
    assert (root / "d").read_bytes() == b"new"


@pytest.mark.parametrize("slow", [False, True])
def test_many_threads_restore_a_whole_tree(home: Home, slow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_SLOW_SECONDS_PER_FILE", 0.0 if slow else 60.0)
    files = [WholeFile(f"projects/{i % 17}/{i % 5}/{i}.md", b"%d" % i, i, 0o640) for i in range(1000)]
    with ThreadPoolExecutor(8) as pool:
        parts = [files[i : i + 50] for i in range(0, len(files), 50)]
        outcomes = [stat for part in pool.map(lambda part: write_batch(home, part), parts) for stat in part]
    assert home.turn.shared is slow
    found = scan(home, Rules(), max_file_bytes=100)
    assert found.files == {stat.path: stat for stat in outcomes if isinstance(stat, FileStat)}
    assert len(found.files) == 1000
    assert found.excluded == 0


@pytest.mark.parametrize("umask", [0o000, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o664, 0o444, 0o000, 0o7755])
def test_each_file_of_a_batch_has_its_own_mode(root: Path, home: Home, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        [stat] = write_batch(home, [WholeFile("a", b"new", 1, mode)])
    finally:
        os.umask(before)
    assert isinstance(stat, FileStat)
    assert stat.mode == (root / "a").stat().st_mode & 0o7777 == mode & 0o777
