"""Whether a store honours conditions: rclone's server and some old ones accept them and ignore them."""

from __future__ import annotations

import os

from sidecar.area.connection import Connection
from sidecar.area.deletion import delete
from sidecar.area.objects import Condition, IfAbsent, IfMatch
from sidecar.area.patience import Patience
from sidecar.area.write import Write
from sidecar.errors import ConditionFailed


def honours_conditions(connection: Connection, key_prefix: str, patience: Patience) -> bool:
    """True if a second write that must fail does fail, for both conditions. Leaves nothing behind."""
    key = f"{key_prefix}probe-{os.urandom(16).hex()}"
    connection.guarded = True
    try:
        _accepts(connection, key, IfAbsent(), patience)
        over_existing = _accepts(connection, key, IfAbsent(), patience)
        over_another = _accepts(connection, key, IfMatch('"00000000000000000000000000000000"'), patience)
    finally:
        delete(connection, key, None, patience)
    return not (over_existing or over_another)


def _accepts(connection: Connection, key: str, condition: Condition, patience: Patience) -> bool:
    body = b"claude-sidecar asks whether conditions are honoured here; this may be removed\n"
    try:
        Write(connection, key, body, condition, {}, "text/plain", patience).done()
    except ConditionFailed:
        return False
    return True
