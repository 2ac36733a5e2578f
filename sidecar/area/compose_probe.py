"""Whether objects are put together on the server here: where it pays, and the store holds to both conditions.

Stores are known that take the conditions of a copy, or of the end of an upload in parts, and ignore them,
although they hold to those of a plain write.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from sidecar.area.composition import Composition, NotComposed
from sidecar.area.connection import Connection
from sidecar.area.deletion import delete
from sidecar.area.failures import Failure
from sidecar.area.objects import IfAbsent, IfMatch
from sidecar.area.patience import Patience
from sidecar.area.write import Write
from sidecar.errors import ConditionFailed, CredentialsMissing, CredentialsRefused, StoreError
from sidecar.logs import log

# Composed, an object takes five requests: a beginning, a copy, the tail, the end, a look. Whole, it takes
# one, and in parts, from 80 MiB on, fourteen or more. From here on each request more saves 4 MiB, which take
# longer than it. S3 itself takes no part under 5 MiB but the last, and no range of an object under that.
LEAST_BYTES = 16 * 1024 * 1024
_OF_CREDENTIALS = (CredentialsMissing, CredentialsRefused)
_NO_SUCH_ETAG = '"00000000000000000000000000000000"'
_BODY = b"claude-sidecar asks whether objects can be put together here; this may be removed\n"


def composes(connection: Connection, held_bytes: int, key_prefix: str, patience: Patience) -> bool:
    """Whether an object that holds `held_bytes` already is to be composed: it pays, and the store may be held
    to both conditions. The store is asked once in a process, by a small object under `key_prefix`."""
    if held_bytes < LEAST_BYTES or not connection.guarded:
        return False
    with connection.composing:
        if connection.composes is None:
            connection.composes = _asked(connection, key_prefix, patience)
    return bool(connection.composes)


def _asked(connection: Connection, key_prefix: str, patience: Patience) -> bool | None:
    try:
        honoured = _honours_conditions(connection, f"{key_prefix}probe-{os.urandom(16).hex()}", patience)
        why = "it ignores the conditions of a copy or of the end of an upload in parts"
    except (StoreError, NotComposed) as error:
        if isinstance(error, StoreError) and (error.outage or isinstance(error, _OF_CREDENTIALS)):
            return None  # it may be another time
        honoured, why = False, str(error)
    if not honoured:
        log.info("Long transcripts are sent whole at each checkpoint, this store does not compose: %s", why)
    return honoured


def _honours_conditions(connection: Connection, key: str, patience: Patience) -> bool:
    """True if it refuses what it must refuse, and does the rest. Leaves nothing behind."""
    etag = Write(connection, key, _BODY, IfAbsent(), {}, None, patience).done()
    try:
        with Composition(connection, key, b"", {}, "text/plain", patience) as upload:
            if not _is_refused(lambda: upload.copy(_NO_SUCH_ETAG, None)):
                return False
            upload.copy(etag, None)
            if not _is_refused(lambda: _end(upload, _NO_SUCH_ETAG)):
                return False
        # A refused end may be the end of that upload.
        with Composition(connection, key, b"", {}, "text/plain", patience) as upload:
            upload.copy(etag, None)
            _end(upload, etag)
            upload.keep()
        return True
    finally:
        delete(connection, key, None, patience)


def _end(upload: Composition, etag: str) -> None:
    try:
        upload.complete(IfMatch(etag))
    except Failure as failure:
        raise failure.error from failure


def _is_refused(request: Callable[[], None]) -> bool:
    try:
        request()
    except ConditionFailed:
        return True
    return False
