"""The commands as real processes."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.settings import Settings

BASE = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "error"}


def environ_of(settings: Settings, **more: str) -> dict[str, str]:
    """The environment with which a process reads what `settings` holds."""
    environ = {
        **BASE,
        **settings.aws,
        "HOME": str(settings.state_dir.parent),
        "CLAUDE_SIDECAR_HOME": settings.home,
        "CLAUDE_SIDECAR_STATE_DIR": str(settings.state_dir),
        "CLAUDE_SIDECAR_TERMINATION_LOG": str(settings.state_dir.parent / "termination-log"),
    }
    if settings.bucket:
        environ["S3_WORKSPACE_BUCKET"] = settings.bucket
    if settings.user_id:
        environ["CLAUDE_SIDECAR_USER_ID"] = settings.user_id
    return {**environ, **more}


def command(environ: dict[str, str], *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``claude-sidecar …`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "sidecar.cli", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Sidecar:
    """``claude-sidecar run`` as a process; a context manager that kills what is left of it.

    ``program``: what the interpreter is given before the command's name.
    """

    environ: dict[str, str]
    log: Path
    api_port: int = field(default_factory=free_port)
    health_port: int = field(default_factory=free_port)
    program: tuple[str, ...] = ("-m", "sidecar.cli")
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Sidecar:
        environ = {
            **self.environ,
            "CLAUDE_SIDECAR_API_PORT": str(self.api_port),
            "CLAUDE_SIDECAR_HEALTH_PORT": str(self.health_port),
        }
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *self.program, "run"], env=environ, stdout=output, stderr=output
            )
        return self

    def __exit__(self, *exc: object) -> None:
        assert self.process
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def call(self, method: str, path: str, *, port: int | None = None) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.api_port, timeout=30)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        finally:
            connection.close()

    def wait_for(self, path: str, status: int = 200, *, seconds: float = 20.0) -> dict[str, Any]:
        """Wait until `path` answers with `status`."""
        deadline = time.monotonic() + seconds
        last: object = None
        while time.monotonic() < deadline:
            try:
                last = self.call("GET", path)
                if last[0] == status:
                    return last[1]
            except OSError as error:
                last = error
            assert self.process and self.process.poll() is None, self.text()
            time.sleep(0.05)
        raise AssertionError(f"{path} did not answer {status}: {last}\n{self.text()}")

    def end(self, number: int) -> int:
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(60)

    def text(self) -> str:
        return self.log.read_text()
