"""Everything that a bucket holds under a prefix: each version, each delete marker, each unfinished upload.

For erasing, and for proving that nothing is left. What a server lists outside the prefix is never shown on.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree

from msgspec import Struct

from sidecar.area.connection import Connection
from sidecar.area.failures import Failure, not_s3
from sidecar.area.patience import Patience
from sidecar.errors import StoreError

# Answers of servers that have no versions, or no such call.
_NOT_IMPLEMENTED = (404, 405, 501)


class Version(Struct, frozen=True):
    """One version of a key. ``version_id`` is empty where the store knows no versions, and ``null`` where
    the bucket does not. ``marker``: a delete marker, which has no bytes."""

    key: str
    version_id: str
    size: int = 0
    modified: float = 0.0
    latest: bool = True
    marker: bool = False


class Upload(Struct, frozen=True):
    """An upload in parts that nobody completed; its parts are kept and paid for until it is aborted."""

    key: str
    upload_id: str


class VersionPage(Struct, frozen=True):
    """Some of the versions; ``following`` begins the next page, None at the end.

    ``at``: when the store answered, by its own clock, in seconds since the epoch.
    """

    versions: tuple[Version, ...]
    following: tuple[str, str] | None
    at: float


class NoVersions(StoreError):
    """This store cannot list versions: it has none."""

    kind = "no_versions"


def version_page(
    connection: Connection, prefix: str, after: tuple[str, str] | None, patience: Patience
) -> VersionPage:
    """Up to 1,000 versions under `prefix`, behind `after`.

    Raises
    ------
    NoVersions: the store has no such call. AccessDenied: it takes ``s3:ListBucketVersions``.
    """
    what = f"listing the versions of s3://{connection.target.bucket}/{prefix}"
    query = f"encoding-type=url&prefix={quote(prefix, safe='')}&versions="
    if after:
        markers = f"key-marker={quote(after[0], safe='')}"
        behind = f"&version-id-marker={quote(after[1], safe='')}" if after[1] else ""
        query = f"encoding-type=url&{markers}&prefix={quote(prefix, safe='')}{behind}&versions="
    root, at = _asked(connection, "ListObjectVersions", query, "ListVersionsResult", what, patience)
    encoded = _text(root, "EncodingType") == "url"
    found = [
        _version(entry, encoded)
        for entry in root
        if entry.tag.rpartition("}")[2] in ("Version", "DeleteMarker")
    ]
    following = None
    if _text(root, "IsTruncated") == "true":
        following = (_key(root, "NextKeyMarker", encoded), _text(root, "NextVersionIdMarker"))
        if not following[0] or following == after:
            raise not_s3(connection.where(what), "a listing that says that it goes on, but not where").error
    return VersionPage(tuple(v for v in found if v.key.startswith(prefix)), following, at)


def unfinished_uploads(connection: Connection, prefix: str, patience: Patience) -> Iterator[Upload]:
    """Every unfinished upload under `prefix`; none where the store has no such call."""
    what = f"listing the uploads under s3://{connection.target.bucket}/{prefix}"
    after: tuple[str, str] | None = None
    while True:
        query = f"encoding-type=url&prefix={quote(prefix, safe='')}"
        if after:
            query = f"encoding-type=url&key-marker={quote(after[0], safe='')}&prefix={quote(prefix, safe='')}"
            query += f"&upload-id-marker={quote(after[1], safe='')}"
        try:
            root, _ = _asked(
                connection,
                "ListMultipartUploads",
                query + "&uploads=",
                "ListMultipartUploadsResult",
                what,
                patience,
            )
        except NoVersions:
            return
        encoded = _text(root, "EncodingType") == "url"
        for entry in root.findall("{*}Upload"):
            key = _key(entry, "Key", encoded)
            if key.startswith(prefix):  # not every server looks at the prefix
                yield Upload(key, _text(entry, "UploadId"))
        previous, after = after, (_key(root, "NextKeyMarker", encoded), _text(root, "NextUploadIdMarker"))
        if _text(root, "IsTruncated") != "true" or not after[0]:
            return
        if after == previous:
            raise not_s3(connection.where(what), "a listing that says that it goes on, but not where").error


def _version(entry: ElementTree.Element, encoded: bool) -> Version:
    modified = datetime.fromisoformat(_text(entry, "LastModified").replace("Z", "+00:00"))
    return Version(
        key=_key(entry, "Key", encoded),
        version_id=_text(entry, "VersionId"),
        size=int(_text(entry, "Size") or 0),
        modified=modified.timestamp(),
        latest=_text(entry, "IsLatest") == "true",
        marker=entry.tag.endswith("DeleteMarker"),
    )


def _asked(
    connection: Connection, operation: str, query: str, expected: str, what: str, patience: Patience
) -> tuple[ElementTree.Element, float]:
    def once() -> tuple[ElementTree.Element, float]:
        connection.traffic.count("list")
        try:
            reply = connection.send_signed(what, operation, "GET", "", query)
        except Failure as failure:
            if failure.answer.status in _NOT_IMPLEMENTED and failure.answer.code != "NoSuchBucket":
                raise NoVersions(f"{what} failed: the store has no such call") from failure
            raise
        connection.traffic.count("list", requests=0, received=len(reply.body))
        return _parsed(connection, reply.body, expected, what), _date(reply.headers.get("date", ""))

    return patience.attempt(once)


def _parsed(connection: Connection, body: bytes, expected: str, what: str) -> ElementTree.Element:
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - the store is whom we trust with the data
    except ElementTree.ParseError as error:
        raise not_s3(connection.where(what), "a listing that cannot be read").error from error
    if root.tag.rpartition("}")[2] != expected:
        raise not_s3(connection.where(what), "something else than a listing").error
    connection.prove()
    return root


def _date(header: str) -> float:
    try:
        return parsedate_to_datetime(header).timestamp()
    except ValueError:
        return time.time()


def _key(element: ElementTree.Element, name: str, encoded: bool) -> str:
    text = _text(element, name)
    return unquote_plus(text, errors="surrogateescape") if encoded else text


def _text(element: ElementTree.Element, name: str) -> str:
    return element.findtext(f"{{*}}{name}") or ""
