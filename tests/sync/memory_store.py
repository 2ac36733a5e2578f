"""A bucket in memory with S3's semantics, behind the interface of `sidecar.area.store.Store`.

For tests that need thousands of lives of a bucket: conditions on PUT and DELETE, ETags that are an MD5 or
not, multipart uploads, user metadata, listings in the order of the keys' bytes, times by a clock that the
test sets, in whole seconds as S3 gives them. `MemoryBucket` is the server; what is called there directly is
an outside writer, who sets no conditions. `MemoryStore` is one client of it and promises what `Store`
promises.

What can go wrong is decided per request: ``fates`` says what becomes of it, ``pass_point`` is called before
and after it took effect, and may raise (the process ends there) or let others act in between.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from types import TracebackType

from sidecar.area.compose_probe import LEAST_BYTES
from sidecar.area.listing import MARKER
from sidecar.area.objects import (
    Condition,
    IfAbsent,
    IfMatch,
    Listing,
    ObjectHead,
    ObjectInfo,
    SkippedKey,
    Source,
)
from sidecar.area.traffic import Flow, Traffic
from sidecar.area.write import DEFAULT_CONTENT_TYPE, MARK, SINGLE_PUT_BYTES, _ascii
from sidecar.errors import ConditionFailed, ObjectArchived, ObjectMissing, StoreError, StoreUnreachable
from sidecar.names import MAX_KEY_BYTES, path_problem

OUTSIDE = "outside"


class Crash(BaseException):
    """The process was killed at this very point: no handler of an error may run on."""


class Fate(Enum):
    """What becomes of one request."""

    NORMAL = "normal"
    UNREACHABLE = "unreachable"
    """It does not arrive, and patience ends."""
    LOST = "lost"
    """It arrives; the answer does not, and patience ends before anything is known."""
    CLEARED = "cleared"
    """It arrives; the answer does not; the client looks, as `Store` does, and goes on."""
    LATE = "late"
    """The client gives up; the request is delivered some time later (`MemoryBucket.deliver`)."""
    REFUSED = "refused"
    """412: somebody else is always faster."""


class Lie(Enum):
    """How a listing shows a key wrongly, as stores without S3's consistency do."""

    STALE = "stale"
    LACKING = "lacking"
    TWICE = "twice"


@dataclass(frozen=True)
class Version:
    """One version of an object."""

    body: bytes
    etag: str
    metadata: dict[str, str]
    modified: float
    content_type: str = ""
    archived: bool = False


@dataclass(frozen=True)
class Change:
    """A write that took effect: who made it, and what stood there before and after (None: nothing)."""

    key: str
    by: str
    old: Version | None
    new: Version | None
    late: bool = False
    """It was on its way for long: whoever sent it has gone on."""


