"""The sidecar's own credential files are never read as part of a home, by whatever name."""

import os
from pathlib import Path

import pytest

from sidecar.errors import HomeError
from sidecar.home.beneath import Home
from sidecar.home.private import REASON
from sidecar.home.reads import open_file
from sidecar.home.rules import Rules
from sidecar.home.scan import look, scan

CAP = 1024 * 1024


def refused(home: Home) -> dict[str, str]:
    found = scan(home, Rules(), max_file_bytes=CAP)
    assert set(found.files) == {"plans/a.md"}
    return {entry.path: entry.reason for entry in found.refused}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "home"
    (root / "plans").mkdir(parents=True)
    (root / "plans/a.md").write_text("a")
    return root


def test_a_credentials_file_in_the_home_is_refused_by_its_name_and_by_each_other_name(root: Path) -> None:
    (root / "aws").mkdir()
    (root / "aws/credentials").write_text("secret")
    os.link(root / "aws/credentials", root / "plans/innocent.md")
    with Home.open(root, private=[root / "aws/credentials"]) as home:
        assert refused(home) == {"aws/credentials": REASON, "plans/innocent.md": REASON}
        for path in ("aws/credentials", "plans/innocent.md"):
            with pytest.raises(HomeError, match="has its credentials from it"):
                open_file(home, path)


def test_a_hard_link_to_a_token_outside_is_refused_also_after_the_token_was_renewed(
    root: Path, tmp_path: Path
) -> None:
    """The kubelet puts a new token in place by turning a link."""
    for day in ("monday", "tuesday"):
        (tmp_path / day).write_text("token of " + day)
    token = tmp_path / "token"
    token.symlink_to("monday")
    with Home.open(root, private=[token]) as home:
        assert refused(home) == {}
        (tmp_path / "next").symlink_to("tuesday")
        (tmp_path / "next").replace(token)
        os.link(tmp_path / "tuesday", root / "plans/b.md")
        seen = look(home, Rules(), "plans/b.md", max_file_bytes=CAP)
        assert getattr(seen, "reason", None) == REASON
        assert refused(home) == {"plans/b.md": REASON}
        with pytest.raises(HomeError, match="has its credentials from it"):
            open_file(home, "plans/b.md")


def test_a_token_that_takes_the_place_of_another_between_scan_and_read_is_refused_by_its_name(
    root: Path,
) -> None:
    (root / "token").write_text("old")
    with Home.open(root, private=[root / "token"]) as home:
        (root / "new").write_text("new")
        (root / "new").replace(root / "token")
        with pytest.raises(HomeError, match="has its credentials from it"):
            open_file(home, "token")


def test_files_that_are_not_there_and_homes_behind_links_are_no_trouble(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("home")
    (root / "token").write_text("secret")
    private = [link / "token", tmp_path / "none", Path("relative"), Path("nul\0")]
    with Home.open(link, private=private) as home:
        assert refused(home) == {"token": REASON}
