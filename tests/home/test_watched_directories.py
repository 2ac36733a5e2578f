"""Directories come, go, move and are swapped while the home is watched: none stays unseen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.home import notices
from tests.home.children import run_child
from tests.home.conftest import needs_root, put
from tests.home.watching import Watched, agent, inodes_watched


def test_files_in_directories_made_that_moment_are_told(
    way: str, root: Path, begin: Callable[..., Watched]
) -> None:
    watched = begin().armed()
    agent(
        root,
        """
for i in range(300):
    os.makedirs(f"projects/{i}/a/b/c")
    for directory in ("", "a/", "a/b/", "a/b/c/"):
        open(f"projects/{i}/{directory}x.jsonl", "w").close()
""",
    )
    expected = {f"projects/{i}/{part}x.jsonl" for i in range(300) for part in ("", "a/", "a/b/", "a/b/c/")}
    watched.until_told(*expected)
    assert watched.settled(root) == expected
    assert watched.everything == 0


def test_a_directory_is_watched_under_its_new_name(
    way: str, root: Path, begin: Callable[..., Watched]
) -> None:
    put(root, "projects/old/a.jsonl")
    put(root, "projects/old/deep/er/b.jsonl")
    watched = begin().armed()
    (root / "projects/old").rename(root / "projects/new")
    watched.until_told("projects/new/a.jsonl", "projects/new/deep/er/b.jsonl")
    watched.settled(root)
    watched.forget()
    put(root, "projects/new/deep/er/b.jsonl", b"more\n")
    put(root, "projects/new/a.jsonl", b"more\n")
    assert watched.settled(root) == {"projects/new/a.jsonl", "projects/new/deep/er/b.jsonl"}
    assert watched.everything == 0


def test_a_directory_that_moved_into_a_new_one_is_watched_under_its_new_name(
    root: Path, begin: Callable[..., Watched]
) -> None:
    """It is met in the new directory's list before the notice that it left its old place."""
    put(root, "projects/p/deep/a.jsonl")
    watched = begin().armed()
    watched.hold(root)
    (root / "projects/new").mkdir()
    (root / "projects/p").rename(root / "projects/new/p")
    watched.gate.set()
    watched.settled(root)
    watched.forget()
    put(root, "projects/new/p/deep/a.jsonl", b"more\n")
    assert watched.settled(root) == {"projects/new/p/deep/a.jsonl"}


def test_directories_that_are_no_more_do_not_count(
    root: Path, begin: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "DIRECTORIES_WATCHED", 5)
    watched = begin().armed()
    for i in range(20):
        put(root, f"{i}/a.md")
        watched.until_told(f"{i}/a.md")
        (root / f"{i}/a.md").unlink()
        (root / f"{i}").rmdir()
        watched.settled(root)
    assert watched.watch.fallback == ""


def test_a_directory_that_left_is_a_case_for_a_scan_and_watched_no_more(
    tmp_path: Path, root: Path, begin: Callable[..., Watched]
) -> None:
    put(root, "projects/p/deep/a.jsonl")
    put(root, "projects/p2/a.jsonl")
    watched = begin().armed()
    (root / "projects/p").rename(tmp_path / "left")
    watched.until(lambda: watched.everything)
    put(tmp_path, "left/deep/a.jsonl", b"more\n")
    put(root, "projects/p2/a.jsonl", b"more\n")
    assert watched.settled(root) == {"projects/p2/a.jsonl"}
    assert inodes_watched() == {(root / path).stat().st_ino for path in ("", "projects", "projects/p2")}


def test_a_directory_that_came_is_told_with_all_its_files_and_watched(
    way: str, tmp_path: Path, root: Path, begin: Callable[..., Watched]
) -> None:
    for path in ("a.md", "deep/er/b.md", "node_modules/c.js"):
        put(tmp_path / "outside", path)
    (root / "skills").mkdir()
    watched = begin().armed()
    (tmp_path / "outside").rename(root / "skills/new")
    watched.until_told("skills/new/a.md", "skills/new/deep/er/b.md")
    watched.forget()
    put(root, "skills/new/deep/er/b.md", b"more\n")
    assert watched.settled(root) == {"skills/new/deep/er/b.md"}