class Refused(Exception):
    """The server says no: 412, or 404 where a version was expected and none is there."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


@dataclass
class MemoryBucket:
    """The server.

    ``missing_answer``: what ``If-Match`` on a missing key gives: 404 as AWS, or 412 as SeaweedFS and moto.
    ``opaque_etags``: ETags that are no MD5, as with KMS. ``honours_conditions``: False as rclone's server.
    ``composes_blindly``: as moto, no condition holds where an object is put together here.
    """

    name: str = "memory"
    missing_answer: int = 404
    opaque_etags: bool = False
    honours_conditions: bool = True
    composes_blindly: bool = False
    clock: float = 1_700_000_000.0
    objects: dict[str, Version] = field(default_factory=dict)
    before: dict[str, Version | None] = field(default_factory=dict)
    late: list[Callable[[], object]] = field(default_factory=list)
    watchers: list[Callable[[Change], None]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    delivers: bool = False

    def put(
        self,
        key: str,
        body: bytes,
        *,
        metadata: dict[str, str] | None = None,
        condition: Condition | None = None,
        parts: int = 0,
        content_type: str = "",
        by: str = OUTSIDE,
    ) -> str:
        """Write as the server does; raises `Refused`. Without a condition: an outside writer."""
        if len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
            raise Refused(400)
        with self.lock:
            self._demand(key, condition)
            etag = self._etag(body, parts)
            new = Version(body, etag, dict(metadata or {}), float(int(self.clock)), content_type)
            self._set(key, new, by)
            return etag

    def held(self, key: str, condition: Condition, length: int) -> bytes:
        """The first bytes of what stands there, for a part that is copied; raises `Refused`."""
        with self.lock:
            self._demand(key, None if self.composes_blindly else condition)
            return self.objects[key].body[:length]

    def delete(self, key: str, *, condition: IfMatch | None = None, by: str = OUTSIDE) -> None:
        """Remove as the server does; what is missing is fine."""
        with self.lock:
            if key in self.objects:
                self._demand(key, condition)
                self._set(key, None, by)

    def archive(self, key: str) -> None:
        """Move it to an archived storage class: it is listed and cannot be read."""
        self.objects[key] = replace(self.objects[key], archived=True)

    def deliver(self, number: int = 0) -> None:
        """Let a request that was on its way all the time arrive now; its condition is asked now."""
        self.delivers = True
        try:
            self.late.pop(number)()
        except Refused:
            return
        finally:
            self.delivers = False

    def listed(self, prefix: str) -> list[ObjectInfo]:
        keys = sorted((k for k in self.objects if k.startswith(prefix)), key=lambda k: k.encode())
        return [info_of(key, self.objects[key]) for key in keys]

    def _demand(self, key: str, condition: Condition | None) -> None:
        if condition is None or not self.honours_conditions:
            return
        there = self.objects.get(key)
        if isinstance(condition, IfAbsent):
            if there:
                raise Refused(412)
        elif there is None:
            raise Refused(self.missing_answer)
        elif there.etag != condition.etag:
            raise Refused(412)

    def _etag(self, body: bytes, parts: int) -> str:
        if self.opaque_etags:
            return f'"{uuid.uuid4().hex}0"'
        digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
        return f'"{digest}-{parts}"' if parts else f'"{digest}"'

    def _set(self, key: str, new: Version | None, by: str) -> None:
        old = self.objects.get(key)
        self.before[key] = old
        if new is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = new
        for watcher in self.watchers:
            watcher(Change(key, by, old, new, late=self.delivers))


def info_of(key: str, version: Version) -> ObjectInfo:
    return ObjectInfo(key, len(version.body), version.etag, version.modified)


def _no_point(what: str) -> None:
    """Nothing happens here."""


class MemoryStore:
    """One client of a `MemoryBucket`, in place of `sidecar.area.store.Store`."""

    def __init__(
        self,
        bucket: MemoryBucket,
        writer: str = "store",
        *,
        pass_point: Callable[[str], None] = _no_point,
        single_put_bytes: int = SINGLE_PUT_BYTES,
        chunk_bytes: int = 1024 * 1024,
        composed_from: int = LEAST_BYTES,
    ) -> None:
        self._bucket = bucket
        self._writer = self.writer = writer
        self._pass_point = pass_point
        self._single_put_bytes = single_put_bytes
        self._chunk_bytes = chunk_bytes
        self._composed_from = composed_from
        self._traffic = Traffic()
        self._guarded = True
        self.fates: list[Fate] = []
        self.lies: dict[str, Lie] = {}
        self.outage = False

    def within(self, outage_seconds: float) -> MemoryStore:
        return self

    @property
    def bucket(self) -> str:
        return self._bucket.name

    @property
    def guarded(self) -> bool:
        return self._guarded

    @property
    def requests(self) -> dict[str, Flow]:
        return self._traffic.snapshot()

    def list(self, prefix: str, *, exact: bool = False, expected: bool = True) -> Listing:
        segment = prefix.rstrip("/") + "/"
        self._reads("list", segment)
        objects: dict[str, ObjectInfo] = {}
        skipped = []
        for info in self._as_told(segment):
            problem = path_problem(info.key[len(segment) :], len(segment.encode()))
            if info.key.endswith("/"):
                problem = MARKER
            if exact and info.key in self._bucket.objects and self._bucket.objects[info.key].archived:
                problem = "in the archived storage class GLACIER"
            if problem:
                skipped.append(SkippedKey(info.key, problem))
            else:
                objects[info.key] = info
        self._pass_point(f"after list {segment}")
        return Listing(objects, tuple(skipped))

    def head(self, key: str) -> ObjectHead | None:
        self._reads("head", key)
        seen = self._look(key)
        self._pass_point(f"after head {key}")
        return seen

    def open(self, key: str, *, if_match: str | None = None, expected_bytes: int = 0) -> MemoryDownload:
        self._reads("get", key)
        version = self._bucket.objects.get(key)
        if version is None:
            raise ObjectMissing(f"reading {self._url(key)} failed: there is no such object")
        if version.archived:
            raise ObjectArchived(f"reading {self._url(key)} failed: it is in an archived storage class")
        if if_match and version.etag != if_match:
            raise _another_version(f"reading {key}")
        return MemoryDownload(self, key, version)

    def read_range(self, key: str, offset: int, length: int, *, if_match: str) -> bytes:
        with self.open(key, if_match=if_match) as download:
            return download.read()[offset : offset + max(length, 0)]

    def put(
        self,
        key: str,
        source: bytes | Source,
        *,
        condition: Condition,
        metadata: dict[str, str],
        content_type: str | None = None,
        held_bytes: int = 0,
    ) -> str:
        size = len(source) if isinstance(source, bytes) else source.size
        write = _ascii({name.lower(): value for name, value in metadata.items()}) | {MARK: uuid.uuid4().hex}
        if held_bytes:
            held = self._copied(key, condition, held_bytes)
            body = held + self._part(source, held_bytes, size - held_bytes)
            return self._write(key, body, condition, write, content_type, parts=2, composed=True)
        if size <= self._single_put_bytes:
            body = source if isinstance(source, bytes) else bytes(source.read(0, size))
            return self._write(key, body, condition, write, content_type, parts=0)
        self._expect(key, self._look(key), condition)
        step = max(1, self._single_put_bytes // 2)
        parts = [self._part(source, at, min(step, size - at)) for at in range(0, size, step)]
        self._expect(key, self._look(key), condition)
        return self._write(key, b"".join(parts), condition, write, content_type, parts=len(parts))

    def composes(self, held_bytes: int, key_prefix: str) -> bool:
        bucket = self._bucket
        pays = held_bytes >= self._composed_from
        return pays and self._guarded and bucket.honours_conditions and not bucket.composes_blindly

    def delete(self, key: str, *, if_match: str | None) -> None:
        fate = self._fate("delete", key)
        if if_match is not None:
            seen = self._look(key)
            if seen is None:
                return
            self._expect(key, seen, IfMatch(if_match))

        def act() -> None:
            self._bucket.delete(key, condition=IfMatch(if_match) if if_match else None, by=self._writer)

        if fate is Fate.LATE:
            self._bucket.late.append(act)
            raise self._away(key)
        try:
            act()
        except Refused as refused:
            raise _another_version(f"removing {key}") from refused
        self._pass_point(f"after delete {key}")
        if fate is Fate.LOST:
            raise self._away(key)

    def check_bucket(self, prefix: str) -> None:
        self._reads("list", prefix)

    def probe_conditions(self, key_prefix: str) -> bool:
        self._guarded = self._bucket.honours_conditions
        return self._guarded

    def probe_conditional_delete(self, key_prefix: str) -> bool:
        return self._bucket.honours_conditions

    # -- one request

    def _reads(self, operation: str, key: str) -> None:
        if self._fate(operation, key) in (Fate.LOST, Fate.LATE):
            raise self._away(key)

    def _fate(self, operation: str, key: str) -> Fate:
        self._traffic.count(operation)
        self._pass_point(f"before {operation} {key}")
        fate = self.fates.pop(0) if self.fates else Fate.NORMAL
        if self.outage or fate is Fate.UNREACHABLE:
            raise self._away(key)
        return fate

    def _copied(self, key: str, condition: Condition, length: int) -> bytes:
        self._reads("copy", key)
        try:
            held = self._bucket.held(key, condition, length)
        except Refused as refused:
            raise _another_version(f"writing {key}") from refused
        self._pass_point(f"after copy {key}")
        return held

    def _part(self, source: bytes | Source, at: int, length: int) -> bytes:
        self._traffic.count("part", sent=length)
        self._pass_point("a part")
        return source[at : at + length] if isinstance(source, bytes) else bytes(source.read(at, length))

    def _write(
        self,
        key: str,
        body: bytes,
        condition: Condition,
        metadata: dict[str, str],
        content_type: str | None,
        *,
        parts: int,
        composed: bool = False,
    ) -> str:
        fate = self._fate("put", key)
        if not self._guarded:
            self._expect(key, self._look(key), condition)

        def act() -> str:
            return self._bucket.put(
                key,
                body,
                metadata=metadata,
                condition=None if composed and self._bucket.composes_blindly else condition,
                parts=parts,
                content_type=content_type or DEFAULT_CONTENT_TYPE,
                by=self._writer,
            )

        if fate is Fate.REFUSED:
            raise _another_version(f"writing {key}")
        if fate is Fate.LATE:
            self._bucket.late.append(act)
            raise self._away(key)
        try:
            etag = act()
        except Refused as refused:
            if fate is Fate.LOST:
                raise self._away(key) from refused
            raise self._refusal(key, refused) from refused
        self._pass_point(f"after put {key}")
        if fate is Fate.LOST:
            raise self._away(key)
        if fate is Fate.CLEARED:
            return self._cleared(key, condition, metadata[MARK], act)
        return etag

    def _cleared(self, key: str, condition: Condition, mark: str, act: Callable[[], str]) -> str:
        """The answer was lost: the object tells, by the write's mark, whether it was done."""
        seen = self._look(key)
        if seen and seen.metadata.get(MARK) == mark:
            return seen.info.etag
        self._expect(key, seen, condition)
        try:
            return act()
        except Refused as refused:
            raise self._refusal(key, refused) from refused

    def _refusal(self, key: str, refused: Refused) -> StoreError:
        if refused.status == 404:
            return ObjectMissing(f"writing {key} failed: there is no such object")
        if refused.status == 400:
            return StoreError(f"writing {key} failed: the store answered 400 KeyTooLongError")
        return _another_version(f"writing {key}")

    def _look(self, key: str) -> ObjectHead | None:
        self._pass_point(f"look {key}")
        version = self._bucket.objects.get(key)
        return ObjectHead(info_of(key, version), dict(version.metadata)) if version else None

    def _expect(self, key: str, seen: ObjectHead | None, condition: Condition) -> None:
        if isinstance(condition, IfAbsent):
            holds = seen is None
        else:
            holds = seen is not None and seen.info.etag == condition.etag
        if not holds:
            raise _another_version(f"writing {key}")

    def _as_told(self, prefix: str) -> Iterator[ObjectInfo]:
        for info in self._bucket.listed(prefix):
            lie = self.lies.get(info.key)
            if lie is Lie.STALE:
                old = self._bucket.before.get(info.key)
                if old:
                    yield info_of(info.key, old)
                continue
            if lie is not Lie.LACKING:
                yield info
            if lie is Lie.TWICE:
                yield info

    def _url(self, key: str) -> str:
        return f"s3://{self._bucket.name}/{key}"

    def _away(self, key: str) -> StoreUnreachable:
        return StoreUnreachable(f"{self._url(key)}: the store cannot be reached", "it is tried again")


