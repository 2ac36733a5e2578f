"""The ledger: what this pod last knew equal on both sides, per path, on the state volume.

Promised: what it says is never ahead of what was acknowledged; it survives a kill at any moment (a torn last
line is ignored); it counts only for the area and the home that it was made with. Not promised: to survive the
node. It lies on the pod's volume, so nothing is fsynced: a lost ledger costs speed and conflict copies, never
content.

On disk, in a directory per user: ``ledger.json`` (a snapshot) and ``ledger.log`` (one line for each change
since), and ``lock`` (held by the one process that works on this home).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from sidecar.errors import FormatError, LedgerError
from sidecar.logs import log
from sidecar.sync.marks import Header, Mark, header_document, header_of, new_writer, packed, unpacked

FORMAT_MAJOR, FORMAT_MINOR = 1, 0


class Ledger:
    """One user's ledger, open and locked. All methods may be called from any thread."""

    def __init__(self, directory: Path, header: Header, marks: dict[str, Mark], lock_fd: int) -> None:
        self._directory = directory
        self._header = header
        self._marks = marks
        self._lock_fd = lock_fd
        self._log_fd = -1
        self._log_size = 0
        self._mutex = threading.Lock()

    @classmethod
    def open(
        cls, state_dir: Path, *, user_id: str, area: str, home: tuple[int, int], pod_uid: str | None = None
    ) -> Ledger:
        """The ledger of `user_id` under `state_dir`; an empty one where there is none that counts.

        Raises
        ------
        LedgerError: the directory cannot be written, or another process works on it (kind ``ledger``).
        FormatError: a newer version wrote it.
        """
        directory = state_dir / "users" / hashlib.sha256(user_id.encode()).hexdigest()[:32]
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock_fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(state_dir, error) from error
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            header, marks = _read(directory)
            fresh = Header(user_id, area, new_writer(pod_uid), home)
            if header is None or (header.user_id, header.area) != (user_id, area):
                header, marks = fresh, {}
            ledger = cls(directory, header, marks, lock_fd)
            ledger.save()
            return ledger
        except BlockingIOError:
            os.close(lock_fd)
            raise LedgerBusy(
                f"another claude-sidecar process works for this user on the state directory {state_dir}",
                "ask it over its API, or stop it first",
            ) from None
        except OSError as error:
            os.close(lock_fd)
            raise _unusable(state_dir, error) from error
        except BaseException:
            os.close(lock_fd)
            raise

    @property
    def header(self) -> Header:
        return self._header

    @property
    def writer(self) -> str:
        return self._header.writer

    def mark(self, path: str) -> Mark | None:
        """What is known of `path`; None if nothing is."""
        return self._marks.get(path)

    def marks(self) -> dict[str, Mark]:
        """A copy of all marks."""
        with self._mutex:
            return dict(self._marks)

    def record(self, path: str, mark: Mark) -> None:
        """Note `mark` for `path`: in memory, and appended to the log before this returns (rule 20)."""
        self._append(["p", path, packed(mark)], path, mark)

    def forget(self, path: str) -> None:
        """Take back all that is known of `path`."""
        self._append(["-", path], path, None)

    def set_header(self, header: Header) -> None:
        """Replace the header and save."""
        with self._mutex:
            self._header = header
        self.save()

    def start_over(self, home: tuple[int, int], pod_uid: str | None) -> None:
        """Drop every mark and become a fresh writer: the ledger did not fit this home (rule 17)."""
        with self._mutex:
            self._marks.clear()
            self._header = Header(self._header.user_id, self._header.area, new_writer(pod_uid), home)
        self.save()

    def save(self) -> None:
        """Write a whole snapshot and begin an empty log.

        The log is emptied after the snapshot took its place: a kill in between replays lines that the
        snapshot has already, which changes nothing.
        """
        import orjson

        with self._mutex:
            document = {
                "version": f"{FORMAT_MAJOR}.{FORMAT_MINOR}",
                "header": header_document(self._header),
                "marks": {path: packed(mark) for path, mark in self._marks.items()},
            }
            data = orjson.dumps(document)
            try:
                self._replace_snapshot(data)
            except OSError as error:
                raise _unusable(self._directory, error) from error

    def _replace_snapshot(self, data: bytes) -> None:
        temporary = self._directory / "ledger.json.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.replace(self._directory / "ledger.json")
        if self._log_fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._log_fd = os.open(self._directory / "ledger.log", flags, 0o600)
        os.ftruncate(self._log_fd, 0)
        self._log_size = 0

    def _append(self, line: list[Any], path: str, mark: Mark | None) -> None:
        import orjson

        data = orjson.dumps(line) + b"\n"
        with self._mutex:
            self._write_line(data)
            if mark is None:
                self._marks.pop(path, None)
            else:
                self._marks[path] = mark

    def _write_line(self, data: bytes) -> None:
        try:
            written = os.write(self._log_fd, data)
            if written != len(data):  # a full disk: what was written of the line must not stay
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._log_size += written
        except OSError as error:
            os.ftruncate(self._log_fd, self._log_size)
            raise _unusable(self._directory, error) from error

    def close(self) -> None:
        """Give the lock back."""
        with self._mutex:
            for descriptor in (self._log_fd, self._lock_fd):
                if descriptor >= 0:
                    os.close(descriptor)
            self._log_fd = self._lock_fd = -1

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LedgerBusy(LedgerError):
    """Another process holds the lock: ask it instead of working beside it."""

    kind = "busy"


def _unusable(directory: Path, error: OSError) -> LedgerError:
    hint = "give CLAUDE_SIDECAR_STATE_DIR a directory that this user may write"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "make room on the state volume: a few MiB are enough"
    return LedgerError(f"the state directory {directory} cannot be used: {error.strerror}", hint)


def _read(directory: Path) -> tuple[Header | None, dict[str, Mark]]:
    import orjson

    snapshot = directory / "ledger.json"
    if not snapshot.exists():
        return None, {}
    try:
        document = orjson.loads(snapshot.read_bytes())
        _check_version(str(document["version"]), directory)
        header = header_of(document["header"])
        marks = {path: unpacked(fields) for path, fields in document["marks"].items()}
    except (ValueError, KeyError, TypeError):
        log.warning("The ledger in %s is damaged and starts anew: the next sync compares in full", directory)
        return None, {}
    _replay(directory / "ledger.log", marks)
    return header, marks


def _replay(log_file: Path, marks: dict[str, Mark]) -> None:
    import orjson

    if not log_file.exists():
        return
    for line in log_file.read_bytes().split(b"\n"):
        try:
            entry = orjson.loads(line)
            if entry[0] == "p":
                marks[entry[1]] = unpacked(entry[2])
            else:
                marks.pop(entry[1], None)
        except (ValueError, LookupError, TypeError):
            return  # the torn end of the log: what follows was never acknowledged to anyone


def _check_version(version: str, directory: Path) -> None:
    major, _, minor = version.partition(".")
    if int(major) != FORMAT_MAJOR or int(minor) > FORMAT_MINOR + 1:
        raise FormatError(
            f"the ledger in {directory} has format {version}; {FORMAT_MAJOR}.{FORMAT_MINOR} can be read here",
            "run the newer version again, or give an empty state directory",
        )
