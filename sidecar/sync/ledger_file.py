"""The ledger on disk: a snapshot and a log of what changed since, so that each change costs one short write.

The two belong together by an epoch: a kill between the new snapshot and the emptied log leaves a log of the
old epoch, which is ignored. A torn last line was never acknowledged to anyone and is ignored too.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Raw, Struct, json

from sidecar.dense import members
from sidecar.errors import FormatError, LedgerError
from sidecar.logs import log

FORMAT_MAJOR, FORMAT_MINOR = 1, 1
_VERSION = f"{FORMAT_MAJOR}.{FORMAT_MINOR}"
# A log of this size is read in a tenth of a second; what is longer than the snapshot is worth a new one.
_LONG_BYTES = 8 * 1024 * 1024


class Snapshot(Struct, frozen=True):
    """``marks``: each as it rests; they are most of it. ``document``: all else."""

    document: dict[str, Any]
    marks: dict[str, Raw]


class LedgerFile:
    """``ledger.json`` and ``ledger.log`` in `directory`. Not for several threads: the ledger guards it."""

    def __init__(self, directory: Path) -> None:
        self._directory = self.directory = directory
        self._snapshot = directory / "ledger.json"
        self._log = directory / "ledger.log"
        self._log_fd = -1
        self._log_size = 0
        self._snapshot_size = 0
        self._epoch = self._found_epoch = ""
        self._is_begun = False

    @property
    def is_long(self) -> bool:
        """Whether the log has grown so far that a new snapshot pays."""
        return self._log_size > max(_LONG_BYTES, 2 * self._snapshot_size)

    def read(self) -> Snapshot | None:
        """The snapshot; None where there is none that can be read. What changed since is in `lines`.

        Raises
        ------
        FormatError: a newer version wrote it; it is left alone.
        """
        if not self._snapshot.exists():
            return None
        try:
            data = self._snapshot.read_bytes()
            parts = json.decode(data, type=dict[str, Raw])
            self._check_version(str(json.decode(parts["version"])))
            marks = json.decode(parts.pop("marks"), type=dict[str, Raw])
            document = {name: json.decode(part) for name, part in parts.items()}
            self._found_epoch = str(document["epoch"])
            if document["version"] == _VERSION:
                self._epoch, self._snapshot_size = self._found_epoch, len(data)
            return Snapshot(document, marks)
        except (ValueError, KeyError, TypeError):
            self.say_damaged()
            return None

    def say_damaged(self) -> None:
        """One WARNING: the ledger could not be read."""
        log.warning(
            "The ledger in %s is damaged and starts anew: the next sync compares in full", self._directory
        )

    def lines(self) -> Iterator[list[Any]]:
        """The log's lines since the snapshot that was read, one by one: there may be many."""
        if not self._log.exists():
            return
        with self._log.open("rb") as log_file:
            if log_file.readline() != _epoch_line(self._found_epoch):
                return
            for line in log_file:
                try:
                    change: list[Any] = json.decode(line)
                except ValueError:
                    return  # the torn end
                yield change

    def _check_version(self, version: str) -> None:
        major, _, minor = version.partition(".")
        if int(major) != FORMAT_MAJOR or int(minor) > FORMAT_MINOR + 1:
            raise FormatError(
                f"the ledger in {self._directory} has format {version}, which cannot be read here",
                "run the version that wrote it, or give an empty state directory",
            )

    def go_on(self) -> bool:
        """Add to what `read` found; False where it must be replaced: a log, or an older version's format.

        Raises
        ------
        LedgerError: the directory cannot be written.
        """
        begun = _epoch_line(self._epoch)
        if not self._epoch or not self._log.exists() or self._log.stat().st_size != len(begun):
            return False
        try:
            if self._log.read_bytes() != begun:
                return False
            self._open_log()
        except OSError as error:
            raise unusable(self._directory, error) from error
        self._log_size, self._is_begun = len(begun), True
        return True

    def replace(self, document: Mapping[str, Any], marks: Mapping[str, Any]) -> None:
        """Write a whole snapshot and begin an empty log.

        Raises
        ------
        LedgerError: the disk is full, or the directory cannot be written.
        """
        epoch = os.urandom(8).hex()
        pieces = _pieces({"version": _VERSION, "epoch": epoch, **document}, marks)
        try:
            self._snapshot_size = self._write_snapshot(pieces)
            self._epoch, self._is_begun = epoch, False
            self._open_log()
            self._begin()
        except OSError as error:
            raise unusable(self._directory, error) from error

    def _open_log(self) -> None:
        if self._log_fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._log_fd = os.open(self._log, flags, 0o600)

    def _write_snapshot(self, pieces: Iterable[bytes]) -> int:
        temporary = self._directory / "ledger.json.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(pieces)
            size = file.tell()
        temporary.replace(self._snapshot)
        return size

    def append(self, line: list[Any]) -> None:
        """Add one change to the log; on a full disk nothing of it stays.

        Raises
        ------
        LedgerError: the disk is full, or the directory cannot be written.
        """
        data = json.encode(line) + b"\n"
        try:
            if not self._is_begun:  # the disk was full then: a log without its epoch would not count
                self._begin()
            self._write(data)
        except OSError as error:
            raise unusable(self._directory, error) from error

    def _begin(self) -> None:
        os.ftruncate(self._log_fd, 0)
        self._log_size = 0
        self._write(_epoch_line(self._epoch))
        self._is_begun = True

    def _write(self, data: bytes) -> None:
        try:
            if os.write(self._log_fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(self._log_fd, self._log_size)
            raise
        self._log_size += len(data)

    def close(self) -> None:
        """Close the log. Closing twice is fine."""
        if self._log_fd >= 0:
            os.close(self._log_fd)
        self._log_fd = -1


def unusable(directory: Path, error: OSError) -> LedgerError:
    """The sentence for a state directory that does not do its work."""
    hint = "give CLAUDE_SIDECAR_STATE_DIR a directory that this user may write"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "make room on the state volume: a few MiB are enough"
    return LedgerError(f"the state directory {directory} cannot be used: {error.strerror}", hint)


def _epoch_line(epoch: str) -> bytes:
    """What a log begins with."""
    return json.encode(["epoch", epoch]) + b"\n"


def _pieces(document: Mapping[str, Any], marks: Mapping[str, Any]) -> Iterator[bytes]:
    """`document` with the ``marks`` in it as one JSON object; never all of it at once in memory."""
    yield json.encode(document)[:-1] + b',"marks":{'
    yield from members(marks.items())
    yield b"}}"
