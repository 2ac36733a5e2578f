"""An object put together on the server, of the version that stands there and a tail: only the tail is sent.

Promised (rule 19): another's version is neither copied nor displaced: the copy is held to one ETag, and so is
the end. Whatever the store will not put together is sent whole, and no parts are left behind. Not promised:
that bytes which rotted in the bucket are replaced, as an upload of the whole does; `verify` finds them.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html
"""

from __future__ import annotations

import re
from itertools import pairwise
from urllib.parse import quote

from sidecar.area.failures import Failure
from sidecar.area.multipart import MultipartUpload
from sidecar.area.objects import IfMatch, ObjectInfo
from sidecar.area.write import Write
from sidecar.errors import ConditionFailed, ObjectMissing, StoreError, StoreThrottled
from sidecar.logs import log

_MIB = 1024 * 1024
# S3 takes up to 5 GiB; less is copied while we still wait for the answer.
COPY_BYTES = 512 * _MIB
# How often a copy breaks off before the whole is sent; throttled ones do not count.
_TRIES = 3
_ETAG = re.compile(rb"<ETag>([^<]+)</ETag>")


class NotComposed(Exception):
    """The store will not put this object together; it is still to be sent whole."""


class Composition(MultipartUpload):
    """``copy`` before ``send_parts(from there on)``; the rest as for every upload in parts."""

    def copy(self, etag: str, held_bytes: int | None) -> None:
        """Have the store take the first `held_bytes` from the version `etag` of the object; None: all of it.

        Raises
        ------
        ConditionFailed, ObjectMissing: it is another version now. NotComposed: the store will not.
        StoreError: the store is away.
        """
        for start, end in [(0, 0)] if held_bytes is None else ranges(held_bytes):
            self._etags.append(self._copied(etag, start, end))

    def _copied(self, etag: str, start: int, end: int) -> str:
        broken = 0
        while True:
            try:
                return self._copy_once(etag, start, end)
            except Failure as failure:
                broken += not isinstance(failure.error, StoreThrottled)
                if isinstance(failure.error, ConditionFailed | ObjectMissing):
                    raise failure.error from failure
                if not failure.error.outage or failure.answer.trouble == "timeout" or broken == _TRIES:
                    raise NotComposed(str(failure.error)) from failure
                self._patience.after(failure)

    def _copy_once(self, etag: str, start: int, end: int) -> str:
        self._connection.traffic.count("other")
        headers = {
            "x-amz-copy-source": quote(f"{self._connection.target.bucket}/{self._key}", safe="/-_.~"),
            "x-amz-copy-source-if-match": etag,
        }
        if end:
            headers["x-amz-copy-source-range"] = f"bytes={start}-{end - 1}"
        reply = self._connection.send_signed(
            self._what,
            "UploadPartCopy",
            "PUT",
            self._key,
            self._part_query(len(self._etags) + 1),
            headers=headers,
            moved_bytes=end - start,
        )
        found = _ETAG.search(reply.body)
        if b"CopyPartResult" not in reply.body or not found:  # also an error that comes with a 200
            raise NotComposed(f"{self._what} failed: the copy was answered without an ETag")
        return found.group(1).decode().replace("&quot;", '"').replace("&#34;", '"')


def ranges(held_bytes: int) -> list[tuple[int, int]]:
    """`held_bytes` in equal pieces of `COPY_BYTES` at most, each as (start, end)."""
    count = -(-held_bytes // COPY_BYTES)
    cuts = [held_bytes * number // count for number in range(count + 1)]
    return list(pairwise(cuts))


class ComposedWrite(Write):
    """A write of which the store has the beginning; see `Store.put`."""

    def onto(self, held_bytes: int) -> str:
        """Write behind the `held_bytes` of the version that stands there, and return the new ETag."""
        try:
            self._compose(held_bytes)
        except NotComposed as refused:
            log.info("%s: sent whole, because the store did not put it together: %s", self._what, refused)
            return self.done()
        seen = self._own_as_seen()
        return seen.etag if seen.size == self._source_bytes() else self._mended(seen)

    def _compose(self, held_bytes: int) -> None:
        assert isinstance(self._condition, IfMatch)
        upload = Composition(
            self._connection, self._key, self._source, self._metadata, self._content_type, self._patience
        )
        try:
            with upload:
                upload.copy(self._condition.etag, held_bytes)
                upload.send_parts(held_bytes)
                self._until_known(lambda: upload.complete(self._condition), None)
                upload.keep()
        except (ConditionFailed, ObjectMissing) as refused:
            if not self._is_expected(self._look()):
                raise self._other_version() from refused
            raise NotComposed(refused.message) from refused
        except StoreError as refused:
            if refused.outage:
                raise
            raise NotComposed(refused.message) from refused

    def _mended(self, seen: ObjectInfo) -> str:
        """Conditions are no proof of the rest: what it put together is not what it was told to."""
        told = "%s: the store put %d bytes together instead of %d; all is sent whole from now on"
        log.warning(told, self._what, seen.size, self._source_bytes())
        self._connection.composes = False
        self._condition = IfMatch(seen.etag)
        self._draw_mark()
        return self.done()

    def _source_bytes(self) -> int:
        return len(self._source) if isinstance(self._source, bytes) else self._source.size
