"""A whole life against a real server through a proxy that breaks every few requests.

Restore what an outside writer put, flush, checkpoint until the journal is removed, and a second pod that
restores: nothing is lost, doubled, torn or taken for absent, and what failed is said.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import SidecarError
from sidecar.sync.flusher import Flusher
from sidecar.sync.initial import backup_home
from sidecar.sync.results import BackupResult
from tests import faults
from tests.fault_proxy import Fault, FaultProxy
from tests.sync.pods import MakeSettings, Pod, objects

LOG, SETTINGS, RESULT = "projects/-w/s.jsonl", "settings.json", "projects/-w/s/tool-results/1.txt"
PREFIX = "user_data/ada/"
LISTING = "list-type=2"
FIRST = b'{"by": "outside"}\n'
LARGE = b"x" * 300_000

FAULTS: dict[str, tuple[str, str, Callable[[], Fault]]] = {
    "503 SlowDown": ("*", "", lambda: faults.every(6, faults.throttle())),
    "a reset before the server": ("*", "", lambda: faults.every(5, faults.reset_before())),
    "an answer that is lost": ("*", "", lambda: faults.every(5, faults.lose_answer())),
    "a write that is done and fails": ("PUT", "", lambda: faults.every(2, faults.fail_after())),
    "a deletion whose answer is lost": ("DELETE", "", lambda: faults.every(2, faults.lose_answer())),
    "a reset in a body": ("GET", "", lambda: faults.every(2, faults.cut_body(15))),
    "a half close in a body": ("GET", "", lambda: faults.every(2, faults.half_close(15))),
    "a slow body": ("GET", "", lambda: faults.every(2, faults.stall(15, 0.05))),
    "a wrong ETag of a write": ("PUT", "", lambda: faults.every(2, faults.with_etag(f'"{0:032x}"'))),
    "a wrong ETag of a read": ("GET", ".claude/", lambda: faults.every(2, faults.with_etag(f'"{1:032x}"'))),
    "a wrong ETag of a look": ("HEAD", "", lambda: faults.every(2, faults.with_etag(f'"{2:032x}"'))),
    "a listing that is cut": ("GET", LISTING, lambda: faults.every(2, faults.with_body(lambda b: b[:-60]))),
    "a listing that repeats": ("GET", LISTING, faults.with_listed_twice),
    "a listing without a transcript": ("GET", LISTING, lambda: faults.without_listed("s.jsonl")),
    "a listing without an entry": ("GET", LISTING, lambda: faults.without_listed("000000000001.zst")),
}


class Life:
    """A pod whose sidecar runs; what fails is tried again, a few times, as the run loop does."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self._until(lambda: pod.start().synced)
        self.workspace = pod.open()
        self.flusher = Flusher(self.workspace)

    def _until(self, done: Callable[[], bool]) -> None:
        for _ in range(12):
            try:
                if done():
                    return
            except SidecarError:
                continue
        pytest.fail("it never succeeded")

    def flush(self) -> None:
        self._until(lambda: self.flusher.flush().durable)

    def checkpoint(self) -> None:
        self._until(lambda: self._ends_well(backup_home(self.workspace)))

    def _ends_well(self, result: BackupResult) -> bool:
        assert result.durable or result.error or result.pending
        return result.durable

    def close(self) -> None:
        self.workspace.close()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.sync.initial.WAIT_FOR_OTHERS_SECONDS", 0.0)


def pod_at(place: Path, make: MakeSettings, bucket: str, endpoint: str | None) -> Pod:
    home, state = str(place / "home"), place / "state"
    return Pod(make(bucket, endpoint=endpoint, home=home, state_dir=state))


def work(life: Life, number: int) -> bytes:
    """A turn of the agent: a result, the line that names it, settings."""
    line = b'{"turn": %d}\n' % number
    life.pod.write(RESULT, LARGE + b"%d" % number)
    life.pod.append(LOG, line)
    life.pod.write(SETTINGS, b'{"turn": %d}' % number)
    return line


@pytest.mark.parametrize("name", FAULTS)
def test_a_whole_life_survives(
    name: str, bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, fault_proxy: FaultProxy
) -> None:
    s3.put_object(Bucket=bucket, Key=f"{PREFIX}.claude/{LOG}", Body=FIRST)
    method, part, fault = FAULTS[name]
    fault_proxy.on(method, fault(), part=part, times=None)
    a = Life(pod_at(tmp_path / "a", settings_for, bucket, fault_proxy.endpoint))
    lines = b""
    try:
        for number in range(3):
            lines += work(a, number)
            a.flush()
            a.checkpoint()
            a.checkpoint()
        lines += work(a, 3)
        a.flush()
        b = Life(pod_at(tmp_path / "b", settings_for, bucket, fault_proxy.endpoint))
        assert fault_proxy.seen(method, part)
        fault_proxy.clear()
        b.close()
        b.pod.merge()
        assert sorted(b.pod.read(LOG).splitlines()) == sorted((FIRST + lines).splitlines())
        a.checkpoint()
        a.checkpoint()
    finally:
        a.close()
    c = pod_at(tmp_path / "c", settings_for, bucket, None)
    assert c.start().synced
    for pod in (c, b.pod):
        assert pod.read(SETTINGS) == a.pod.read(SETTINGS)
        assert pod.read(RESULT) == a.pod.read(RESULT)
    assert c.read(LOG) == FIRST + lines
    assert all(key.startswith(PREFIX) for key in objects(s3, bucket, ""))


def test_what_a_listing_lacked_is_not_taken_for_deleted(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, fault_proxy: FaultProxy
) -> None:
    s3.put_object(Bucket=bucket, Key=f"{PREFIX}.claude/{LOG}", Body=FIRST)
    s3.put_object(Bucket=bucket, Key=f"{PREFIX}.claude/{SETTINGS}", Body=b"{}")
    fault_proxy.on("GET", faults.without_listed("s.jsonl"), part=LISTING, times=None)
    pod = pod_at(tmp_path, settings_for, bucket, fault_proxy.endpoint)
    assert pod.start().synced
    pod.append(LOG, b'{"new": 1}\n')
    assert pod.backup().durable
    found = objects(s3, bucket)
    assert sorted(found[LOG].splitlines()) == sorted([FIRST.strip(), b'{"new": 1}'])
