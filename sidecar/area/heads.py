"""One object's description without its bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.area.connection import Connection
from sidecar.area.download import Download, info_of, metadata_of
from sidecar.area.failures import Failure
from sidecar.area.objects import ObjectHead
from sidecar.area.patience import Patience
from sidecar.area.proof import prove
from sidecar.errors import ObjectMissing

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import S3Store


def head(connection: Connection, key: str, patience: Patience) -> ObjectHead | None:
    """The object at `key`, None where there is none.

    An answer to HEAD has no body, so a refusal does not say why: then the object itself is asked for.
    """
    what = f"looking at s3://{connection.target.bucket}/{key}"

    def ask(store: S3Store) -> GetResult:
        import obstore

        return obstore.get(store, key, options={"head": True})

    def attempt() -> ObjectHead | None:
        connection.traffic.count("head")
        try:
            result = connection.call(what, ask, reads_object=True)
        except Failure as refused:
            if refused.answer.status == 404 and connection.is_proven():
                return None
            if 400 <= refused.answer.status < 500:
                return _by_reading(connection, key, patience)
            raise
        prove(connection, key, patience, what)
        return ObjectHead(info_of(result.meta), metadata_of(result))

    return patience.attempt(attempt)


def _by_reading(connection: Connection, key: str, patience: Patience) -> ObjectHead | None:
    try:
        with Download(connection, key, patience, None) as download:
            return ObjectHead(download.info, download.metadata)
    except ObjectMissing:
        return None
