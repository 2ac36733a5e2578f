"""Comparing one path of a home with its area: both sides are read and hashed, with bounded memory."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from sidecar.area import metadata
from sidecar.area.objects import ObjectInfo
from sidecar.errors import ConditionFailed, FileChanged, HomeError, ObjectArchived, ObjectMissing
from sidecar.home.entries import FileStat
from sidecar.home.reads import StableFile, json_problem, must_be_whole_json, open_file
from sidecar.sync import unfold
from sidecar.sync.compare import Version, is_transcript
from sidecar.sync.findings import Finding, Kind
from sidecar.sync.line_counts import counted
from sidecar.sync.unfold import Placed
from sidecar.sync.verification import Facts, LocalSide, RemoteSide, judged, looks_untouched
from sidecar.sync.views import Sides, View

_TRIES = 3
_JSON_BYTES = 8 * 1024 * 1024


class PathExamined(Struct, frozen=True):
    """What was found of a path; ``bytes`` of it were read, of both sides together."""

    findings: tuple[Finding, ...]
    read: bool = False
    bytes: int = 0


class PathInspection:
    """One path, from all that is known of it to what is to be said."""

    def __init__(self, sides: Sides, view: View, path: str, spool_directory: Path) -> None:
        self._sides = sides
        self._view = view
        self._path = path
        self._spool_directory = spool_directory
        self._read = False
        self._bytes = 0

    def examined(self, *, chosen: bool, again: bool = False) -> PathExamined:
        """Look at it; both sides are read where they do not look untouched.

        Parameters
        ----------
        chosen: read it however untouched it looks, also where only the bucket has it.
        again: it seemed to differ just now: read both sides, if there are two.
        """
        for _ in range(_TRIES):
            try:
                found = judged(self._facts(chosen, again))
                return PathExamined(tuple(found), self._read, self._bytes)
            except FileChanged as error:
                problem = error.message
            except (ConditionFailed, ObjectMissing):
                problem = "its object was changed while it was read"
                break  # a fresh look has to find out
            except ObjectArchived as error:
                return PathExamined((Finding(self._path, Kind.PASSED_OVER, error.message),))
            except HomeError as error:
                problem = error.message
                break
        return PathExamined((Finding(self._path, Kind.COULD_NOT_TELL, problem),))

    def _facts(self, chosen: bool, again: bool) -> Facts:
        view, path = self._view, self._path
        stat, info, mark = view.scan.files.get(path), view.objects.get(path), view.marks.get(path)
        facts = view.facts_of(path)
        if facts.left_out:
            return facts
        if facts.refused:
            return replace(facts, remote=RemoteSide(info) if info else None)
        if stat and info:
            if chosen or again or not looks_untouched(stat, info, mark):
                return self._compared(facts, info)
            return replace(facts, local=LocalSide(stat), remote=RemoteSide(info))
        if stat:
            return self._local_alone(facts, stat)
        return self._remote_alone(facts, info, chosen) if info else facts

    def _compared(self, facts: Facts, info: ObjectInfo) -> Facts:
        with open_file(self._sides.home, self._path) as file:
            local = self._local(facts, file)
            remote = self._remote(info)
            lines, placed = None, self._view.placed.get(self._path)
            if is_transcript(self._path) and (placed or local.sha256 != remote.sha256):
                lines = counted(
                    self._sides.store,
                    self._sides.keys.object(self._path),
                    info,
                    file,
                    file.size - local.unfinished,
                    placed,
                    self._spool_directory,
                )
            refused = self._refusal(file) if local.sha256 != remote.sha256 else ""
            _demand_unchanged(file, self._path)
        if refused:
            return replace(facts, refused=refused, remote=remote)
        journalled = self._view.journal_holds(self._path, local.sha256)
        return replace(
            facts,
            local=local,
            remote=remote,
            lines=lines,
            journalled=journalled,
            journal_wins=not journalled and _journal_wins(placed, remote),
        )

    def _local_alone(self, facts: Facts, stat: FileStat) -> Facts:
        placed = self._view.placed.get(self._path)
        if placed is None:
            return self._not_sent(facts, stat)
        with open_file(self._sides.home, self._path) as file:
            local = self._local(facts, file)
            journalled = self._view.journal_holds(self._path, local.sha256)
            if is_transcript(self._path):
                end = file.size - local.unfinished
                lines = counted(self._sides.store, "", None, file, end, placed, self._spool_directory)
                journalled = end > 0 and lines.lacking == 0
            _demand_unchanged(file, self._path)
        return replace(facts, local=local, journalled=journalled)

    def _not_sent(self, facts: Facts, stat: FileStat) -> Facts:
        """What neither bucket nor journal has: a transcript without a whole line is left alone, too."""
        unfinished = 0
        if is_transcript(self._path) or must_be_whole_json(self._path):
            with open_file(self._sides.home, self._path) as file:
                facts = replace(facts, refused=self._refusal(file))
                unfinished = 0 if not is_transcript(self._path) or file.last_newline() else stat.size
        return replace(facts, local=LocalSide(stat, unfinished=unfinished))

    def _refusal(self, file: StableFile) -> str:
        """Why no checkpoint sends the home's version, as half a sentence; empty where it does."""
        if not must_be_whole_json(self._path) or file.size > _JSON_BYTES:
            return ""
        problem = json_problem(file.read(0, file.size))
        return f"not valid JSON at this moment ({problem}); kept back" if problem else ""

    def _remote_alone(self, facts: Facts, info: ObjectInfo, chosen: bool) -> Facts:
        """Read for what the manifest, its pack and its metadata say of it."""
        if not chosen:
            return replace(facts, remote=RemoteSide(info))
        try:
            remote = self._remote(info)
        except ObjectArchived:
            return replace(facts, remote=RemoteSide(info))
        self._read = True
        return replace(facts, remote=remote)

    def _local(self, facts: Facts, file: StableFile) -> LocalSide:
        end = file.last_newline() if is_transcript(self._path) else file.size
        whole = file.sha256(end)
        mark = facts.mark
        known = ""
        if mark and mark.local_size == end:
            known = whole
        elif mark and mark.local_size <= file.size:
            known = file.sha256(mark.local_size)
        self._read = True
        self._bytes += file.size
        return LocalSide(file.stat, whole, known, file.size - end)

    def _remote(self, info: ObjectInfo) -> RemoteSide:
        path, digest, last = self._path, hashlib.sha256(), b"\n"
        with self._sides.store.open(self._sides.keys.object(path), if_match=info.etag) as download:
            checked: list[bytes] | None = (
                [] if must_be_whole_json(path) and info.size <= _JSON_BYTES else None
            )
            for chunk in download.chunks():
                digest.update(chunk)
                last = bytes(chunk[-1:]) or last
                self._bytes += len(chunk)
                if checked is not None:
                    checked.append(bytes(chunk))
            described = metadata.read(download.metadata)
        torn = ""
        if is_transcript(path) and last != b"\n":
            torn = "its object ends within a line: somebody else wrote it, or it was cut short"
        elif checked is not None and (problem := json_problem(b"".join(checked))):
            torn = f"its object is not valid JSON: {problem}"
        return RemoteSide(info, digest.hexdigest(), described, torn)


def _journal_wins(placed: Placed | None, remote: RemoteSide) -> bool:
    """Whether a restore would prefer a journalled version of a whole file to its object."""
    if placed is None or not placed.wholes:
        return False
    described = remote.metadata or metadata.FileMetadata()
    mtime_ns = described.mtime_ns if described.mtime_ns is not None else int(remote.info.modified * 1e9)
    version = Version(remote.sha256 or "", mtime_ns, described.base)
    known = described.sha256 == remote.sha256
    writers = placed.wholes_since(described.writer, described.sequence if known else 0)
    return unfold.choose(version, writers, time.time_ns()).whole is not None


def _demand_unchanged(file: StableFile, path: str) -> None:
    """A transcript may grow: only what it had at the opening is compared."""
    if not is_transcript(path) and not file.unchanged():
        raise FileChanged(f"{path} keeps changing while it is read")
