"""Whether the other side is an S3 server at all, before anything that it says is believed.

A login page, a console or a proxy's own page answers every GET with 200: as an object it would be restored,
as a listing it would be an empty area.
"""

from __future__ import annotations

import os

from sidecar.area.connection import Connection
from sidecar.area.failures import not_s3
from sidecar.area.patience import Patience
from sidecar.errors import AccessDenied, ObjectMissing


def prove(connection: Connection, key: str, patience: Patience, what: str) -> None:
    """Make sure, once per connection, that a key which nobody has is missing in S3's own words.

    The key that is asked for begins with `key`, so that whoever may read that may ask for it.

    Raises
    ------
    StoreError: it is not one. `what` begins the sentence.
    """
    import obstore

    if connection.is_proven():
        return
    missing = f"{key}.nothing-{os.urandom(16).hex()}"
    connection.traffic.count("get")
    try:
        patience.attempt(
            lambda: connection.call(what, lambda store: obstore.get(store, missing), reads_object=True)
        )
    except (ObjectMissing, AccessDenied):
        if connection.is_proven():
            return
    raise not_s3(connection.where(what), "an object that does not exist").error
