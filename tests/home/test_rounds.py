"""Where the kernel does not tell of changes they are looked for, and why that is so is said."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.home import notices, rounds
from sidecar.home.beneath import Home
from sidecar.home.rules import Rules
from tests.home.children import run_child
from tests.home.conftest import IS_ROOT, needs_root, put
from tests.home.watching import Watched, inodes_watched


def test_without_notices_it_goes_round_and_says_so_once(
    root: Path,
    begin: Callable[..., Watched],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(notices, "DIRECTORIES_WATCHED", 5)
    put(root, "a/b/c.md")
    with caplog.at_level(logging.WARNING, "sidecar"):
        watched = begin().armed()
        assert watched.watch.fallback == ""
        put(root, "a/b/d/e/f/g.md")
        watched.until(lambda: watched.watch.fallback)
        watched.until(lambda: watched.everything)
        watched.forget()
        put(root, "a/b/d/e/f/h.md")
        watched.until_told("a/b/d/e/f/h.md")
    assert watched.watch.fallback_reason == "limit"
    assert inodes_watched() == set()
    assert [record.getMessage() for record in caplog.records] == [
        "Changes in the home are looked for every 0.02 s: the home has more than 5 directories"
    ]


def test_rounds_do_not_look_at_what_the_rules_leave_out(
    root: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root, "debug/a")
    put(root, "projects/p/a.jsonl")
    opened: list[str] = []
    descend = Home.descend

    def noted(self: Home, path: str, flags: int) -> int:
        opened.append(path)
        return descend(self, path, flags)

    monkeypatch.setattr(Home, "descend", noted)
    assert list(rounds.Rounds(home, Rules(), lambda: False).changes()) == ["projects/p/a.jsonl"]
    assert opened == ["", "projects", "projects/p"]


def test_rounds_remember_so_many_files_and_miss_none(
    root: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "FILES_REMEMBERED", 3)
    for i in range(9):
        put(root, f"{i}.md")
    looked = rounds.Rounds(home, Rules(), lambda: False)
    assert None in list(looked.changes())
    assert list(looked.changes()) == []
    assert len(looked._files) == 3
    for i in range(9):
        put(root, f"{i}.md", b"more\n" * i)
        changed = list(looked.changes())
        assert changed in ([f"{i}.md"], [None])
        assert list(looked.changes()) == []
    (root / "4.md").unlink()
    assert list(looked.changes()) != []


_USED_UP = """
import logging, threading
from inotify_simple import INotify
from sidecar.home import notices, rounds
from sidecar.home.watch import Watch
def tells(root):
    more = threading.Event()
    with Home.open(root) as home:
        watch = Watch.start(home, Rules(), more.set, poll_seconds=0.02)
        assert watch.wait_until_armed(60)
        assert watch.take().everything
        (root / "new.md").write_text("x")
        told = set()
        while "new.md" not in told:
            more.wait(60); more.clear(); told |= watch.take().paths
        watch.stop()
    assert watch.fallback_reason == "limit"
    return watch.fallback
"""


@needs_root
def test_without_an_inotify_instance_it_goes_round(shared: Path) -> None:
    os.chown(shared, 54321, 54321)
    fallback = run_child(
        _USED_UP
        + """
become(54321)
taken = []
try:
    while True: taken.append(INotify())
except OSError: pass
print(json.dumps(tells(pathlib.Path(sys.argv[1]))))
""",
        shared,
    )
    limit = Path("/proc/sys/fs/inotify/max_user_instances").read_text().strip()
    assert f"fs.inotify.max_user_instances is {limit} for all containers of this UID" in fallback
    assert "raise fs.inotify.max_user_instances on the node" in fallback


def test_without_watches_for_all_directories_it_goes_round(root: Path) -> None:
    prefix = ("unshare", "--user", "--map-root-user")
    limit = "/proc/sys/user/max_inotify_watches"
    probe = subprocess.run([*prefix, "sh", "-c", f"echo 10 > {limit}"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(
            f"needs a user namespace whose {limit} can be set: run the tests as root with CAP_SYS_ADMIN, or "
            "where users may have namespaces"
        )
    for i in range(20):
        put(root, f"projects/{i}/a.jsonl")
    fallback = run_child(
        _USED_UP
        + """
pathlib.Path("/proc/sys/user/max_inotify_watches").write_text("10")
print(json.dumps(tells(pathlib.Path(sys.argv[1]))))
""",
        root,
        prefix=prefix,
    )
    assert "no inotify watch is left: fs.inotify.max_user_watches is" in fallback


def test_the_type_of_a_file_system_is_found_by_its_path(tmp_path: Path) -> None:
    assert notices.file_system(Path("/proc/self")) == "proc"
    told = subprocess.run(
        ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert notices.file_system(tmp_path.resolve()) == told.stdout.strip()


def test_the_type_is_found_behind_a_name_that_is_written_in_another_way(tmp_path: Path) -> None:
    point = tmp_path / "with space \\ and é"
    point.mkdir()
    prefix = ("unshare", "--mount") if IS_ROOT else ("unshare", "--map-root-user", "--mount")
    mounted = f'mount -t ramfs ramfs "{point}"'.replace("\\", "\\\\")
    if subprocess.run([*prefix, "sh", "-c", mounted], capture_output=True, check=False).returncode:
        pytest.skip(
            "needs a mount namespace (unshare, of util-linux): run the tests as root with CAP_SYS_ADMIN, or "
            "where users may have namespaces"
        )
    source = """
import subprocess
from sidecar.home import notices
point = pathlib.Path(sys.argv[1])
subprocess.run(["mount", "-t", "ramfs", "ramfs", str(point)], check=True)
print(json.dumps(notices.file_system(point)))
"""
    assert run_child(source, point, prefix=prefix) == "ramfs"
