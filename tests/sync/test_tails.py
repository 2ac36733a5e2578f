"""What a flush remembers of growing files, and what is read ahead of it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from sidecar.area.store import Store
from sidecar.home.reads import StableFile
from sidecar.sync import line_tally
from sidecar.sync.connected_user import ConnectedUser
from sidecar.sync.drain import Drain
from sidecar.sync.flusher import COLD_BYTES, Flusher
from sidecar.sync.line_tally import LineTally
from sidecar.sync.observers import Observers
from tests.sync.pods import MakeSettings, Pod, pods

LOG = "projects/-w/s.jsonl"
LINE = "x" * 1023 + "\n"
LARGE = LINE * (4 * COLD_BYTES // 1024)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.sync.initial.WAIT_FOR_OTHERS_SECONDS", 0.0)


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The length of every read of a file of the home, as they come."""
    lengths: list[int] = []
    real = StableFile.read

    def read(file: StableFile, offset: int, length: int) -> bytes:
        lengths.append(length)
        return real(file, offset, length)

    monkeypatch.setattr(StableFile, "read", read)
    return lengths


@pytest.fixture
def pod(bucket: str, settings_for: MakeSettings, tmp_path: Path) -> Pod:
    """A pod whose large transcript is in its object, and of which no process remembers anything."""
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.append(LOG, LARGE)
    pod.append("projects/-w/small.jsonl", LINE)
    pod.start()
    return pod


def test_lines_are_counted_as_a_counter_does_however_many_are_sorted_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(line_tally, "_SORTED_IN", 7)
    chosen = random.Random(5)
    lines = [b"%d" % chosen.randrange(60) for _ in range(500)]
    tally, counter = LineTally(), Counter(lines[:100])
    tally.extend(lines[:60])
    tally.extend(lines[60:100])
    tally.settle()
    for line in lines[100:]:
        counter[line] += 1
        assert tally.add(line) == counter[line]


def test_a_transcript_that_was_read_ahead_costs_a_flush_its_new_end_only(
    pod: Pod, read_bytes: list[int]
) -> None:
    with pod.open() as workspace:
        flusher = Flusher(workspace)
        ((path, size, digest),) = flusher.cold()
        assert (path, size) == (LOG, len(LARGE))
        tail = flusher.read_ahead(path, size, digest, lambda: False)
        assert tail
        flusher.warm(path, tail)
        assert not flusher.cold()
        pod.append(LOG, LINE)
        read_bytes.clear()
        assert flusher.flush().durable
        assert sum(read_bytes) < 200_000


def test_what_is_read_ahead_counts_the_lines_as_the_flush_itself_would(pod: Pod) -> None:
    with pod.open() as workspace:
        warmed, cold = Flusher(workspace), Flusher(workspace)
        path, size, digest = warmed.cold()[0]
        ahead = warmed.read_ahead(path, size, digest, lambda: False)
        itself = cold.read_ahead(path, size, digest, lambda: False)
        assert ahead
        assert itself
        assert ahead.grown(LINE.encode())[1] == {0: len(LARGE) // 1024 + 1}
        assert ahead.digest == itself.digest


def test_a_rewritten_transcript_is_not_taken_for_what_was_durable_and_reading_ahead_ends_when_asked(
    pod: Pod,
) -> None:
    with pod.open() as workspace:
        flusher = Flusher(workspace)
        path, size, digest = flusher.cold()[0]
        assert flusher.read_ahead(path, size, digest, lambda: True) is None
        pod.write(LOG, LARGE.replace("x", "y"))
        assert flusher.read_ahead(path, size, digest, lambda: False) is None


async def test_a_sidecar_reads_ahead_by_itself_after_its_first_sync(pod: Pod) -> None:
    async def connected(_: str) -> Store:
        return pod.store

    user = ConnectedUser("ada", pod.settings, connected, Observers(), lambda: None, Drain(30.0))
    try:
        assert (await user.first_sync()).synced
        flusher = user.flushing.flusher
        assert flusher
        for _ in range(300):
            if not flusher.cold():
                break
            await asyncio.sleep(0.1)
        assert not flusher.cold(), "the end of the pod would read it all"
    finally:
        await user.close()
