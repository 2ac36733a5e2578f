from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import tracemalloc
from pathlib import Path

import pytest

from sidecar.errors import FileChanged, HomeError
from sidecar.home.beneath import Home
from sidecar.home.reads import json_problem, must_be_whole_json, open_file
from sidecar.home.rules import Rules
from sidecar.home.scan import scan
from tests.home.children import run_child
from tests.home.conftest import needs_root, put


def test_an_open_file_is_what_the_scan_saw(root: Path, home: Home) -> None:
    put(root, "projects/a.jsonl", b"one\ntwo\n")
    seen = scan(home, Rules(), max_file_bytes=100).files["projects/a.jsonl"]
    with open_file(home, "projects/a.jsonl") as file:
        assert file.stat == seen
        assert file.size == 8
        assert file.unchanged()
        assert file.read(4, 3) == b"two"
        assert file.read(0, 0) == b""


def test_what_is_appended_later_belongs_to_the_next_round(root: Path, home: Home) -> None:
    path = put(root, "a.jsonl", b"one\n")
    with open_file(home, "a.jsonl") as file:
        with path.open("ab") as client:
            client.write(b"two\n")
        assert file.size == 4
        assert file.last_newline() == 4
        assert file.sha256() == hashlib.sha256(b"one\n").hexdigest()
        assert not file.unchanged()


def test_a_file_cut_short_while_it_is_read_is_not_read_as_whole(root: Path, home: Home) -> None:
    path = put(root, "a.jsonl", b"x" * 3_000_000)
    with open_file(home, "a.jsonl") as file:
        os.truncate(path, 2_000_000)
        assert len(file.read(0, 2_000_000)) == 2_000_000
        with pytest.raises(FileChanged, match=r"a\.jsonl was cut short"):
            file.read(1_500_000, 1_500_000)
        with pytest.raises(FileChanged):
            file.sha256()
        with pytest.raises(FileChanged):
            file.last_newline()
        assert not file.unchanged()


@pytest.mark.parametrize("how", ["written", "renamed over", "deleted", "same size and time"])
def test_a_file_is_unchanged_only_until_somebody_touches_it(root: Path, home: Home, how: str) -> None:
    path = put(root, "a", b"one")
    with open_file(home, "a") as file:
        assert file.unchanged()
        if how == "written":
            path.write_bytes(b"two!")
        elif how == "renamed over":
            put(root, "b").rename(path)
        elif how == "deleted":
            path.unlink()
        else:
            path.write_bytes(b"two")
            os.utime(path, ns=(file.stat.mtime_ns, file.stat.mtime_ns))
        assert not file.unchanged()


def test_a_digest_covers_exactly_the_prefix(root: Path, home: Home) -> None:
    data = os.urandom(2_500_000)
    put(root, "a", data)
    with open_file(home, "a") as file:
        for length in (0, 1, 1024 * 1024, 1024 * 1024 + 1, len(data)):
            assert file.sha256(length) == hashlib.sha256(data[:length]).hexdigest()
        assert file.sha256() == hashlib.sha256(data).hexdigest()
        with pytest.raises(FileChanged):
            file.sha256(len(data) + 1)


def test_a_digest_of_a_large_file_is_made_in_little_memory(root: Path, home: Home) -> None:
    put(root, "a", b"")
    os.truncate(root / "a", 64 * 1024 * 1024)
    with open_file(home, "a") as file:
        file.sha256(1)
        tracemalloc.start()
        file.sha256()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


@pytest.mark.parametrize(
    ("data", "limit", "whole"),
    [
        (b"", None, 0),
        (b"no newline", None, 0),
        (b"one\n", None, 4),
        (b"one\ntorn", None, 4),
        (b"one\ntwo\n", 7, 4),
        (b"one\ntwo\n", 8, 8),
        (b"one\ntwo\n", 100, 8),
        (b"one\n", 0, 0),
        (b"\n" + b"x" * 200_000, None, 1),
        (b"x" * 65_535 + b"\n" + b"y" * 65_536, None, 65_536),
        (b"x" * 300_000, None, 0),
    ],
)
def test_the_last_whole_line_is_found_however_long_the_torn_one(
    root: Path, home: Home, data: bytes, limit: int | None, whole: int
) -> None:
    put(root, "a.jsonl", data)
    with open_file(home, "a.jsonl") as file:
        assert file.last_newline(limit) == whole


def test_a_fifo_without_a_writer_does_not_hold_the_reader(root: Path, home: Home) -> None:
    os.mkfifo(root / "a.jsonl")
    with pytest.raises(HomeError, match=r"a\.jsonl is a FIFO"):
        open_file(home, "a.jsonl")


