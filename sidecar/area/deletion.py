"""Removing one object, only if it is still the one that was meant."""

from __future__ import annotations

from sidecar.area.connection import Connection
from sidecar.area.heads import head
from sidecar.area.patience import Patience
from sidecar.errors import ConditionFailed, ObjectMissing


def delete(connection: Connection, key: str, if_match: str | None, patience: Patience) -> None:
    """See `Store.delete`. An answer that was lost costs nothing: what is missing is fine."""
    what = f"removing s3://{connection.target.bucket}/{key}"
    try:
        if if_match is None:
            patience.attempt(lambda: _unconditionally(connection, key, what))
        else:
            _matching(connection, key, if_match, patience, what)
    except ObjectMissing:
        return


def _unconditionally(connection: Connection, key: str, what: str) -> None:
    import obstore

    connection.traffic.count("delete")
    connection.call(what, lambda store: obstore.delete(store, key))


def _matching(connection: Connection, key: str, if_match: str, patience: Patience, what: str) -> None:
    # A look first: stores learned the condition on DELETE much later than the one on PUT.
    seen = head(connection, key, patience)
    if seen is None:
        return
    if seen.info.etag != if_match:
        raise ConditionFailed(f"{what} met another version than expected", "it is read again")
    try:
        patience.attempt(lambda: _conditionally(connection, key, if_match, what))
    except ConditionFailed:
        if head(connection, key, patience) is not None:
            raise


def _conditionally(connection: Connection, key: str, if_match: str, what: str) -> None:
    connection.traffic.count("delete")
    connection.send_signed(what, "DeleteObject", "DELETE", key, headers={"If-Match": if_match})
