"""Files that are read while somebody else may write them.

A file is opened once, without following links and without blocking, and looked at through its descriptor
alone. Its size is fixed at that moment: what is appended later belongs to the next round. Nothing is mapped
into memory: a file cut short under a mapping kills the process.
"""

from __future__ import annotations

import os
from types import TracebackType

from sidecar.errors import FileChanged, HomeError
from sidecar.home.beneath import FILE, Home
from sidecar.home.entries import FileStat, file_stat
from sidecar.home.ownership import demand_own_file
from sidecar.home.problems import home_error, shown

_BLOCK_BYTES = 1024 * 1024
_TAIL_BYTES = 64 * 1024

_UTF8_MARK = b"\xef\xbb\xbf"


class StableFile:
    """An open regular file as it was when it was opened; a context manager. Threads may share it.

    ``stat`` is what `fstat` said at the opening, ``size`` its length: a body to send (`Source`).
    """

    __slots__ = ("_fd", "size", "stat")

    def __init__(self, fd: int, stat: FileStat) -> None:
        self._fd = fd
        self.stat = stat
        self.size = stat.size

    def __enter__(self) -> StableFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it. Closing twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises
        ------
        FileChanged: the file was cut short meanwhile, or the range lies behind its end.
        """
        data = self._pread(offset, length)
        if len(data) == length:
            return data
        parts = [data]
        missing = length - len(data)
        while missing and parts[-1]:
            parts.append(self._pread(offset + length - missing, missing))
            missing -= len(parts[-1])
        if missing:
            raise FileChanged(f"{shown(self.stat.path)} was cut short while it was read")
        return b"".join(parts)

    def sha256(self, length: int | None = None) -> str:
        """The SHA-256 of the first `length` bytes (default: of all), in hex; reads 1 MiB at a time."""
        import hashlib

        digest = hashlib.sha256()
        end = self.size if length is None else length
        for offset in range(0, end, _BLOCK_BYTES):
            digest.update(self.read(offset, min(_BLOCK_BYTES, end - offset)))
        return digest.hexdigest()

    def last_newline(self, limit: int | None = None) -> int:
        """How many bytes the whole lines among the first `limit` bytes (default: all) have; 0 if none is."""
        end = self.size if limit is None else min(limit, self.size)
        while end > 0:
            start = max(0, end - _TAIL_BYTES)
            found = self.read(start, end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0

    def unchanged(self) -> bool:
        """True while the file is what it was at the opening: not written, not renamed over, not deleted.

        Two writes of equal length within one tick of the file system's clock (up to 4 ms before Linux 6.13)
        cannot be told apart.
        """
        return file_stat(self.stat.path, os.fstat(self._fd)) == self.stat

    def _pread(self, offset: int, length: int) -> bytes:
        try:
            return os.pread(self._fd, length, offset)
        except OSError as error:
            raise home_error("read", self.stat.path, error) from error


def open_file(home: Home, path: str) -> StableFile:
    """Open the regular file at `path` for reading.

    Raises
    ------
    FileChanged: it is not there (any more).
    HomeError: it is a link, a FIFO or another kind of file; it may not be read; it is somebody else's file
        under a second name.
    """
    try:
        fd = home.descend(path, FILE)
    except OSError as error:
        raise home_error("read", path, error, _found(home, path, error)) from error
    try:
        found = os.fstat(fd)
        demand_own_file(home, path, found)
        return StableFile(fd, file_stat(path, found))
    except BaseException:
        os.close(fd)
        raise


def _found(home: Home, path: str, error: OSError) -> os.stat_result | None:
    """What is there, to say why it could not be opened."""
    if not isinstance(error, PermissionError):
        return None
    try:
        return home.lstat(path)
    except (OSError, HomeError):
        return None


def must_be_whole_json(path: str) -> bool:
    """True for the client's own JSON files, which stop it or reset it when they are cut short.

    These are ``.claude.json``, ``settings*.json`` and ``keybindings.json`` at the root and each ``*.json``
    directly in ``plugins/``. Transcripts (``.jsonl``) and other people's JSON are carried as they are.
    """
    if not path.endswith(".json"):
        return False
    directory, _, name = path.rpartition("/")
    if directory:
        return directory == "plugins"
    return name.startswith("settings") or name in (".claude.json", "keybindings.json")


def json_problem(data: bytes) -> str:
    """Why `data` is not one whole JSON value, as half a sentence; empty if it is."""
    import orjson

    text = data.removeprefix(_UTF8_MARK)
    if not text.strip():
        return "it is empty"
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return f"it is not whole JSON (byte {error.pos} of {len(text)}): it was cut short or is mistyped"
    return ""
