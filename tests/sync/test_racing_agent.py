"""An agent that rewrites its files without pause: what is hashed is what is sent."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.area.keys import AreaKeys
from sidecar.settings import Settings
from sidecar.sync import snapshots
from tests.sync.memory_store import Change, MemoryBucket, MemoryStore
from tests.sync.pods import Pod

LOG, FILE, JSON = "projects/p/s.jsonl", "plans/plan.md", "settings.json"
LINE = b'{"n":%08d}\n'

# Whole lines are appended, the transcript is rewound now and then, a file is rewritten in place, one renamed.
AGENT = """
import itertools, os, sys
log, file, settings = (os.path.join(sys.argv[1], name) for name in sys.argv[2:])
for number in itertools.count():
    with open(log, "r+b" if number % 50 == 49 else "ab") as opened:
        if number % 50 == 49:
            opened.truncate(opened.seek(0, os.SEEK_END) // 2 // 15 * 15)
            opened.seek(0, os.SEEK_END)
        opened.write(b'{"n":%08d}\\n' % number)
    with open(file, "r+b") as opened:
        opened.write(b"%015d\\n" % number * 600)
    with open(settings + ".tmp.1", "wb") as opened:
        opened.write(b'{"n":"%08d"}' % number)
    os.rename(settings + ".tmp.1", settings)
    print(number, flush=True)
"""


@pytest.fixture(params=[snapshots.MEMORY_BYTES, 0], ids=["in memory", "in blocks"])
def pod(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pod:
    monkeypatch.setattr(snapshots, "MEMORY_BYTES", request.param)
    return _Pod(Settings(bucket="memory", home=str(tmp_path / "home"), state_dir=tmp_path / "state"))


class _Pod(Pod):
    def __post_init__(self) -> None:
        self.bucket = MemoryBucket()
        self.store = MemoryStore(self.bucket, "pod")  # type: ignore[assignment]


@pytest.fixture
def agent(pod: Pod) -> Iterator[subprocess.Popen[bytes]]:
    pod.start()
    pod.append(LOG, b"".join(LINE % 0 for _ in range(200)))
    pod.write(FILE, b"%015d\n" % 0 * 600)
    pod.write(JSON, b'{"n":"00000000"}')
    command = [sys.executable, "-c", AGENT, str(pod.home), LOG, FILE, JSON]
    with tempfile.TemporaryFile() as printed, subprocess.Popen(command, stdout=printed) as process:
        yield process
        process.kill()


def test_what_is_hashed_is_what_is_sent(pod: Pod, agent: subprocess.Popen[bytes]) -> None:
    keys, changes = AreaKeys("user_data", "ada"), []
    pod.bucket.watchers.append(changes.append)  # type: ignore[attr-defined]
    for _ in range(40):
        pod.backup()
    assert agent.poll() is None
    agent.kill()
    agent.wait()
    assert pod.backup().durable
    sent = [c for c in changes if c.new and c.key.startswith(keys.objects)]
    assert {keys.path(change.key) for change in sent} == {LOG, FILE, JSON}
    for change in sent:
        assert change.new and change.new.metadata["sha256"] == hashlib.sha256(change.new.body).hexdigest()
    _assert_whole(keys, changes)
    for path in (LOG, FILE, JSON):
        there = pod.bucket.objects[keys.object(path)].body  # type: ignore[attr-defined]
        assert set(pod.read(path).split(b"\n")) <= set(there.split(b"\n"))


def _assert_whole(keys: AreaKeys, changes: list[Change]) -> None:
    for change in changes:
        if not change.new:
            continue
        if LOG in change.key:
            lines = change.new.body.split(b"\n")
            assert lines[-1] == b""
            assert all(len(line) == 14 and line.startswith(b'{"n":') for line in lines[:-1])
        elif JSON in change.key:
            assert len(change.new.body) == 16