def test_a_directory_swapped_for_a_link_leads_nowhere(
    way: str, tmp_path: Path, root: Path, begin: Callable[..., Watched]
) -> None:
    put(tmp_path, "outside/a.md")
    put(root, "skills/x/a.md")
    watched = begin().armed()
    (root / "skills/x").rename(root / "skills/y")
    (root / "skills/x").symlink_to(tmp_path / "outside")
    watched.until_told("skills/x", "skills/y/a.md")
    watched.settled(root)
    watched.forget()
    put(tmp_path, "outside/a.md", b"secret\n")
    put(root, "skills/y/a.md", b"more\n")
    assert watched.settled(root) == {"skills/y/a.md"}
    assert (tmp_path / "outside").stat().st_ino not in inodes_watched()


def test_a_directory_made_again_is_watched_again(way: str, root: Path, begin: Callable[..., Watched]) -> None:
    put(root, "projects/p/a.jsonl")
    watched = begin().armed()
    for turn in range(20):
        agent_rewrites(root, turn)
        watched.until_told("projects/p/a.jsonl")
        watched.forget()
        put(root, "projects/p/a.jsonl", b"once more\n" * turn)
        assert watched.settled(root) == {"projects/p/a.jsonl"}
        watched.forget()


def agent_rewrites(root: Path, turn: int) -> None:
    (root / "projects/p/a.jsonl").unlink()
    (root / "projects/p").rmdir()
    put(root, "projects/p/a.jsonl", b"x" * turn)


@needs_root
def test_a_directory_that_could_not_be_read_is_met_when_it_can(shared: Path) -> None:
    put(shared, "closed/a.md")
    for path in ("", "closed", "closed/a.md"):
        os.chown(shared / path, 4321, 4321)
    (shared / "closed").chmod(0)
    told = run_child(
        """
import threading
from sidecar.home import notices, rounds
from sidecar.home.watch import Watch
become(4321)
assert ctypes.CDLL(None).prctl(4, 1) == 0  # PR_SET_DUMPABLE, as in a process that began under its own user
root = pathlib.Path(sys.argv[1])
told, more = [], threading.Event()
with Home.open(root) as home:
    watch = Watch.start(home, Rules(), more.set)
    watch.wait_until_armed(60)
    watch.take()
    (root / "closed").chmod(0o700)
    while "closed/a.md" not in told:
        more.wait(60); more.clear(); told += watch.take().paths
    (root / "closed/a.md").write_text("more")
    while told.count("closed/a.md") < 2:
        more.wait(60); more.clear(); told += watch.take().paths
    watch.stop()
print(json.dumps([watch.fallback, *sorted(set(told))]))
""",
        shared,
    )
    assert told == ["", "closed/a.md"]


def test_lost_notices_are_everything_and_no_directory_stays_unseen(
    root: Path, begin: Callable[..., Watched]
) -> None:
    for path in ("projects/renamed/deep/a.jsonl", "projects/left/a.jsonl", "projects/kept/a.jsonl"):
        put(root, path)
    watched = begin().armed()
    watched.hold(root)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    flood(root, limit)
    put(root, "projects/new/deep/a.jsonl")
    (root / "projects/renamed").rename(root / "projects/now")
    (root / "projects/left").rename(root.parent / "left")
    watched.gate.set()
    watched.until(lambda: watched.everything)
    while not {"projects/new/deep", "projects/now/deep"} <= set(watched_now(watched)):
        time.sleep(0.01)
    watched.forget()
    for path in ("projects/new/deep/a.jsonl", "projects/now/deep/a.jsonl", "projects/kept/a.jsonl"):
        put(root, path, b"more\n")
        watched.until(lambda path=path: path in watched.paths)  # type: ignore[misc]
    taken = {"", "projects", "projects/new", "projects/new/deep", "projects/now", "projects/now/deep"}
    assert inodes_watched() == {(root / path).stat().st_ino for path in (*taken, "projects/kept")}


def flood(root: Path, notices_count: int) -> None:
    """More notices than the queue takes; no two in a row are alike, or the kernel would keep but one."""
    paths = [put(root, "flood-a.md"), put(root, "flood-b.md")]
    for i in range(notices_count + 10):
        os.utime(paths[i % 2])


def watched_now(watched: Watched) -> set[str]:
    """Paths under which directories are known whose inode is really watched."""
    inodes = inodes_watched()
    root = watched.home.root
    return {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_dir() and path.stat().st_ino in inodes
    }
