"""Processes that write into a home, and a watch that has to know of it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.home import changes, watch, writes
from sidecar.home.beneath import Home
from sidecar.home.entries import FileStat
from sidecar.home.rules import Rules
from sidecar.home.scan import look, scan
from sidecar.home.watch import Changes, Watch
from tests.home.children import REPOSITORY, run_child
from tests.home.conftest import names, put
from tests.home.watching import LONG_SECONDS, Watched, agent, inodes_watched


def test_its_first_word_is_everything_and_it_says_when_nothing_escapes(
    way: str, root: Path, begin: Callable[..., Watched]
) -> None:
    put(root, "projects/p/a.jsonl")
    watched = begin()
    watched.until(lambda: watched.everything == 1)
    assert watched.watch.armed
    assert watched.paths == set()
    assert watched.watch.alive
    assert bool(watched.watch.fallback) == (way == "rounds")
    assert watched.watch.fallback_reason == ("unsupported" if way == "rounds" else "")
    assert watched.watch.take() == Changes(frozenset(), False, None)


@pytest.mark.parametrize(
    "change",
    [
        "open('projects/p/a.jsonl', 'a').write('more\\n')",
        "open('projects/p/a.jsonl', 'w').write('y\\n')",
        "open('projects/p/new.jsonl', 'w')",
        "import mmap; f = open('projects/p/a.jsonl', 'r+b'); mmap.mmap(f.fileno(), 0)[0] = 122",
        "os.truncate('projects/p/a.jsonl', 0)",
        "os.chmod('projects/p/a.jsonl', 0o640)",
        "os.utime('projects/p/a.jsonl', (1, 1))",
        "os.remove('projects/p/a.jsonl')",
        "os.rename('projects/p/a.jsonl', 'projects/p/new.jsonl')",
        "os.rename('other', 'projects/p/a.jsonl')",
        "os.link('other', 'projects/p/new.jsonl')",
        "os.symlink('a.jsonl', 'projects/p/new.jsonl')",
        "os.rename('projects/p/a.jsonl', '../a.jsonl')",
        "os.rename('../outside', 'projects/p/new.jsonl')",
    ],
)
def test_what_another_process_does_to_a_file_is_told(
    way: str, root: Path, begin: Callable[..., Watched], change: str
) -> None:
    put(root, "projects/p/a.jsonl")
    put(root, "other")
    put(root, "../outside")
    watched = begin().armed()
    agent(root, change)
    expected = {path for path in ("projects/p/a.jsonl", "projects/p/new.jsonl", "other") if path in change}
    if "os.link" in change:  # a second name is an attribute of the first, but no notice says so
        expected.remove("other")
    watched.until_told(*expected)
    assert watched.settled(root) - {"other"} == expected - {"other"}
    assert watched.everything == 0


def test_a_line_is_told_while_the_file_stays_open(
    way: str, root: Path, begin: Callable[..., Watched]
) -> None:
    path = put(root, "projects/p/a.jsonl")
    watched = begin().armed()
    with path.open("ab", buffering=0) as transcript:
        for _ in range(3):
            transcript.write(b"line\n")
            watched.until_told("projects/p/a.jsonl")
            watched.forget()


def test_a_change_says_when_it_was_first_noticed(root: Path, begin: Callable[..., Watched]) -> None:
    watched = begin().armed()
    before = time.monotonic_ns()
    watched.gate.clear()
    put(root, "a.md")
    with watched._condition:
        watched._condition.wait_for(lambda: watched.watch._gathered._first_at_ns, LONG_SECONDS)
    between = time.monotonic_ns()
    watched.gate.set()
    put(root, "b.md")
    taken: set[str] = set()
    first = None
    while taken != {"a.md", "b.md"}:
        changes = watched.watch.take()
        first = first or changes.first_at_ns
        taken |= changes.paths
    assert first is not None
    assert before < first < between


def test_what_the_rules_leave_out_is_neither_told_nor_watched(
    root: Path, begin: Callable[..., Watched]
) -> None:
    out = ("debug/a", "plugins/x/node_modules/b/c.js", "sessions/1.json", "projects/p/a.jsonl.lock/x")
    for path in (*out, "projects/p/a.jsonl", "plugins/x/y.js"):
        put(root, path)
    watched = begin().armed()
    taken = ("", "projects", "projects/p", "plugins", "plugins/x")
    assert inodes_watched() == {(root / path).stat().st_ino for path in taken}
    for path in (*out, ".credentials.json", "stats-cache.json", "history.jsonl.lock", "projects/p/x.tmp"):
        put(root, path)
    (root / "debug/new").mkdir()
    (root / "projects/p/b.jsonl.lock").mkdir()
    put(root, "projects/p/a.jsonl")
    assert watched.settled(root) == {"projects/p/a.jsonl"}
    assert inodes_watched() == {(root / path).stat().st_ino for path in taken}


def test_an_included_file_in_a_directory_that_is_left_out_is_told(
    way: str, root: Path, begin: Callable[..., Watched]
) -> None:
    for path in ("debug/latest.txt", "debug/noise", "debug/deep/noise"):
        put(root, path)
    watched = begin(Rules(include=("debug/latest.txt",))).armed()
    for path in ("debug/noise", "debug/deep/noise", "debug/latest.txt"):
        put(root, path, b"more\n")
    assert watched.settled(root) == {"debug/latest.txt"}


def test_our_own_temporary_files_are_not_told(
    way: str, root: Path, home: Home, begin: Callable[..., Watched]
) -> None:
    put(root, "old.md")
    watched = begin().armed()
    with writes.open_writer(home, "new.md") as writer:
        writer.write(b"new\n")
        writer.commit(mtime_ns=1, mode=0o600, replacing=None)
    old = look(home, Rules(), "old.md", max_file_bytes=100)
    assert isinstance(old, FileStat)
    with writes.open_writer(home, "old.md") as writer:
        writer.write(b"new\n")
        writer.commit(mtime_ns=1, mode=0o600, replacing=old)
    with writes.open_writer(home, "never.md") as writer:
        writer.write(b"new\n")
    assert watched.settled(root) == {"new.md", "old.md"}


def test_names_that_cannot_be_keys_are_told_and_such_directories_not_entered(
    way: str, root: Path, begin: Callable[..., Watched]
) -> None:
    (root / "bad\\directory").mkdir()
    watched = begin().armed()
    (root / "worse\ndirectory").mkdir()
    for path in ("bad\\directory/a.md", "worse\ndirectory/a.md", "new\nline", os.fsdecode(b"\xff")):
        put(root, path)
    assert watched.settled(root) == {"new\nline", "\udcff"}


def test_ten_thousand_files_at_once_are_all_told(root: Path, begin: Callable[..., Watched]) -> None:
    watched = begin().armed()
    agent(
        root,
        """
