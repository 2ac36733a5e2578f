"""``claude-sidecar demo``: two pods' lives on this machine, a real S3 server, and a strict comparison.

Everything is real but the cluster: the server, the commands as processes of their own, the triggers over
HTTP, the kill -9 and the SIGTERM. It ends with exit code 1 if a byte, an mtime or a mode is off.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import IO

from msgspec import Struct

from sidecar.embedded import EmbeddedS3
from sidecar.errors import SidecarError

USER = "ada"
BUCKET = "demo-bucket"
_START_SECONDS = 30.0
_LAST_YEAR_NS = 1_700_000_000_123_456_789


class _Seen(Struct, frozen=True):
    """What a path is: compared as a whole, so nothing is forgotten."""

    kind: str
    mode: str
    mtime_ns: int
    content: str


def demo() -> int:
    """Run the demonstration; 0 if both pods saw the same directory, to the byte and the nanosecond."""
    with tempfile.TemporaryDirectory(prefix="claude-sidecar-demo-") as place:
        root = Path(place)
        _say("demo", "starting an S3 server on loopback")
        (root / "s3").mkdir()
        with EmbeddedS3(root / "s3") as server:
            server.create_bucket(BUCKET)
            return _two_lives(root, server.environ())


def _two_lives(root: Path, aws: dict[str, str]) -> int:
    _say("demo", "pod-1 is born with an empty disk")
    first = _Pod("pod-1", root / "pod-1", aws)
    first.init_hook()
    first.start()
    first.invoke()
    _first_session(first.home)
    _say("pod-1 agent", "wrote settings, memory, a skill and a session")
    first.sync("checkpoint")
    _one_more_turn(first.home, "the last turn before the crash")
    _say("pod-1 agent", "wrote one more turn")
    first.sync("durable")
    before_crash = _look(first.home)
    first.kill()

    _say("demo", "pod-2 is born with an empty disk, on another node")
    second = _Pod("pod-2", root / "pod-2", aws)
    second.init_hook()
    crash_report = _differences(before_crash, _look(second.home))
    second.start()
    second.invoke()
    _one_more_turn(second.home, "the session goes on in the second pod")
    _say("pod-2 agent", "resumed the session and wrote a turn; nothing asks for a sync")
    before_end = _look(second.home)
    code = second.terminate()

    _say("demo", "pod-3 is born, to see what pod-2 left")
    third = _Pod("pod-3", root / "pod-3", aws)
    third.init_hook()
    end_report = _differences(before_end, _look(third.home))
    return _verdict(len(before_crash), crash_report, len(before_end), end_report, code)


def _verdict(
    crash_paths: int, crash_report: list[str], end_paths: int, end_report: list[str], code: int
) -> int:
    print()
    rows = [
        (f"kill -9 of pod-1, then restore: {crash_paths} paths", crash_report),
        (f"SIGTERM of pod-2, then restore: {end_paths} paths", end_report),
        ("exit code of pod-2 says that all was durable", [] if code == 0 else [f"it was {code}"]),
    ]
    for title, differences in rows:
        print(f"{'equal' if not differences else 'DIFFERENT':<10} {title}")
        for line in differences:
            print(f"           {line}")
    wrong = sum(len(differences) for _, differences in rows)
    print(f"\n{'FAILED' if wrong else 'OK'}: bytes, mtimes and modes compared, {wrong} differences")
    return 1 if wrong else 0


class _Pod:
    """A pod's disk, and the sidecar's processes on it."""

    def __init__(self, name: str, disk: Path, aws: dict[str, str]) -> None:
        self.name = name
        self.home = disk / "home" / ".claude"
        self._api_port, health_port = _free_port(), _free_port()
        self._environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "CLAUDE_", "S3_"))},
            **aws,
            "S3_WORKSPACE_BUCKET": BUCKET,
            "CLAUDE_SIDECAR_USER_ID": USER,
            "CLAUDE_SIDECAR_HOME": str(self.home),
            "CLAUDE_SIDECAR_STATE_DIR": str(disk / "state"),
            "CLAUDE_SIDECAR_API_PORT": str(self._api_port),
            "CLAUDE_SIDECAR_HEALTH_PORT": str(health_port),
            "CLAUDE_SIDECAR_TERMINATION_LOG": str(disk / "termination-log"),
            "PYTHONUNBUFFERED": "1",
        }
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def init_hook(self) -> None:
        process = self._spawn("restore")
        code = process.wait()
        self._drain_output()
        if code:
            raise SidecarError(f"the init hook of {self.name} ended with exit code {code}")

    def start(self) -> None:
        self._process = self._spawn("run")
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            try:
                self._call("GET", "/startupz")
                return
            except OSError:
                time.sleep(0.05)
        raise SidecarError(f"the sidecar of {self.name} did not start within {_START_SECONDS:g} s")

    def invoke(self) -> None:
        answer = self._call("POST", "/invocations")
        _say(f"{self.name} agent", f"POST /invocations: {answer['action']}")

    def sync(self, word: str) -> None:
        answer = self._call("POST", f"/v1/sync?wait={word}")
        _say(f"{self.name} agent", f"POST /v1/sync?wait={word}: durable={answer['durable']}")

    def kill(self) -> None:
        _say("demo", f"kill -9 {self.name}")
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        _say("demo", f"SIGTERM to {self.name}")
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait()
        self._drain_output()
        return code

    def _spawn(self, command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "sidecar.cli", command],
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        label = f"{self.name} {'init' if command == 'restore' else 'sidecar'}"
        self._reader = threading.Thread(target=_echo, args=(label, process.stdout), daemon=True)
        self._reader.start()
        return process

    def _drain_output(self) -> None:
        if self._reader:
            self._reader.join()

    def _call(self, method: str, path: str) -> dict[str, object]:
        request = urllib.request.Request(f"http://127.0.0.1:{self._api_port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            result: dict[str, object] = json.load(answer)
            return result


def _echo(label: str, stream: IO[str] | None) -> None:
    if stream is None:
        return
    with stream:
        for line in stream:
            _say(label, line.rstrip("\n"))


def _say(who: str, text: str) -> None:
    print(f"{who:<14} | {text}", flush=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# -- what an agent does


def _first_session(home: Path) -> None:
    _write(home / ".claude.json", json.dumps({"numStartups": 1, "theme": "dark"}).encode(), 0o600)
    _write(home / "settings.json", b'{"permissions": {"allow": ["Bash(ls:*)"]}}\n', 0o644)
    _write(home / "CLAUDE.md", "Ada prefers short answers. Ünïcödé too.\n".encode(), 0o640)
    _write(home / "skills" / "review" / "run.sh", b"#!/bin/sh\necho reviewed\n", 0o755)
    _write(home / ".credentials.json", b'{"refresh": "this must never reach the bucket"}', 0o600)
    (home / "plans").mkdir(mode=0o750)
    (home / "skills" / "latest").symlink_to("review")
    project = home / "projects" / "-workspace"
    _write(project / "memory" / "MEMORY.md", b"- the tests run with make test\n", 0o600)
    _write(project / "11111111-2222" / "tool-results" / "t1.txt", b"x" * 300_000, 0o600)
    with _transcript(home).open("ab") as file:
        for turn in range(40):
            file.write(_line(turn, "a realistic line " * 40))
    _transcript(home).chmod(0o600)
    old = project / "old-session.jsonl"
    _write(old, _line(0, "from last year"), 0o600)
    os.utime(old, ns=(_LAST_YEAR_NS, _LAST_YEAR_NS))


def _one_more_turn(home: Path, text: str) -> None:
    with _transcript(home).open("ab") as file:
        file.write(_line(1000, text))


def _transcript(home: Path) -> Path:
    return home / "projects" / "-workspace" / "11111111-2222.jsonl"


def _line(turn: int, text: str) -> bytes:
    return json.dumps({"type": "user", "uuid": f"turn-{turn}", "message": {"content": text}}).encode() + b"\n"


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


# -- the comparison


def _look(home: Path) -> dict[str, _Seen]:
    """Every path that belongs into a backup, as it is."""
    seen: dict[str, _Seen] = {}
    for path in sorted(home.rglob("*")):
        name, found = str(path.relative_to(home)), path.lstat()
        if path.name == ".credentials.json":
            continue
        if path.is_symlink():
            seen[name] = _Seen("link", "", found.st_mtime_ns, str(path.readlink()))
        elif path.is_dir():
            seen[name] = _Seen("directory", f"{found.st_mode & 0o777:o}", found.st_mtime_ns, "")
        else:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            seen[name] = _Seen("file", f"{found.st_mode & 0o777:o}", found.st_mtime_ns, digest)
    return seen


def _differences(before: dict[str, _Seen], after: dict[str, _Seen]) -> list[str]:
    return [
        f"{path}: was {before.get(path)}, is {after.get(path)}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]
