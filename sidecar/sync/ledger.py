"""The ledger: what this pod last knew equal on both sides, per path, on the state volume.

Promised: what it says is never ahead of what was acknowledged; it survives a kill at any moment; it counts
only for the area and the home that it was made with. Not promised: to survive the node. It lies on the pod's
volume, so nothing is fsynced: a lost ledger costs speed and conflict copies, never content.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from msgspec.structs import replace

from sidecar.dense import Dense
from sidecar.errors import LedgerError
from sidecar.sync.ledger_content import Content, content_of
from sidecar.sync.ledger_file import LedgerFile, unusable
from sidecar.sync.marks import (
    Flushed,
    Header,
    Known,
    Mark,
    OwnEntry,
    OwnVoid,
    header_document,
    new_writer,
    packed_entry,
    packed_flushed,
)

# Notes that wait for their line; as many files may have been sent unnoted when the process is killed.
_NOTES = 32


class LedgerBusy(LedgerError):
    """Another process holds the lock: ask it instead of working beside it."""

    kind = "busy"


class Ledger:
    """One user's ledger, open and locked. All methods may be called from any thread."""

    def __init__(self, file: LedgerFile, content: Content, lock_fd: int) -> None:
        self._file = file
        self._content = content
        self._lock_fd = lock_fd
        self._mutex = threading.Lock()
        self._on_the_way: set[int] = set()
        self._notes: dict[str, Mark] = {}

    @classmethod
    def open(
        cls, state_dir: Path, *, user_id: str, area: str, home: tuple[int, int], pod_uid: str | None = None
    ) -> Ledger:
        """The ledger of `user_id` under `state_dir`; an empty one where there is none that counts.

        Raises
        ------
        LedgerBusy: another process works on it. LedgerError: the directory cannot be written.
        FormatError: a newer version wrote it.
        """
        directory = directory_of(state_dir, user_id)
        lock_fd = _locked(state_dir, directory)
        try:
            file = LedgerFile(directory)
            content = content_of(file)
            if content is None or (content.header.user_id, content.header.area) != (user_id, area):
                ledger = cls(file, Content(Header(user_id, area, new_writer(pod_uid), home)), lock_fd)
                ledger.save()
                return ledger
            ledger = cls(file, content, lock_fd)
            if not file.go_on():
                ledger.save()
            return ledger
        except BaseException:
            os.close(lock_fd)
            raise

    @property
    def directory(self) -> Path:
        """Where it lies: a place for what may be lost with it."""
        return self._file.directory

    @property
    def header(self) -> Header:
        return self._content.header

    @property
    def writer(self) -> str:
        return self._content.header.writer

    # -- marks

    def mark(self, path: str) -> Mark | None:
        """What is known of `path`; None if nothing is."""
        return self._content.marks.get(path)

    def marks(self) -> Mapping[str, Mark]:
        """A copy of all marks."""
        with self._mutex:
            return Dense(Mark, self._content.marks)

    def known_paths(self) -> set[str]:
        """Every path of which something is known: an object, or what was flushed of it."""
        with self._mutex:
            return {*self._content.marks, *self._content.flushed}

    def record(self, path: str, mark: Mark, *, told: bool = False) -> None:
        """Note `mark` for `path`: on disk and in memory before this returns (rule 20).

        `told`: the manifest says the same of this path, so it need not hear of it.
        """
        with self._mutex:
            self._append(["mark", path, mark, *([True] if told else [])])
            self._content.set_mark(path, mark, told=told)

    def note(self, path: str, mark: Mark) -> None:
        """`record` for one of many: in memory now; on disk ahead of the next line, or at `settle`.

        A kill in between finds files that were sent and not noted, as one behind the answer does.
        """
        with self._mutex:
            self._content.set_mark(path, mark, told=False)
            self._notes[path] = mark
            if len(self._notes) >= _NOTES:
                self._settle()

    def settle(self) -> None:
        """Have on disk all that was noted."""
        with self._mutex:
            self._settle()

    def record_all(self, marks: Mapping[str, Mark], *, told: bool = False) -> None:
        """`record` for many paths, in one write."""
        with self._mutex:
            self._append(["marks", dict(marks), *([True] if told else [])])
            for path, mark in marks.items():
                self._content.set_mark(path, mark, told=told)

    def take_learned(self) -> Mapping[str, bool]:
        """The paths that were recorded and that the manifest has not heard of, until `told` is called.

        True where the object is another version than the one that was recorded before.
        """
        with self._mutex:
            self._apply(["take"])
            return dict(self._content.taken)

    def told(self) -> None:
        """The manifest has heard of all that was taken."""
        self._note(["told"])

    def forget(self, path: str) -> None:
        """Take back all that is known of `path`."""
        self._note(["forget", path])

    # -- the journal's side

    def flushed(self, path: str) -> Flushed | None:
        """What of `path` is in the journal; None if nothing is."""
        return self._content.flushed.get(path)

    def record_flush(self, sequence: int, size: int, flushed: dict[str, Flushed]) -> None:
        """Note that entry `sequence` (of `size` bytes) is in the bucket and what it made durable.

        The entry last: after a kill in between it is still in doubt. One that no path's flush knows of would
        never be settled.
        """
        with self._mutex:
            for path, after in flushed.items():
                before = self._content.flushed.get(path)
                newest = max(sequence, before.sequence) if before else sequence
                noted = replace(after, sequence=newest, folded=before.folded if before else 0)
                self._apply(["flushed", path, packed_flushed(noted)])
            self._apply(["entry", sequence, packed_entry(OwnEntry(tuple(flushed), size))])

    def known(self, path: str) -> Known:
        """What is known of `path`, asked before its file is read.

        The number declares what the journal has of it void, if need be: a flush of what comes meanwhile gets
        a later one, and stays (rule 18).
        """
        with self._mutex:
            flushed = self._content.flushed.get(path)
            if flushed:
                self._apply(["sequence", self._content.sequence + 1])
            return Known(self._content.marks.get(path), flushed, self._content.sequence)

    def fold(self, path: str, before: Flushed | None, after: Flushed, void: OwnVoid | None = None) -> None:
        """Note that the object of `path` holds all that `before` stood for, and is durable up to `after`.

        `void`: the entry that says the same to others. A flush that came in between (the ledger no longer
        says `before`) keeps its say.
        """
        with self._mutex:
            if void:
                self._apply(["entry", void.sequence, packed_entry(void.entry)])
            now = self._content.flushed.get(path)
            upto = before.sequence if before else 0
            if now is None or (before and now.sequence == before.sequence):
                upto = max(upto, void.sequence) if void else upto
                tried = now.tried if now and before and now.tried != before.tried else None
                now = replace(after, sequence=upto, tried=tried)
            self._apply(["flushed", path, packed_flushed(replace(now, folded=max(now.folded, upto)))])

    def laid(self, path: str, after: Flushed) -> None:
        """Note that the bucket holds `after` of `path`, whoever put it there; no entry is settled by that."""
        with self._mutex:
            now = self._content.flushed.get(path)
            kept = replace(after, sequence=now.sequence, folded=now.folded, tried=now.tried) if now else after
            self._apply(["flushed", path, packed_flushed(kept)])

    @property
    def sequence(self) -> int:
        """The number of this writer's last entry, whatever became of it."""
        return self._content.sequence

    def next_sequence(self) -> int:
        """A number that no entry of this writer has had: noted before it is used (rule 12)."""
        with self._mutex:
            number = self._content.sequence + 1
            self._apply(["sequence", number])
            return number

    def trying(self, sequence: int, carried: Mapping[str, tuple[Flushed, Flushed]]) -> None:
        """Note, before it is sent, that entry `sequence` may be in the bucket from now on, and for each path
        that it carries up to where it is known durable, and what the entry takes it to."""
        with self._mutex:
            self._on_the_way.add(sequence)
            self._apply(["tried", sequence])
            for path, (durable, after) in carried.items():
                now = replace(self._content.flushed.get(path, durable), tried=(after.size, after.digest))
                self._apply(["flushed", path, packed_flushed(now)])

    def sent(self, sequence: int) -> None:
        """Take note that the sending of entry `sequence` is over, whatever came of it."""
        with self._mutex:
            self._on_the_way.discard(sequence)

    def doubts(self) -> list[int]:
        """The numbers of entries that were sent and of which nobody knows whether they arrived.

        Not those on the way: a listing made now may lack one that is acknowledged a moment later.
        """
        with self._mutex:
            return sorted(self._content.doubts - self._on_the_way)

    def arrived(self, sequence: int, entry: OwnEntry) -> None:
        """Note that an entry of which nobody knew is in the bucket: the next checkpoint settles it."""
        with self._mutex:
            for path in entry.paths:
                now = self._content.flushed.get(path)
                if now and now.sequence < sequence:
                    self._apply(["flushed", path, packed_flushed(replace(now, sequence=sequence))])
            self._apply(["entry", sequence, packed_entry(entry)])

    def entries(self) -> dict[int, OwnEntry]:
        """A copy of this writer's entries that are still in the bucket, oldest first."""
        with self._mutex:
            return dict(sorted(self._content.entries.items()))

    def set_folded(self, sequence: int, folded: bool) -> None:
        """Note whether a checkpoint found all of the entry in the objects; one that is gone needs no note."""
        entry = self._content.entries.get(sequence)
        if entry and entry.folded != folded:
            self._note(["entry", sequence, packed_entry(replace(entry, folded=folded))])

    def entry_removed(self, sequence: int) -> None:
        """Note that the entry is no longer in the bucket."""
        self._note(["removed", sequence])

    # -- the whole

    def set_header(self, header: Header) -> None:
        """Replace the header: on disk and in memory before this returns."""
        with self._mutex:
            self._append(["header", header_document(header)])
            self._content.header = header

    def start_over(self, home: tuple[int, int], pod_uid: str | None) -> None:
        """Drop everything and become a fresh writer: the ledger did not fit this home (rule 17)."""
        with self._mutex:
            old = self._content.header
            self._content = Content(Header(old.user_id, old.area, new_writer(pod_uid), home))
            self._notes = {}
        self.save()

    def save(self) -> None:
        """Write a whole snapshot and begin an empty log."""
        with self._mutex:
            self._replace()

    def _replace(self) -> None:
        self._file.replace(self._content.document(), self._content.marks)

    def _note(self, line: list[Any]) -> None:
        with self._mutex:
            self._apply(line)

    def _apply(self, line: list[Any]) -> None:
        self._append(line)
        self._content.apply(line)

    def _append(self, line: list[Any]) -> None:
        self._settle()  # the log is in the order in which things were learned
        self._write(line)

    def _settle(self) -> None:
        if self._notes:
            self._write(["marks", self._notes])
            self._notes = {}

    def _write(self, line: list[Any]) -> None:
        if self._file.is_long:
            self._replace()
        self._file.append(line)

    def close(self) -> None:
        """Give the lock back. Closing twice is fine."""
        with self._mutex:
            self._file.close()
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
            self._lock_fd = -1

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def directory_of(state_dir: Path, user_id: str) -> Path:
    """Where the ledger of `user_id` lies under `state_dir`."""
    return state_dir / "users" / hashlib.sha256(user_id.encode()).hexdigest()[:32]


def owners_of(state_dir: Path, home: tuple[int, int], *, besides: str = "") -> set[str]:
    """The users whose ledgers under `state_dir` know files in the home with this device and inode.

    `besides`: one who is not looked at.

    Raises
    ------
    LedgerError: they cannot be read. FormatError: a newer version wrote one.
    """
    try:
        return _owners(state_dir / "users", home, directory_of(state_dir, besides))
    except OSError as error:
        raise unusable(state_dir, error) from error


def _owners(users: Path, home: tuple[int, int], own: Path) -> set[str]:
    owners = set()
    for directory in users.iterdir() if users.is_dir() else ():
        if directory == own or not directory.is_dir():
            continue
        content = content_of(LedgerFile(directory))
        if content and content.header.home == home and (content.marks or content.flushed):
            owners.add(content.header.user_id)
    return owners


def _locked(state_dir: Path, directory: Path) -> int:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(state_dir, error) from error
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock_fd
    except BlockingIOError:
        os.close(lock_fd)
        raise LedgerBusy(
            f"another claude-sidecar process works for this user on the state directory {state_dir}",
            "ask it over its API, or stop it first",
        ) from None
    except OSError as error:
        os.close(lock_fd)
        raise unusable(state_dir, error) from error
