"""How many requests went to the store and how many bytes went each way, by operation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_OPERATIONS = {
    "listing": "list",
    "looking": "head",
    "reading": "get",
    "writing": "put",
    "removing": "delete",
    "aborting": "delete",
}


@dataclass(frozen=True, slots=True)
class Flow:
    """The sum over one operation. Bytes are those of bodies: headers and TLS come on top."""

    requests: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


@dataclass(frozen=True, slots=True)
class Listener:
    """Whoever counts elsewhere; called from any thread.

    ``answered``: (operation, seconds, the error's kind or "") of each request that was answered or failed;
    ``moved``: (operation, bytes sent, bytes received) as bodies come and go.
    """

    answered: Callable[[str, float, str], None] = lambda operation, seconds, kind: None
    moved: Callable[[str, int, int], None] = lambda operation, sent, received: None


class Traffic:
    """Counts, from any thread. Operations: list, head, get, put, part, delete, and other for the rest.

    ``moved_at``: when a request was last answered or a body moved, in ``time.monotonic()`` seconds.
    """

    def __init__(self) -> None:
        self.listener = Listener()
        self.moved_at = time.monotonic()
        self._lock = threading.Lock()
        self._flows: dict[str, Flow] = {}

    def count(self, operation: str, *, requests: int = 1, sent: int = 0, received: int = 0) -> None:
        with self._lock:
            old = self._flows.get(operation, Flow())
            self._flows[operation] = Flow(
                old.requests + requests, old.bytes_sent + sent, old.bytes_received + received
            )
        if sent or received:
            self.moved_at = time.monotonic()
            self.listener.moved(operation, sent, received)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Tell the listener how long the request took and how it ended; `what` as in an error's sentence."""
        begun, kind = time.monotonic(), ""
        try:
            yield
        except BaseException as error:
            kind = getattr(getattr(error, "error", error), "kind", "store")
            raise
        finally:
            operation = _OPERATIONS.get(what.partition(" ")[0], "other")
            self.moved_at = time.monotonic()
            self.listener.answered(operation, self.moved_at - begun, kind)

    def snapshot(self) -> dict[str, Flow]:
        """What was counted so far, by operation."""
        with self._lock:
            return dict(self._flows)

    @property
    def requests(self) -> int:
        """All requests so far."""
        return sum(flow.requests for flow in self.snapshot().values())
