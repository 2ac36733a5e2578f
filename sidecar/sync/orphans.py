"""Journalled content whose file is no longer in the home: it goes into its object straight from the journal.

A file that was flushed and deleted before a checkpoint saw it would otherwise hold its journal entry for
ever, or be lost with it. A deletion in the home keeps what the bucket has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from sidecar.area import metadata
from sidecar.area.journal import Lines, Whole
from sidecar.area.objects import Condition, IfAbsent, IfMatch
from sidecar.errors import ConditionFailed, ObjectMissing
from sidecar.sync import tombstones, unfold
from sidecar.sync.bodies import Bytes, Pieced, sha256
from sidecar.sync.merge import Readable, Span
from sidecar.sync.workspace import Workspace

_TRIES = 4


def settle_lines(workspace: Workspace, path: str, writers: Mapping[str, Sequence[Lines]]) -> bool:
    """Make the object of `path` hold every line of `writers`; False if others kept changing it.

    Raises
    ------
    StoreError: the object is as it was, or holds the lines. UserForgotten: the area was erased.
    """
    newest = max((r for records in writers.values() for r in records), key=lambda r: r.mtime_ns)
    for _ in range(_TRIES):
        try:
            head, spool = workspace.spool(path)
        except ObjectMissing:
            data = unfold.missing(Bytes(b""), writers)
            if _put(workspace, path, Bytes(data), IfAbsent(), newest):
                return True
            continue
        with spool:
            data = unfold.missing(spool, writers)
            if not data:
                return True
            spans = [Span("remote", 0, spool.size), Span("local", 0, len(data))]
            body = Pieced(spans, spool, Bytes(data))
            if _put(workspace, path, body, IfMatch(head.info.etag), newest):
                return True
    return False


def settle_whole(workspace: Workspace, wholes: Sequence[Whole]) -> bool:
    """Make the last of one writer's `wholes` the object where there is none, or one that any of them was made
    from; else keep it aside.

    Raises
    ------
    StoreError, UserForgotten: nothing is known to have changed.
    """
    whole = wholes[-1]
    head = workspace.head(whole.path)
    body = Bytes(whole.data)
    if head is None:
        return _put(workspace, whole.path, body, IfAbsent(), whole)
    digest = workspace.digest_of(whole.path, head)
    if digest == whole.sha256:
        return True
    if any(digest == one.base for one in wholes):
        return _put(workspace, whole.path, body, IfMatch(head.info.etag), replace(whole, base=digest))
    workspace.keep_aside(whole.path, body, whole.sha256, whole.mtime_ns)
    return True


def _put(
    workspace: Workspace, path: str, body: Readable, condition: Condition, record: Lines | Whole
) -> bool:
    described = metadata.FileMetadata(
        mtime_ns=record.mtime_ns,
        mode=record.mode,
        writer=workspace.ledger.writer,
        sha256=sha256(body),
        base=record.base if isinstance(record, Whole) else "",
    )
    tombstones.demand(workspace)  # a checkpoint that has nothing else to send did not ask
    try:
        workspace.moving()
        workspace.store.put(
            workspace.keys.object(path), body, condition=condition, metadata=metadata.written(described)
        )
    except ConditionFailed:
        return False
    return True
