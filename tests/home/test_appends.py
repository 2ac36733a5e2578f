from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.errors import FileChanged, HomeError
from sidecar.home import linux
from sidecar.home.beneath import Home
from sidecar.home.entries import file_stat
from sidecar.home.writes import append
from tests.home.children import run_child
from tests.home.conftest import needs_root, put


def test_lines_are_added_behind_the_last_one(root: Path, home: Home) -> None:
    put(root, "a.jsonl", b"one\n")
    after = append(home, "a.jsonl", b"two\n", expected_size=4)
    assert after == file_stat("a.jsonl", (root / "a.jsonl").stat())
    after = append(home, "a.jsonl", iter([b"three\n", b"four\n"]), expected_size=8)
    assert after == file_stat("a.jsonl", (root / "a.jsonl").stat())
    assert (root / "a.jsonl").read_bytes() == b"one\ntwo\nthree\nfour\n"


def test_an_empty_file_takes_lines(root: Path, home: Home) -> None:
    put(root, "projects/-work/a.jsonl", b"")
    assert append(home, "projects/-work/a.jsonl", b"one\n", expected_size=0).size == 4


def test_nothing_to_add_changes_nothing(root: Path, home: Home) -> None:
    before = file_stat("a.jsonl", put(root, "a.jsonl", b"one\n").stat())
    assert append(home, "a.jsonl", b"", expected_size=4) == before


@pytest.mark.parametrize("lines", [b"two\n", b""])
def test_a_restored_file_has_the_time_it_had(root: Path, home: Home, lines: bytes) -> None:
    put(root, "a.jsonl", b"one\n")
    after = append(home, "a.jsonl", lines, expected_size=4, mtime_ns=1_700_000_000_123_456_789)
    found = (root / "a.jsonl").stat()
    assert found.st_mtime_ns == 1_700_000_000_123_456_789
    assert after == file_stat("a.jsonl", found)


def test_a_time_out_of_this_world_is_cut_to_what_can_be_set(root: Path, home: Home) -> None:
    put(root, "a.jsonl", b"one\n")
    append(home, "a.jsonl", b"two\n", expected_size=4, mtime_ns=2**80)
    assert (root / "a.jsonl").read_bytes() == b"one\ntwo\n"


@needs_root
def test_who_may_write_but_not_set_the_time_is_told_so(shared: Path) -> None:
    put(shared, "a.jsonl", b"one\n").chmod(0o666)
    told = run_child(
        """
become(4321)
with Home.open(pathlib.Path(sys.argv[1])) as home:
    print(json.dumps(told(lambda: appends.append(home, "a.jsonl", b"two\\n", expected_size=4, mtime_ns=1))))
""",
        shared,
    )
    assert told[0] == "HomeError"
    assert told[1].startswith("cannot set the time of a.jsonl: UID 4321 may not")
    assert (shared / "a.jsonl").read_bytes() == b"one\ntwo\n"


def test_a_torn_last_line_is_never_appended_to(root: Path, home: Home) -> None:
    put(root, "a.jsonl", b"one\nto")
    with pytest.raises(FileChanged, match="ends within a line"):
        append(home, "a.jsonl", b"two\n", expected_size=6)
    assert (root / "a.jsonl").read_bytes() == b"one\nto"


@pytest.mark.parametrize("expected_size", [0, 3, 5, 8])
def test_a_file_of_another_size_is_never_appended_to(root: Path, home: Home, expected_size: int) -> None:
    put(root, "a.jsonl", b"one\n")
    with pytest.raises(FileChanged, match=f"has 4 bytes, not {expected_size}"):
        append(home, "a.jsonl", b"two\n", expected_size=expected_size)
    assert (root / "a.jsonl").read_bytes() == b"one\n"


def test_only_whole_lines_are_added(root: Path, home: Home) -> None:
    put(root, "a.jsonl", b"one\n")
    with pytest.raises(HomeError, match="only whole lines"):
        append(home, "a.jsonl", b"two\nthr", expected_size=4)
    assert (root / "a.jsonl").read_bytes() == b"one\n"


