"""How many requests went to the store and how many bytes went each way, by operation."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType

from msgspec import Struct

_OPERATIONS = {
    "listing": "list",
    "looking": "head",
    "reading": "get",
    "writing": "put",
    "removing": "delete",
    "aborting": "delete",
}


class Flow(Struct, frozen=True):
    """The sum over one operation. Bytes are those of bodies: headers and TLS come on top."""

    requests: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


class Listener(Struct, frozen=True):
    """Whoever counts elsewhere; called from any thread.

    ``answered``: (operation, seconds, the error's kind or "") of each request that was answered or failed;
    ``moved``: (operation, bytes sent, bytes received) as bodies come and go.
    """

    answered: Callable[[str, float, str], None] = lambda operation, seconds, kind: None
    moved: Callable[[str, int, int], None] = lambda operation, sent, received: None


class Timed:
    """``with traffic.timed(what):``"""

    __slots__ = ("_begun", "_traffic", "_what")

    def __init__(self, traffic: Traffic, what: str) -> None:
        self._traffic = traffic
        self._what = what

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        said = getattr(getattr(error, "error", error), "kind", "store") if error else ""
        operation = _OPERATIONS.get(self._what.partition(" ")[0], "other")
        traffic = self._traffic
        traffic.moved_at = time.monotonic()
        traffic.listener.answered(operation, traffic.moved_at - self._begun, said)


class Traffic:
    """Counts, from any thread. Operations: list, head, get, put, part, delete, and other for the rest.

    ``moved_at``: when a request was last answered or a body moved, in ``time.monotonic()`` seconds.
    """

    def __init__(self) -> None:
        self.listener = Listener()
        self.moved_at = time.monotonic()
        self._lock = threading.Lock()
        self._flows: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])

    def count(self, operation: str, *, requests: int = 1, sent: int = 0, received: int = 0) -> None:
        with self._lock:
            flow = self._flows[operation]
            flow[0] += requests
            flow[1] += sent
            flow[2] += received
        if sent or received:
            self.moved_at = time.monotonic()
            self.listener.moved(operation, sent, received)

    def timed(self, what: str) -> Timed:
        """Tell the listener how long the request took and how it ended; `what` as in an error's sentence."""
        return Timed(self, what)

    def snapshot(self) -> dict[str, Flow]:
        """What was counted so far, by operation."""
        with self._lock:
            return {operation: Flow(*flow) for operation, flow in self._flows.items()}

    @property
    def requests(self) -> int:
        """All requests so far."""
        return sum(flow.requests for flow in self.snapshot().values())
