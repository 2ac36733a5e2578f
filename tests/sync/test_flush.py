"""A flush bounds what it holds in memory and what it asks of a bucket that is away."""

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from sidecar.area.store import Store
from sidecar.home.changes import Changes
from sidecar.sync.flusher import Flusher
from sidecar.sync.pace import Pace
from sidecar.sync.tails import MAX_LINES, Tail, Tails
from tests import faults
from tests.fault_proxy import FaultProxy
from tests.sync.pods import MakeSettings, pods


def test_a_flush_of_much_holds_one_batch_in_memory(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    for number in range(300):
        pod.write(f"plans/{number}.md", bytes([number % 256]) * 200_000)
    with pod.open() as workspace:
        flusher = Flusher(workspace)
        tracemalloc.start()
        try:
            result = flusher.flush()
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (result.durable, result.files) == (True, 300)
    assert peak_bytes < 40_000_000, "60 MB were in memory at once"


def test_a_bucket_that_is_away_is_asked_once_and_everything_is_named_with_its_bytes(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, fault_proxy: FaultProxy
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1, endpoint=fault_proxy.endpoint)
    pod.start()
    pod.store = Store.connect(pod.settings, outage_seconds=0.0)
    with pod.open() as workspace:
        flusher = Flusher(workspace)
        pod.append("projects/-w/s.jsonl", "x" * 99 + "\n")
        assert flusher.flush().durable
        for number in range(150):
            pod.write(f"plans/{number}.md", bytes([number]) * 200_000)
        pod.append("projects/-w/s.jsonl", "y" * 49 + "\n")
        fault_proxy.clear()
        fault_proxy.on("*", faults.throttle(), times=None)
        result = flusher.flush()
        asked = len(fault_proxy.seen("PUT"))
        fault_proxy.clear()
        again = flusher.flush()
    assert not result.durable
    assert result.kind == "throttled"
    assert len(result.pending) == 151
    assert result.unsynced_bytes == 150 * 200_000 + 50
    assert asked == 1, "each batch waited for the bucket anew"
    assert (again.durable, again.files) == (True, 151)


def test_after_the_longest_outage_the_next_attempt_is_within_a_minute_and_a_fleets_are_spread() -> None:
    pace = Pace()
    for _ in range(1000):
        pace = pace.stretched()
    soonest, latest = pace.seconds(2.0, 0.0), pace.seconds(2.0, 1.0)
    assert latest < 60, "minutes, not seconds"
    assert latest - soonest > 30, "a fleet comes back at once"
    for _ in range(20):
        pace = pace.relaxed()
    assert pace.seconds(2.0, 0.5) == 2.0


def test_what_is_remembered_of_transcripts_is_bounded_by_their_lines() -> None:
    tails = Tails()
    lines = b"".join(b"%d\n" % number for number in range(MAX_LINES // 4))
    for number in range(10):
        tail, _ = Tail(inode=number).grown(lines)
        tails.keep(str(number), tail)
        tails.keep(str(number), tail)
    kept = tails._tails
    assert list(kept) == ["6", "7", "8", "9"]
    for path in list(kept):
        tails.forget(path)
    assert tails._lines == 0


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("sidecar.sync.initial.WAIT_FOR_OTHERS_SECONDS", 0.0)


def test_a_large_tool_result_goes_up_before_the_line_that_names_it_and_a_large_plugin_after(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, fault_proxy: FaultProxy
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1, endpoint=fault_proxy.endpoint)
    pod.start()
    pod.write("plugins/large.bin", "x" * 300_000)
    pod.write("projects/-w/s/tool-results/r.txt", "x" * 300_000)
    pod.append("projects/-w/s.jsonl", '{"names": "r.txt"}\n')
    fault_proxy.clear()
    with pod.open() as workspace:
        assert Flusher(workspace).flush().files == 3
    order = [request.target.partition("?")[0].rpartition("/")[2] for request in fault_proxy.seen("PUT")]
    assert order == ["r.txt", "000000000001.zst", "large.bin"]


def test_a_result_that_the_watch_has_not_told_of_goes_with_the_line_that_names_it(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    first.start()
    first.write("projects/-w/s/tool-results/r.txt", "result")
    first.append("projects/-w/s.jsonl", '{"names": "r.txt"}\n')
    with first.open() as workspace:
        told = Changes(frozenset({"projects/-w/s.jsonl"}), everything=False)
        result = Flusher(workspace).flush(told)
        assert (result.durable, result.files) == (True, 2)
        assert Flusher(workspace).flush(told).files == 0, "what is durable is not sent again"
    second.start()  # the first one was killed here
    assert second.read("projects/-w/s/tool-results/r.txt") == b"result"
