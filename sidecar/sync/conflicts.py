"""What was displaced and is kept under ``conflicts/``: listed, found, and told apart from what is current.

A kept version has a short id that is made of its key: the same from everywhere, for ever.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from msgspec import Struct

from sidecar.area import metadata
from sidecar.area.keys import AreaKeys
from sidecar.area.manifest import FileEntry
from sidecar.area.objects import IfAbsent, ObjectInfo
from sidecar.area.store import Store
from sidecar.errors import ConditionFailed, SidecarError
from sidecar.sync.merge import Readable

_KEY = re.compile(r"(?P<stamp>[^/]+)/(?P<writer>[^/]+)/(?P<path>.+)\.(?P<digest>[0-9a-f]{8})")
_STAMP = "%Y%m%dT%H%M%SZ"
_LEAST_ID = 4
_NEAREST = 3


class UnknownVersion(SidecarError):
    """Nothing that is kept has this id or path, or more than one thing has."""

    kind = "unknown_version"


class Kept(Struct, frozen=True):
    """A version of `path` that `writer` displaced. ``digest``: the first 8 digits of its SHA-256."""

    id: str
    key: str
    stamp: str
    writer: str
    path: str
    digest: str
    size: int
    etag: str

    @property
    def when(self) -> str:
        """UTC as ISO 8601, by the writer's clock."""
        try:
            return datetime.strptime(self.stamp, _STAMP).replace(tzinfo=UTC).isoformat()
        except ValueError:
            return self.stamp


class Difference(Struct, frozen=True):
    """How a kept version differs from the current object: ``absent``, ``equal``, ``larger``, ``smaller``,
    ``other`` (as large, other bytes) or ``unknown`` (as large; nobody compared the bytes)."""

    kind: str
    text: str


def kept_of(keys: AreaKeys, info: ObjectInfo) -> Kept | None:
    """The kept version that `info` is; None for a key of another form."""
    relative = info.key[len(keys.conflicts) :]
    match = _KEY.fullmatch(relative)
    if not match:
        return None
    identity = hashlib.sha256(relative.encode()).hexdigest()[:8]
    return Kept(
        identity,
        info.key,
        match["stamp"],
        match["writer"],
        match["path"],
        match["digest"],
        info.size,
        info.etag,
    )


def listed(store: Store, keys: AreaKeys) -> list[Kept]:
    """All kept versions, the newest first.

    Raises
    ------
    StoreError: that cannot be told.
    """
    found = (kept_of(keys, info) for info in store.list(keys.conflicts).objects.values())
    return sorted((kept for kept in found if kept), key=lambda kept: (kept.stamp, kept.path), reverse=True)


def difference(kept: Kept, current: ObjectInfo | None, entry: FileEntry | None) -> Difference:
    """How `kept` differs from `current`, by what a listing and a manifest tell without reading either."""
    if current is None:
        return Difference("absent", "there is no current object")
    if kept.size != current.size:
        kind = "larger" if kept.size > current.size else "smaller"
        return Difference(kind, f"{abs(kept.size - current.size):,} bytes {kind} than the current object")
    told = entry.digest if entry and entry.etag == current.etag else ""
    if kept.etag == current.etag or (told and told.startswith(kept.digest)):
        return Difference("equal", "the current object has the same bytes")
    if told:
        return Difference("other", "as large as the current object, with other bytes")
    return Difference("unknown", "as large as the current object; show compares the bytes")


def find(kept: Sequence[Kept], word: str) -> list[Kept]:
    """The kept versions that `word` names, the newest first: an id, the beginning of one, a key, or a path.

    Raises
    ------
    UnknownVersion: there is none; the hint names the nearest.
    """
    by_id = [one for one in kept if one.id == word or (len(word) >= _LEAST_ID and one.id.startswith(word))]
    exact = [one for one in by_id if one.id == word]
    found = exact or by_id or [one for one in kept if one.path == word or one.key.endswith(f"/{word}")]
    if found:
        return found
    if not kept:
        raise UnknownVersion(f"no version {word} is kept: there are no conflicts at all")
    raise UnknownVersion(f"no version {word} is kept", f"the nearest are {_names(_nearest(kept, word))}")


def only(kept: Sequence[Kept], word: str) -> Kept:
    """The one kept version that `word` names.

    Raises
    ------
    UnknownVersion: there is none, or there are several.
    """
    found = find(kept, word)
    if len(found) > 1:
        raise UnknownVersion(f"{word} names {len(found)} kept versions", f"give one id of {_names(found)}")
    return found[0]


def _nearest(kept: Sequence[Kept], word: str) -> Sequence[Kept]:
    by_name: dict[str, Kept] = {}
    for one in reversed(kept):
        by_name.update({one.id: one, one.path: one, one.path.rpartition("/")[2]: one})
    close = difflib.get_close_matches(word, by_name, n=_NEAREST, cutoff=0.4)
    return list(dict.fromkeys(by_name[name] for name in close)) or kept[:_NEAREST]


def _names(kept: Sequence[Kept]) -> str:
    return ", ".join(f"{one.id} ({one.path}, {one.when})" for one in kept[:10])


def keep(
    store: Store, keys: AreaKeys, writer: str, path: str, body: Readable, digest: str, mtime_ns: int
) -> str:
    """Put a version that is about to be displaced under ``conflicts/``; returns its key."""
    key = keys.conflict(datetime.now(UTC).strftime(_STAMP), writer, path, digest)
    described = metadata.FileMetadata(mtime_ns=mtime_ns, writer=writer, sha256=digest)
    with suppress(ConditionFailed):  # the same bytes, kept within the same second already
        store.put(key, body, condition=IfAbsent(), metadata=metadata.written(described))
    return key
