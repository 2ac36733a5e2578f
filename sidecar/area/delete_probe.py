"""Whether a store can be held to one version when it deletes: stores learned that years after writes.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-deletes.html
"""

from __future__ import annotations

import contextlib
import os

from sidecar.area.connection import Connection
from sidecar.area.deletion import delete
from sidecar.area.heads import head
from sidecar.area.objects import IfAbsent
from sidecar.area.patience import Patience
from sidecar.area.write import Write
from sidecar.errors import StoreError

_BODY = b"claude-sidecar asks whether conditions are honoured here; this may be removed\n"
_NO_SUCH_ETAG = '"00000000000000000000000000000000"'


def honours_conditional_delete(connection: Connection, key_prefix: str, patience: Patience) -> bool:
    """True if a DELETE for another version than the one that is there does nothing. Leaves nothing behind."""
    key = f"{key_prefix}probe-{os.urandom(16).hex()}"
    Write(connection, key, _BODY, IfAbsent(), {}, "text/plain", patience).done()
    try:
        # Without the look that `delete` takes first: what the store itself does is asked.
        with contextlib.suppress(StoreError):
            patience.attempt(lambda: _delete_another(connection, key))
        return head(connection, key, patience) is not None
    finally:
        delete(connection, key, None, patience)


def _delete_another(connection: Connection, key: str) -> None:
    what = f"removing another version of s3://{connection.target.bucket}/{key}"
    connection.traffic.count("delete")
    connection.send_signed(what, "DeleteObject", "DELETE", key, headers={"If-Match": _NO_SUCH_ETAG})
