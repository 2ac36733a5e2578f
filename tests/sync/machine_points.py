"""Where an operation can be cut: the points at which a process may die or the world may move on.

A point stands before and after every request (`MemoryStore` passes them) and every step on a disk: a file
getting its name, lines being appended, a line of the ledger's log, its snapshot. What is not a step on a disk
cannot be told from the next point.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from sidecar.area import journal
from sidecar.home import appends, placement, writes
from sidecar.sync import (
    bodies,
    convoys,
    flush,
    fold,
    initial,
    journal_reader,
    ledger,
    merge,
    mirroring,
    packing,
    restore,
    snapshots,
    transcripts,
    whole_files,
)
from sidecar.sync.ledger_file import LedgerFile
from sidecar.sync.workspace import Workspace
from tests.sync.memory_store import Crash

Event = Callable[[], object]
Events = dict[int | str, list[Event]]
"""What happens at which point: by its number, or by its name where it is passed for the first time."""

# Steps on a disk: (where the name is looked up, the name).
_STEPS: tuple[tuple[Any, str], ...] = (
    (placement, "take_free_name"),
    (placement, "replace"),
    (appends, "_append_at_once"),
    (writes.Writer, "write"),
    (writes.Writer, "_dressed"),
    (restore, "make_directory"),
    (restore, "set_directory"),
    (restore, "make_link"),
    (restore, "remove_leftovers"),
    (LedgerFile, "_write_snapshot"),
    (LedgerFile, "append"),
)


_IN_THE_LEDGER = ("append", "_write_snapshot", "ledger")


class Process:
    """One run of the sidecar."""

    def __init__(self, clock_ns: Callable[[], int], events: Events | None = None, kind: str = "") -> None:
        self.clock_ns = clock_ns
        self.kind = kind
        self.duet: Duet | None = None
        self.dead = False
        self.here = ""
        self.points = 0
        self._events = dict(events or {})

    def pass_point(self, what: str) -> None:
        """Something is about to happen, or has happened just now."""
        if self.dead:
            raise Crash(what)
        self.points += 1
        self.here = what
        for event in [*self._events.pop(self.points, ()), *self._events.pop(what, ())]:
            event()
        if self.duet and not what.endswith(_IN_THE_LEDGER):
            self.duet.pass_point()
            if self.dead:
                raise Crash(what)

    def die(self) -> None:
        self.dead = True
        raise Crash

    def takes_another(self, kind: str) -> bool:
        """Whether an operation of this kind can run beside the one that runs, at this point.

        A flush and a checkpoint can (rule 18); not while the ledger holds its mutex.
        """
        return {self.kind, kind} == {"flush", "backup"} and not self.here.endswith(_IN_THE_LEDGER)

    @contextlib.contextmanager
    def doing(self, kind: str) -> Iterator[None]:
        """What runs is of another kind for a while."""
        before, self.kind = self.kind, kind
        try:
            yield
        finally:
            self.kind = before


class Duet:
    """Two operations of one process side by side, one of them at work at a time.

    ``turns``: after how many points each turn ends; then the one at work goes on to its end.
    """

    def __init__(self, turns: Sequence[int]) -> None:
        self._turns = list(turns)
        self._left = self._turns.pop(0) if self._turns else 1
        self._at_work = 0
        self._begun = [threading.Semaphore(0), threading.Semaphore(0)]
        self._ended = [False, False]

    def pass_point(self) -> None:
        self._left -= 1
        if self._left <= 0 and not self._ended[1 - self._at_work]:
            self._left = self._turns.pop(0) if self._turns else 1_000_000
            mine = self._at_work
            self._hand_over()
            self._wait(mine)

    def _hand_over(self) -> None:
        self._at_work = 1 - self._at_work
        self._begun[self._at_work].release()

    def _wait(self, number: int) -> None:
        if not self._begun[number].acquire(timeout=60):
            raise RuntimeError("the other operation never ended")

    def play(self, first: Callable[[], Any], second: Callable[[], Any]) -> list[Any]:
        """The results of both, or the error of one (a crash before anything else)."""
        ends: list[Any] = [None, None]
        errors: list[BaseException] = []

        def run(number: int, work: Callable[[], Any]) -> None:
            self._wait(number)
            try:
                ends[number] = work()
            except BaseException as error:
                errors.append(error)
            self._ended[number] = True
            if not self._ended[1 - number]:
                self._hand_over()

        threads = [threading.Thread(target=run, args=pair) for pair in enumerate((first, second))]
        for thread in threads:
            thread.start()
        self._begun[0].release()
        for thread in threads:
            thread.join()
        for error in sorted(errors, key=lambda one: not isinstance(one, Crash)):
            raise error
        return ends


_running: list[Process] = []


@contextlib.contextmanager
def running(process: Process) -> Iterator[Process]:
    """Run code as `process`; one process may run inside a point of another."""
    _running.append(process)
    try:
        yield process
    finally:
        _running.pop()


def running_process() -> Process | None:
    """The innermost process that runs now."""
    return _running[-1] if _running else None


def pass_point(what: str) -> None:
    if _running:
        _running[-1].pass_point(what)


@contextlib.contextmanager
def installed(
    *, tiny_blocks: bool = False, small_packs: bool = False, batch_bytes: int | None = None
) -> Iterator[None]:
    """The code with its points, its clocks, and no waiting.

    `tiny_blocks`: what is held in memory and compared at once are a few bytes, so that a body of three lines
    takes the way of a body of gigabytes. `small_packs`: a file hardly ever travels alone.
    `batch_bytes`: what one flush puts into one entry; None: as it is.
    """
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in _STEPS:
            patch.setattr(owner, name, _with_points(getattr(owner, name), name))
        patch.setattr(LedgerFile, "append", _with_half_a_line(LedgerFile.append))
        patch.setattr(writes.Writer, "_forget", _unless_dead(writes.Writer._forget))
        patch.setattr(Workspace, "now_ns", _now_ns(Workspace.now_ns))
        for module in (transcripts, whole_files):
            patch.setattr(module, "_PAUSE_SECONDS", 0)
        for module in (fold, journal_reader, mirroring):
            patch.setattr(module, "time", _Clock)
        numbers = count(1)  # a writer's name decides whose lines stand first
        patch.setattr(ledger, "new_writer", lambda pod_uid: writers_name(next(numbers)))
        patch.setattr(initial, "WAIT_FOR_OTHERS_SECONDS", 0.0)
        patch.setattr(convoys, "PER_THREAD", 1)  # two files are many
        if small_packs:
            patch.setattr(packing, "LOOSE_FILES", 1)
            patch.setattr(packing, "DEAD_BYTES", 1)
        if batch_bytes:
            patch.setattr(journal, "MAX_BATCH_BYTES", batch_bytes)
            patch.setattr(flush, "SMALL_BYTES", batch_bytes // 2)
        if tiny_blocks:
            for module in (bodies, merge, snapshots):
                patch.setattr(module, "BLOCK_BYTES", 16)
            patch.setattr(snapshots, "MEMORY_BYTES", 40)
        yield


class _Clock:
    """``time`` for code that asks for it: the running pod's clock."""

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def time() -> float:
        return _running[-1].clock_ns() / 1e9 if _running else time.time()


