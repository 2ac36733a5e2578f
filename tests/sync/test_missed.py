"""A full scan proves the watch, and counts what it missed. Real notices, real files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.home.telling import Telling
from sidecar.home.watch import Watch
from sidecar.sync.flusher import Flusher
from sidecar.sync.initial import backup_home
from sidecar.sync.missed import Missed
from sidecar.sync.workspace import Workspace
from tests.sync.pods import MakeSettings, Pod, pods

LOG = "projects/-w/s.jsonl"
PLAN = "plans/plan.md"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.sync.initial.WAIT_FOR_OTHERS_SECONDS", 0.0)


@pytest.fixture
def pod(bucket: str, settings_for: MakeSettings, tmp_path: Path) -> Pod:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    pod.append(LOG, "one\n")
    pod.write(PLAN, "one")
    pod.backup()
    return pod


class Proved:
    """A watched home whose checkpoints are compared with what the watch told."""

    def __init__(self, workspace: Workspace, settle_seconds: float) -> None:
        self.workspace = workspace
        self.watch = Watch.start(workspace.home, workspace.rules, lambda: None)
        assert self.watch.wait_until_armed(10)
        self.missed = Missed(workspace, self.watch.telling, lambda: settle_seconds)

    def checkpoint(self) -> tuple[str, ...]:
        self.missed.begin()
        assert backup_home(self.workspace, scanned=self.missed.scanned).durable
        return self.missed.end()

    def told(self, path: str) -> None:
        deadline = time.monotonic() + 10
        while path not in self.watch.take().paths:
            assert time.monotonic() < deadline, f"{path} was not told"


@pytest.fixture
def proved(pod: Pod) -> Iterator[Callable[..., Proved]]:
    begun: list[Proved] = []
    with pod.open() as workspace:

        def begin(settle_seconds: float = -60.0) -> Proved:
            begun.append(Proved(workspace, settle_seconds))
            return begun[-1]

        yield begin
        for one in begun:
            one.watch.stop()


@pytest.fixture
def outside(pod: Pod, tmp_path: Path) -> Path:
    """A second name of the transcript outside the home: what is written there, no notice tells."""
    name = tmp_path / "outside.jsonl"
    os.link(pod.home / LOG, name)
    return name


def write(file: Path, text: str) -> None:
    with file.open("a") as opened:
        opened.write(text)


def test_a_change_that_no_notice_told_is_found_counted_once_and_shipped(
    outside: Path, pod: Pod, proved: Callable[..., Proved]
) -> None:
    watched = proved()
    watched.checkpoint()  # the link itself changed the file's ctime
    write(outside, "two\n")
    assert watched.checkpoint() == (LOG,)
    assert watched.checkpoint() == ()
    write(outside, "three\n")
    assert watched.checkpoint() == (LOG,), "the next one is another"


def test_what_was_told_is_not_missed_though_no_flush_took_it(pod: Pod, proved: Callable[..., Proved]) -> None:
    watched = proved()
    pod.append(LOG, "two\n")
    pod.write("plans/new.md", "new")
    watched.told("plans/new.md")
    assert watched.checkpoint() == ()


def test_a_change_too_young_to_have_been_told_is_not_missed_and_neither_is_it_next_time(
    outside: Path, pod: Pod, proved: Callable[..., Proved]
) -> None:
    watched = proved(settle_seconds=60.0)
    watched.checkpoint()
    write(outside, "two\n")
    watched.missed.begin()
    watched.missed.scanned(_scan(watched.workspace))  # nothing is shipped in this round
    assert watched.missed.end() == ()
    watched.missed.settle_seconds = lambda: -60.0
    assert watched.checkpoint() == (), "the scan before saw that state"


def test_a_notice_that_comes_while_the_checkpoint_runs_counts(
    outside: Path, pod: Pod, proved: Callable[..., Proved]
) -> None:
    watched = proved()
    watched.checkpoint()
    write(outside, "two\n")
    watched.missed.begin()
    watched.missed.scanned(_scan(watched.workspace))
    watched.watch.telling.add(LOG)
    assert watched.missed.end() == ()


def test_what_the_flush_took_is_durable_and_not_missed(
    outside: Path, pod: Pod, proved: Callable[..., Proved]
) -> None:
    watched = proved()
    watched.checkpoint()
    write(outside, "two\n")
    assert Flusher(watched.workspace).flush().durable
    assert watched.checkpoint() == ()


def test_everything_covers_what_was_before_it_and_more_paths_than_are_kept_are_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_ns = 1000
    telling = Telling(lambda: now_ns)
    telling.add("a")
    assert telling.covers("a", 5000)
    assert not telling.covers("b", 900)
    telling.add(None)
    assert telling.covers("b", 900)
    assert not telling.covers("b", 1100)
    monkeypatch.setattr("sidecar.home.telling.PATHS_KEPT", 2)
    telling.add("c")
    telling.add("d")
    now_ns = 2000
    telling.add("e")
    assert telling.covers("b", 1900)
    assert telling.renew().covers("b", 1900)
    assert not telling.covers("b", 1900), "another period"


def _scan(workspace: Workspace):  # type: ignore[no-untyped-def]
    from sidecar.home.scan import scan

    return scan(workspace.home, workspace.rules, max_file_bytes=workspace.max_file_bytes)
