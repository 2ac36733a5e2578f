"""The listing by which every key stands exactly as it is, whatever is in it: ListObjectsV2, page by page.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree

from sidecar.area.connection import Connection
from sidecar.area.download import quoted
from sidecar.area.failures import not_s3
from sidecar.area.objects import Listing, ObjectInfo, SkippedKey
from sidecar.area.patience import Patience
from sidecar.names import path_problem

_ARCHIVED = ("GLACIER", "DEEP_ARCHIVE")


def exact_listing(connection: Connection, prefix: str, patience: Patience) -> Listing:
    """All keys under `prefix`; those that cannot be a file here are in ``skipped``, with the reason."""
    objects: dict[str, ObjectInfo] = {}
    skipped: dict[str, str] = {}
    for page in _pages(connection, prefix, patience):
        encoded = _text(page, "EncodingType") == "url"
        for entry in page.findall("{*}Contents"):
            key = _text(entry, "Key")
            key = unquote_plus(key, errors="surrogateescape") if encoded else key
            reason = _reason(key, prefix, entry)
            if reason:
                skipped[key] = reason
            else:
                objects[key] = _info(key, entry)
    return Listing(objects, tuple(SkippedKey(key, reason) for key, reason in skipped.items()))


def _reason(key: str, prefix: str, entry: ElementTree.Element) -> str:
    if key.endswith("/"):
        return "a marker, not a file"
    if problem := path_problem(key[len(prefix) :], len(prefix.encode())):
        return problem
    storage_class = _text(entry, "StorageClass")
    return f"in the archived storage class {storage_class}" if storage_class in _ARCHIVED else ""


def _info(key: str, entry: ElementTree.Element) -> ObjectInfo:
    modified = datetime.fromisoformat(_text(entry, "LastModified").replace("Z", "+00:00"))
    return ObjectInfo(key, int(_text(entry, "Size")), quoted(_text(entry, "ETag")), modified.timestamp())


def _pages(connection: Connection, prefix: str, patience: Patience) -> Iterator[ElementTree.Element]:
    what = f"listing s3://{connection.target.bucket}/{prefix}"
    token = ""
    while True:
        page = patience.attempt(lambda token=token: _page(connection, prefix, token, what))  # type: ignore[misc]
        patience.progress()
        yield page
        if _text(page, "IsTruncated") != "true":
            return
        following = _text(page, "NextContinuationToken")
        if not following or following == token:
            raise not_s3(connection.where(what), "a listing that says that it goes on, but not where").error
        token = following


def _page(connection: Connection, prefix: str, token: str, what: str) -> ElementTree.Element:
    query = f"encoding-type=url&list-type=2&prefix={quote(prefix, safe='')}"
    if token:
        query = f"continuation-token={quote(token, safe='')}&{query}"
    connection.traffic.count("list")
    reply = connection.send_signed(what, "ListObjectsV2", "GET", "", query)
    connection.traffic.count("list", requests=0, received=len(reply.body))
    try:
        root = ElementTree.fromstring(reply.body)  # noqa: S314 - the store is whom we trust with the data
    except ElementTree.ParseError as error:
        raise not_s3(connection.where(what), "a listing that cannot be read") from error
    if root.tag.rpartition("}")[2] != "ListBucketResult":
        raise not_s3(connection.where(what), "something else than a listing")
    connection.prove()
    return root


def _text(element: ElementTree.Element, name: str) -> str:
    return element.findtext(f"{{*}}{name}") or ""
