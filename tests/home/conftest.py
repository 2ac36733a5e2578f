"""A home on a real file system, and the processes that live beside it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sidecar.home import notices
from sidecar.home.beneath import Home
from sidecar.home.rules import Rules

if TYPE_CHECKING:
    from tests.home.watching import Watched

IS_ROOT = os.geteuid() == 0
needs_modern_kernel = pytest.mark.skipif(
    "SIDECAR_TEST_OLD_KERNEL" in os.environ, reason="without the renames of today that moment stays open"
)
needs_root = pytest.mark.skipif(not IS_ROOT, reason="needs to act as several users: run the tests as root")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory of the home."""
    path = tmp_path / "home"
    path.mkdir(0o700)
    return path


@pytest.fixture
def home(root: Path) -> Iterator[Home]:
    with Home.open(root) as home:
        yield home


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that every user can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="home-of-another-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


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
    from tests.home.watching import Watched  # which takes `put` from here

    begun: list[Watched] = []

    def start(rules: Rules | None = None) -> Watched:
        begun.append(Watched(home, rules))
        return begun[-1]

    yield start
    for watched in begun:
        watched.gate.set()
        watched.watch.stop()
        assert not watched.watch.alive


def put(root: Path, path: str, data: bytes = b"x\n") -> Path:
    """A file in the home, made as the client makes it."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    target.chmod(0o600)
    return target


def names(root: Path) -> set[str]:
    """Every name below `root`, temporary ones included."""
    return {str(path.relative_to(root)) for path in root.rglob("*")}
