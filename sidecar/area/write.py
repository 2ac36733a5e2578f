"""One conditional write, carried to a known end.

Each write bears a mark of its own in the object's metadata. When its outcome is unknown (time-out, reset,
5xx, or a refusal that may be the echo of our own first attempt), the object is looked at: with our mark it is
done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sidecar.area.connection import Connection
from sidecar.area.download import quoted
from sidecar.area.failures import Failure
from sidecar.area.heads import head
from sidecar.area.objects import Condition, IfAbsent, ObjectHead, ObjectInfo, Source
from sidecar.area.patience import Patience
from sidecar.errors import ConditionFailed, ObjectMissing

if TYPE_CHECKING:
    from obstore import PutResult
    from obstore.store import S3Store

MARK = "write"
# Up to here a body is read into memory and sent whole: one request, one condition.
SINGLE_PUT_BYTES = 32 * 1024 * 1024
# The same for a source that is in memory anyway (``in_memory``). In parts it costs us twice the CPU, and the
# server a quarter more; S3 itself advises parts from 100 MB on.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
HELD_PUT_BYTES = 80 * 1024 * 1024
DEFAULT_CONTENT_TYPE = "application/octet-stream"


class Write:
    """`source` to `key`, once; see `Store.put`."""

    def __init__(
        self,
        connection: Connection,
        key: str,
        source: bytes | Source,
        condition: Condition,
        metadata: dict[str, str],
        content_type: str | None,
        patience: Patience,
    ) -> None:
        self._connection = connection
        self._key = key
        self._source = source
        self._condition = condition
        self._patience = patience
        self._unsure = False
        self._metadata = _ascii(metadata)
        self._draw_mark()
        self._content_type = content_type or DEFAULT_CONTENT_TYPE
        self._what = f"writing s3://{connection.target.bucket}/{key}"

    def done(self) -> str:
        """Write, and return the new ETag."""
        size = len(self._source) if isinstance(self._source, bytes) else self._source.size
        if size <= (HELD_PUT_BYTES if getattr(self._source, "in_memory", False) else SINGLE_PUT_BYTES):
            body = self._source if isinstance(self._source, bytes) else self._source.read(0, size)
            return self._until_known(lambda: self._send(body), body)
        from sidecar.area.multipart import MultipartUpload

        upload = MultipartUpload(
            self._connection, self._key, self._source, self._metadata, self._content_type, self._patience
        )
        self._expect(self._look())
        with upload:
            upload.send_parts()
            self._expect(self._look())  # not every store that honours conditions does so here
            etag = self._until_known(lambda: upload.complete(self._condition), None)
            upload.keep()
        return etag if self._connection.guarded else self._etag_as_seen()

    def _draw_mark(self) -> None:
        self._mark = self._connection.write_mark()
        self._metadata = {**self._metadata, MARK: self._mark}

    def carried(self, send: Callable[[Mapping[str, str], str], None]) -> str:
        """The same by another engine: `send` is told metadata and content type, and raises Failure.

        It cannot be held to the condition: whether the object is ours is seen afterwards.
        """

        def attempt() -> str:
            send(self._metadata, self._content_type)
            self._connection.prove()
            return self._etag_as_seen()

        return self._until_known(attempt, None)

    def _until_known(self, attempt: Callable[[], str], body: bytes | memoryview | None) -> str:
        while True:
            if not self._connection.guarded:
                self._expect(self._look())
            try:
                return attempt()
            except Failure as failure:
                done = self._settled(failure, body)
                if done is not None:
                    return done
                self._patience.after(failure)

    def _settled(self, failure: Failure, body: bytes | memoryview | None) -> str | None:
        """The ETag if the write was done after all, None if it may be tried again."""
        if isinstance(failure.error, ObjectMissing):  # what If-Match named is gone
            failure.error = self._other_version()
        refused = isinstance(failure.error, ConditionFailed)
        self._unsure = self._unsure or failure.answer.maybe_done
        if not refused and not self._unsure:
            return None
        seen = self._look()
        if seen is not None and self._is_ours(seen, body):
            return seen.info.etag
        if refused:
            raise failure.error from failure
        self._expect(seen)
        return None

    def _send(self, body: bytes | memoryview) -> str:
        import obstore

        def request(store: S3Store) -> PutResult:
            return obstore.put(
                store,
                self._key,
                body,
                mode="create" if isinstance(self._condition, IfAbsent) else {"e_tag": self._condition.etag},
                attributes={**self._metadata, "Content-Type": self._content_type},
                use_multipart=False,
            )

        self._connection.traffic.count("put", sent=len(body))
        result = self._connection.call(self._what, request, body_bytes=len(body))
        self._connection.prove()
        return quoted(result["e_tag"] or "") or self._etag_as_seen()

    def _etag_as_seen(self) -> str:
        return self._own_as_seen().etag

    def _own_as_seen(self) -> ObjectInfo:
        seen = self._look()
        if seen is None or seen.metadata.get(MARK) != self._mark:
            raise ConditionFailed(f"{self._what} was followed by another's at once", "it is read again")
        return seen.info

    def _look(self) -> ObjectHead | None:
        return head(self._connection, self._key, self._patience)

    def _expect(self, seen: ObjectHead | None) -> None:
        holds = seen is None if isinstance(self._condition, IfAbsent) else self._is_expected(seen)
        if not holds:
            raise self._other_version()

    def _other_version(self) -> ConditionFailed:
        return ConditionFailed(f"{self._what} met another version than expected", "it is read again")

    def _is_expected(self, seen: ObjectHead | None) -> bool:
        return (
            seen is not None
            and not isinstance(self._condition, IfAbsent)
            and (seen.info.etag == self._condition.etag)
        )

    def _is_ours(self, seen: ObjectHead, body: bytes | memoryview | None) -> bool:
        if self._connection.guarded or MARK in seen.metadata or body is None:
            return seen.metadata.get(MARK) == self._mark
        # A store that keeps no metadata: equal bytes are as good as ours.
        import hashlib

        digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
        return seen.info.size == len(body) and seen.info.etag.strip('"') == digest


def _ascii(metadata: dict[str, str]) -> dict[str, str]:
    """The values as headers can carry them: printable ASCII, anything else escaped as in Python."""
    text = "".join(metadata.values())
    if text.isascii() and text.isprintable():
        return metadata
    return {name: "".join(map(_escaped, value)) for name, value in metadata.items()}


def _escaped(character: str) -> str:
    if character.isascii() and character.isprintable():
        return character
    return character.encode("unicode_escape").decode()
