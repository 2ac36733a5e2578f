"""One object's way by s5cmd, with what it cannot do itself done around it: which version, and whose."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from sidecar.area.connection import Connection
from sidecar.area.download import Download
from sidecar.area.heads import head
from sidecar.area.objects import ObjectHead, Source
from sidecar.area.patience import Patience
from sidecar.area.s5cmd.carrier import Carrier, StagingFull
from sidecar.area.s5cmd.staging import fill, taken
from sidecar.area.write import Write
from sidecar.errors import ConditionFailed, ObjectDamaged, ObjectMissing

_CHUNK_BYTES = 1024 * 1024
# The MD5 of more than this costs more than another look at the object.
_MD5_BYTES = 32 * 1024 * 1024
_MD5 = re.compile(r'"[0-9a-f]{32}"')
_NO_ROOM = "the state volume has no room for it"


def fetched(connection: Connection, carrier: Carrier, key: str, patience: Patience) -> Download:
    """The object at `key`, brought by s5cmd; natively where the state volume has no room. As `Store.open`."""
    seen = head(connection, key, patience)
    if seen is None:
        raise ObjectMissing(f"reading s3://{connection.target.bucket}/{key} failed: there is no such object")
    try:
        return Fetched(connection, carrier, key, seen, patience)
    except StagingFull:
        carrier.went_natively(_NO_ROOM, key)
        return Download(connection, key, patience, None)


class Fetched(Download):
    """An object that is here already, as an unnamed file. Its bytes are of the version that ``info`` names.

    s5cmd fetches a large object in ranges, whatever happens to it meanwhile: so the bytes count only when
    their MD5 is the ETag, or when the ETag is still what it was before the first byte.
    """

    def __init__(
        self, connection: Connection, carrier: Carrier, key: str, seen: ObjectHead, patience: Patience
    ) -> None:
        self._connection = connection
        self._key = key
        self._patience = patience
        self._what = f"reading s3://{connection.target.bucket}/{key}"
        self.info, self.metadata = seen.info, seen.metadata
        with carrier.room(seen.info.size) as path:
            patience.attempt(lambda: carrier.bring(key, path, seen.info.size))
            self._file = taken(path)
        try:
            self._prove()
        except BaseException:
            self._file.close()
            raise

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def chunks(self, size: int = _CHUNK_BYTES) -> Iterator[bytes]:
        """The bytes in order, `size` at a time."""
        self._file.seek(0)
        while chunk := self._file.read(size):
            yield chunk

    def read(self) -> bytes:
        """All bytes."""
        return b"".join(self.chunks())

    def _prove(self) -> None:
        size = self._file.seek(0, 2)
        if size <= _MD5_BYTES and _MD5.fullmatch(self.info.etag) and self._md5() == self.info.etag:
            return
        now = head(self._connection, self._key, self._patience)
        if now is None or now.info.etag != self.info.etag:
            raise ConditionFailed(
                f"{self._what} took long, and it is another version now", "it is read again"
            )
        if size != self.info.size:
            raise ObjectDamaged(
                f"{self._what} gave {size} bytes instead of {self.info.size}", "it is read again"
            )

    def _md5(self) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        for chunk in self.chunks():
            digest.update(chunk)
        return f'"{digest.hexdigest()}"'


def carried(carrier: Carrier, write: Write, key: str, source: bytes | Source) -> str:
    """Have s5cmd carry out `write`, of `source` to a new `key`; returns the ETag. As `Store.put`."""
    size = len(source) if isinstance(source, bytes) else source.size
    try:
        with carrier.room(size) as path:
            _stage(path, source)
            return write.carried(
                lambda metadata, content_type: carrier.send(path, key, metadata, content_type)
            )
    except StagingFull:
        carrier.went_natively(_NO_ROOM, key)
        return write.done()


def _stage(path: Path, source: bytes | Source) -> None:
    try:
        fill(path, source)
    except OSError as error:
        raise StagingFull from error
