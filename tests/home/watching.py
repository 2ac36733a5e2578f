"""A watch, and all that it has told: for tests."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sidecar.home.beneath import Home
from sidecar.home.rules import Rules
from sidecar.home.watch import Watch
from tests.home.conftest import put

LONG_SECONDS = 30.0


class Watched:
    """A watch, and all that it has told."""

    def __init__(self, home: Home, rules: Rules | None = None) -> None:
        self.home = home
        self.rules = rules or Rules()
        self.paths: set[str] = set()
        self.everything = 0
        self._condition = threading.Condition()
        self._calls = 0
        self.gate = threading.Event()
        self.gate.set()
        self.watch = Watch.start(home, self.rules, self._on_change, poll_seconds=0.02)

    def _on_change(self) -> None:
        with self._condition:
            self._calls += 1
            self._condition.notify_all()
        self.gate.wait()

    def armed(self) -> Watched:
        """Wait for the watch, and forget that it began."""
        assert self.watch.wait_until_armed(LONG_SECONDS)
        self.until(lambda: self.everything > 0)
        return self.forget()

    def forget(self) -> Watched:
        self.paths, self.everything = set(), 0
        return self

    def hold(self, root: Path) -> None:
        """Let the watch stand still, until ``gate`` is set, in the middle of telling."""
        self.gate.clear()
        calls = self._calls
        put(root, "gate.md")
        with self._condition:
            assert self._condition.wait_for(lambda: self._calls > calls, LONG_SECONDS)

    def until(self, is_enough: Callable[[], object]) -> None:
        end = time.monotonic() + LONG_SECONDS
        with self._condition:
            self.take()
            while not is_enough():
                assert self._condition.wait(end - time.monotonic()), f"only {self.paths} were told"
                self.take()

    def until_told(self, *paths: str) -> None:
        self.until(lambda: self.everything or self.paths.issuperset(paths))

    def take(self) -> None:
        changes = self.watch.take()
        self.paths |= changes.paths
        self.everything += changes.everything
        assert (changes.first_at_ns is None) == (not changes.paths and not changes.everything)

    def settled(self, root: Path) -> set[str]:
        """Everything told until now: a last file marks where "now" is."""
        self._wait_for_mark(root)
        if (
            self.watch.fallback
        ):  # the mark came at the beginning of a round; the next one is told after its end
            self._wait_for_mark(root)
        return {path for path in self.paths if not path.startswith("mark-")}

    def _wait_for_mark(self, root: Path) -> None:
        name = f"mark-{random.random()}"
        while name not in self.paths:  # "everything" swallows it
            calls = self._calls
            put(root, name)
            self.until(lambda: name in self.paths or self._calls > calls)  # noqa: B023


def agent(root: Path, source: str) -> None:
    """Another process does this in the home."""
    command = [sys.executable, "-c", "import os, pathlib, shutil\n" + source]
    subprocess.run(command, cwd=root, check=True, timeout=LONG_SECONDS)


def inodes_watched() -> set[int]:
    """Which directories this process watches, as the kernel has it."""
    found: set[int] = set()
    for info in Path("/proc/self/fdinfo").iterdir():
        try:
            lines = info.read_text().splitlines()
        except OSError:
            continue
        found |= {int(line.split("ino:")[1].split()[0], 16) for line in lines if line.startswith("inotify")}
    return found
