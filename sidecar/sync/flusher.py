"""One user's flushes: which files are looked at, and what is not durable since when.

Synchronous; one flush at a time, beside a checkpoint of the same user if need be: each takes its marks from
one snapshot of a file (rule 18).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from msgspec.structs import replace

from sidecar.errors import AccessDenied, HomeError
from sidecar.home.entries import FileStat, Refused
from sidecar.home.reads import open_file
from sidecar.home.scan import look, names_in, scan
from sidecar.sync import tombstones
from sidecar.sync.compare import is_transcript
from sidecar.sync.flush import FlushResult, flush, needs_flush, new_bytes
from sidecar.sync.flush_entry import put_entry
from sidecar.sync.results import BackupResult, Unsynced
from sidecar.sync.tails import Tail, Tails, at_leisure, read
from sidecar.sync.workspace import Workspace

# The journal is folded early once it holds this much: a restore reads all of it.
MAX_ENTRIES = 256
MAX_BYTES = 32 * 1024 * 1024
# What is read ahead: below the first a flush is quick anyway, and few transcripts go on at a time.
COLD_BYTES = 1024 * 1024
COLD_TOTAL_BYTES = 256 * 1024 * 1024
COLD_FILES = 8


class Changes(Protocol):
    """What a watch saw: paths, or that everything must be looked at."""

    @property
    def paths(self) -> frozenset[str]: ...

    @property
    def everything(self) -> bool: ...


class Flusher:
    """Flushes the home of `workspace` to its journal.

    `found`: told how many files and bytes are not durable, before the first of them is sent.

    ``enabled``: False once the bucket's policy turned out to know no journal: then intervals do the work.
    """

    def __init__(
        self, workspace: Workspace, found: Callable[[int, int], None] = lambda files, size_bytes: None
    ) -> None:
        self._workspace = workspace
        self._found = found
        self._tails = Tails()
        self._left: frozenset[str] = frozenset()
        self.enabled = True

    def flush(self, changes: Changes | None = None) -> BackupResult:
        """Make durable what changed, and what an earlier flush had to leave.

        `changes`: what a watch saw; None looks at every file.
        """
        begun = time.monotonic()
        workspace = self._workspace
        tombstones.recall(workspace)
        stats, refused = self._changed_files(changes)
        dirty = [stat for stat in stats if needs_flush(workspace, stat)]
        self._found(len(dirty), sum(new_bytes(workspace, stat) for stat in dirty))
        result = flush(workspace, dirty, self._tails)
        self._left = frozenset(entry.path for entry in result.pending)
        if isinstance(result.error, AccessDenied) and self.enabled:
            self.enabled = False
            workspace.own_area_denied("The journal may not be written", result.error)
        return _reported(workspace, result, refused, time.monotonic() - begun)

    def _changed_files(self, changes: Changes | None) -> tuple[Iterable[FileStat], list[Unsynced]]:
        workspace = self._workspace
        prefix_bytes = len(workspace.keys.objects.encode())
        if changes is None or changes.everything:
            found = scan(
                workspace.home,
                workspace.rules,
                max_file_bytes=workspace.max_file_bytes,
                key_prefix_bytes=prefix_bytes,
            )
            return found.files.values(), [Unsynced(r.path, r.reason) for r in found.refused]

        def looked(path: str) -> FileStat | Refused | None:
            return look(
                workspace.home,
                workspace.rules,
                path,
                max_file_bytes=workspace.max_file_bytes,
                key_prefix_bytes=prefix_bytes,
            )

        paths = changes.paths | self._left
        lines = [path for path in paths if is_transcript(path)]
        seen = [looked(path) for path in lines]  # their ends first: what these lines name is there by now
        news = {result for path in lines for result in self._new_results(path)}
        seen += [looked(path) for path in paths.difference(lines) | news]
        refused = [Unsynced(one.path, one.reason) for one in seen if isinstance(one, Refused)]
        return [one for one in seen if isinstance(one, FileStat)], refused

    def _new_results(self, transcript: str) -> Iterator[str]:
        """The tool results of a session of which nothing is known yet: the watch may tell of them only after
        it told of the line that names them (rule 14)."""
        ledger = self._workspace.ledger
        directory = transcript.removesuffix(".jsonl") + "/tool-results"
        for name in names_in(self._workspace.home, directory):
            path = f"{directory}/{name}"
            if ledger.mark(path) is None and ledger.flushed(path) is None:
                yield path

    def cold(self) -> list[tuple[str, int, str]]:
        """The newest large transcripts whose next flush would read them whole: path, size and digest of what
        is durable of each."""
        known: list[tuple[int, str, int, str]] = []
        for path in self._workspace.ledger.known_paths():
            if not is_transcript(path) or path in self._tails:
                continue
            mtime_ns, size, digest = self._known_prefix(path)
            if size >= COLD_BYTES and digest:
                known.append((mtime_ns, path, size, digest))
        chosen: list[tuple[str, int, str]] = []
        for _, path, size, digest in sorted(known, reverse=True)[:COLD_FILES]:
            if sum(size for _, size, _ in chosen) + size <= COLD_TOTAL_BYTES:
                chosen.append((path, size, digest))
        return chosen

    def _known_prefix(self, path: str) -> tuple[int, int, str]:
        """When `path` was last written, as far as is known, and the longest prefix that is durable."""
        mark, flushed = self._workspace.ledger.mark(path), self._workspace.ledger.flushed(path)
        mtime_ns, size, digest = (mark.mtime_ns, mark.local_size, mark.local_digest) if mark else (0, 0, "")
        if flushed and flushed.size >= size:
            size, digest = flushed.size, flushed.digest
            mtime_ns = max(mtime_ns, flushed.stat.mtime_ns if flushed.stat else 0)
        return mtime_ns, size, digest

    def read_ahead(self, path: str, size: int, digest: str, stopping: Callable[[], bool]) -> Tail | None:
        """The tail of a cold transcript, read at leisure, beside a flush if need be; for `warm`."""
        try:
            with open_file(self._workspace.home, path) as file:
                return read(file, size, digest, pace=at_leisure(stopping))
        except HomeError:
            return None  # the flush that needs it says why

    def warm(self, path: str, tail: Tail) -> None:
        """Keep what was read ahead, while no flush runs."""
        if path not in self._tails:
            self._tails.keep(path, tail)

    @property
    def is_long(self) -> bool:
        """Whether the journal has grown so much that a checkpoint should fold it now."""
        entries = self._workspace.ledger.entries().values()
        return len(entries) >= MAX_ENTRIES or sum(entry.size for entry in entries) >= MAX_BYTES

    def say_ended(self) -> None:
        """The end mark: this writer will write no more, so nobody needs to wait for it.

        Raises
        ------
        UserForgotten: the area was erased; nothing is written into it. StoreError: it is not in the bucket.
        """
        tombstones.demand(self._workspace)
        sequence, size = put_entry(self._workspace, (), ended=True)
        self._workspace.ledger.record_flush(sequence, size, {})


def _reported(
    workspace: Workspace, result: FlushResult, refused: list[Unsynced], seconds: float
) -> BackupResult:
    error = result.error
    report = BackupResult(
        workspace.user_id,
        durable=not result.pending and error is None,
        generation=workspace.ledger.header.generation,
        files=result.files,
        bytes=result.bytes,
        seconds=seconds,
        unsynced_bytes=sum(entry.size_bytes for entry in result.pending),
        pending=result.pending,
        refused=(*refused, *result.refused),
    )
    if error is None:
        return report
    return replace(report, error=error.message, kind=error.kind, hint=error.hint)