class MemoryDownload:
    """One version on its way, in place of `sidecar.area.download.Download`."""

    def __init__(self, store: MemoryStore, key: str, version: Version) -> None:
        self._store = store
        self._key = key
        self._version = version
        self.info = info_of(key, version)
        self.metadata = dict(version.metadata)

    def __enter__(self) -> MemoryDownload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held."""

    def chunks(self, size: int | None = None) -> Iterator[bytes]:
        body = self._version.body
        step = min(size or self._store._chunk_bytes, self._store._chunk_bytes)
        for at in range(0, len(body), step):
            self._store._pass_point(f"a chunk of {self._key}")
            if self._store.fates and self._store.fates[0] is Fate.CLEARED:
                self._store.fates.pop(0)
                self._resume()
            self._store._traffic.count("get", requests=0, received=len(body[at : at + step]))
            yield body[at : at + step]

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def _resume(self) -> None:
        """The connection broke: the rest is asked for on the condition that it is the same version."""
        now = self._store._bucket.objects.get(self._key)
        if now is None:
            raise ObjectMissing(f"reading {self._store._url(self._key)} failed: there is no such object")
        if now.etag != self.info.etag:
            raise _another_version(f"reading {self._key} broke off; it")


def _another_version(what: str) -> ConditionFailed:
    return ConditionFailed(f"{what} met another version than expected", "it is read again")
