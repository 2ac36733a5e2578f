"""``/metrics`` with a floor under its cost: the port is open to all addresses, and a text takes milliseconds.

So many texts are made in a second, and no more; whoever asks for another gets the last one again. Without it
a stranger who asks without a pause keeps the event loop from the probes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sidecar.api.metrics import Metrics

TEXTS_PER_SECOND = 10.0
BURST = 20.0
_FORMATS = 8


class Scrapes:
    """Gives what a scrape is answered."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._left = BURST
        self._filled_at = clock()
        self._texts: dict[str, tuple[bytes, str]] = {}

    def text(self, accept: str) -> tuple[bytes, str]:
        """The text and its content type, as `accept` (the header) wishes, where there is time to make it."""
        if not self._may_make_one() and self._texts:
            return self._texts.get(accept) or next(iter(self._texts.values()))
        made = self._metrics.exposed(accept)
        if len(self._texts) >= _FORMATS:
            self._texts.clear()
        self._texts[accept] = made
        return made

    def _may_make_one(self) -> bool:
        now = self._clock()
        self._left = min(BURST, self._left + (now - self._filled_at) * TEXTS_PER_SECOND)
        self._filled_at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
