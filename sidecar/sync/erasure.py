"""Forgetting a user: the whole area, with all versions, delete markers and unfinished uploads.

Promised: nothing outside ``PREFIX/USER/`` is touched; what is said to be gone was looked for afterwards and
not found; what could not be removed is named. It can be cut off at any moment and run again. One object
stays: the tombstone (`tombstones`). It is written first, so that an older pod stops uploading meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from msgspec import Struct, field

from sidecar.area.keys import AreaKeys
from sidecar.area.store import Store
from sidecar.area.versions import NoVersions, Upload, Version, VersionPage
from sidecar.errors import FormatError
from sidecar.sync import tombstones
from sidecar.sync.tombstones import Tombstone

# A writer that was there this recently may still be: two intervals of the default setting.
ACTIVE_SECONDS = 600.0
# What a writer puts there while the erasing runs is removed too, this many times.
_ROUNDS = 3
_BATCH = 1000
_UNSEEN = "somebody wrote it while the rest was removed"
_LIES = "the store said that it was removed, and still shows it"

Counted = Callable[[int], None]


class Tally(Struct):
    """A count of what an area holds, or of what was removed from it."""

    objects: int = 0
    old_versions: int = 0
    markers: int = 0
    uploads: int = 0
    bytes: int = 0

    @property
    def versions(self) -> int:
        return self.objects + self.old_versions + self.markers

    def count(self, version: Version) -> None:
        """Count one version."""
        self.bytes += version.size
        if version.marker:
            self.markers += 1
        elif version.latest:
            self.objects += 1
        else:
            self.old_versions += 1


class Inventory(Struct):
    """What `erase` would remove. Times are the store's: ``at`` when it was asked, ``newest_at`` of the newest
    object. ``lists_versions`` is False where the store cannot tell whether it keeps old versions."""

    tally: Tally = field(default_factory=Tally)
    newest_at: float = 0.0
    newest_key: str = ""
    at: float = 0.0
    tombstone: Tombstone | None = None
    lists_versions: bool = True

    @property
    def empty(self) -> bool:
        return not (self.tally.versions or self.tally.uploads)


class Left(Struct, frozen=True):
    """Something that is still there, and why."""

    key: str
    version_id: str
    reason: str


class Erasure(Struct):
    """What was removed, and what is ``left``. ``already``: there was nothing but a tombstone."""

    user_id: str
    forgotten_at: str
    already: bool = False
    tally: Tally = field(default_factory=Tally)
    left: tuple[Left, ...] = ()


def inventory(store: Store, keys: AreaKeys) -> Inventory:
    """Count what the area holds.

    Raises
    ------
    StoreError: that cannot be told. AccessDenied: it takes ``s3:ListBucketVersions``.
    """
    found = Inventory()
    for page in _pages(store, keys):
        found.at = page.at
        for version in page.versions:
            found.lists_versions &= bool(version.version_id)
            if not _is_tombstone(version, keys):
                found.tally.count(version)
                if not version.marker and version.modified > found.newest_at:
                    found.newest_at, found.newest_key = version.modified, version.key
    found.tally.uploads = sum(1 for _ in store.unfinished_uploads(keys.root))
    found.tombstone = _tombstone(store, keys)
    return found


def activity(found: Inventory, *, within_seconds: float = ACTIVE_SECONDS) -> str:
    """Why somebody may still be writing, as half a sentence; empty where nobody seems to be."""
    age_seconds = found.at - found.newest_at
    if not found.newest_at or age_seconds > within_seconds:
        return ""
    return f"{found.newest_key} was written {max(0, round(age_seconds))} seconds ago"


def erase(store: Store, keys: AreaKeys, *, now: datetime, removed: Counted = lambda count: None) -> Erasure:
    """Remove everything under the area's root but a new tombstone, and look whether it is gone.

    Parameters
    ----------
    removed: told after each request how many versions are gone so far.

    Raises
    ------
    StoreError: it was cut off; run it again.
    """
    found = inventory(store, keys)
    if found.empty and found.tombstone and not _plain(store, keys):
        return Erasure(keys.user_id, found.tombstone.forgotten_at, already=True)
    erasure = Erasure(keys.user_id, tombstones.lay(store, keys, now).forgotten_at)
    for _ in range(_ROUNDS):
        reasons: dict[str, str] = {}
        _abort_uploads(store, keys, erasure, reasons)
        _remove_versions(store, keys, erasure, reasons, removed)
        _remove_unlisted(store, keys, erasure, reasons)
        erasure.left = _left(store, keys, reasons)
        if all(left.reason != _UNSEEN for left in erasure.left):
            break  # gone, or refused for a reason that will not pass
    return erasure


def _abort_uploads(store: Store, keys: AreaKeys, erasure: Erasure, reasons: dict[str, str]) -> None:
    for upload in list(store.unfinished_uploads(keys.root)):
        reason = store.abort_upload(upload)
        if reason:
            reasons[_name(upload)] = reason
        else:
            erasure.tally.uploads += 1


def _remove_versions(
    store: Store, keys: AreaKeys, erasure: Erasure, reasons: dict[str, str], removed: Counted
) -> None:
    """Page by page. What was removed is gone from the list, so the same place shows what follows."""
    after: tuple[str, str] | None = None
    before: frozenset[Version] = frozenset()
    while True:
        page = _page(store, keys, after)
        victims = [v for v in page.versions if not _is_tombstone(v, keys) and _name(v) not in reasons]
        if victims and before.issuperset(victims):
            reasons.update((_name(version), _LIES) for version in victims)
        elif victims:
            _remove(store, victims, erasure, reasons)
            removed(erasure.tally.versions)
            before = frozenset(victims)
        elif page.following:
            after = page.following
        else:
            return


def _remove_unlisted(store: Store, keys: AreaKeys, erasure: Erasure, reasons: dict[str, str]) -> None:
    """What the plain list shows beyond all versions: markers, on some stores."""
    _remove(store, [v for v in _plain(store, keys) if v.key not in reasons], erasure, reasons)


def _remove(store: Store, victims: list[Version], erasure: Erasure, reasons: dict[str, str]) -> None:
    for start in range(0, len(victims), _BATCH):
        batch = victims[start : start + _BATCH]
        refused = store.remove_versions(batch)
        for version, reason in refused.items():
            reasons[_name(version)] = reasons[version.key] = reason
        for version in batch:
            if version not in refused:
                erasure.tally.count(version)


def _left(store: Store, keys: AreaKeys, reasons: dict[str, str]) -> tuple[Left, ...]:
    """What is still there: by the list of versions, the plain list, and the list of uploads."""
    seen: dict[str, Left] = {}
    for page in _pages(store, keys):
        for version in page.versions:
            if not _is_tombstone(version, keys):
                reason = reasons.get(_name(version), _UNSEEN)
                seen[version.key] = Left(version.key, version.version_id, reason)
    for version in _plain(store, keys):
        seen.setdefault(version.key, Left(version.key, "", reasons.get(version.key, _UNSEEN)))
    uploads = [
        Left(u.key, u.upload_id, reasons.get(_name(u), _UNSEEN)) for u in store.unfinished_uploads(keys.root)
    ]
    return (*seen.values(), *uploads)


def _pages(store: Store, keys: AreaKeys) -> Iterator[VersionPage]:
    after: tuple[str, str] | None = None
    while True:
        page = _page(store, keys, after)
        yield page
        after = page.following
        if after is None:
            return


def _page(store: Store, keys: AreaKeys, after: tuple[str, str] | None) -> VersionPage:
    try:
        return store.version_page(keys.root, after)
    except NoVersions:
        return VersionPage(tuple(_plain(store, keys)), None, datetime.now(UTC).timestamp())


def _plain(store: Store, keys: AreaKeys) -> list[Version]:
    """All keys by the plain list, foreign ones included, without the tombstone."""
    listing = store.list(keys.root, exact=True)
    found = [Version(info.key, "", info.size, info.modified) for info in listing.objects.values()]
    found += [Version(skipped.key, "") for skipped in listing.skipped]
    return [version for version in found if version.key != keys.tombstone]


def _is_tombstone(version: Version, keys: AreaKeys) -> bool:
    return version.key == keys.tombstone and version.latest and not version.marker


def _name(one: Version | Upload) -> str:
    identifier = one.version_id if isinstance(one, Version) else one.upload_id
    return f"{identifier}/{one.key}"


def _tombstone(store: Store, keys: AreaKeys) -> Tombstone | None:
    try:
        return tombstones.read(store, keys)
    except FormatError:
        return None  # it is written over
