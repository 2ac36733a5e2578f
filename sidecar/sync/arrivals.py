"""One path's way from the area into the home."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from sidecar.area import metadata
from sidecar.area.download import Download
from sidecar.area.manifest import FileEntry
from sidecar.area.objects import ObjectInfo
from sidecar.errors import ConditionFailed, FileChanged, ObjectArchived, ObjectDamaged, ObjectMissing
from sidecar.home.entries import FileStat
from sidecar.home.reads import StableFile, json_problem, must_be_whole_json, open_file
from sidecar.home.writes import append, open_writer
from sidecar.sync import merge
from sidecar.sync.bodies import Pieced, Spool, blocks
from sidecar.sync.compare import Local, RestoreStep, is_transcript, restore_step
from sidecar.sync.marks import Flushed, Mark, lasting
from sidecar.sync.snapshots import Snapshot
from sidecar.sync.workspace import Workspace

_TRIES = 3
# What one path may take in memory on its way: many come side by side.
MEMORY_PER_FILE_BYTES = 4 * 1024 * 1024
_EMPTY_SHA256 = hashlib.sha256().hexdigest()
# Settings files are a few KiB; one larger than this is not checked.
_JSON_BYTES = 8 * 1024 * 1024


class Arrival(NamedTuple):
    """``moved``: the home changed. ``problem``: why the path did not come, as half a sentence."""

    path: str
    bytes: int = 0
    moved: bool = False
    conflict: bool = False
    problem: str = ""


class Wanted(NamedTuple):
    """One path of the area that a restore looks at.

    ``told``: what the manifest says, of this path and others. An entry is made when it is asked for: one for
    each file would take much memory.
    """

    path: str
    info: ObjectInfo
    told: Mapping[str, FileEntry]
    step: RestoreStep

    @property
    def entry(self) -> FileEntry | None:
        """The manifest's entry, if it is of this version."""
        entry = self.told.get(self.path)
        return entry if entry and entry.etag == self.info.etag else None

    @property
    def mtime_ns(self) -> int:
        entry = self.entry
        return entry.mtime_ns if entry else int(self.info.modified * 1e9)


def bring(workspace: Workspace, wanted: Wanted) -> Arrival:
    """Carry out the step. Raises StoreError, HomeError or LedgerError where that is not possible."""
    path, step = wanted.path, wanted.step
    arrival = _Path(workspace, path, wanted.info, wanted.entry)
    try:
        for _ in range(_TRIES):
            try:
                return arrival.carry_out(step)
            except FileChanged as error:
                problem = error.message
                step = arrival.step_now()
            except (ConditionFailed, ObjectDamaged) as error:  # another version came while this one did
                problem = error.message
    except ObjectMissing:
        return Arrival(path, problem="it was deleted from the bucket meanwhile")
    except ObjectArchived as error:
        return Arrival(path, problem=error.message)
    return Arrival(path, problem=problem)


def _fixed(file: StableFile, end: int) -> Snapshot:
    return Snapshot(file, end, by_blocks=end > MEMORY_PER_FILE_BYTES)


class _Held(Struct, frozen=True):
    """An object that was read already: written from what was read, it is the version that was compared."""

    info: ObjectInfo
    metadata: dict[str, str]
    body: Spool

    def chunks(self) -> Iterator[bytes | memoryview]:
        return blocks(self.body)


