"""How fast to go on: a store that throttles or is away stretches the delay, success relaxes it. Pure."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

# Of two seconds: an attempt each 16 to 48. After an outage of a night all is durable within the minute, and
# 10,000 sidecars ask 300 times a second (a prefix takes 3,500 PUTs:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html).
MOST = 16.0
_STRETCH = 2.0
_RELAX = 0.8


class Pace(Struct, frozen=True):
    """``factor``: by how much each delay is longer than it would be; 1 while all goes well."""

    factor: float = 1.0

    def stretched(self) -> Pace:
        """After a throttled or failed attempt."""
        return replace(self, factor=min(MOST, self.factor * _STRETCH))

    def relaxed(self) -> Pace:
        """After a success."""
        return replace(self, factor=max(1.0, self.factor * _RELAX))

    def seconds(self, delay_seconds: float, chance: float) -> float:
        """The next delay. `chance`, uniform in 0 to 1, spreads a fleet that waits for the same store."""
        if self.factor <= 1.0:
            return delay_seconds
        return delay_seconds * self.factor * (0.5 + chance)
