"""Whether the packs of an area hold what the manifest says of them: read as streams, judged, never changed.

Presence and size of each are in one listing. What is read is compared with three things: its name, which is
the digest of its bytes; the size that the manifest states; and for each file that rides in it the digest that
the manifest states. That this one is the object's too is found where objects are read, in `path_inspection`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from sidecar.area.manifest import FileEntry, Manifest, PackEntry
from sidecar.area.objects import ObjectInfo
from sidecar.area.packs import MAX_MEMBER_BYTES, PackReader
from sidecar.errors import AccessDenied, ConditionFailed, ObjectArchived, ObjectDamaged, ObjectMissing
from sidecar.sync.findings import Finding, Kind
from sidecar.sync.transfers import Job, run_jobs
from sidecar.sync.verification import sample
from sidecar.sync.views import Sides

# What a pack takes while it is read: its window, a chunk, and the file at hand.
_WEIGHT_BYTES = 16 * 1024 * 1024


class Content(Struct, frozen=True):
    """What a pack turned out to be. ``astray``: the files whose bytes are not where the manifest says."""

    digest: str
    size: int
    astray: tuple[str, ...] = ()


class PackFacts(Struct, frozen=True):
    """What is known of the pack `name`.

    ``stated``: what the manifest's root says of it; None where only files name it. ``riders``: those files.
    ``content`` None: it was not read. ``unread``: why it could not be, as half a sentence.
    """

    name: str
    stated: PackEntry | None
    riders: Mapping[str, FileEntry]
    info: ObjectInfo | None = None
    content: Content | None = None
    unread: str = ""


class PackExamined(Struct, frozen=True):
    """What was found of a pack and its files; ``bytes`` of it were read."""

    findings: tuple[Finding, ...]
    bytes: int = 0
    read: bool = False


def judged(facts: PackFacts, where: str) -> Iterator[Finding]:
    """What is to be said of a pack, which findings call `where`. Pure."""
    stated, content = facts.stated, facts.content
    if facts.info is None:
        yield Finding(where, Kind.PACK_MISSING, f"it is gone; {_cost(facts, len(facts.riders))}")
    elif facts.unread:
        yield Finding(where, Kind.PACK_DAMAGED, f"{facts.unread}; {_cost(facts, len(facts.riders))}")
    elif content and content.digest != facts.name.partition(".")[0]:
        reason = (
            f"its bytes are not those that its name is the digest of; {_cost(facts, len(content.astray))}"
        )
        yield Finding(where, Kind.PACK_DAMAGED, reason)
    else:
        if stated is None:
            reason = "files are said to ride in it, and the manifest's root does not name it"
            yield Finding(where, Kind.MANIFEST_LIES, reason)
        elif stated.size != facts.info.size:
            reason = f"the manifest says that it has {stated.size} bytes, and it has {facts.info.size}"
            yield Finding(where, Kind.MANIFEST_LIES, reason)
        for path in content.astray if content else ():
            reason = f"the manifest says other bytes of it than the pack {where} has at that place"
            yield Finding(path, Kind.MANIFEST_LIES, reason)


def _cost(facts: PackFacts, lost: int) -> str:
    return (
        f"{lost} of its {len(facts.riders)} files come from their objects, until a restore has met that and "
        "the next checkpoint packs them anew"
    )


def read_content(chunks: Iterator[bytes], name: str, riders: Mapping[str, FileEntry]) -> Content:
    """What `chunks`, the bytes of the pack `name`, hold; a chunk and a file at a time."""
    digest, size = hashlib.sha256(), 0

    def passing() -> Iterator[bytes]:
        nonlocal size
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            yield chunk

    stream = passing()
    reader = PackReader(stream, name)
    by_place = sorted(riders.items(), key=lambda item: item[1].offset)
    astray = tuple(path for path, entry in by_place if not _is_there(reader, entry))
    for _ in stream:
        pass
    return Content(digest.hexdigest(), size, astray)


def _is_there(reader: PackReader, entry: FileEntry) -> bool:
    if entry.size > MAX_MEMBER_BYTES:
        return False  # it would be held in memory; no restore takes it from here either
    try:
        return hashlib.sha256(reader.read(entry.offset, entry.size)).hexdigest() == entry.digest
    except ObjectDamaged:
        return False


class Packs:
    """The packs that a manifest names, beside what is there."""

    def __init__(self, sides: Sides, manifest: Manifest | None) -> None:
        self._sides = sides
        self._stated = dict(manifest.packs) if manifest else {}
        self._riders: dict[str, dict[str, FileEntry]] = {name: {} for name in self._stated}
        for path, entry in manifest.files.items() if manifest else ():
            if entry.pack:
                self._riders.setdefault(entry.pack, {})[path] = entry
        self._listed: dict[str, ObjectInfo] = {}
        self.general: tuple[Finding, ...] = ()
        if self._riders:
            self._list()

    @property
    def names(self) -> tuple[str, ...]:
        """All that are named, by the root or by files."""
        return tuple(sorted(self._riders))

    def examined(
        self, names: Collection[str], fraction: float, seed: str
    ) -> Iterator[tuple[str, PackExamined]]:
        """Look at these packs; read of those whose size is right the sample of all that `seed` draws.

        Raises
        ------
        StoreError: the store is away.
        """
        drawn = sample(self._riders.keys() & self._listed.keys(), fraction, seed)
        jobs = [self._job(name, name in drawn) for name in names if name in self._riders and not self.general]
        for done in run_jobs(jobs, workers=self._sides.settings.concurrency):
            if done.value is None:
                raise done.error if done.error else RuntimeError("a job ended with neither value nor error")
            yield done.job.name, done.value

    def _list(self) -> None:
        prefix = self._sides.keys.packs
        try:
            listing = self._sides.store.list(prefix)
        except AccessDenied as error:
            self.general = (Finding(self._sides.named(prefix), Kind.COULD_NOT_TELL, error.message),)
            return
        self._listed = {key[len(prefix) :]: info for key, info in listing.objects.items()}

    def _job(self, name: str, drawn: bool) -> Job[PackExamined]:
        facts = PackFacts(name, self._stated.get(name), self._riders[name], self._listed.get(name))
        return Job(name, _WEIGHT_BYTES, lambda: self._examined(facts, drawn or not _looks_right(facts)))

    def _examined(self, facts: PackFacts, chosen: bool) -> PackExamined:
        key = self._sides.keys.packs + facts.name
        where = self._sides.named(key)
        try:
            if chosen and facts.info:
                facts = self._read(facts, key, facts.info)
        except (AccessDenied, ConditionFailed, ObjectMissing) as error:
            return PackExamined((Finding(where, Kind.COULD_NOT_TELL, error.message),))
        content = facts.content
        return PackExamined(tuple(judged(facts, where)), content.size if content else 0, content is not None)

    def _read(self, facts: PackFacts, key: str, info: ObjectInfo) -> PackFacts:
        try:
            with self._sides.store.open(key, if_match=info.etag) as download:
                return replace(facts, content=read_content(download.chunks(), facts.name, facts.riders))
        except (ObjectArchived, ObjectDamaged) as error:
            return replace(facts, unread=error.message)


def _looks_right(facts: PackFacts) -> bool:
    return bool(facts.info and facts.stated and facts.stated.size == facts.info.size)
