"""Processes that write into a home, and a watch that has to know of it."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.home import changes, notices, rounds, watch, writes
from sidecar.home.beneath import Home
from sidecar.home.entries import FileStat
from sidecar.home.rules import Rules
from sidecar.home.scan import look, scan
from sidecar.home.watch import Changes, Watch
from tests.home.children import REPOSITORY, run_child
from tests.home.conftest import IS_ROOT, names, needs_root, put

LONG_SECONDS = 30.0


class Watched:
    """A watch, and all that it has told."""

    def __init__(self, home: Home, rules: Rules | None = None) -> None:
        self.home = home
        self.rules = rules or Rules()
        self.paths: set[str] = set()
        self.everything = 0
        self._condition = threading.Condition()
        self._calls = 0
        self.gate = threading.Event()
        self.gate.set()
        self.watch = Watch.start(home, self.rules, self._on_change, poll_seconds=0.02)

    def _on_change(self) -> None:
        with self._condition:
            self._calls += 1
            self._condition.notify_all()
        self.gate.wait()

    def armed(self) -> Watched:
        """Wait for the watch, and forget that it began."""
        assert self.watch.wait_until_armed(LONG_SECONDS)
        self.until(lambda: self.everything > 0)
        return self.forget()

    def forget(self) -> Watched:
        self.paths, self.everything = set(), 0
        return self

    def hold(self, root: Path) -> None:
        """Let the watch stand still, until ``gate`` is set, in the middle of telling."""
        self.gate.clear()
        calls = self._calls
        put(root, "gate.md")
        with self._condition:
            assert self._condition.wait_for(lambda: self._calls > calls, LONG_SECONDS)

    def until(self, is_enough: Callable[[], object]) -> None:
        end = time.monotonic() + LONG_SECONDS
        with self._condition:
            self.take()
            while not is_enough():
                assert self._condition.wait(end - time.monotonic()), f"only {self.paths} were told"
                self.take()

    def until_told(self, *paths: str) -> None:
        self.until(lambda: self.everything or self.paths.issuperset(paths))

    def take(self) -> None:
        changes = self.watch.take()
        self.paths |= changes.paths
        self.everything += changes.everything
        assert (changes.first_at_ns is None) == (not changes.paths and not changes.everything)

    def settled(self, root: Path) -> set[str]:
        """Everything told until now: a last file marks where "now" is."""
        self._wait_for_mark(root)
        if (
            self.watch.fallback
        ):  # the mark came at the beginning of a round; the next one is told after its end
            self._wait_for_mark(root)
        return {path for path in self.paths if not path.startswith("mark-")}

    def _wait_for_mark(self, root: Path) -> None:
        name = f"mark-{random.random()}"
        while name not in self.paths:  # "everything" swallows it
            calls = self._calls
            put(root, name)
            self.until(lambda: name in self.paths or self._calls > calls)  # noqa: B023


@pytest.fixture(params=["notices", "rounds"])
def way(request: pytest.FixtureRequest, root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """How changes are found. Rounds: what gVisor's file system is, this one is taken for."""
    if request.param == "rounds":
        kind = notices.file_system(root.resolve())
        monkeypatch.setattr(notices, "_FILE_SYSTEMS_WITHOUT_NOTICES", frozenset((kind,)))
    return str(request.param)


@pytest.fixture
def begin(home: Home) -> Iterator[Callable[..., Watched]]:
    """``begin()`` starts a watch over the home; it is stopped in the end."""
    begun: list[Watched] = []

    def start(rules: Rules | None = None) -> Watched:
        begun.append(Watched(home, rules))
        return begun[-1]

    yield start
    for watched in begun:
        watched.gate.set()
        watched.watch.stop()
        assert not watched.watch.alive


def agent(root: Path, source: str) -> None:
    """Another process does this in the home."""
    command = [sys.executable, "-c", "import os, pathlib, shutil\n" + source]
    subprocess.run(command, cwd=root, check=True, timeout=LONG_SECONDS)


def inodes_watched() -> set[int]:
    """Which directories this process watches, as the kernel has it."""
    found: set[int] = set()
    for info in Path("/proc/self/fdinfo").iterdir():
        try:
            lines = info.read_text().splitlines()
        except OSError:
            continue
        found |= {int(line.split("ino:")[1].split()[0], 16) for line in lines if line.startswith("inotify")}
    return found


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


def test_names_that_cannot_be_keys_are_told_and_such_directories_not_entered(
    way: str, root: Path, begin: Callable[..., Watched]
) -> None:
    (root / "bad\\directory").mkdir()
    watched = begin().armed()
    (root / "worse\ndirectory").mkdir()
    for path in ("bad\\directory/a.md", "worse\ndirectory/a.md", "new\nline", os.fsdecode(b"\xff")):
        put(root, path)
    assert watched.settled(root) == {"new\nline", "\udcff"}


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