def writers_name(number: int) -> str:
    """What stands for a random name: the same one in each run, and in no order."""
    return f"pod-{number * 6221 % 9973:04d}"


def _with_points(step: Callable[..., Any], name: str) -> Callable[..., Any]:
    def run(*args: Any, **options: Any) -> Any:
        pass_point(f"before {name}")
        value = step(*args, **options)
        pass_point(f"after {name}")
        return value

    return run


def _with_half_a_line(append: Callable[..., None]) -> Callable[..., None]:
    """A kill in the middle of a line of the ledger's log leaves its first half."""

    def run(self: LedgerFile, line: list[Any]) -> None:
        try:
            pass_point("half a line of the ledger")
        except Crash:
            os.write(self._log_fd, repr(line).encode()[:20])
            raise
        append(self, line)

    return run


def _unless_dead(clean_up: Callable[..., None]) -> Callable[..., None]:
    """The dead clean nothing up."""

    def run(self: writes.Writer) -> None:
        if not (_running and _running[-1].dead):
            clean_up(self)

    return run


def _now_ns(real: Callable[[Workspace], int]) -> Callable[[Workspace], int]:
    return lambda workspace: _running[-1].clock_ns() if _running else real(workspace)


def close_left_open(place: Path) -> None:
    """What the kernel does for a dead process: close what it had open below `place`."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith(str(place)):
                os.close(int(name))
