"""The notice that the pod ends. Anybody can give it, so it lapses if the end does not come."""

from __future__ import annotations

import time
from collections.abc import Callable

LAPSE_GRACE_PERIODS = 2.0
"""A notice that no SIGTERM followed within so many grace periods was none: Kubernetes sends it within one."""


class Drain:
    """While it is ``active``, every change is flushed at once.

    Parameters
    ----------
    clock: seconds that only grow.
    """

    def __init__(self, grace_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lapse_seconds = LAPSE_GRACE_PERIODS * grace_seconds
        self._clock = clock
        self._noticed_at = 0.0
        self._reason = ""

    def notice(self, reason: str) -> bool:
        """The pod begins to end; True if that is news. A repeated notice does not put off the lapse."""
        if self.active:
            return False
        self._noticed_at = self._clock()
        self._reason = reason
        return True

    @property
    def active(self) -> bool:
        """Whether a notice was given that has not lapsed."""
        return bool(self._reason) and self._clock() - self._noticed_at <= self._lapse_seconds

    @property
    def reason(self) -> str:
        """Why the pod ends; empty if no notice is in force."""
        return self._reason if self.active else ""

    @property
    def noticed_at(self) -> float:
        """When the notice in force came, by the clock; 0 if none is."""
        return self._noticed_at if self.active else 0.0
