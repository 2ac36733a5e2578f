"""A large object in parts: bounded memory, and the condition where it counts, at the end.

Nothing is visible before `complete`; what does not get there is aborted.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Self

from msgspec import Struct

from sidecar.area.connection import Connection
from sidecar.area.failures import Failure, not_s3
from sidecar.area.objects import Condition, IfAbsent, Source
from sidecar.area.patience import Patience
from sidecar.logs import log

if TYPE_CHECKING:
    from sidecar.area.signed import Pending

# Measured with 1 GiB: 8 MiB and three at a time take 100 MiB at most, 16 MiB 150 MiB, and no less time.
PART_BYTES = 8 * 1024 * 1024
MAX_PARTS = 10_000
_IN_FLIGHT = 3
_MIB = 1024 * 1024


class _Part(Struct):
    number: int
    body: bytes
    pending: Pending


class MultipartUpload:
    """``with MultipartUpload(…) as upload:`` then ``send_parts``, ``complete`` and ``keep``."""

    def __init__(
        self,
        connection: Connection,
        key: str,
        source: bytes | Source,
        metadata: dict[str, str],
        content_type: str,
        patience: Patience,
    ) -> None:
        self._connection = connection
        self._key = key
        self._source = source
        self._metadata = metadata
        self._content_type = content_type
        self._patience = patience
        self._what = f"writing s3://{connection.target.bucket}/{key}"
        self._upload_id = ""
        self._etags: list[str] = []
        self._kept = False

    def __enter__(self) -> Self:
        self._connection.large_uploads.acquire()
        try:
            self._patience.progress()  # waiting for a turn is not an outage
            self._upload_id = self._patience.attempt(self._created)
        except BaseException:
            self._connection.large_uploads.release()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            if not self._kept:
                self._abort()
        finally:
            self._connection.large_uploads.release()

    def send_parts(self, start: int = 0) -> None:
        """Send all bytes from `start` on, a few parts at a time; each is read when its turn comes."""
        size = len(self._source) if isinstance(self._source, bytes) else self._source.size
        part_bytes = part_size(size)
        waiting: deque[_Part] = deque()
        try:
            for number, offset in enumerate(range(start, size, part_bytes), start=len(self._etags) + 1):
                body = self._read(offset, min(part_bytes, size - offset))
                waiting.append(_Part(number, body, self._begin(number, body)))
                if len(waiting) >= _IN_FLIGHT:
                    self._etags.append(self._arrived(waiting.popleft()))
            while waiting:
                self._etags.append(self._arrived(waiting.popleft()))
        finally:
            for part in waiting:
                part.pending.cancel()

    def complete(self, condition: Condition) -> str:
        """Make the object visible if `condition` holds, and return its ETag; raises `Failure`."""
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{_escaped(etag)}</ETag></Part>"
            for number, etag in enumerate(self._etags, start=1)
        )
        headers = {"If-None-Match": "*"} if isinstance(condition, IfAbsent) else {"If-Match": condition.etag}
        self._connection.traffic.count("other")
        reply = self._connection.send_signed(
            self._what,
            "CompleteMultipartUpload",
            "POST",
            self._key,
            f"uploadId={_quoted(self._upload_id)}",
            headers=headers,
            body=f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode(),
        )
        found = re.search(rb"<ETag>([^<]+)</ETag>", reply.body)
        if b"CompleteMultipartUploadResult" not in reply.body or not found:
            raise not_s3(self._connection.where(self._what), "an answer that is not S3's")
        return found.group(1).decode().replace("&quot;", '"').replace("&#34;", '"')

    def keep(self) -> None:
        """It is an object now: there is nothing to abort."""
        self._kept = True

    def _created(self) -> str:
        self._connection.traffic.count("other")
        headers = {f"x-amz-meta-{name}": value for name, value in self._metadata.items()}
        headers |= {"Content-Type": self._content_type, **self._connection.signed().sse_headers}
        reply = self._connection.send_signed(
            self._what, "CreateMultipartUpload", "POST", self._key, "uploads=", headers=headers
        )
        found = re.search(rb"<UploadId>([^<]+)</UploadId>", reply.body)
        if not found:
            raise not_s3(self._connection.where(self._what), "an answer that is not S3's")
        return found.group(1).decode()

    def _read(self, offset: int, length: int) -> bytes:
        if isinstance(self._source, bytes):
            return self._source[offset : offset + length]
        return bytes(self._source.read(offset, length))

    def _begin(self, number: int, body: bytes) -> Pending:
        self._connection.traffic.count("part", sent=len(body))
        query = self._part_query(number)
        return self._connection.signed().begin("UploadPart", "PUT", self._key, query, body=body)

    def _part_query(self, number: int) -> str:
        return f"partNumber={number}&uploadId={_quoted(self._upload_id)}"

    def _arrived(self, part: _Part) -> str:
        while True:
            try:
                reply = self._connection.reply_of(self._what, part.pending)
            except Failure as failure:
                self._patience.after(failure)
                part.pending = self._begin(part.number, part.body)
                continue
            self._patience.progress()
            etag = reply.headers.get("etag", "")
            if not etag:
                raise not_s3(self._connection.where(self._what), "a part without an ETag").error
            return etag

    def _abort(self) -> None:
        self._connection.traffic.count("other")
        query = f"uploadId={_quoted(self._upload_id)}"
        try:
            self._connection.send_signed(self._what, "AbortMultipartUpload", "DELETE", self._key, query)
        except Failure as failure:
            if failure.answer.status != 404:  # that would be: already gone
                log.warning("parts of an upload that was given up remain: %s", failure.error)


def part_size(size: int) -> int:
    """Bytes in each part of an object of `size` bytes: 8 MiB, more where that would be too many parts."""
    least = -(-size // MAX_PARTS)
    return max(PART_BYTES, -(-least // _MIB) * _MIB)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")
