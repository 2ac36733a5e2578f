from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.errors import FileChanged, HomeError
from sidecar.home.beneath import Home
from tests.home.children import run_child
from tests.home.conftest import needs_root, put


@pytest.fixture(params=["in one call", "part by part"])
def either(home: Home, request: pytest.FixtureRequest) -> Home:
    """The home reached by openat2, and as on a kernel that lacks it."""
    home._whole_paths = request.param == "in one call"
    return home


def test_a_missing_home_is_named(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match=r"nowhere cannot be opened: it is not there \(create it"):
        Home.open(tmp_path / "nowhere")


def test_a_missing_home_is_made_private_on_request(tmp_path: Path) -> None:
    with Home.open(tmp_path / "a" / "b", create=True) as home:
        assert home.root == tmp_path / "a" / "b"
        assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("create", [False, True])
def test_a_home_that_is_a_file_is_refused(tmp_path: Path, create: bool) -> None:
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(HomeError, match="is a file"):
        Home.open(tmp_path / "f", create=create)


@pytest.mark.parametrize("create", [False, True])
def test_a_home_below_a_file_is_refused(tmp_path: Path, create: bool) -> None:
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(HomeError, match="is a file"):
        Home.open(tmp_path / "f" / "home", create=create)


@pytest.mark.parametrize("create", [False, True])
def test_a_home_that_is_a_dangling_link_is_refused(tmp_path: Path, create: bool) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(HomeError, match=r"it is a link to .*nowhere, which is not there"):
        Home.open(tmp_path / "link", create=create)
    assert not (tmp_path / "nowhere").exists()


def test_the_home_itself_may_be_a_link(tmp_path: Path, root: Path) -> None:
    put(root, "CLAUDE.md")
    (tmp_path / "link").symlink_to(root)
    with Home.open(tmp_path / "link") as home:
        assert home.root == root
        assert home.identity == (root.stat().st_dev, root.stat().st_ino)
        home.check()
        assert home.lstat("CLAUDE.md").st_size == 2


def test_a_home_that_was_made_anew_is_noticed(root: Path, home: Home) -> None:
    home.check()
    root.rename(root.with_name("old"))
    with pytest.raises(HomeError, match="is gone"):
        home.check()
    root.mkdir()
    with pytest.raises(HomeError, match="was replaced by another directory"):
        home.check()


def test_free_bytes_are_those_of_the_volume(root: Path, home: Home) -> None:
    found = os.statvfs(root)
    assert abs(home.free_bytes() - found.f_bavail * found.f_frsize) < 2**30


def test_directories_open_at_every_depth(root: Path, either: Home) -> None:
    put(root, "a/b/c/file")
    for path, below in (("", "a"), ("a", "b"), ("a/b", "c"), ("a/b/c", "file")):
        with either.directory(path) as fd:
            assert os.listdir(fd) == [below]


def test_a_missing_directory_is_told_apart(either: Home) -> None:
    for path in ("a", "a/b", "a/b/c"):
        with pytest.raises(FileChanged, match="it is not there"):
            either.directory(path)


@pytest.mark.parametrize("depth", ["link", "a/link", "a/link/below"])
def test_a_link_in_the_way_is_never_followed(tmp_path: Path, root: Path, either: Home, depth: str) -> None:
    (tmp_path / "outside" / "below").mkdir(parents=True)
    (root / "a").mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "a" / "link").symlink_to("../../outside")
    with pytest.raises(HomeError, match="a link or another kind of file is in the way") as caught:
        either.directory(depth)
    assert not isinstance(caught.value, FileChanged)


def test_not_even_a_link_to_another_place_in_the_home_is_followed(root: Path, either: Home) -> None:
    put(root, "real/below/file")
    (root / "link").symlink_to("real")
    (root / "real/loop").symlink_to(".")
    for path in ("link/below", "real/loop/below", "link"):
        with pytest.raises(HomeError, match="in the way"):
            either.directory(path)


@pytest.mark.parametrize(
    "path", ["..", "../outside", "a/../../outside", "/etc", "a//b", "./a", "a/", "a/\0/b", "a/\ud800b"]
)
def test_paths_that_are_not_plain_are_refused_before_any_call(root: Path, either: Home, path: str) -> None:
    (root / "a").mkdir()
    with pytest.raises(HomeError, match="is not a"):
        either.directory(path)


def test_no_descriptor_is_left_open(root: Path, either: Home) -> None:
    put(root, "a/b/c/file")
    (root / "a" / "link").symlink_to("b")
    before = os.listdir("/proc/self/fd")
    for path in ("a/b/c", "a/link/c", "a/none/c", "a/b/c/file/d", "a/b/c/file"):
        try:
            with either.directory(path):
                pass
        except HomeError:
            pass
    assert len(os.listdir("/proc/self/fd")) == len(before)


@needs_root
def test_a_home_of_another_user_says_whose_it_is(shared: Path) -> None:
    shared.chmod(0o700)
    os.chown(shared, 1234, 1234)
    kind, text = run_child(
        "become(4321); print(json.dumps(told(lambda: Home.open(pathlib.Path(sys.argv[1])))))", shared
    )
    assert kind == "HomeError"
    assert "it belongs to UID 1234 with mode 0700 and this process is UID 4321" in text
    assert "runAsUser" in text


@needs_root
@pytest.mark.parametrize("create", [False, True])
def test_a_home_below_a_closed_directory_is_refused_with_a_sentence(shared: Path, create: bool) -> None:
    (shared / "closed" / "home").mkdir(parents=True)
    (shared / "closed").chmod(0o700)
    kind, text = run_child(
        f"become(4321); root = pathlib.Path(sys.argv[1])\n"
        f"print(json.dumps(told(lambda: Home.open(root, create={create}))))",
        shared / "closed" / "home",
    )
    assert kind == "HomeError"
    assert "UID 4321 may not search the directories above it" in text


@needs_root
def test_a_home_that_cannot_be_written_is_refused_where_it_will_be_written(shared: Path) -> None:
    os.chown(shared, 1234, 1234)
    reading, writing = run_child(
        """
become(4321)
root = pathlib.Path(sys.argv[1])
print(json.dumps([told(lambda: Home.open(root)), told(lambda: Home.open(root, create=True))]))
""",
        shared,
    )
    assert reading[0] == "done"
    assert writing[0] == "HomeError"
    assert "cannot be written: it belongs to UID 1234 with mode 0755" in writing[1]


@needs_root
def test_root_gives_restored_files_to_the_homes_owner(root: Path) -> None:
    with Home.open(root) as home:
        assert home.owner is None
    os.chown(root, 1234, 2345)
    with Home.open(root) as home:
        assert home.owner == (1234, 2345)
        assert home.owner_uid == 1234
    with Home.open(root, owner=(7, 8)) as home:
        assert home.owner == (7, 8)


@needs_root
def test_a_home_that_root_makes_belongs_to_its_owner(tmp_path: Path) -> None:
    with Home.open(tmp_path / "new", create=True, owner=(1234, 2345)):
        found = (tmp_path / "new").stat()
    assert (found.st_uid, found.st_gid) == (1234, 2345)
