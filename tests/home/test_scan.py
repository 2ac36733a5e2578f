from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from sidecar.errors import HomeError
from sidecar.home.beneath import Home
from sidecar.home.entries import DirStat, FileStat, LinkStat, Refused, Scan
from sidecar.home.rules import Rules
from sidecar.home.scan import look, scan
from tests.home.children import run_child
from tests.home.conftest import needs_root, put

MIB = 1024 * 1024


def scanned(home: Home, **options: int) -> Scan:
    return scan(home, Rules(), **({"max_file_bytes": MIB} | options))


def reasons(found: Scan) -> dict[str, str]:
    return {refused.path: refused.reason for refused in found.refused}


def test_a_file_is_found_with_size_time_mode_and_inode(root: Path, home: Home) -> None:
    path = put(root, "projects/-work/a.jsonl", b"one\ntwo\n")
    os.chmod(path, 0o640)
    os.utime(path, ns=(1, 1_700_000_000_123_456_789))
    st = path.stat()
    assert scanned(home).files == {
        "projects/-work/a.jsonl": FileStat(
            "projects/-work/a.jsonl", 8, 1_700_000_000_123_456_789, st.st_ctime_ns, 0o640, st.st_ino
        )
    }


def test_directories_are_found_with_time_and_mode_the_home_among_them(root: Path, home: Home) -> None:
    (root / "agents" / "empty").mkdir(parents=True)
    os.chmod(root / "agents" / "empty", 0o2750)
    os.utime(root / "agents" / "empty", ns=(1, 42_000_000_007))
    os.utime(root, ns=(1, 43))
    found = scanned(home).directories
    assert set(found) == {"", "agents", "agents/empty"}
    assert found["agents/empty"] == DirStat("agents/empty", 42_000_000_007, 0o750)
    assert found[""] == DirStat("", 43, 0o700)


def test_what_the_rules_leave_out_is_only_counted(root: Path, home: Home) -> None:
    for path in ("debug/a", "debug/b", "node_modules/c", ".credentials.json", "CLAUDE.md"):
        put(root, path)
    found = scanned(home)
    assert set(found.files) == {"CLAUDE.md"}
    assert found.excluded == 3
    assert found.refused == ()


def test_a_sparse_terabyte_is_refused_by_its_size(root: Path, home: Home) -> None:
    put(root, "projects/huge.bin", b"")
    os.truncate(root / "projects/huge.bin", 2**40)
    put(root, "projects/fits.bin", b"x" * MIB)
    found = scanned(home)
    assert set(found.files) == {"projects/fits.bin"}
    assert reasons(found) == {
        "projects/huge.bin": "it has 1,048,576.0 MiB, more than the 1.0 MiB of CLAUDE_SIDECAR_MAX_FILE_MIB"
    }


def test_what_is_neither_file_nor_directory_is_refused(root: Path, home: Home) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
        assert reasons(scanned(home)) == {"fifo": "it is a FIFO", "socket": "it is a socket"}


@needs_root
def test_a_device_is_refused(root: Path, home: Home) -> None:
    os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    assert reasons(scanned(home)) == {"null": "it is a device"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"new\nline", "a control character in the name"),
        (b"back\\slash", "a backslash in the name"),
        (b"\xff\xfe", "a name that is not valid UTF-8"),
        (b"delete\x7f", "a control character in the name"),
    ],
)
@pytest.mark.parametrize("is_directory", [False, True])
def test_names_that_cannot_be_keys_are_refused_with_all_below(
    root: Path, home: Home, name: bytes, reason: str, is_directory: bool
) -> None:
    if is_directory:
        os.mkdir(os.fsencode(root) + b"/" + name)
        open(os.fsencode(root) + b"/" + name + b"/below", "wb").close()
    else:
        open(os.fsencode(root) + b"/" + name, "wb").close()
    found = scanned(home)
    assert found.files == {}
    assert reasons(found) == {os.fsdecode(name): reason}


@pytest.mark.parametrize(
    "name", ['it\'s "quoted" $(x) `y`.md', "n" * 255, "é" * 127, "日本 語", " ", "-rf", "%2e"]
)
def test_names_that_are_only_odd_are_taken(root: Path, home: Home, name: str) -> None:
    put(root, f"notes/{name}")
    found = scanned(home)
    assert set(found.files) == {f"notes/{name}"}
    assert found.refused == ()


