"""What is under a prefix: everything, or an error. Never a part of it, never "nothing" for "could not read".

obstore lists fast, but it cannot read every listing: it raises on a key with an empty part, ``..`` or a
control character; it drops the slash of a marker (``config/``), so that it looks like an empty file; and it
takes any XML for a listing, a login page included. So its word is checked where it may be wrong, and where
a key is beyond it, the exact listing is made (`sidecar.area.exact_listing`), for the price of awscrt.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from sidecar.area.connection import Connection
from sidecar.area.download import info_of
from sidecar.area.heads import head
from sidecar.area.objects import Listing, ObjectInfo, SkippedKey
from sidecar.area.patience import Patience
from sidecar.area.proof import prove
from sidecar.beside import Beside
from sidecar.names import path_problem

if TYPE_CHECKING:
    from obstore.store import S3Store

MARKER = "a marker, not a file"
_PAGE = 1000
# More suspects than this cost more as single requests than one exact listing does.
_FEW_SUSPECTS = 8


def listing(connection: Connection, prefix: str, patience: Patience, *, expected: bool = True) -> Listing:
    """All keys under `prefix`, which ends with a slash.

    An empty answer is asked for twice: at the same time where nothing is `expected`, otherwise afterwards.
    """
    what = f"listing s3://{connection.target.bucket}/{prefix}"

    def ask(most_pages: int | None = None) -> list[ObjectInfo]:
        found = patience.attempt(lambda: connection.call(what, lambda store: _all(store, prefix, most_pages)))
        connection.traffic.count("list", requests=most_pages or 1 + len(found) // _PAGE)
        return found

    second = None if expected else Beside(partial(ask, 1))  # all that it is asked is whether there is any
    try:
        found = ask()
        again = found or (second.result() if second else ask(1))
    except _BeyondObstore:
        return _exact(connection, prefix, patience)
    if not again:
        prove(connection, prefix, patience, what)
        return Listing({})
    if not found:
        return _exact(connection, prefix, patience)
    connection.prove()
    if len(found) % _PAGE == 0 and _goes_on(connection, prefix, found[-1].key, patience, what):
        return _exact(connection, prefix, patience)  # it ended for want of a continuation token
    suspects = _suspects(found)
    if len(suspects) > _FEW_SUSPECTS:
        return _exact(connection, prefix, patience)
    keys: dict[str, ObjectInfo | None] = {info.key: info for info in found}
    return _sorted_out(prefix, keys | _verified(connection, suspects, patience))


class _BeyondObstore(Exception):
    """There is a key that obstore cannot read."""


def _all(
    store: S3Store, prefix: str, most_pages: int | None = None, after: str | None = None
) -> list[ObjectInfo]:
    import obstore
    from obstore.exceptions import InvalidPathError

    try:
        pages = obstore.list(store, prefix, offset=after, chunk_size=_PAGE)
        return [info_of(meta) for page in islice(pages, most_pages) for meta in page]
    except InvalidPathError as error:
        raise _BeyondObstore from error


def _goes_on(connection: Connection, prefix: str, last: str, patience: Patience, what: str) -> bool:
    """Whether there is more after `last`, the end of a full page."""
    connection.traffic.count("list")
    try:
        return bool(
            patience.attempt(lambda: connection.call(what, lambda store: _all(store, prefix, 1, last)))
        )
    except _BeyondObstore:
        return True


def _suspects(found: list[ObjectInfo]) -> set[str]:
    """Keys that may be markers: empty, listed twice, or the parent of another."""
    seen: set[str] = set()
    parents: set[str] = set()
    suspects: set[str] = set()
    for info in found:
        if info.size == 0 or info.key in seen:
            suspects.add(info.key)
        seen.add(info.key)
        parent = info.key.rpartition("/")[0]
        while parent and parent not in parents:
            parents.add(parent)
            parent = parent.rpartition("/")[0]
    return suspects | (seen & parents)


def _verified(connection: Connection, suspects: set[str], patience: Patience) -> dict[str, ObjectInfo | None]:
    """What each suspect is: the object by that very key, or None for a marker."""
    asked = {key: Beside(partial(head, connection, key, patience)) for key in suspects}
    answers = {key: one.result() for key, one in asked.items()}
    return {key: answer.info if answer else None for key, answer in answers.items()}


def _sorted_out(prefix: str, found: dict[str, ObjectInfo | None]) -> Listing:
    objects: dict[str, ObjectInfo] = {}
    skipped: list[SkippedKey] = []
    for key, info in found.items():
        if info is None:
            skipped.append(SkippedKey(key + "/", MARKER))
        elif problem := path_problem(key[len(prefix) :], len(prefix.encode())):
            skipped.append(SkippedKey(key, problem))
        else:
            objects[key] = info
    return Listing(objects, tuple(skipped))


def _exact(connection: Connection, prefix: str, patience: Patience) -> Listing:
    from sidecar.area.exact_listing import exact_listing

    return exact_listing(connection, prefix, patience)


def check(connection: Connection, prefix: str, patience: Patience) -> None:
    """Ask for one page of `prefix`; raises what a listing would raise."""
    what = f"listing s3://{connection.target.bucket}/{prefix}"
    connection.traffic.count("list")
    if not patience.attempt(lambda: connection.call(what, lambda store: _has_something(store, prefix))):
        prove(connection, prefix, patience, what)


def _has_something(store: S3Store, prefix: str) -> bool:
    import obstore
    from obstore.exceptions import InvalidPathError

    try:
        page = obstore.list_with_delimiter(store, prefix)
    except InvalidPathError:
        return True  # a foreign key: it was listed, so access works
    return bool(page["objects"] or page["common_prefixes"])
