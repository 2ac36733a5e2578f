"""One path seen alone, beside the scan that sees them all."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sidecar.errors import HomeError
from sidecar.home.beneath import Home
from sidecar.home.entries import FileStat, Refused, Scan
from sidecar.home.rules import Rules
from sidecar.home.scan import look, scan
from tests.home.children import run_child
from tests.home.conftest import needs_root, put

OPTIONS = {"max_file_bytes": 1000, "key_prefix_bytes": 900}
RULES = Rules(include=("debug/latest.txt", "uploads/"), exclude=("plans/*.draft", "!plans/kept.draft"))


def messy(root: Path) -> None:
    """A tree with everything that a scan takes, leaves out or refuses."""
    for path in (
        "CLAUDE.md", ".claude.json", ".claude.json.lock", ".credentials.json", "stats-cache.json", "debug/a",
        "debug/latest.txt", "uploads/a.png", "plans/a.draft", "plans/kept.draft", "plans/a.md.tmp",
        "skills/x/uv.lock", "skills/x/node_modules/a.js", "projects/p/a.jsonl", "projects/p/a.jsonl.lock/x",
        "projects/p/subagents/b.jsonl", "nö/日本 語", "l" * 120, "d" * 60 + "/" + "f" * 64, "e" * 125 + "/f",
        "new\nline", "bad\\dir/file", "bad\\dir/deep/file", "odd\x7f/projects/x.jsonl",
    ):  # fmt: skip
        put(root, path)
    put(root, "projects/p/large.jsonl", b"x" * 1001)
    open(os.fsencode(root) + b"/projects/\xff\xfe", "wb").close()
    os.mkfifo(root / "fifo")
    for link, target in (("kept", "CLAUDE.md"), ("out", "/etc/passwd"), ("skills/up", "../..")):
        (root / link).symlink_to(target)
    (root / "way").symlink_to("projects")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))


def every_path(root: Path) -> list[str]:
    """Every name below `root`, and some that are not there."""
    found = [
        str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink()
    ]
    absent = [path + part for path in found for part in ("-absent", "/absent", "/absent/" + "n" * 300)]
    return [*found, *absent, "way/p/a.jsonl", "absent", "ab\nsent", "absent/x", "n" * 300, "debug/absent"]


def as_scanned(found: Scan, path: str) -> FileStat | Refused | None:
    if path in found.files:
        return found.files[path]
    standing_for = [r for r in found.refused if path == r.path or path.startswith(r.path + "/")]
    return standing_for[0] if standing_for else None


def test_it_agrees_with_a_scan_on_every_path_of_a_messy_tree(root: Path, home: Home) -> None:
    messy(root)
    found = scan(home, RULES, **OPTIONS)
    seen = {path: look(home, RULES, path, **OPTIONS) for path in every_path(root)}
    there = {path: answer for path, answer in seen.items() if os.path.lexists(root / path)}
    assert there == {path: as_scanned(found, path) for path in there if "way/" not in path} | {
        "way/p/a.jsonl": None
    }
    assert {path for path, answer in there.items() if isinstance(answer, FileStat)} == set(found.files)
    assert {answer for answer in there.values() if isinstance(answer, Refused)} == set(found.refused)
    assert {answer for path, answer in seen.items() if path not in there} == {None}


def test_a_directory_is_no_file(root: Path, home: Home) -> None:
    put(root, "projects/p/a.jsonl")
    (root / "new\nline").mkdir()
    for path in ("", "projects", "projects/p", "new\nline"):
        assert look(home, Rules(), path, max_file_bytes=100) is None


@pytest.mark.parametrize("path", ["..", "../x", "/etc/passwd", "a/../../x", "a//b", "a\0b", "a/"])
def test_what_is_no_path_below_the_home_is_an_error(home: Home, path: str) -> None:
    with pytest.raises(HomeError, match="not a path below the home"):
        look(home, Rules(), path, max_file_bytes=100)


def test_it_leaves_no_descriptor_open(root: Path, home: Home) -> None:
    messy(root)
    before = set(os.listdir("/proc/self/fd"))
    for path in every_path(root):
        look(home, RULES, path, **OPTIONS)
    assert set(os.listdir("/proc/self/fd")) == before


@needs_root
def test_it_refuses_what_this_user_cannot_read_as_a_scan_does(shared: Path) -> None:
    for path in ("mine.md", "theirs.md", "closed/a/b.md", "blind/a.md", "blind/b/c.md", "search/a/b.md"):
        put(shared, path)
    for path in ("", "mine.md", "closed", "blind", "search", "search/a", "search/a/b.md"):
        os.chown(shared / path, 4321, 4321)
    (shared / "closed").chmod(0)
    (shared / "blind").chmod(0o600)  # may be listed, not entered
    (shared / "search").chmod(0o100)  # may be entered, not listed
    seen, refused = run_child(
        """
from sidecar.home.scan import look
become(4321)
with Home.open(pathlib.Path(sys.argv[1])) as home:
    options = {"max_file_bytes": 100}
    seen = [repr(look(home, Rules(), path, **options)) for path in sys.argv[2:]]
    found = scan(home, Rules(), **options)
print(json.dumps([seen, {refused.path: repr(refused) for refused in found.refused}]))
""",
        shared,
        *("mine.md", "theirs.md", "closed/a/b.md", "blind/a.md", "blind/b/c.md", "search/a/b.md"),
    )
    assert "path='mine.md'" in seen[0]
    assert seen[1:] == [refused[path] for path in ("theirs.md", "closed", "blind", "blind/b", "search")]
