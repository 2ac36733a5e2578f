"""To whom restored files go, and what this process cannot read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.home.access import Ownership, is_unreadable
from sidecar.home.beneath import Home
from sidecar.home.problems import not_permitted
from tests.home.children import run_child
from tests.home.conftest import needs_root, put


@pytest.mark.parametrize(
    ("ownership", "words", "is_warning"),
    [
        (Ownership(uid=1000, home_uid=1000, home_mode=0o700), "", False),
        (Ownership(uid=1000, home_uid=0, home_mode=0o777), "", False),
        (Ownership(uid=1000, home_uid=1000, home_mode=0o700, given=1000), "", False),
        (Ownership(uid=65532, home_uid=0, home_mode=0o777, given=1000), "can give no file away", True),
        (Ownership(uid=0, home_uid=0, home_mode=0o777, given=1000), "given to UID 1000 (CLAUDE", False),
        (Ownership(uid=0, home_uid=7, home_mode=0o700), "given to UID 7, the owner of the home", False),
        (Ownership(uid=0, home_uid=7, home_mode=0o700, given=8), "given to UID 8 (CLAUDE", False),
        (Ownership(uid=0, home_uid=0, home_mode=0o700), "belong to root", False),
        (Ownership(uid=0, home_uid=0, home_mode=0o777), "An agent under another UID", True),
        (Ownership(uid=0, home_uid=0, home_mode=0o755, others=frozenset({0, 9})), "An agent under", True),
    ],
)
def test_it_is_said_to_whom_restored_files_go(ownership: Ownership, words: str, is_warning: bool) -> None:
    sentence, hint, warns = ownership.told()
    assert words in sentence
    assert bool(words) == bool(sentence)
    assert warns is is_warning
    assert not warns or "runAsUser" in hint


@needs_root
def test_the_owners_of_what_lies_in_the_home_are_seen(root: Path) -> None:
    os.chown(put(root, "a"), 9, 9)
    put(root, "b")
    os.chown(root, 5, 5)
    with Home.open(root) as home:
        found = Ownership.of(home, 1000)
    assert (found.home_uid, found.home_mode, found.given, found.others) == (5, 0o700, 1000, {0, 9})


@needs_root
def test_what_may_not_be_read_is_found_and_nothing_else(shared: Path) -> None:
    put(shared, "projects/-w/theirs.jsonl")
    put(shared, "closed/inside")
    os.chmod(shared / "projects", 0o755)
    os.chmod(shared / "projects/-w", 0o755)
    os.chmod(shared / "closed", 0o700)
    put(shared, "open").chmod(0o644)
    os.mkfifo(shared / "pipe")
    kind, text = run_child(
        """
from sidecar.home.access import unreadable
root = sys.argv[1]
become(4321)
print(json.dumps(told(lambda: [(r.path, r.reason) for r in
    unreadable(Home.open(pathlib.Path(root)), Rules(), 2**20)])))
""",
        shared,
    )
    assert kind == "done"
    assert "theirs.jsonl" in text and "'closed'" in text
    assert "pipe" not in text and "'open'" not in text
    assert "run the sidecar as UID 0" in text


def test_the_reasons_of_a_scan_are_recognised(root: Path) -> None:
    assert is_unreadable(not_permitted(root.stat()))
    assert is_unreadable(f"UID {os.geteuid()} may not read it")
    assert not is_unreadable("it is a FIFO")


@needs_root
def test_a_home_that_is_roots_is_given_to_the_owner_that_is_named_and_no_other_is(tmp_path: Path) -> None:
    for uid, then in ((0, 1234), (77, 77)):
        root = tmp_path / str(uid)
        root.mkdir()
        os.chown(root, uid, uid)
        with Home.open(root, create=True, owner=(1234, -1)):
            assert (root.stat().st_uid, root.stat().st_gid) == (then, uid)
