"""Taking a kept version back: into the home where this user has one here, and into the bucket.

Promised: whatever it displaces, in the home and in the bucket, is under ``conflicts/`` before; a file appears
whole or not at all; nothing that somebody writes meanwhile is lost. It works beside a running sidecar and
needs no ledger. A whole file becomes the object at once. A transcript in a home is left to the next
checkpoint, which keeps other writers' lines; without a home its lines are added to the object, which only
grows.
"""

from __future__ import annotations

import time
from pathlib import Path

from msgspec import Struct

from sidecar.area import metadata
from sidecar.area.keys import AreaKeys
from sidecar.area.objects import IfAbsent, IfMatch, ObjectHead
from sidecar.area.store import Store
from sidecar.errors import ConditionFailed, FileChanged, ObjectDamaged, ObjectMissing, SidecarError
from sidecar.home.beneath import Home
from sidecar.home.reads import StableFile, json_problem, must_be_whole_json, open_file
from sidecar.home.writes import Replacing, open_writer
from sidecar.sync import conflicts, merge
from sidecar.sync.bodies import Bytes, Pieced, Spool, blocks, sha256
from sidecar.sync.compare import is_transcript
from sidecar.sync.conflicts import Kept
from sidecar.sync.merge import Readable
from sidecar.sync.snapshots import Snapshot

_TRIES = 4
_PAUSE_SECONDS = 0.05
_JSON_BYTES = 8 * 1024 * 1024


class Taken(Struct, frozen=True):
    """``home`` and ``bucket``: ``written``, ``same`` (it had these bytes already), ``none``, or
    ``next checkpoint``. ``kept_aside``: the keys of what was displaced."""

    id: str
    path: str
    home: str
    bucket: str
    kept_aside: tuple[str, ...]


def take(
    store: Store, keys: AreaKeys, kept: Kept, home: Home | None, *, writer: str, spool_directory: Path
) -> Taken:
    """Make `kept` the current version of its path.

    Raises
    ------
    ObjectMissing, ObjectDamaged: the kept version is gone, or not what it says. SidecarError: it may not
    become a file. FileChanged, ConditionFailed: somebody keeps writing; nothing of theirs was touched.
    """
    with store.open(kept.key) as download, Spool(download.chunks(), spool_directory) as body:
        _demand_sound(kept, body)
        return _Taking(store, keys, kept, home, body, writer, spool_directory).carried_out()


def _demand_sound(kept: Kept, body: Spool) -> None:
    if not body.sha256.startswith(kept.digest):
        raise ObjectDamaged(f"the kept version {kept.id} does not have the bytes that its name promises")
    if must_be_whole_json(kept.path) and body.size <= _JSON_BYTES:
        problem = json_problem(body.read(0, body.size))
        if problem:
            raise SidecarError(
                f"the kept version {kept.id} of {kept.path} is not taken back: {problem}",
                "it would stop the client; look at it with: claude-sidecar conflicts show",
            )


class _Taking:
    def __init__(
        self,
        store: Store,
        keys: AreaKeys,
        kept: Kept,
        home: Home | None,
        body: Spool,
        writer: str,
        spool_directory: Path,
    ) -> None:
        self._store = store
        self._keys = keys
        self._kept = kept
        self._home = home
        self._body = body
        self._writer = writer
        self._spool_directory = spool_directory
        self._key = keys.object(kept.path)
        self._mtime_ns = time.time_ns()
        self._mode: int | None = None
        self._aside: list[str] = []

    def carried_out(self) -> Taken:
        transcript = is_transcript(self._kept.path)
        into_home = self._into_home(self._home) if self._home else "none"
        into_bucket = "next checkpoint" if self._home and transcript else self._into_bucket(transcript)
        return Taken(
            self._kept.id, self._kept.path, into_home, into_bucket, tuple(dict.fromkeys(self._aside))
        )

    def _keep(self, body: Readable, digest: str, mtime_ns: int) -> None:
        key = conflicts.keep(self._store, self._keys, self._writer, self._kept.path, body, digest, mtime_ns)
        self._aside.append(key)

    # -- the home

    def _into_home(self, home: Home) -> str:
        for attempt in range(_TRIES):
            try:
                if not _is_there(home, self._kept.path):
                    self._write(home, None)
                    return "written"
                with open_file(home, self._kept.path) as file:
                    return self._over(home, file)
            except FileChanged as error:
                problem = error
                time.sleep(_PAUSE_SECONDS * (attempt + 1))
        raise problem

    def _over(self, home: Home, file: StableFile) -> str:
        local = Snapshot(file, file.size)
        if not file.unchanged():
            raise FileChanged(f"{self._kept.path} changed while it was read")
        self._mode = file.stat.mode
        same = local.sha256 == self._body.sha256
        if not same:
            self._keep(local, local.sha256, file.stat.mtime_ns)
        # The same bytes are written as well: their new time has the next checkpoint look at them again.
        self._write(home, file.stat)
        return "same" if same else "written"

    def _write(self, home: Home, replacing: Replacing) -> None:
        if self._mode is None:
            seen = self._store.head(self._key)
            self._mode = metadata.read(seen.metadata).mode if seen else None
        last = b""
        with open_writer(home, self._kept.path) as writer:
            for block in blocks(self._body):
                writer.write(block)
                last = bytes(block[-1:])
            if is_transcript(self._kept.path) and last not in (b"", b"\n"):
                writer.write(b"\n")
            writer.commit(mtime_ns=self._mtime_ns, mode=self._mode or 0o600, replacing=replacing)

    # -- the bucket

    def _into_bucket(self, transcript: bool) -> str:
        for _ in range(_TRIES):
            try:
                head = self._store.head(self._key)
                if head is None:
                    self._put(_ended(self._body) if transcript else self._body, IfAbsent(), "")
                    return "written"
                return self._over_object(head, transcript)
            except (ConditionFailed, ObjectMissing) as error:
                problem = error
        raise problem

    def _over_object(self, head: ObjectHead, transcript: bool) -> str:
        with (
            self._store.open(self._key, if_match=head.info.etag) as download,
            Spool(download.chunks(), self._spool_directory) as current,
        ):
            if current.sha256 == self._body.sha256:
                return "same"
            described = metadata.read(download.metadata)
            if self._mode is None:
                self._mode = described.mode
            if transcript:
                union = merge.unite(current, self._body, self._body.size)
                if not union.added:
                    return "same"
                self._put(Pieced(union.spans, current, self._body), IfMatch(head.info.etag), current.sha256)
                return "written"
            old_ns = described.mtime_ns if described.mtime_ns is not None else int(head.info.modified * 1e9)
            self._keep(current, current.sha256, old_ns)
            self._put(self._body, IfMatch(head.info.etag), current.sha256)
            return "written"

    def _put(self, body: Readable, condition: IfAbsent | IfMatch, base: str) -> None:
        described = metadata.FileMetadata(
            mtime_ns=self._mtime_ns,
            mode=self._mode if self._mode is not None else 0o600,
            writer=self._writer,
            sha256=sha256(body),
            base=base,
        )
        self._store.put(self._key, body, condition=condition, metadata=metadata.written(described))


def _ended(body: Readable) -> Readable:
    """`body`, closed by a newline."""
    return Pieced(merge.unite(Bytes(b""), body, body.size).spans, Bytes(b""), body)


def _is_there(home: Home, path: str) -> bool:
    try:
        home.lstat(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # opening it says what is wrong
    return True
