"""What `forget` leaves behind: a small object that keeps an older ledger from uploading everything again.

A tombstone has an id of its own, and a ledger remembers the one that it met when it knew nothing yet. A
ledger that knows something, but not this tombstone, is older: what it would upload was to be forgotten. No
clock is asked for that; the time in the tombstone is for people.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from sidecar.area.keys import AreaKeys
from sidecar.area.objects import Condition, IfAbsent, IfMatch
from sidecar.area.store import Store
from sidecar.errors import (
    AccessDenied,
    ConditionFailed,
    FormatError,
    ObjectArchived,
    ObjectDamaged,
    ObjectMissing,
    SidecarError,
)
from sidecar.logs import log
from sidecar.sync.ledger import directory_of
from sidecar.sync.workspace import Workspace

FORMAT_MAJOR, FORMAT_MINOR = 1, 0
# Where the ledger's header keeps the tombstone that it began after, and the one that stopped it.
_KNOWN, _FORGOTTEN = "tombstone", "forgotten"
_TRIES = 4
_MAX_BYTES = 64 * 1024


class UserForgotten(SidecarError):
    """The area was erased after this ledger was made: nothing of what it knows may go up again."""

    kind = "forgotten"


class Tombstone(Struct, frozen=True):
    """``forgotten_at``: UTC by the clock of whoever ran `forget`, as ISO 8601."""

    id: str
    forgotten_at: str


def encoded(tombstone: Tombstone) -> bytes:
    """`tombstone` as it rests in the bucket."""
    import orjson

    document = {
        "version": f"{FORMAT_MAJOR}.{FORMAT_MINOR}",
        "id": tombstone.id,
        "forgotten_at": tombstone.forgotten_at,
    }
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def decoded(data: bytes, where: str) -> Tombstone:
    """The tombstone in `data`; `where` names the object in errors.

    Raises
    ------
    FormatError: a newer version's, or none at all: then nobody can tell, and nothing is uploaded.
    """
    import orjson

    try:
        document: Any = orjson.loads(data)
        major, minor = (int(part) for part in str(document["version"]).split("."))
        if major == FORMAT_MAJOR and minor <= FORMAT_MINOR + 1:
            return Tombstone(str(document["id"]), str(document["forgotten_at"]))
    except (ValueError, KeyError, TypeError):
        pass
    raise FormatError(
        f"the tombstone {where} cannot be read here, so nothing is uploaded",
        "run the version that wrote it; or remove it, if this user is to be backed up again",
    )


def read(store: Store, keys: AreaKeys) -> Tombstone | None:
    """The tombstone of the area, None where there is none."""
    try:
        with store.open(keys.tombstone) as download:
            if download.info.size > _MAX_BYTES:
                return decoded(b"", keys.tombstone)
            return decoded(download.read(), keys.tombstone)
    except ObjectMissing:
        return None
    except (ObjectDamaged, ObjectArchived):
        return decoded(b"", keys.tombstone)


def lay(store: Store, keys: AreaKeys, now: datetime) -> Tombstone:
    """Write a new tombstone, over an older one if there is one."""
    tombstone = Tombstone(os.urandom(8).hex(), now.astimezone(UTC).isoformat(timespec="seconds"))
    for _ in range(_TRIES):
        seen = store.head(keys.tombstone)
        condition: Condition = IfMatch(seen.info.etag) if seen else IfAbsent()
        try:
            store.put(keys.tombstone, encoded(tombstone), condition=condition, metadata={})
            return tombstone
        except ConditionFailed:
            continue
    raise SidecarError(
        f"the tombstone {keys.tombstone} was not written: somebody else keeps writing it", "try again"
    )


def meet(workspace: Workspace) -> None:
    """Before a ledger learns anything of the area: note the tombstone that it begins after. Asked once."""
    asked(workspace)()


def asked(workspace: Workspace) -> Callable[[], None]:
    """Ask what `meet` asks, and change nothing; calling what is returned notes the answer.

    So the request may run beside others, and the ledger is written by one thread alone: a request that hangs
    while everything else failed must not write a header of then over what the next attempt learned.
    """
    if _KNOWN in workspace.ledger.header.extra or not _knows_nothing(workspace):
        return _nothing
    try:
        found = read(workspace.store, workspace.keys)
    except (AccessDenied, FormatError):
        return _nothing  # a restore goes on; `demand` says it before anything is uploaded
    return partial(_note_known, workspace, found)


def _nothing() -> None:
    """There is nothing to note."""


def _note_known(workspace: Workspace, found: Tombstone | None) -> None:
    header = workspace.ledger.header
    extra = {**header.extra, _KNOWN: found.id if found else ""}
    workspace.ledger.set_header(replace(header, extra=extra))
    if found:
        log.info("User %s was forgotten on %s and begins anew", workspace.user_id, found.forgotten_at)


def demand(workspace: Workspace) -> None:
    """Before anything is uploaded: make sure that the area was not forgotten after this ledger was made.

    Raises
    ------
    UserForgotten: it was. FormatError: that cannot be told.
    """
    meet(workspace)
    try:
        found = read(workspace.store, workspace.keys)
    except AccessDenied as error:
        workspace.own_area_denied(f"Whether user {workspace.user_id} was forgotten may not be read", error)
        return
    extra = dict(workspace.ledger.header.extra)
    noted = extra.pop(_FORGOTTEN, None)
    if found is None or found.id == extra.get(_KNOWN):
        if noted:
            workspace.ledger.set_header(replace(workspace.ledger.header, extra=extra))
        return
    if noted != [found.id, found.forgotten_at]:
        extra[_FORGOTTEN] = [found.id, found.forgotten_at]
        workspace.ledger.set_header(replace(workspace.ledger.header, extra=extra))
    raise _forgotten(workspace, found)


def is_noted(workspace: Workspace) -> bool:
    """Whether a tombstone stopped this ledger: it asks until that is gone, and calls nothing durable."""
    return _FORGOTTEN in workspace.ledger.header.extra


def recall(workspace: Workspace) -> None:
    """Raise UserForgotten where a checkpoint found that out. For a flush, which is one PUT: no request."""
    noted = workspace.ledger.header.extra.get(_FORGOTTEN)
    if noted:
        raise _forgotten(workspace, Tombstone(*noted))


def _knows_nothing(workspace: Workspace) -> bool:
    header = workspace.ledger.header
    return not (header.restored or header.compared or header.generation or workspace.ledger.marks())


def _forgotten(workspace: Workspace, tombstone: Tombstone) -> UserForgotten:
    ledger = directory_of(workspace.settings.state_dir, workspace.user_id)
    error = UserForgotten(
        f"user {workspace.user_id} was forgotten on {tombstone.forgotten_at}, after this pod had begun: "
        "nothing is uploaded",
        f"a new pod begins anew; to begin anew here, stop the sidecar and remove {ledger} and what is not to "
        f"be kept of {workspace.home.root}",
    )
    if workspace.first_time(workspace.keys.tombstone, tombstone.id):
        log.error("%s", error)
    return error
