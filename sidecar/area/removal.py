"""Removing many versions for good, up to 1,000 with one request, and unfinished uploads.

Unconditional: for `forget` alone. What could not be removed is named, with the store's reason.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from urllib.parse import quote
from xml.etree import ElementTree

from sidecar.area.connection import Connection
from sidecar.area.failures import Failure
from sidecar.area.patience import Patience
from sidecar.area.versions import Upload, Version
from sidecar.errors import StoreError

BATCH = 1000
# A server that does not know the call, or not this form of it, gets single requests instead.
_TRY_SINGLY = (400, 404, 405, 501)
_GONE = ("NoSuchKey", "NoSuchVersion", "NoSuchUpload")

# XML 1.0 has no form for these: https://www.w3.org/TR/xml/#charsets (and would change a carriage return)
_BEYOND_XML = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")

Failures = dict[Version, str]


def remove_versions(connection: Connection, versions: Sequence[Version], patience: Patience) -> Failures:
    """Remove each of `versions` (at most 1,000); the answer holds those that stay, each with the reason."""
    bulk = [version for version in versions if _fits_xml(version.key)]
    singly = [version for version in versions if not _fits_xml(version.key)]
    failures: Failures = {}
    if bulk:
        answer = _in_one_request(connection, bulk, patience)
        if answer is None:
            singly = list(versions)
        else:
            failures = answer
    for version in singly:
        reason = _alone(connection, version, patience)
        if reason:
            failures[version] = reason
    return failures


def abort_upload(connection: Connection, upload: Upload, patience: Patience) -> str:
    """Abort `upload`; answers why it stays, empty if it is gone."""
    what = f"aborting an upload of s3://{connection.target.bucket}/{upload.key}"
    query = f"uploadId={quote(upload.upload_id, safe='')}"
    return _single(connection, "AbortMultipartUpload", upload.key, query, what, patience)


def _in_one_request(
    connection: Connection, versions: Sequence[Version], patience: Patience
) -> Failures | None:
    """The failures; None where the server does not take such a request."""
    body = _document(versions)
    headers = {
        "Content-MD5": base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(),
        "Content-Type": "application/xml",
    }
    what = f"removing {len(versions)} versions from s3://{connection.target.bucket}/"

    def once() -> bytes | None:
        connection.traffic.count("delete", sent=len(body))
        try:
            return connection.send_signed(
                what, "DeleteObjects", "POST", "", "delete=", headers=headers, body=body
            ).body
        except Failure as failure:
            if failure.answer.status in _TRY_SINGLY and failure.answer.code != "NoSuchBucket":
                return None
            raise

    answer = patience.attempt(once)
    return None if answer is None else _refused(answer, versions)


def _document(versions: Sequence[Version]) -> bytes:
    root = ElementTree.Element("Delete", xmlns="http://s3.amazonaws.com/doc/2006-03-01/")
    for version in versions:
        entry = ElementTree.SubElement(root, "Object")
        ElementTree.SubElement(entry, "Key").text = version.key
        if version.version_id:
            ElementTree.SubElement(entry, "VersionId").text = version.version_id
    ElementTree.SubElement(root, "Quiet").text = "true"
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _refused(answer: bytes, versions: Sequence[Version]) -> Failures:
    try:
        root = ElementTree.fromstring(answer)  # noqa: S314 - the store is whom we trust with the data
    except ElementTree.ParseError:
        return dict.fromkeys(versions, "the store's answer cannot be read")
    failures: Failures = {}
    for error in root.findall("{*}Error"):
        key, version_id = error.findtext("{*}Key") or "", error.findtext("{*}VersionId") or ""
        code, message = error.findtext("{*}Code") or "", error.findtext("{*}Message") or ""
        if code in _GONE:
            continue
        reason = f"{code}: {message}".strip(": ") or "the store gave no reason"
        for version in versions:  # not every store names the version in its error
            if version.key == key and version_id in ("", version.version_id):
                failures[version] = reason
    return failures


def _alone(connection: Connection, version: Version, patience: Patience) -> str:
    what = f"removing s3://{connection.target.bucket}/{version.key}"
    query = f"versionId={quote(version.version_id, safe='')}" if version.version_id else ""
    return _single(connection, "DeleteObject", version.key, query, what, patience)


def _single(
    connection: Connection, operation: str, key: str, query: str, what: str, patience: Patience
) -> str:
    def once() -> str:
        connection.traffic.count("delete")
        try:
            connection.send_signed(what, operation, "DELETE", key, query)
        except UnicodeEncodeError:
            return "its key is not valid UTF-8"
        except Failure as failure:
            if failure.answer.code not in _GONE:
                raise
        return ""

    try:
        return patience.attempt(once)
    except StoreError as error:
        if error.outage:
            raise
        return error.message


def _fits_xml(key: str) -> bool:
    return _BEYOND_XML.search(key) is None
