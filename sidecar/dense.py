"""Values by path in little memory: each rests as its bytes, and is made when it is asked for.

A mark of a ledger takes 1,400 bytes as an object that was read from JSON, and a third of that here, path
included; an entry of a manifest 900, and less than half. To make one takes half a microsecond.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from itertools import islice
from typing import Any, TypeVar

from msgspec import json, msgpack

T = TypeVar("T")
# As many members of a JSON object are written at once: some hundred kilobytes.
_MEMBERS = 1000

_encode = msgpack.Encoder().encode


class Dense(Mapping[str, T]):
    """A dictionary of `kind`s that never change: a value is equal to the one that was put in, not the same.

    Parameters
    ----------
    kind: whatever msgspec makes of MessagePack; also a union with None.
    values: as for a dictionary; of a `Dense` the bytes are shared.
    """

    def __init__(self, kind: Any, values: Mapping[str, T] | Iterable[tuple[str, T]] = ()) -> None:
        self._decode = msgpack.Decoder(kind).decode
        self._rests: dict[str, bytes] = {}
        self.update(values)

    def update(self, values: Mapping[str, T] | Iterable[tuple[str, T]]) -> None:
        """Have all of `values`, in the place of what was there."""
        if isinstance(values, Dense):
            self._rests.update(values._rests)
            return
        pairs = values.items() if isinstance(values, Mapping) else values
        self._rests.update((path, _encode(value)) for path, value in pairs)

    def __getitem__(self, path: str) -> T:
        value: T = self._decode(self._rests[path])
        return value

    def get(self, path: str, default: T | None = None) -> T | None:  # type: ignore[override]
        rests = self._rests.get(path)
        return default if rests is None else self._decode(rests)

    def __setitem__(self, path: str, value: T) -> None:
        self._rests[path] = _encode(value)

    def discard(self, path: str) -> None:
        """Have nothing for `path`."""
        self._rests.pop(path, None)

    def drop(self, value: T) -> None:
        """Have nothing for the paths that have `value`."""
        rests = _encode(value)
        for path in [path for path, other in self._rests.items() if other == rests]:
            del self._rests[path]

    def only(self, paths: Iterable[str]) -> Dense[T]:
        """What is here of `paths`, all of which are; the bytes are shared."""
        some = copy(self)
        some._rests = {path: self._rests[path] for path in paths}
        return some

    def changed_since(self, before: Dense[T]) -> Iterator[str]:
        """The paths here whose value `before` has not."""
        return (path for path, rests in self._rests.items() if before._rests.get(path) != rests)

    def __contains__(self, path: object) -> bool:
        return path in self._rests

    def __iter__(self) -> Iterator[str]:
        return iter(self._rests)

    def __len__(self) -> int:
        return len(self._rests)


def members(pairs: Iterable[tuple[str, Any]]) -> Iterator[bytes]:
    """What stands between the braces of a JSON object of `pairs`, piece by piece."""
    left, between = iter(pairs), b""
    while some := dict(islice(left, _MEMBERS)):
        yield between + json.encode(some)[1:-1]
        between = b","
