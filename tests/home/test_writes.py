from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from sidecar.errors import FileChanged, HomeError
from sidecar.home import linux, writes
from sidecar.home.beneath import Home
from sidecar.home.entries import FileStat, file_stat
from sidecar.home.rules import Rules
from sidecar.home.scan import scan
from tests.home.conftest import names, needs_modern_kernel, needs_root, put

OLD = 1_500_000_000_123_456_789


def write(home: Home, path: str, data: bytes = b"new\n", **options: object) -> FileStat:
    arguments: dict[str, object] = {"mtime_ns": OLD, "mode": 0o600, "replacing": None} | options
    with writes.open_writer(home, path) as writer:
        writer.write(data)
        return writer.commit(**arguments)  # type: ignore[arg-type]


def stat_of(root: Path, path: str) -> FileStat:
    return file_stat(path, os.lstat(root / path))


@pytest.fixture(params=["renames of today", "links", "neither"])
def any_volume(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """File systems: with the renames of `renameat2`, with hard links only (NFS), with neither (some FUSE)."""

    def lacking(*_: object, **__: object) -> None:
        raise OSError(22, "Invalid argument")

    if request.param != "renames of today":
        monkeypatch.setattr(linux, "rename_to_free_name", lacking)
        monkeypatch.setattr(linux, "exchange", lacking)
    if request.param == "neither":
        monkeypatch.setattr(os, "link", lacking)
    return str(request.param)


def test_a_committed_file_is_what_the_next_scan_sees(root: Path, home: Home, any_volume: str) -> None:
    committed = write(home, "projects/-work/a.jsonl", b"one\n" * 1000, mode=0o640)
    assert committed.size == 4000
    assert committed.mtime_ns == OLD
    assert committed.mode == 0o640
    assert scan(home, Rules(), max_file_bytes=10_000).files == {"projects/-work/a.jsonl": committed}
    assert (root / "projects/-work/a.jsonl").read_bytes() == b"one\n" * 1000
    assert names(root) == {"projects", "projects/-work", "projects/-work/a.jsonl"}


def test_a_replaced_file_is_what_the_next_scan_sees(root: Path, home: Home, any_volume: str) -> None:
    put(root, "a/b", b"old")
    committed = write(home, "a/b", replacing=stat_of(root, "a/b"))
    assert scan(home, Rules(), max_file_bytes=10_000).files == {"a/b": committed}
    assert (root / "a/b").read_bytes() == b"new\n"
    assert names(root) == {"a", "a/b"}


def test_nothing_is_seen_of_a_file_before_its_commit(root: Path, home: Home) -> None:
    put(root, "a", b"old")
    with writes.open_writer(home, "a") as writer:
        writer.write(b"new")
        assert (root / "a").read_bytes() == b"old"
        found = scan(home, Rules(), max_file_bytes=100)
        assert (set(found.files), found.excluded) == ({"a"}, 1)
        (temporary,) = names(root) - {"a"}
        assert temporary.startswith(".claude-sidecar-")
        assert (root / temporary).stat().st_mode & 0o777 == 0o600
    assert names(root) == {"a"}
    assert (root / "a").read_bytes() == b"old"


def test_a_failure_within_leaves_nothing(root: Path, home: Home) -> None:
    with pytest.raises(ZeroDivisionError), writes.open_writer(home, "a") as writer:
        writer.write(b"x")
        raise ZeroDivisionError
    assert names(root) == set()


def test_a_file_that_appeared_meanwhile_is_not_overwritten(root: Path, home: Home, any_volume: str) -> None:
    put(root, "a", b"the agent's")
    with pytest.raises(FileChanged, match="a appeared meanwhile"):
        write(home, "a", replacing=None)
    assert (root / "a").read_bytes() == b"the agent's"
    assert names(root) == {"a"}


@pytest.mark.parametrize(
    "touch",
    [
        lambda path: path.write_bytes(b"newer"),
        lambda path: os.truncate(path, 4),
        lambda path: path.chmod(0o644),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: (path.with_name("n").write_bytes(b"old"), path.with_name("n").rename(path)),
        lambda path: path.unlink(),
    ],
    ids=["rewritten", "grown", "mode", "time", "renamed over", "deleted"],
)
def test_a_file_that_is_not_the_expected_one_is_not_replaced(
    root: Path, home: Home, touch: Callable[[Path], object], any_volume: str
) -> None:
    expected = stat_of(root, put(root, "a", b"old").name)
    touch(root / "a")
    after = (root / "a").read_bytes() if (root / "a").exists() else None
    with pytest.raises(FileChanged):
        write(home, "a", replacing=expected)
    assert ((root / "a").read_bytes() if (root / "a").exists() else None) == after
    assert names(root) <= {"a"}


@needs_modern_kernel
@pytest.mark.parametrize("how", ["rename", "append"])
def test_a_write_in_the_very_moment_of_the_replacement_is_not_lost(
    root: Path, home: Home, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    expected = stat_of(root, put(root, "a", b"old").name)
    real = linux.exchange
    moments = iter([True])

    def overtaken(directory: int, old: str, new: str) -> None:
        if next(moments, False):
            if how == "rename":
                put(root, "n", b"the agent's").rename(root / "a")
            else:
                with (root / "a").open("ab") as agent:
                    agent.write(b" the agent's")
        real(directory, old, new)

    monkeypatch.setattr(linux, "exchange", overtaken)
    with pytest.raises(FileChanged, match="in the moment of its replacement"):
        write(home, "a", replacing=expected)
    assert (root / "a").read_bytes().endswith(b"the agent's")
    assert names(root) == {"a"}


@needs_modern_kernel
def test_the_newest_of_two_writes_in_that_moment_stays(
    root: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = stat_of(root, put(root, "a", b"old").name)
    real = linux.exchange
    versions = iter([b"second", b"third"])

    def overtaken(directory: int, old: str, new: str) -> None:
        if version := next(versions, b""):
            put(root, "n", version).rename(root / "a")
        real(directory, old, new)

    monkeypatch.setattr(linux, "exchange", overtaken)
    with pytest.raises(FileChanged):
        write(home, "a", replacing=expected)
    assert (root / "a").read_bytes() == b"third"
    assert names(root) == {"a"}


def test_anything_but_a_directory_can_be_replaced_on_request(tmp_path: Path, root: Path, home: Home) -> None:
    secret = put(tmp_path, "secret", b"secret")
    (root / "link").symlink_to(secret)
    os.mkfifo(root / "fifo")
    put(root, "file")
    (root / "directory").mkdir()
    for path in ("link", "fifo", "file", "free"):
        write(home, path, replacing="anything")
        assert (root / path).read_bytes() == b"new\n"
        assert not (root / path).is_symlink()
    assert secret.read_bytes() == b"secret"
    with pytest.raises(HomeError, match="in the way"):
        write(home, "directory", replacing="anything")


@pytest.mark.parametrize("replacing", [None, FileStat("a", 1, 1, 1, 0o600, 1)])
def test_what_is_no_file_is_never_displaced(root: Path, home: Home, replacing: FileStat | None) -> None:
    (root / "directory").mkdir()
    (root / "link").symlink_to("nowhere")
    os.mkfifo(root / "fifo")
    before = names(root)
    for path, what in (("directory", "a directory"), ("link", "a symbolic link"), ("fifo", "a FIFO")):
        with pytest.raises(HomeError, match=f"{path} is {what}: it is in the way") as caught:
            write(home, path, replacing=replacing)
        assert not isinstance(caught.value, FileChanged)
    assert names(root) == before


@pytest.mark.parametrize("path", ["file/a", "file/a/b", "link/a", "link/a/b"])
def test_nothing_is_written_through_a_file_or_a_link(
    tmp_path: Path, root: Path, home: Home, path: str
) -> None:
    (tmp_path / "outside").mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    put(root, "file")
    with pytest.raises(HomeError, match="in the way"):
        write(home, path)
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("path", ["", "../a", "a/..", ".", "..", "/a", "a/", "a\0b"])
def test_paths_that_are_not_plain_are_refused(root: Path, home: Home, path: str) -> None:
    with pytest.raises(HomeError):
        write(home, path)
    with pytest.raises(HomeError):
        writes.remove(home, path, FileStat(path, 1, 1, 1, 1, 1))
    assert names(root) == set()


def test_dangerous_mode_bits_are_dropped(root: Path, home: Home) -> None:
    assert write(home, "a", mode=0o7755).mode == 0o755
    assert (root / "a").stat().st_mode & 0o7777 == 0o755


def test_the_mode_does_not_depend_on_the_umask(root: Path, home: Home) -> None:
    before = os.umask(0o077)
    try:
        assert write(home, "a", mode=0o664).mode == 0o664
    finally:
        os.umask(before)


@pytest.mark.parametrize("mtime_ns", [0, -1, 1, 4_102_444_800_000_000_001, 10**30, -(10**30)])
def test_any_time_can_be_asked_for_and_what_was_set_is_told(root: Path, home: Home, mtime_ns: int) -> None:
    committed = write(home, "a", mtime_ns=mtime_ns)
    assert committed.mtime_ns == (root / "a").stat().st_mtime_ns
    if abs(mtime_ns) < 10**19:
        assert committed.mtime_ns == mtime_ns


def test_directories_above_are_made_private(root: Path, home: Home) -> None:
    write(home, "projects/-work/a.jsonl")
    for path in ("projects", "projects/-work"):
        assert (root / path).stat().st_mode & 0o7777 == 0o700


def test_odd_and_longest_names_can_be_written(root: Path, home: Home) -> None:
    for name in ("n" * 255, "é" * 127, 'it\'s "quoted"', " ", os.fsdecode(b"\xff"), "new\nline"):
        write(home, f"notes/{name}")
        assert (root / "notes" / name).read_bytes() == b"new\n"


def test_what_was_written_after_the_commit_shows_as_a_change(root: Path, home: Home) -> None:
    """The agent appends between the rename and our last look: that must not count as restored."""
    real = os.fstat
    looks: list[int] = []
    with writes.open_writer(home, "a") as writer:
        writer.write(b"restored\n")

        def late(fd: int) -> os.stat_result:
            looks.append(fd)
            if (root / "a").exists():
                with (root / "a").open("ab") as agent:
                    agent.write(b"more\n")
            return real(fd)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fstat", late)
            committed = writer.commit(mtime_ns=OLD, mode=0o600, replacing=None)
    assert committed.size == 9
    assert committed.mtime_ns == OLD
    assert scan(home, Rules(), max_file_bytes=100).files["a"] != committed


@needs_root
def test_root_gives_files_and_directories_to_the_owner_and_links_stay_its_own(root: Path) -> None:
    os.chown(root, 1234, 2345)
    (root / "there").mkdir()
    with Home.open(root) as home:
        write(home, "a/b/c", mode=0o4755)
        write(home, "there/d")
        writes.make_directory(home, "e/f", 0o750)
    for path in ("a", "a/b", "a/b/c", "there/d", "e", "e/f"):
        found = (root / path).stat()
        assert (found.st_uid, found.st_gid) == (1234, 2345), path
    assert (root / "there").stat().st_uid == 0
    assert (root / "a/b/c").stat().st_mode & 0o7777 == 0o755


def test_a_file_is_removed_only_if_it_is_the_expected_one(root: Path, home: Home, any_volume: str) -> None:
    expected = stat_of(root, put(root, "a").name)
    with (root / "a").open("ab") as agent:
        agent.write(b"x")
    with pytest.raises(FileChanged):
        writes.remove(home, "a", expected)
    assert names(root) == {"a"}
    writes.remove(home, "a", stat_of(root, "a"))
    assert names(root) == set()
    with pytest.raises(FileChanged):
        writes.remove(home, "a", expected)


def test_a_write_in_the_very_moment_of_the_removal_is_not_lost(
    root: Path, home: Home, monkeypatch: pytest.MonkeyPatch, any_volume: str
) -> None:
    expected = stat_of(root, put(root, "a").name)
    real = os.rename

    def overtaken(old: str, new: str, **options: int) -> None:
        with (root / "a").open("ab") if (root / "a").exists() else open(os.devnull, "ab") as agent:
            agent.write(b"the agent's")
        real(old, new, **options)

    monkeypatch.setattr(os, "rename", overtaken)
    with pytest.raises(FileChanged, match="in the moment of its removal"):
        writes.remove(home, "a", expected)
    assert (root / "a").read_bytes().endswith(b"the agent's")
    assert names(root) == {"a"}


def test_no_descriptor_is_left_open(root: Path, home: Home) -> None:
    put(root, "taken")
    before = len(os.listdir("/proc/self/fd"))
    for path in ("a/b/c", "taken", "taken/x", "d", "../x"):
        with suppress(HomeError):
            write(home, path)
    assert len(os.listdir("/proc/self/fd")) == before
