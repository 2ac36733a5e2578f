"""Recognising what is equal on both sides already, without moving a byte of it.

After a ledger was lost, or where another tool filled the home, thousands of files are equal. One listing
and one manifest tell: by the manifest's SHA-256 where its ETag is the listed one, else by the ETag itself
where it is the MD5 of the content (one PUT, no KMS:
https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html).
"""

from __future__ import annotations

import hashlib
import re

from sidecar.area.manifest import FileEntry, Manifest
from sidecar.area.objects import Listing, ObjectInfo
from sidecar.errors import HomeError
from sidecar.home.entries import FileStat, Scan
from sidecar.home.reads import open_file
from sidecar.sync.bodies import blocks
from sidecar.sync.marks import Mark, lasting
from sidecar.sync.workspace import Workspace

_MD5_ETAG = re.compile(r'"?([0-9a-f]{32})"?')


def adopt(workspace: Workspace, listing: Listing, manifest: Manifest, scan: Scan) -> int:
    """Mark every path that is provably equal on both sides and not marked yet; returns how many."""
    adopted = 0
    if not scan.files:
        return adopted
    for key, info in listing.objects.items():
        path = workspace.keys.path(key)
        stat = scan.files.get(path)
        if stat and stat.size == info.size and workspace.ledger.mark(path) is None:
            adopted += _adopt(workspace, stat, info, manifest.files.get(path))
    return adopted


def _adopt(workspace: Workspace, stat: FileStat, info: ObjectInfo, entry: FileEntry | None) -> bool:
    told = entry.digest if entry and entry.etag == info.etag else ""
    md5_etag = _MD5_ETAG.fullmatch(info.etag)
    if not told and not md5_etag:
        return False
    read_at_ns = workspace.now_ns()
    digests = _digests(workspace, stat)
    if digests is None:
        return False
    sha256, md5 = digests
    if sha256 != told and not (md5_etag and md5 == md5_etag.group(1)):
        return False
    known = lasting(stat, read_at_ns)
    workspace.ledger.record(
        stat.path,
        Mark(info.etag, info.size, sha256, info.size, sha256, known, stat.mtime_ns, stat.mode),
        told=sha256 == told,
    )
    return True


def _digests(workspace: Workspace, stat: FileStat) -> tuple[str, str] | None:
    """The SHA-256 and MD5 of the file if it is still as the scan saw it."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    try:
        with open_file(workspace.home, stat.path) as file:
            if file.stat != stat:
                return None
            for block in blocks(file):
                sha256.update(block)
                md5.update(block)
            return (sha256.hexdigest(), md5.hexdigest()) if file.unchanged() else None
    except HomeError:
        return None  # the checkpoint meets the same error and reports it
