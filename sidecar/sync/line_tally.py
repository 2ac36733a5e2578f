"""How often each line of a growing file occurred, in eight bytes a line."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable

# So many lines are counted one by one before they are sorted in with the others.
_SORTED_IN = 5_000


class LineTally:
    """Counts lines by Python's hash of them: 64 bits, keyed anew in each process, so of no use outside it.

    Two different lines with one hash (one chance in 10^7 among a million lines) make the second one look
    repeated, which a restore takes as "at most twice": harmless.
    """

    def __init__(self) -> None:
        self._sorted = array("q")
        self._recent: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def extend(self, lines: Iterable[bytes]) -> None:
        """Take in `lines` of which nobody asks the count yet: `settle` before `add`."""
        self._sorted.extend(map(hash, lines))

    def settle(self) -> None:
        """Make ready for `add`."""
        self._sorted = array("q", sorted(self._sorted))

    def add(self, line: bytes) -> int:
        """Take in one line; the how-manieth of its kind it is."""
        identity = hash(line)
        self._recent[identity] += 1
        before = bisect_right(self._sorted, identity) - bisect_left(self._sorted, identity)
        count = before + self._recent[identity]
        if len(self._recent) >= _SORTED_IN:
            self._sorted.extend(self._recent.elements())
            self._recent.clear()
            self.settle()
        return count