for d in range(100):
    os.makedirs(f"plugins/cache/{d}")
    for f in range(100):
        with open(f"plugins/cache/{d}/{f}", "w") as file: file.write("x")
""",
    )
    expected = {f"plugins/cache/{d}/{f}" for d in range(100) for f in range(100)}
    watched.until_told(*expected)


def test_more_paths_than_are_kept_are_everything(
    way: str, root: Path, begin: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "PATHS_KEPT", 10)
    watched = begin().armed()
    watched.hold(root)
    for i in range(30):
        put(root, f"{i}.md")
    assert len(watched.watch._gathered._paths) <= 10
    watched.gate.set()
    watched.until(lambda: watched.everything)
    assert len(watched.paths) <= 10
    put(root, "after.md")
    watched.until(lambda: "after.md" in watched.paths)


def test_a_process_that_never_rests_hides_nothing(way: str, root: Path, home: Home) -> None:
    """Whoever looks at the told paths alone knows in the end what a scan knows."""
    source = """
import random
random.seed(7)
root = pathlib.Path(".")
for i in range(3000):
    directory = root / random.choice(("projects", "skills")) / str(random.randrange(6)) / random.choice("abc")
    file = directory / f"{random.randrange(5)}.md"
    match random.randrange(8):
        case 0: shutil.rmtree(directory, ignore_errors=True)
        case 1: file.unlink(missing_ok=True)
        case 2 if file.exists(): file.rename(file.with_suffix(".txt"))
        case 3 if file.exists(): os.chmod(file, random.choice((0o600, 0o640)))
        case _:
            directory.mkdir(parents=True, exist_ok=True)
            with open(file, "a") as transcript: transcript.write("line\\n")
