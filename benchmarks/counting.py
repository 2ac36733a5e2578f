"""Requests and bytes on the wire, counted by `benchmarks.wiretap` in a process of its own.

with Wiretap(endpoint) as tap:
    … clients talk to tap.endpoint …
    traffic = tap.take()
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Traffic:
    """Requests by kind (LIST is a GET on the bucket); bytes of HTTP both ways, heads included."""

    requests: dict[str, int]
    sent_bytes: int
    received_bytes: int

    @property
    def count(self) -> int:
        return sum(self.requests.values())


class Wiretap:
    """The proxy as its user sees it."""

    def __init__(self, upstream: str, delay_seconds: float = 0.0) -> None:
        self._command = [sys.executable, "-m", "benchmarks.wiretap", upstream, str(delay_seconds)]
        self.endpoint = ""

    def __enter__(self) -> Wiretap:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        self.endpoint = f"http://127.0.0.1:{self._answer()['port']}"
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.communicate()

    def take(self) -> Traffic:
        """What passed since the last call."""
        assert self._process.stdin
        self._process.stdin.write("take\n")
        self._process.stdin.flush()
        return Traffic(**self._answer())

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the counting proxy ended")
        return dict(json.loads(line))
