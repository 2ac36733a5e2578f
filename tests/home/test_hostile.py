"""Beside each test runs a process that swaps files and directories for ways out, without a pause."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar.errors import HomeError
from sidecar.home import writes
from sidecar.home.batches import WholeFile, write_batch
from sidecar.home.beneath import Home
from sidecar.home.reads import open_file
from sidecar.home.rules import Rules
from sidecar.home.scan import scan
from tests.home.children import REPOSITORY
from tests.home.conftest import IS_ROOT
from tests.home.racer import SAFE

SECRET = b"a secret that is longer than what lies in the home\n" * 20
FILES = ("a.jsonl", "b.md", "projects/p/a.jsonl", "projects/p/b.md", "agents/a.jsonl")
ROUNDS = 1000


@dataclass
class Arena:
    home: Home
    root: Path
    outside: Path

    def outside_now(self) -> dict[str, tuple[object, ...]]:
        found: dict[str, tuple[object, ...]] = {}
        for path in sorted([self.outside, *self.outside.rglob("*")]):
            st = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns, st.st_size, content)
        return found


@pytest.fixture(params=["in one call", "part by part"])
def arena(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Arena]:
    root, outside, stage = tmp_path / "home", tmp_path / "outside", tmp_path / "stage"
    for directory in (root / "projects" / "p", root / "agents", outside / "den", stage):
        directory.mkdir(parents=True)
        if IS_ROOT and root in directory.parents:
            os.chown(directory, 1234, 1234)
    if IS_ROOT:
        os.chown(root, 1234, 1234)
    for name in ("secret", "den/a.jsonl", "den/b.md"):
        (outside / name).write_bytes(SECRET)
    command = [sys.executable, "-m", "tests.home.racer", str(root), str(outside), str(stage)]
    with Home.open(root) as home, subprocess.Popen(command, cwd=REPOSITORY) as racer:
        home._whole_paths = request.param == "in one call"
        while not (root / "a.jsonl").exists():
            assert racer.poll() is None
        yield Arena(home, root, outside)
        assert racer.poll() is None, "the neighbour died: nothing was tested"
        racer.send_signal(signal.SIGKILL)


def rounds(least: int, is_enough: Callable[[], bool]) -> Iterator[int]:
    """At least `least` rounds, and more until the neighbour was seen at work (or the test's time is up)."""
    turn = 0
    while turn < least or not is_enough():
        yield turn
        turn += 1


def attempt(outcomes: Counter[str], action: Callable[[], object]) -> None:
    try:
        action()
    except HomeError:
        outcomes["refused"] += 1
    else:
        outcomes["done"] += 1


def test_no_byte_from_outside_is_ever_read(arena: Arena) -> None:
    before, outcomes = arena.outside_now(), Counter[str]()

    def read(path: str) -> None:
        with open_file(arena.home, path) as file:
            data = file.read(0, file.size)
            assert b"secret" not in data
            assert file.size <= len(SAFE)

    for _ in rounds(3 * ROUNDS, lambda: len(outcomes) == 2):
        for path in FILES:
            attempt(outcomes, lambda path=path: read(path))  # type: ignore[misc]
    assert arena.outside_now() == before


def test_a_scan_never_finds_what_lies_outside(arena: Arena) -> None:
    before = arena.outside_now()
    identity = (arena.outside / "secret").stat().st_ino, (arena.outside / "den/a.jsonl").stat().st_ino
    refused: set[str] = set()
    files: set[str] = set()
    expected = {"it is a link that leaves the home", "it is a FIFO"}
    if IS_ROOT:
        expected.add("it is a hard link to a file")
    for _ in rounds(3 * ROUNDS, lambda: expected <= refused and "projects/p/a.jsonl" in files):
        found = scan(arena.home, Rules(), max_file_bytes=10_000)
        for file in found.files.values():
            assert file.size <= len(SAFE)
            assert file.inode not in identity
        assert not found.links
        refused.update(refusal.reason.partition(" of UID")[0] for refusal in found.refused)
        files.update(found.files)
    assert arena.outside_now() == before


def test_nothing_is_ever_written_outside(arena: Arena) -> None:
    before, outcomes = arena.outside_now(), Counter[str]()
    home = arena.home

    def write(path: str, *, expected: bool) -> None:
        replacing: writes.Replacing = "anything"
        if expected:
            with open_file(home, path) as file:
                replacing = file.stat
        with writes.open_writer(home, path) as writer:
            writer.write(b"restored\n")
            writer.commit(mtime_ns=1, mode=0o600, replacing=replacing)

    def append(path: str) -> None:
        writes.append(home, path, b"appended\n", expected_size=home.lstat(path).st_size)

    def remove(path: str) -> None:
        with open_file(home, path) as file:
            writes.remove(home, path, file.stat)

    for turn in rounds(ROUNDS // 5, lambda: len(outcomes) == 2):
        for path in FILES:
            attempt(outcomes, lambda path=path: write(path, expected=False))  # type: ignore[misc]
            attempt(outcomes, lambda path=path: write(path, expected=True))  # type: ignore[misc]
            with_lstat(outcomes, lambda path=path: append(path))  # type: ignore[misc]
            attempt(outcomes, lambda path=path: remove(path))  # type: ignore[misc]
        for path in ("projects/p", "agents", f"projects/p/{turn}/x"):
            attempt(outcomes, lambda path=path: writes.make_directory(home, path))  # type: ignore[misc]
            attempt(outcomes, lambda path=path: writes.set_directory(home, path, 0o700, 1))  # type: ignore[misc]
        attempt(outcomes, lambda turn=turn: writes.make_link(home, f"projects/p/l{turn}", "x"))  # type: ignore[misc]
        write_batch(home, [WholeFile(f"projects/p/new{turn}", b"new", 1, 0o600)])
        if turn % 20 == 0:
            writes.remove_leftovers(home)
    assert arena.outside_now() == before


def with_lstat(outcomes: Counter[str], action: Callable[[], object]) -> None:
    try:
        attempt(outcomes, action)
    except OSError:  # the size to expect could not be looked up
        outcomes["refused"] += 1
