"""A full volume is a real one here: a small tmpfs in a mount namespace of the child's own."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.home.children import run_child

_OWN_MOUNTS = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--mount")


@functools.cache
def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = [*_OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def own_mounts() -> tuple[str, ...]:
    if not can_mount():
        pytest.skip(
            "needs a mount namespace (unshare, of util-linux): run the tests as root with CAP_SYS_ADMIN, or "
            "where users may have namespaces"
        )
    return _OWN_MOUNTS


_MOUNT = """
import subprocess
root = pathlib.Path(sys.argv[1])
def mount(*options): subprocess.run(["mount", *options, str(root)], check=True)
mount("-t", "tmpfs", "-o", "size=1m,nr_inodes=64", "tmpfs")
home = Home.open(root)
def write(path, data, replacing=None):
    with writes.open_writer(home, path) as writer:
        writer.write(data)
        return writer.commit(mtime_ns=1, mode=0o600, replacing=replacing)
"""


def test_a_full_volume_is_told_with_the_path_and_leaves_nothing_half(
    tmp_path: Path, own_mounts: tuple[str, ...]
) -> None:
    before, told, names, free = run_child(
        _MOUNT
        + """
before = home.free_bytes()
write("kept", b"k" * 100_000)
told = told(lambda: write("projects/a/too-large", b"x" * 2_000_000))
names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
print(json.dumps([before, told, names, home.free_bytes()]))
""",
        tmp_path,
        prefix=own_mounts,
    )
    assert before == 2**20
    assert told[0] == "HomeFull"
    assert "cannot write projects/a/too-large: no space is left" in told[1]
    assert "sizeLimit" in told[1]
    assert names == ["kept", "projects", "projects/a"]
    assert free > 900_000


def test_a_volume_out_of_names_is_full_too(tmp_path: Path, own_mounts: tuple[str, ...]) -> None:
    outcomes = run_child(
        _MOUNT
        + """
files = [batches.WholeFile(f"projects/{i}", b"", 1, 0o600) for i in range(80)]
outcomes = batches.write_batch(home, files)
outcomes += [told(lambda: writes.make_directory(home, "another/one"))[0]]
outcomes += [told(lambda: writes.make_link(home, "link", "a"))[0]]
print(json.dumps([o if isinstance(o, str) else type(o).__name__ for o in outcomes]))
""",
        tmp_path,
        prefix=own_mounts,
    )
    assert outcomes.count("FileStat") == 62
    assert set(outcomes[62:]) == {"HomeFull"}


def test_an_append_to_a_full_volume_leaves_the_transcript_as_it_was(
    tmp_path: Path, own_mounts: tuple[str, ...]
) -> None:
    kind, text, tail, size = run_child(
        _MOUNT
        + """
write("a.jsonl", b"one\\n")
write("filler", b"x" * (home.free_bytes() - 4096))
kind, text = told(lambda: writes.append(home, "a.jsonl", b"line\\n" * 4000, expected_size=4))
data = (root / "a.jsonl").read_bytes()
print(json.dumps([kind, text, data[-5:].decode(), len(data)]))
""",
        tmp_path,
        prefix=own_mounts,
    )
    assert kind == "HomeFull"
    assert "cannot append to a.jsonl" in text
    assert (tail, size) == ("one\n", 4)


@pytest.mark.parametrize("reserves", [True, False])
def test_an_append_that_hits_a_limit_leaves_only_whole_lines(tmp_path: Path, reserves: bool) -> None:
    """RLIMIT_FSIZE makes the kernel write a part; without fallocate nothing warns of it before."""
    (tmp_path / "a.jsonl").write_bytes(b"one\n")
    kind, text = run_child(
        f"""
import errno, resource
resource.setrlimit(resource.RLIMIT_FSIZE, (8192 + 3, resource.RLIM_INFINITY))
def missing(*_): raise OSError(errno.EOPNOTSUPP, "")
if not {reserves}: linux.reserve = missing
with Home.open(pathlib.Path(sys.argv[1])) as home:
    print(json.dumps(told(lambda: writes.append(home, "a.jsonl", b"a line\\n" * 4000, expected_size=4))))
""",
        tmp_path,
    )
    assert kind == "HomeFull"
    assert "cannot append to a.jsonl" in text
    data = (tmp_path / "a.jsonl").read_bytes()
    assert data.removeprefix(b"one\n").replace(b"a line\n", b"") == b""
    assert len(data) <= 8195


def test_a_file_over_a_size_limit_is_told_like_a_full_volume(tmp_path: Path) -> None:
    kind, text = run_child(
        """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
def write():
    with writes.open_writer(home, "a") as writer:
        writer.write(b"x" * 10_000)
with Home.open(pathlib.Path(sys.argv[1])) as home:
    print(json.dumps(told(write)))
""",
        tmp_path,
    )
    assert kind == "HomeFull"
    assert "a size limit is reached" in text
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_home_can_be_read_and_says_why_it_cannot_be_written(
    tmp_path: Path, own_mounts: tuple[str, ...]
) -> None:
    read, files, opened, told = run_child(
        _MOUNT
        + """
write("a/b", b"x")
stat = scan(home, Rules(), max_file_bytes=10).files["a/b"]
mount("-o", "remount,bind,ro")
with reads.open_file(home, "a/b") as file: read = file.read(0, 1).decode()
print(json.dumps([read, sorted(scan(home, Rules(), max_file_bytes=10).files),
  told(lambda: Home.open(root, create=True)),
  [told(action) for action in (
    lambda: write("new", b"x"), lambda: write("a/b", b"x", stat), lambda: writes.make_directory(home, "d"),
    lambda: writes.make_link(home, "l", "a"), lambda: writes.set_directory(home, "a", 0o700, 1),
    lambda: writes.remove(home, "a/b", stat),
    lambda: writes.append(home, "a/b", b"x\\n", expected_size=1))]]))
""",
        tmp_path,
        prefix=own_mounts,
    )
    assert (read, files) == ("x", ["a/b"])
    assert "the volume is read-only" in opened[1]
    assert [kind for kind, _ in told] == ["HomeError"] * 7
    assert all("the volume is read-only (mount it writable" in text for _, text in told)