def test_a_file_under_a_lease_does_not_hold_the_reader(root: Path, home: Home) -> None:
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # how the kernel asks a holder to let go
    for path in ("a.jsonl", "projects/b/c.jsonl"):
        with put(root, path).open("rb+") as holder:
            fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            with pytest.raises(FileChanged, match="another process holds it"):
                open_file(home, path)
            fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    signal.signal(signal.SIGIO, before)


@pytest.mark.parametrize("path", ["link", "a/link", "a/dirlink/secret", "dirlink/secret"])
def test_no_link_is_followed(tmp_path: Path, root: Path, home: Home, path: str) -> None:
    put(tmp_path, "secret")
    (root / "a").mkdir()
    for name in ("link", "a/link"):
        (root / name).symlink_to(tmp_path / "secret")
    for name in ("dirlink", "a/dirlink"):
        (root / name).symlink_to(tmp_path)
    with pytest.raises(HomeError, match="a link or another kind of file is in the way"):
        open_file(home, path)


@pytest.mark.parametrize("path", ["", "a"])
def test_a_directory_is_not_a_file(root: Path, home: Home, path: str) -> None:
    (root / "a").mkdir()
    with pytest.raises(HomeError, match="is a directory"):
        open_file(home, path)


@pytest.mark.parametrize("path", ["gone", "a/gone", "a/b/gone"])
def test_a_file_that_is_gone_is_told_apart(root: Path, home: Home, path: str) -> None:
    (root / "a").mkdir()
    with pytest.raises(FileChanged, match="it is not there"):
        open_file(home, path)


@needs_root
def test_a_hard_link_to_another_owners_file_is_not_read(tmp_path: Path, root: Path) -> None:
    os.chown(root, 1234, 1234)
    os.link(put(tmp_path, "secret"), root / "stolen")
    with Home.open(root) as home, pytest.raises(HomeError, match="hard link to a file of UID 0"):
        open_file(home, "stolen")


@needs_root
@pytest.mark.parametrize("then", ["its name is gone", "its name changed meanwhile"])
def test_a_second_name_that_goes_between_open_and_look_does_not_pass(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """The file that root has open then has one name only: that of its true owner, outside."""
    os.chown(root, 1234, 1234)
    os.link(put(tmp_path, "secret"), root / "stolen")
    descend = Home.descend

    def overtaken(self: Home, path: str, flags: int) -> int:
        fd = descend(self, path, flags)
        if path == "stolen":
            (root / "stolen").unlink()
            if "changed" in then:
                put(root, "stolen")
        return fd

    monkeypatch.setattr(Home, "descend", overtaken)
    with Home.open(root) as home, pytest.raises(HomeError, match=then):
        open_file(home, "stolen")


@needs_root
def test_an_unreadable_file_says_whose_it_is(shared: Path) -> None:
    put(shared, "a/b/theirs")
    kind, text = run_child(
        """
become(4321)
with Home.open(pathlib.Path(sys.argv[1])) as home:
    print(json.dumps(told(lambda: reads.open_file(home, "a/b/theirs"))))
""",
        shared,
    )
    assert kind == "HomeError"
    assert "cannot read a/b/theirs: it belongs to UID 0 with mode 0600 and cannot be read by UID 4321" in text


def test_no_descriptor_is_left_open(root: Path, home: Home) -> None:
    put(root, "a/b")
    os.mkfifo(root / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    for path in ("a/b", "fifo", "a", "gone", "a/b/c"):
        try:
            with open_file(home, path) as file:
                file.close()
        except HomeError:
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_clients_own_json_is_checked_and_other_peoples_is_not() -> None:
    checked = [".claude.json", "settings.json", "settings.local.json", "keybindings.json"]
    checked += ["plugins/installed_plugins.json", "plugins/known_marketplaces.json"]
    left = [
        "projects/a/b.json",
        "plugins/a/plugin.json",
        "history.jsonl",
        "notes.json",
        "skills/settings.json",
    ]
    assert [path for path in checked + left if must_be_whole_json(path)] == checked


@pytest.mark.parametrize(
    "data", [b"{}", b' {"a": [1, 2]}\n', b"\xef\xbb\xbf{}", b"[]", b"null", '{"ü": "é"}'.encode()]
)
def test_whole_json_has_no_problem(data: bytes) -> None:
    assert json_problem(data) == ""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b'{"a": 1', "byte 7 of 7"),
        (b'{"a": "\xff"}', "not whole JSON"),
        (b'{"a": 1}{', "not whole JSON"),
        (b"[" * 100_000, "not whole JSON"),
    ],
)
def test_json_that_was_cut_short_says_where(data: bytes, reason: str) -> None:
    assert reason in json_problem(data)
