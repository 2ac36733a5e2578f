"""What a full scan finds and the watch had not told: the proof that the watch sees, or how much it misses.

Counted is a file that is not durable in the state that the scan sees, changed (by the kernel's ctime) longer
before the scan began than a notice may take, and was told neither since the scan before nor until the
checkpoint ended. A state that the scan before saw not yet durable, or as fresh, is that one's matter. A file
that the watch told once in the interval is never counted: of two changes only the later matters.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct, field

from sidecar.home.entries import FileStat, Scan
from sidecar.home.telling import Telling, Told
from sidecar.sync.flush import needs_flush
from sidecar.sync.workspace import Workspace

SETTLE_SECONDS = 5.0
"""A notice takes a hundredth of a second; on a node without a free processor, more."""


class Missed(Struct):
    """The comparison over the checkpoints of one user; one checkpoint at a time.

    Parameters
    ----------
    settle_seconds: how long a change may take to be told.
    """

    workspace: Workspace
    telling: Telling
    settle_seconds: Callable[[], float] = lambda: SETTLE_SECONDS
    _seen: dict[str, FileStat] = field(default_factory=dict)
    _told: Told = field(default_factory=Told)
    _begun_ns: int = 0
    _candidates: list[FileStat] = field(default_factory=list)

    def begin(self) -> None:
        """The scan begins."""
        self._told = self.telling.renew()
        self._begun_ns = time.time_ns()
        self._candidates = []

    def scanned(self, scan: Scan) -> None:
        """The scan ended; nothing of it was shipped yet."""
        before_ns = self._begun_ns - int(self.settle_seconds() * 1e9)
        seen: dict[str, FileStat] = {}
        for path, stat in scan.files.items():
            fresh = stat.ctime_ns >= before_ns
            if not fresh and not needs_flush(self.workspace, stat):
                continue
            seen[path] = stat
            known = fresh or self._seen.get(path) == stat or self._told.covers(path, stat.ctime_ns)
            if not known:
                self._candidates.append(stat)
        self._seen = seen

    def end(self) -> tuple[str, ...]:
        """The paths that were not told until now either."""
        return tuple(s.path for s in self._candidates if not self.telling.covers(s.path, s.ctime_ns))
