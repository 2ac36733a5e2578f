"""The bucket as everybody here sees it: a few operations, each of which holds or says exactly why not.

Writes are always conditional: nothing that was not read is overwritten. Lost answers are cleared up before
anything is reported. All calls block; a `Store` may be used from any number of threads. Call it from worker
threads: obstore delays a signal that arrives in the middle of a request on the main thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sidecar.area.connection import Connection
from sidecar.area.download import Download, read_range
from sidecar.area.failures import Failure
from sidecar.area.heads import head
from sidecar.area.listing import check, listing
from sidecar.area.objects import Condition, Listing, ObjectHead, Source
from sidecar.area.patience import Patience
from sidecar.area.traffic import Flow, Listener
from sidecar.area.write import Write
from sidecar.settings import Settings

if TYPE_CHECKING:
    from sidecar.area.s5cmd.carrier import Carrier
    from sidecar.area.versions import Upload, Version, VersionPage

OUTAGE_SECONDS = 60.0


class Store:
    """One bucket. ``guarded``: the store honours conditions; otherwise we look before each write, which is
    weaker: whoever writes between our look and our write is overwritten."""

    def __init__(self, connection: Connection, outage_seconds: float, carrier: Carrier | None = None) -> None:
        self._connection = connection
        self._outage_seconds = outage_seconds
        self._carrier = carrier

    @classmethod
    def connect(
        cls, settings: Settings, outage_seconds: float = OUTAGE_SECONDS, *, lasting: bool = False
    ) -> Store:
        """The store that `settings` name. Sends nothing yet.

        Parameters
        ----------
        outage_seconds: how long each operation goes on trying without any progress.
        lasting: for a process that lives long: it knows when its credentials end, and renews them before.

        Raises
        ------
        CredentialsMissing: no source of credentials is named.
        SettingsError: an endpoint, a certificate file or an option that cannot be used; no s5cmd, where that
            is the engine.
        """
        connection = Connection(settings, lasting=lasting)
        if settings.engine == "native":
            return cls(connection, outage_seconds)
        from sidecar.area.s5cmd.carrier import Carrier

        return cls(connection, outage_seconds, Carrier(connection, settings))

    def within(self, outage_seconds: float) -> Store:
        """The same store with another patience, for when time is short."""
        return Store(self._connection, outage_seconds, self._carrier)

    @property
    def bucket(self) -> str:
        return self._connection.target.bucket

    @property
    def guarded(self) -> bool:
        return self._connection.guarded

    @property
    def weaker_guard(self) -> str:
        """Which writes are not held to what was read, although the store would; empty if all are."""
        return self._carrier.guard if self._carrier else ""

    @property
    def carried(self) -> dict[str, int]:
        """What another engine moved: objects ``down``, ``up`` and ``native: <reason>``; empty without one."""
        return dict(self._carrier.moved) if self._carrier else {}

    @property
    def requests(self) -> dict[str, Flow]:
        """Requests and bytes so far, by operation: list, head, get, put, part, delete, other."""
        return self._connection.traffic.snapshot()

    @property
    def credentials_end_at(self) -> float | None:
        """When the credentials end, in seconds since the epoch; None where they do not, or nobody knows."""
        return self._connection.credentials_end_at()

    def renew_credentials(self, *, at_once: bool = False) -> None:
        """Ask for new credentials if these end soon, or `at_once`; blocks.

        Raises
        ------
        CredentialsMissing, CredentialsRefused, StoreUnreachable: they stay what they are.
        """
        try:
            self._connection.renew_credentials(at_once=at_once)
        except Failure as failed:
            raise failed.error from failed

    @property
    def moved_at(self) -> float:
        """When a request was last answered, or failed (``time.monotonic()`` seconds)."""
        return self._connection.traffic.moved_at

    def listen(self, listener: Listener) -> None:
        """Have `listener` told of every request from now on."""
        self._connection.traffic.listener = listener

    def list(self, prefix: str, *, exact: bool = False, expected: bool = True) -> Listing:
        """All keys under `prefix`, whole segments only: ``a/USER/`` never lists ``a/USER2/``.

        Parameters
        ----------
        exact: slower; also finds a marker with content, and the archived. For when a listed key is missing.
        expected: False where nothing is likely to be there: that is then found out in one round trip.
        """
        segment = prefix.rstrip("/") + "/"
        if exact:
            from sidecar.area.exact_listing import exact_listing

            return exact_listing(self._connection, segment, self._patience())
        return listing(self._connection, segment, self._patience(), expected=expected)

    def children(self, prefix: str) -> tuple[str, ...]:
        """The names of the directories right below `prefix` (which ends in ``/``), sorted.

        A key that is not ours to carry is passed over: it then takes a listing of everything below.
        """
        import obstore

        what = f"listing s3://{self.bucket}/{prefix}"
        self._connection.traffic.count("list")
        try:
            page = self._patience().attempt(
                lambda: self._connection.call(what, lambda store: obstore.list_with_delimiter(store, prefix))
            )
            return tuple(sorted(name.rstrip("/").rpartition("/")[2] for name in page["common_prefixes"]))
        except ValueError:
            keys = self.list(prefix).objects
            return tuple(sorted({key[len(prefix) :].partition("/")[0] for key in keys}))

    def head(self, key: str) -> ObjectHead | None:
        """The object at `key` without its bytes, None where there is none."""
        return head(self._connection, key, self._patience())

    def open(self, key: str, *, if_match: str | None = None, expected_bytes: int = 0) -> Download:
        """The object at `key`, to be read; a context manager.

        `expected_bytes`: its size by a listing; a large one is read in ranges, several at once.

        Raises
        ------
        ObjectMissing, ObjectArchived, AccessDenied; ConditionFailed where its ETag is not `if_match`.
        """
        if self._carrier and if_match is None and self._carrier.carries(key):
            from sidecar.area.s5cmd.objects import fetched

            return fetched(self._connection, self._carrier, key, self._patience())
        return Download(self._connection, key, self._patience(), if_match, expected_bytes)

    def read_range(self, key: str, offset: int, length: int, *, if_match: str) -> bytes:
        """Exactly `length` bytes from `offset` of the version `if_match`."""
        return read_range(self._connection, key, offset, length, if_match, self._patience())

    def put(
        self,
        key: str,
        source: bytes | Source,
        *,
        condition: Condition,
        metadata: dict[str, str],
        content_type: str | None = None,
        held_bytes: int = 0,
    ) -> str:
        """Write the object and return its new ETag.

        `held_bytes`: the version that `condition` names is exactly so many first bytes of `source`, and
        `composes` said yes to them. The store takes them from there, and only the rest is sent.

        Raises
        ------
        ConditionFailed: `condition` did not hold; nothing was written. Read again, decide again.
        FileChanged: `source` no longer has its bytes; nothing was written.
        """
        writing = (self._connection, key, source, condition, metadata, content_type, self._patience())
        if held_bytes and self._connection.composes:
            from sidecar.area.composition import ComposedWrite

            return ComposedWrite(*writing).onto(held_bytes)
        write = Write(*writing)
        if self._carrier and self._carrier.carries(key, condition):
            from sidecar.area.s5cmd.objects import carried

            return carried(self._carrier, write, key, source)
        return write.done()

    def composes(self, held_bytes: int, key_prefix: str) -> bool:
        """Whether a new version is best put together on the server where an object holds `held_bytes` of it.

        The first time that it would pay, the store is asked by a small object under `key_prefix` whether both
        conditions hold that this takes (rule 19).
        """
        from sidecar.area.compose_probe import composes

        return composes(self._connection, held_bytes, key_prefix, Patience(0))

    def delete(self, key: str, *, if_match: str | None) -> None:
        """Remove the object; one that is missing already is fine.

        Raises
        ------
        ConditionFailed: it is another version than `if_match` now; it stays.
        """
        from sidecar.area.deletion import delete

        delete(self._connection, key, if_match, self._patience())

    def version_page(self, prefix: str, after: tuple[str, str] | None = None) -> VersionPage:
        """Up to 1,000 of all versions and delete markers under `prefix`; `after`: the last page's end.

        Raises
        ------
        NoVersions: the store cannot list versions. AccessDenied: it takes ``s3:ListBucketVersions``.
        """
        from sidecar.area.versions import version_page

        return version_page(self._connection, prefix, after, self._patience())

    def unfinished_uploads(self, prefix: str) -> Iterator[Upload]:
        """The uploads in parts under `prefix` that nobody completed."""
        from sidecar.area.versions import unfinished_uploads

        return unfinished_uploads(self._connection, prefix, self._patience())

    def remove_versions(self, versions: Sequence[Version]) -> dict[Version, str]:
        """Remove up to 1,000 versions for good, unconditionally; answers those that stay, and why."""
        from sidecar.area.removal import remove_versions

        return remove_versions(self._connection, versions, self._patience())

    def abort_upload(self, upload: Upload) -> str:
        """Abort an unfinished upload; answers why it stays, empty if it is gone."""
        from sidecar.area.removal import abort_upload

        return abort_upload(self._connection, upload, self._patience())

    def check_bucket(self, prefix: str) -> None:
        """Ask for one page of `prefix`, to find out which way access fails, if it does."""
        check(self._connection, prefix.rstrip("/") + "/", self._patience())

    def probe_conditions(self, key_prefix: str) -> bool:
        """Find out, by writing and removing a small object under `key_prefix`, whether conditions hold here.

        The answer is kept as `guarded`.
        """
        from sidecar.area.probe import honours_conditions

        self._connection.guarded = honours_conditions(self._connection, key_prefix, self._patience())
        return self._connection.guarded

    def probe_conditional_delete(self, key_prefix: str) -> bool:
        """Find out in the same way whether a DELETE can be held to one version."""
        from sidecar.area.delete_probe import honours_conditional_delete

        return honours_conditional_delete(self._connection, key_prefix, self._patience())

    def _patience(self) -> Patience:
        return Patience(self._outage_seconds)