def test_a_missing_file_is_not_made(root: Path, home: Home) -> None:
    with pytest.raises(FileChanged, match="not there"):
        append(home, "a.jsonl", b"two\n", expected_size=0)
    assert list(root.iterdir()) == []


def test_it_is_one_write_to_a_descriptor_that_appends(
    root: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    put(root, "a.jsonl", b"one\n")
    real = os.write
    calls: list[tuple[int, int]] = []

    def counted(fd: int, data: bytes) -> int:
        calls.append((fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND, len(data)))
        return real(fd, data)

    monkeypatch.setattr(os, "write", counted)
    append(home, "a.jsonl", [b"line %d\n" % i for i in range(5000)], expected_size=4)
    assert calls == [(os.O_APPEND, 48_890)]


def test_lines_that_the_client_adds_in_that_moment_stay_whole_and_are_told(
    root: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(root, "a.jsonl", b"one\n")
    real = linux.reserve

    def overtaken(fd: int, offset: int, length: int) -> None:
        with path.open("ab") as client:
            client.write(b"the client's\n")
        real(fd, offset, length)

    monkeypatch.setattr(linux, "reserve", overtaken)
    with pytest.raises(FileChanged, match="behind others"):
        append(home, "a.jsonl", b"ours\n", expected_size=4)
    assert path.read_bytes() == b"one\nthe client's\nours\n"


def test_lines_that_the_client_adds_right_after_show_as_a_change(
    root: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(root, "a.jsonl", b"one\n")
    real = os.lseek

    def overtaken(fd: int, offset: int, whence: int) -> int:
        with path.open("ab") as client:
            client.write(b"the client's\n")
        return real(fd, offset, whence)

    monkeypatch.setattr(os, "lseek", overtaken)
    after = append(home, "a.jsonl", b"two\n", expected_size=4)
    assert after.size == 8
    assert path.read_bytes() == b"one\ntwo\nthe client's\n"


def test_a_file_with_a_second_name_is_never_appended_to(tmp_path: Path, root: Path, home: Home) -> None:
    outside = put(tmp_path, "outside", b"one\n")
    os.link(outside, root / "a.jsonl")
    with pytest.raises(HomeError, match="hard link"):
        append(home, "a.jsonl", b"two\n", expected_size=4)
    assert outside.read_bytes() == b"one\n"


@needs_root
def test_another_owners_file_is_not_appended_to_though_its_second_name_is_gone_again(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(root, 1234, 1234)
    outside = put(tmp_path, "outside", b"one\n")
    os.link(outside, root / "a.jsonl")
    descend = Home.descend

    def overtaken(self: Home, path: str, flags: int) -> int:
        fd = descend(self, path, flags)
        if path == "a.jsonl":
            (root / "a.jsonl").unlink()
        return fd

    monkeypatch.setattr(Home, "descend", overtaken)
    with Home.open(root) as home, pytest.raises(HomeError, match="its name is gone"):
        append(home, "a.jsonl", b"two\n", expected_size=4)
    assert outside.read_bytes() == b"one\n"


@pytest.mark.parametrize("path", ["link", "dirlink/outside", "a/dirlink/outside"])
def test_nothing_is_appended_through_a_link(tmp_path: Path, root: Path, home: Home, path: str) -> None:
    outside = put(tmp_path, "outside", b"one\n")
    (root / "a").mkdir()
    (root / "link").symlink_to(outside)
    (root / "dirlink").symlink_to(tmp_path)
    (root / "a/dirlink").symlink_to(tmp_path)
    with pytest.raises(HomeError, match="in the way"):
        append(home, path, b"two\n", expected_size=4)
    assert outside.read_bytes() == b"one\n"


def test_a_fifo_is_not_appended_to(root: Path, home: Home) -> None:
    os.mkfifo(root / "a.jsonl")
    with pytest.raises(HomeError, match="is a FIFO"):
        append(home, "a.jsonl", b"two\n", expected_size=0)
