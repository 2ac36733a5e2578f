from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.errors import FileChanged, HomeError
from sidecar.home.beneath import Home
from sidecar.home.entries import DirStat
from sidecar.home.rules import Rules
from sidecar.home.scan import scan
from sidecar.home.writes import make_directory, make_link, open_writer, remove_leftovers, set_directory
from tests.home.children import run_child
from tests.home.conftest import names, put


def test_a_directory_is_restored_with_mode_and_time(root: Path, home: Home) -> None:
    make_directory(home, "agents/empty", 0o555)
    assert (root / "agents/empty").stat().st_mode & 0o777 == 0o755
    with open_writer(home, "agents/empty/file") as writer:  # still to be filled
        writer.commit(mtime_ns=1, mode=0o600, replacing=None)
    set_directory(home, "agents/empty", 0o4750, 42_000_000_007)
    found = scan(home, Rules(), max_file_bytes=10).directories["agents/empty"]
    assert found == DirStat("agents/empty", 42_000_000_007, 0o750)
    assert (root / "agents/empty").stat().st_mode & 0o7777 == 0o750


def test_a_directory_that_is_there_stays_as_it_is(root: Path, home: Home) -> None:
    put(root, "agents/a.md")
    (root / "agents").chmod(0o755)
    make_directory(home, "agents", 0o700)
    assert (root / "agents").stat().st_mode & 0o777 == 0o755
    assert (root / "agents/a.md").exists()


def test_a_missing_directory_cannot_be_set(home: Home) -> None:
    with pytest.raises(FileChanged):
        set_directory(home, "agents", 0o700, 1)


@pytest.mark.parametrize("path", ["file", "file/a", "link", "link/a", "a/link/b/c"])
def test_a_directory_is_not_made_over_or_through_something_else(
    tmp_path: Path, root: Path, home: Home, path: str
) -> None:
    (tmp_path / "outside").mkdir(mode=0o755)
    put(root, "file")
    (root / "a").mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "a/link").symlink_to("../../outside")
    before = (tmp_path / "outside").stat()
    with pytest.raises(HomeError, match="in the way"):
        make_directory(home, path, 0o700)
    with pytest.raises(HomeError):
        set_directory(home, path, 0o700, 1)
    after = (tmp_path / "outside").stat()
    assert (before.st_mode, before.st_mtime_ns) == (after.st_mode, after.st_mtime_ns)
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "target"), [("link", "CLAUDE.md"), ("a/b/link", "../../CLAUDE.md"), ("link", "nowhere")]
)
def test_a_link_is_restored_and_may_be_there_already(root: Path, home: Home, path: str, target: str) -> None:
    make_link(home, path, target)
    make_link(home, path, target)
    assert os.readlink(root / path) == target
    assert scan(home, Rules(), max_file_bytes=10).links[path].target == target


def test_a_link_is_restored_with_a_time_of_its_own(root: Path, home: Home) -> None:
    before = put(root, "CLAUDE.md").stat().st_mtime_ns
    make_link(home, "a/link", "../CLAUDE.md", 1_700_000_000_123_456_789)
    assert (root / "a/link").lstat().st_mtime_ns == 1_700_000_000_123_456_789
    assert (root / "CLAUDE.md").stat().st_mtime_ns == before
    assert scan(home, Rules(), max_file_bytes=10).links["a/link"].mtime_ns == 1_700_000_000_123_456_789


def test_a_link_that_is_there_keeps_its_time(root: Path, home: Home) -> None:
    make_link(home, "link", "CLAUDE.md", 42)
    make_link(home, "link", "CLAUDE.md", 43)
    make_link(home, "link", "CLAUDE.md")
    assert (root / "link").lstat().st_mtime_ns == 42


def test_an_absolute_link_to_the_same_place_counts_as_the_same(root: Path, home: Home) -> None:
    (root / "link").symlink_to(root / "CLAUDE.md")
    make_link(home, "link", "CLAUDE.md")
    assert os.readlink(root / "link") == str(root / "CLAUDE.md")


@pytest.mark.parametrize(
    "target", ["..", "../x", "/etc/passwd", "a/../../x", "a/../b", "", "a\nb", "x" * 1025]
)
def test_a_link_that_leaves_the_home_is_not_made(root: Path, home: Home, target: str) -> None:
    with pytest.raises(HomeError, match="link is not made"):
        make_link(home, "link", target)
    assert names(root) == set()


def test_a_link_displaces_nothing(root: Path, home: Home) -> None:
    put(root, "file", b"the agent's")
    (root / "link").symlink_to("elsewhere")
    with pytest.raises(HomeError, match="file is a file: it is in the way"):
        make_link(home, "file", "CLAUDE.md")
    with pytest.raises(HomeError, match=r"link is a link to elsewhere, not to CLAUDE\.md"):
        make_link(home, "link", "CLAUDE.md")
    assert (root / "file").read_bytes() == b"the agent's"
    assert os.readlink(root / "link") == "elsewhere"


def test_what_a_killed_process_left_is_removed_and_nothing_else(root: Path, home: Home) -> None:
    put(root, "projects/-work/kept.jsonl")
    put(root, "a.tmp")
    (root / ".claude-sidecar-0123456789abcdef.tmp").mkdir()
    os.mkfifo(root / "projects/.claude-sidecar-1123456789abcdef.tmp")
    kept = names(root)
    run_child(
        """
import signal
home = Home.open(pathlib.Path(sys.argv[1]))
for path in ("projects/-work/a.jsonl", "projects/new/b", "c"):
    writer = writes.open_writer(home, path); writer.write(b"half")
    globals()["keep_" + path] = writer
print(json.dumps(None), flush=True)
os._exit(0)
""",
        root,
    )
    assert len(names(root) - kept) == 4  # three temporary files and the directory "new"
    assert remove_leftovers(home) == 3
    assert names(root) == kept | {"projects/new"}


def test_a_living_writers_file_is_no_leftover(root: Path, home: Home) -> None:
    with open_writer(home, "a") as writer:
        writer.write(b"new")
        assert (
            run_child(
                """
with Home.open(pathlib.Path(sys.argv[1])) as home:
    print(json.dumps(writes.remove_leftovers(home)))
""",
                root,
            )
            == 0
        )
        assert remove_leftovers(home) == 0
        writer.commit(mtime_ns=1, mode=0o600, replacing=None)
    assert (root / "a").read_bytes() == b"new"


def test_leftovers_are_not_looked_for_behind_links(tmp_path: Path, root: Path, home: Home) -> None:
    outside = put(tmp_path, "outside/.claude-sidecar-0123456789abcdef.tmp")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / ".claude-sidecar-1123456789abcdef.tmp").symlink_to(outside)
    assert remove_leftovers(home) == 0
    assert outside.exists()
