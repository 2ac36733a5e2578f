"""How many requests went to the store and how many bytes went each way, by operation."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flow:
    """The sum over one operation. Bytes are those of bodies: headers and TLS come on top."""

    requests: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


class Traffic:
    """Counts, from any thread. Operations: list, head, get, put, part, delete, and other for the rest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flows: dict[str, Flow] = {}

    def count(self, operation: str, *, requests: int = 1, sent: int = 0, received: int = 0) -> None:
        with self._lock:
            old = self._flows.get(operation, Flow())
            self._flows[operation] = Flow(
                old.requests + requests, old.bytes_sent + sent, old.bytes_received + received
            )

    def snapshot(self) -> dict[str, Flow]:
        """What was counted so far, by operation."""
        with self._lock:
            return dict(self._flows)

    @property
    def requests(self) -> int:
        """All requests so far."""
        return sum(flow.requests for flow in self.snapshot().values())
