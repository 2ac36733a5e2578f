"""What the tests of a running sidecar share: start it, write as an agent does, read as an outsider does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sidecar.area import journal
from sidecar.area.journal import Lines
from sidecar.settings import Settings
from tests.processes import Sidecar, environ_of
from tests.sync.pods import MakeSettings, Pod, objects

T = TypeVar("T")
LOG = "projects/-w/s.jsonl"
JOURNAL = ".claude-sidecar/journal/"


def sidecar(settings: Settings, tmp_path: Path, **more: str) -> Sidecar:
    """``claude-sidecar run`` with a termination log, as Kubernetes makes one."""
    (tmp_path / "termination-log").touch()
    return Sidecar(environ_of(settings, **more), tmp_path / "log")


def append(settings: Settings, path: str, text: str) -> None:
    file = Path(settings.home) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as opened:
        opened.write(text)


def termination(tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """The human line and the document."""
    data = (tmp_path / "termination-log").read_bytes()
    assert len(data) <= 4096, "Kubernetes cuts it off there"
    human, _, document = data.decode().partition("\n")
    return human, json.loads(document)


def journalled(s3: Any, bucket: str, user: str = "ada") -> dict[str, bytes]:
    """Path to what the journal alone holds of it: transcripts' lines in order, the last whole version."""
    found: dict[str, bytes] = {}
    for name, body in sorted(objects(s3, bucket, f"user_data/{user}/{JOURNAL}").items()):
        for record in journal.decoded(body, name).records:
            before = found.get(record.path, b"") if isinstance(record, Lines) else b""
            found[record.path] = before + record.data
    return found


def eventually(check: Callable[[], T], running: Sidecar, seconds: float = 30.0) -> T:
    """The first answer of `check` that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := check()):
        assert time.monotonic() < deadline, f"it did not come true in {seconds:g} s\n{running.text()}"
        assert running.process and running.process.poll() is None, running.text()
        time.sleep(0.1)
    return answer


def fresh_pod(settings_for: MakeSettings, bucket: str, tmp_path: Path, name: str = "fresh") -> Pod:
    """Another pod of the same user, restored."""
    pod = Pod(
        settings_for(bucket, home=str(tmp_path / name / ".claude"), state_dir=tmp_path / f"{name}-state")
    )
    assert pod.start().synced
    return pod


def metrics(running: Sidecar) -> dict[str, float]:
    """The samples of ``/metrics`` without their common prefix."""
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{running.health_port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name.removeprefix("claude_sidecar_"): float(value) for name, _, value in samples}
