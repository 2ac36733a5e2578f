"""The hostile neighbour: swaps what lies in the home for ways out of it, without a pause, until it is killed.

Run as ``racer.py HOME OUTSIDE STAGE``. OUTSIDE holds a file ``secret`` and a directory ``den`` with the same
names as the home's own; STAGE is a directory on the same volume, out of the home.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sidecar.home import linux

SAFE = b"safe\n" * 40


def swap(home: Path, stage: Path, path: str, make: Callable[[Path], object]) -> None:
    """Put what `make` makes at `path`, in one rename."""
    new = stage / f"new-{random.random()}"
    make(new)
    with suppress(OSError):
        os.rename(new, home / path)
        return
    new.unlink()


def plain(path: Path) -> None:
    path.write_bytes(SAFE)
    if os.geteuid() == 0:
        os.chown(path, 1234, 1234)


def race(home: Path, outside: Path, stage: Path) -> None:
    ways: list[Callable[[Path], object]] = [
        plain,
        plain,
        lambda path: path.symlink_to(outside / "secret"),
        os.mkfifo,
    ]
    if os.geteuid() == 0:
        ways.append(lambda path: os.link(outside / "secret", path))
    (stage / "trap").symlink_to(outside / "den")
    directory = os.open(stage.parent, os.O_RDONLY)
    while True:
        for name in ("a.jsonl", "b.md"):
            swap(home, stage, f"projects/p/{name}", random.choice(ways))
            swap(home, stage, name, random.choice(ways))
        for path in ("projects/p", "agents"):
            # The directory and a link to the den change places, and back again.
            for _ in range(2):
                with suppress(OSError):
                    linux.exchange(directory, f"{home.name}/{path}", f"{stage.name}/trap")


if __name__ == "__main__":
    race(*map(Path, sys.argv[1:4]))