def nest(root: Path, name: str, levels: int) -> None:
    """Directories in directories, deeper than their path could be written."""
    fd = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def test_a_path_too_long_for_a_key_is_refused_and_a_deeper_one_never_reached(root: Path, home: Home) -> None:
    nest(root, "d", 530)
    found = scanned(home)
    assert max(map(len, found.directories)) == 1023
    assert reasons(found) == {"d/" * 512 + "d": "a key longer than 1024 bytes"}
    found = scanned(home, key_prefix_bytes=1000)
    assert max(map(len, found.directories)) == 23


def test_a_tree_deeper_than_any_path_does_not_stop_a_scan(root: Path, home: Home) -> None:
    put(root, "projects/a.jsonl")
    nest(root, "d" * 250, 40)  # 10,000 bytes; PATH_MAX is 4,096
    found = scanned(home)
    assert set(found.files) == {"projects/a.jsonl"}
    assert [len(path) for path in reasons(found)] == [5 * 251 - 1]


def test_a_prefix_counts_in_bytes_not_in_characters(root: Path, home: Home) -> None:
    put(root, "é" * 12)
    assert scanned(home, key_prefix_bytes=1000).refused == ()
    put(root, "é" * 12 + "n")
    assert list(reasons(scanned(home, key_prefix_bytes=1000))) == ["é" * 12 + "n"]


@pytest.mark.parametrize(
    ("path", "target", "kept"),
    [
        ("link", "CLAUDE.md", "CLAUDE.md"),
        ("link", "./a/b", "./a/b"),
        ("link", "nowhere", "nowhere"),
        ("link", ".", "."),
        ("link", "debug/latest", "debug/latest"),
        ("a/link", "../CLAUDE.md", "../CLAUDE.md"),
        ("a/b/link", "../../x/y", "../../x/y"),
        ("a/b/link", "../..", "../.."),
        ("link", "{root}/a/b", "a/b"),
        ("a/b/link", "{root}/x/y", "../../x/y"),
        ("a/link", "{root}", ".."),
        ("link", "{root}/", "."),
    ],
)
def test_a_link_inside_the_home_is_kept_as_a_relative_one(
    root: Path, home: Home, path: str, target: str, kept: str
) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).symlink_to(target.replace("{root}", str(root)))
    os_target = os.readlink(root / path)
    assert scanned(home).links == {path: LinkStat(path, kept)}, os_target


@pytest.mark.parametrize(
    ("path", "target", "reason"),
    [
        ("link", "/etc/passwd", "leaves the home"),
        ("link", "..", "leaves the home"),
        ("link", "../home/CLAUDE.md", "leaves the home"),
        ("a/link", "../../x", "leaves the home"),
        ("a/link", "./.././../x", "leaves the home"),
        ("link", "{root}-of-another/x", "leaves the home"),
        ("link", "{root}/../x", "leaves the home"),
        ("link", "a/../b", "'..' behind a name"),
        ("link", "a/b/../../../etc/passwd", "'..' behind a name"),
        ("link", "{root}/a/../../etc", "'..' behind a name"),
        ("link", "a\nb", "control character"),
        ("link", os.fsdecode(b"\xff"), "not valid UTF-8"),
        ("link", "x" * 1025, "longer than 1024 bytes"),
    ],
)
def test_a_link_that_leaves_the_home_is_refused(
    root: Path, home: Home, path: str, target: str, reason: str
) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).symlink_to(target.replace("{root}", str(root)))
    found = scanned(home)
    assert found.links == {}
    assert reason in reasons(found)[path]


def test_a_link_is_never_entered_and_a_directory_rule_holds_for_it(
    tmp_path: Path, root: Path, home: Home
) -> None:
    put(tmp_path / "outside", "secret")
    (root / "skills").symlink_to(tmp_path / "outside")
    (root / "debug").symlink_to("agents")
    (root / "agents").mkdir()
    found = scanned(home)
    assert found.files == {}
    assert found.links == {}
    assert set(reasons(found)) == {"skills"}
    assert found.excluded == 1


@needs_root
def test_a_hard_link_to_another_owners_file_is_refused(tmp_path: Path, root: Path) -> None:
    os.chown(root, 1234, 1234)
    secret = put(tmp_path, "secret")
    os.link(secret, root / "stolen")
    for name in ("one", "two"):
        os.chown(put(root, name), 1234, 1234)
    os.link(root / "one", root / "same-as-one")
    put(root, "made-by-root")
    with Home.open(root) as home:
        found = scanned(home)
    assert set(found.files) == {"one", "same-as-one", "two", "made-by-root"}
    assert "hard link to a file of UID 0" in reasons(found)["stolen"]


