"""How long one operation goes on while the store is away, and how it spaces its attempts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from sidecar.area.failures import Failure
from sidecar.errors import StoreThrottled

_FIRST_SECONDS = 0.1
_MOST_SECONDS = 5.0
_FIRST_THROTTLED_SECONDS = 0.5
# A body that cannot be read was cut in an orderly way, or is not S3's at all: then it stays so.
_GARBLED_ATTEMPTS = 3

Value = TypeVar("Value")


class Patience:
    """The attempts of one operation: they go on until `outage_seconds` have passed without any progress.

    One attempt may outlast that by what its own time-outs allow. Delays double and are spread at random
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """

    def __init__(
        self,
        outage_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._outage_seconds = outage_seconds
        self._clock = clock
        self._sleep = sleep
        self._since = clock()
        self._failures = 0

    def again(self) -> Patience:
        """The same patience from its beginning, for a part of the operation that runs beside others."""
        return Patience(self._outage_seconds, self._clock, self._sleep)

    def progress(self) -> None:
        """Something arrived: the store is there, waiting begins anew."""
        self._since = self._clock()
        self._failures = 0

    def after(self, failure: Failure) -> None:
        """Wait before the next attempt; or raise the error, where waiting cannot help or time is up."""
        remaining = self._since + self._outage_seconds - self._clock()
        passing = failure.error.outage or (
            failure.answer.trouble == "garbled" and self._failures < _GARBLED_ATTEMPTS - 1
        )
        if not passing or remaining <= 0:
            raise failure.error from failure
        import random

        first = _FIRST_THROTTLED_SECONDS if isinstance(failure.error, StoreThrottled) else _FIRST_SECONDS
        delay = min(_MOST_SECONDS, first * 2 ** min(self._failures, 10))
        self._failures += 1
        self._sleep(min(remaining, delay * random.uniform(0.5, 1.0)))  # noqa: S311 - not a secret

    def attempt(self, request: Callable[[], Value]) -> Value:
        """The value of `request`, tried again as long as patience lasts. For what may be done twice."""
        while True:
            try:
                return request()
            except Failure as failure:
                self.after(failure)