"""
    known: dict[str, FileStat] = {}
    options = {"max_file_bytes": 2**20}
    watched = Watched(home)
    try:
        watched.armed()
        with subprocess.Popen(
            [sys.executable, "-c", "import os, pathlib, shutil\n" + source], cwd=root
        ) as process:
            while True:
                is_over = process.poll() is not None
                if is_over:
                    watched.settled(root)
                watched.take()
                assert not watched.everything
                for path in watched.paths:
                    found = look(home, Rules(), path, **options)
                    known.pop(path, None)
                    if isinstance(found, FileStat):
                        known[path] = found
                watched.forget()
                if is_over:
                    break
        assert process.returncode == 0
        files = scan(home, Rules(), **options).files
        assert {path: known.get(path) for path in files} == files
    finally:
        watched.watch.stop()


def test_a_hostile_neighbour_leads_it_nowhere(tmp_path: Path, root: Path, home: Home) -> None:
    outside, stage = tmp_path / "outside", tmp_path / "stage"
    for directory in (root / "projects/p", root / "agents", outside / "den", stage):
        directory.mkdir(parents=True)
    put(outside, "secret")
    put(outside, "den/a.jsonl")
    foreign = {path.stat().st_ino for path in (outside, outside / "den", stage)}
    command = [sys.executable, "-m", "tests.home.racer", str(root), str(outside), str(stage)]
    watched = Watched(home)
    try:
        watched.armed()
        with subprocess.Popen(command, cwd=REPOSITORY) as racer:
            try:
                for _ in range(100):
                    watched.forget()
                    watched.until(lambda: watched.paths or watched.everything)
                    assert not foreign & inodes_watched()
                assert racer.poll() is None
            finally:
                racer.kill()
        assert watched.watch.alive
        assert watched.watch.fallback == ""
        for path in ("projects/p", "agents"):
            if (root / path).is_symlink():
                (root / path).unlink()
            put(root, f"{path}/first.md")
        watched.settled(root)
        watched.forget()
        for path in ("projects/p", "agents"):
            put(root, f"{path}/last.md")
        assert watched.settled(root) == {"projects/p/last.md", "agents/last.md"}
    finally:
        watched.watch.stop()


def test_a_home_that_was_moved_away_is_a_case_for_a_scan(
    way: str, root: Path, begin: Callable[..., Watched]
) -> None:
    watched = begin().armed()
    root.rename(root.with_name("old"))
    root.mkdir()
    watched.until(lambda: watched.everything)
    assert watched.watch.alive


def test_a_home_that_was_removed_is_a_case_for_a_scan(
    way: str, root: Path, begin: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "CHECK_SECONDS", 0.02)
    watched = begin().armed()
    root.rmdir()
    watched.until(lambda: watched.everything)
    assert watched.watch.alive


def test_stopping_leaves_nothing_behind(way: str, root: Path, home: Home) -> None:
    put(root, "a/b.md")
    descriptors, threads = set(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(3):
        watched = Watched(home).armed()
        watched.watch.stop()
        watched.watch.stop()
        assert not watched.watch.alive
    assert set(os.listdir("/proc/self/fd")) == descriptors
    assert threading.active_count() == threads
    assert names(root) == {"a", "a/b.md"}


def test_it_can_be_stopped_from_its_own_thread_and_before_it_is_armed(way: str, home: Home) -> None:
    stopped = threading.Event()

    def stop() -> None:
        known.wait()
        begun[0].stop()
        stopped.set()

    begun: list[Watch] = []
    known = threading.Event()
    begun.append(Watch.start(home, Rules(), stop))
    known.set()
    assert stopped.wait(LONG_SECONDS)
    begun[0].stop()
    assert not begun[0].alive
    early = Watch.start(home, Rules(), lambda: None)
    early.stop()
    assert not early.alive


def test_one_that_cannot_be_told_does_not_end_the_watch(
    way: str, root: Path, home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    called = threading.Semaphore(0)

    def broken() -> None:
        called.release()
        raise RuntimeError("Event loop is closed")

    with caplog.at_level(logging.ERROR, "sidecar"):
        watch = Watch.start(home, Rules(), broken, poll_seconds=0.02)
        try:
            assert called.acquire(timeout=LONG_SECONDS)
            put(root, "a.md")
            assert called.acquire(timeout=LONG_SECONDS)
            assert watch.alive
            assert watch.take().everything
        finally:
            watch.stop()
    assert "Nobody could be told" in caplog.text


def test_a_restore_imports_nothing_of_it() -> None:
    assert run_child("print(json.dumps([m for m in sys.modules if 'inotify' in m]))") == []