@needs_root
def test_a_hard_link_that_is_replaced_between_its_lookup_and_the_stat_is_refused(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(root, 1234, 1234)
    os.link(put(tmp_path, "secret"), root / "stolen")
    os.chown(put(tmp_path, "plain"), 1234, 1234)
    real = os.stat

    def replaced_meanwhile(path: object, **options: object) -> os.stat_result:
        if path != "stolen" or not (tmp_path / "plain").exists():
            return real(path, **options)  # type: ignore[arg-type]
        reached = os.open(root / "stolen", os.O_PATH | os.O_NOFOLLOW)
        os.rename(tmp_path / "plain", root / "stolen")
        found = os.fstat(reached)
        os.close(reached)
        assert (found.st_nlink, found.st_uid) == (1, 0), "this is how the secret looks now"
        return found

    monkeypatch.setattr(os, "stat", replaced_meanwhile)
    with Home.open(root) as home:
        seen = look(home, Rules(), "stolen", max_file_bytes=2**20)
    assert isinstance(seen, Refused)
    assert "its name changed meanwhile" in seen.reason


def test_what_vanishes_during_the_scan_is_absent(
    root: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("a/file", "b/file", "c"):
        put(root, path)
    descend = Home.descend

    def vanishing(self: Home, path: str, flags: int) -> int:
        if path == "a":
            (root / "a/file").unlink()
            (root / "a").rmdir()
        if path == "b":
            (root / "b").rename(root / "was-b")
            (root / "b").symlink_to("/etc")
        return descend(self, path, flags)

    monkeypatch.setattr(Home, "descend", vanishing)
    found = scanned(home)
    assert set(found.files) == {"c"}
    assert found.refused == ()


def test_a_home_that_was_replaced_is_not_read_as_empty(root: Path, home: Home) -> None:
    root.rename(root.with_name("old"))
    root.mkdir()
    with pytest.raises(HomeError, match="was replaced"):
        scanned(home)


def test_a_scan_leaves_no_descriptor_open(root: Path, home: Home) -> None:
    for i in range(50):
        put(root, f"projects/{i}/a/b/c.jsonl")
    before = len(os.listdir("/proc/self/fd"))
    assert len(scanned(home).files) == 50
    assert len(os.listdir("/proc/self/fd")) == before


def test_two_scans_at_once_do_not_disturb_each_other(root: Path, home: Home) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for i in range(300):
        put(root, f"{i}.md")
    with ThreadPoolExecutor(4) as pool:
        sizes = {len(found.files) for found in pool.map(lambda _: scanned(home), range(20))}
    assert sizes == {300}


@needs_root
def test_unreadable_files_and_directories_are_named_with_their_owner(shared: Path) -> None:
    for path in ("mine.md", "theirs.md", "group.md", "closed/inside.md", "blind/inside.md"):
        put(shared, path).chmod(0o600)
    for path in ("", "mine.md", "closed", "blind"):
        os.chown(shared / path, 4321, 4321)
    os.chown(shared / "group.md", 0, 4321)
    (shared / "group.md").chmod(0o640)
    os.chown(shared / "closed", 1234, 1234)
    (shared / "closed").chmod(0o700)
    (shared / "blind").chmod(0o600)
    files, refused, directories = run_child(
        """
become(4321)
with Home.open(pathlib.Path(sys.argv[1])) as home:
    found = scan(home, Rules(), max_file_bytes=100)
print(json.dumps([sorted(found.files), {r.path: r.reason for r in found.refused}, sorted(found.directories)]))
""",
        shared,
    )
    assert files == ["group.md", "mine.md"]
    assert refused == {
        "theirs.md": "it belongs to UID 0 with mode 0600 and cannot be read by UID 4321: "
        "run the sidecar as UID 0 (runAsUser)",
        "closed": "it belongs to UID 1234 with mode 0700 and cannot be read by UID 4321: "
        "run the sidecar as UID 1234 (runAsUser)",
        "blind": "it belongs to UID 4321 with mode 0600 and cannot be read by UID 4321: "
        "run the sidecar as UID 4321 (runAsUser)",
    }
    assert "closed" not in directories


@needs_root
def test_root_without_its_capability_sees_what_it_cannot_read(shared: Path) -> None:
    """A container that drops all capabilities: UID 0 is then a user like any other."""
    os.chown(put(shared, "theirs.md"), 1234, 1234)
    put(shared, "mine.md")
    files = run_child(
        """
import struct
class Header(ctypes.Structure): _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]
header, none = Header(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(ctypes.byref(header), none) == 0
with Home.open(pathlib.Path(sys.argv[1])) as home:
    print(json.dumps(sorted(scan(home, Rules(), max_file_bytes=100).files)))
""",
        shared,
    )
    assert files == ["mine.md"]