class _Path:
    def __init__(self, workspace: Workspace, path: str, info: ObjectInfo, entry: FileEntry | None) -> None:
        self.workspace = workspace
        self.path = path
        self.info = info
        self.entry = entry
        self.key = workspace.keys.object(path)
        self.begun_ns = workspace.now_ns()

    def step_now(self) -> RestoreStep:
        """What the path asks for after it changed under our hands: no local change is undone."""
        mark = self.workspace.ledger.mark(self.path)
        local = Local.CHANGED if mark else Local.NEW
        if not self.workspace.is_there(self.path):
            local = Local.ABSENT
        return restore_step(local, mark, self.info.etag, transcript=is_transcript(self.path))

    def carry_out(self, step: RestoreStep) -> Arrival:
        if step is RestoreStep.NOTHING:
            return Arrival(self.path)
        if step is RestoreStep.TAKE:
            return self._take(replacing=None)
        if step is RestoreStep.REPLACE:
            mark = self.workspace.ledger.mark(self.path)
            return self._take(replacing=mark.stat if mark else None)
        return self._append() if step is RestoreStep.APPEND else self._meet()

    def _take(self, *, replacing: FileStat | None) -> Arrival:
        with self.workspace.store.open(self.key, expected_bytes=self.info.size) as download:
            return self._write(download, replacing, local=None)

    def _write(
        self, download: Download | _Held, replacing: FileStat | None, local: Snapshot | None
    ) -> Arrival:
        """Stream the object into place; with `local`: adopt equal bytes, or keep the local ones aside."""
        digest, last = hashlib.sha256(), b"\n"
        with open_writer(self.workspace.home, self.path) as writer:
            checked: list[bytes] | None = [] if self._is_checked(download) else None
            for chunk in download.chunks():
                digest.update(chunk)
                writer.write(chunk)
                last = bytes(chunk[-1:]) or last
                if checked is not None:
                    checked.append(bytes(chunk))
            problem = json_problem(b"".join(checked)) if checked is not None else ""
            if problem:
                return Arrival(
                    self.path, problem=f"its object is not valid JSON ({problem}); left in the bucket"
                )
            sha256 = digest.hexdigest()
            if local and replacing and local.sha256 == sha256:
                self._record(download.info, sha256, replacing)
                return Arrival(self.path)
            if local and self._is_own(download, sha256):
                return Arrival(self.path)
            if local and replacing:
                self.workspace.keep_aside(self.path, local, local.sha256, replacing.mtime_ns)
            if is_transcript(self.path) and last != b"\n":
                writer.write(b"\n")  # a client appends straight onto a torn line and loses the next one too
            mtime_ns, mode = self._times(download)
            stat = writer.commit(mtime_ns=mtime_ns, mode=mode, replacing=replacing)
        self._record(download.info, sha256, stat)
        return Arrival(self.path, download.info.size, moved=True, conflict=local is not None)

    def _is_own(self, download: Download | _Held, sha256: str) -> bool:
        """This writer sent it and never heard of it: what is local came after and is sent next."""
        described = metadata.read(download.metadata)
        return described.sha256 == sha256 and described.writer == self.workspace.ledger.writer

    def _is_checked(self, download: Download | _Held) -> bool:
        return must_be_whole_json(self.path) and download.info.size <= _JSON_BYTES

    def _times(self, download: Download | _Held) -> tuple[int, int]:
        if self.entry and self.entry.etag == download.info.etag:
            return self.entry.mtime_ns, self.entry.mode
        described = metadata.read(download.metadata)
        mtime_ns = described.mtime_ns
        if mtime_ns is None:
            mtime_ns = int(download.info.modified * 1e9)
        return mtime_ns, described.mode if described.mode is not None else 0o600

    def _record(self, info: ObjectInfo, sha256: str, stat: FileStat, *, untouched: bool = True) -> None:
        """Rule 6: the base is the object as read."""
        known = lasting(stat, self.begun_ns) if untouched else None
        mark = Mark(info.etag, info.size, sha256, info.size, sha256, known, stat.mtime_ns, stat.mode)
        entry = self.entry
        told = entry is not None and (entry.etag, entry.digest) == (info.etag, sha256)
        self.workspace.ledger.record(self.path, mark, told=told)
        if not is_transcript(self.path) and self.workspace.ledger.flushed(self.path):
            self.workspace.ledger.laid(self.path, Flushed(info.size, sha256, 0, known))

    def _meet(self) -> Arrival:
        with open_file(self.workspace.home, self.path) as file:
            local = _fixed(file, file.size)
            with self.workspace.store.open(self.key) as download:
                return self._write(download, file.stat, local)

    def _append(self) -> Arrival:
        workspace = self.workspace
        with open_file(workspace.home, self.path) as file:
            end = file.last_newline()
            if end != file.size:
                self._clear(file.stat)  # the object may lack lines of the home: the next checkpoint looks
                return Arrival(
                    self.path, problem="its last line is unfinished; the next restore adds the rest"
                )
            head, spool = workspace.spool(self.path)
            with spool:
                local = _fixed(file, end)
                shared = merge.common_prefix(local, spool, end, spool.size)
                if shared == end:
                    return self._continue(_Held(head.info, head.metadata, spool), spool, local, file.stat)
                return self._add_missing(head.info, spool, local, file.stat, contained=shared == spool.size)

    def _continue(self, held: _Held, spool: Spool, local: Snapshot, stat: FileStat) -> Arrival:
        """The local file is a prefix of the object: what follows is placed byte for byte."""
        if local.size == spool.size:
            self._record(held.info, spool.sha256, stat)
            return Arrival(self.path)
        if not self.workspace.live:
            return self._write(held, stat, local=None)
        spans = merge.unite(spool, local, local.size).spans
        body = Pieced(spans, spool, local)
        data = b"".join(bytes(block) for block in blocks(body, local.size))
        after = append(self.workspace.home, self.path, data, expected_size=local.size)
        # Read again by the next checkpoint: what stands before may have been rewritten while this came.
        self._record(held.info, spool.sha256, after, untouched=False)
        return Arrival(self.path, len(data), moved=True)

    def _add_missing(
        self, info: ObjectInfo, spool: Spool, local: Snapshot, stat: FileStat, *, contained: bool
    ) -> Arrival:
        """Rule 5: missing lines go in as one append; mark (a) is cleared, the next checkpoint unites."""
        missing = merge.missing_lines(local, local.size, spool, spool.size, side="remote")
        if contained or not missing:
            self._record_contained(info, spool, stat, contained=contained)
            return Arrival(self.path)
        data = bytearray()
        for span in missing:
            data += spool.read(span.offset, span.length)
        if not data.endswith(b"\n"):
            data += b"\n"
        after = append(self.workspace.home, self.path, bytes(data), expected_size=local.size)
        self._clear(after)
        return Arrival(self.path, len(data), moved=True)

    def _record_contained(self, info: ObjectInfo, spool: Spool, stat: FileStat, *, contained: bool) -> None:
        """The home holds every line of the object already."""
        if contained:
            mark = Mark(
                info.etag, info.size, spool.sha256, info.size, spool.sha256, None, stat.mtime_ns, stat.mode
            )
            self.workspace.ledger.record(self.path, mark)
        else:
            self._clear(stat)

    def _clear(self, stat: FileStat) -> None:
        old = self.workspace.ledger.mark(self.path)
        empty = Mark("", 0, "", 0, _EMPTY_SHA256, None, stat.mtime_ns, stat.mode)
        self.workspace.ledger.record(self.path, replace(old, etag="", stat=None) if old else empty)
