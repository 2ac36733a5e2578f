"""Whether the store honours conditions, asked by a process that writes once and did not ask when it began."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from sidecar.errors import AccessDenied
from sidecar.logs import log

if TYPE_CHECKING:
    from sidecar.sync.workspace import Workspace

WEAK_GUARD = (
    "The store ignores conditional writes: we read before we write, "
    "and whoever writes in between is overwritten"
)
# In the ledger's header: the address whose store was seen to honour them, so that it is asked once.
_HONOURED_AT = "conditions honoured at"


def ask(workspace: Workspace) -> None:
    """Ask, and say where the guard is weaker; not asked is a store that this ledger knows to honour them.

    Raises
    ------
    StoreError: the store is away.
    """
    aws, header = workspace.settings.aws, workspace.ledger.header
    address = aws.get("AWS_ENDPOINT_URL_S3") or aws.get("AWS_ENDPOINT_URL") or "AWS"
    if header.extra.get(_HONOURED_AT) == address:
        return
    try:
        honoured = workspace.store.probe_conditions(workspace.keys.own)
    except AccessDenied as error:
        log.info("Whether the store honours conditions could not be tried: %s", error.message)
        return
    if honoured:
        workspace.ledger.set_header(replace(header, extra={**header.extra, _HONOURED_AT: address}))
    else:
        log.warning("%s", WEAK_GUARD)
