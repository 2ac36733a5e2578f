"""The clients of one bucket: made late, kept, made anew when the bucket turns out to live in another region.

obstore's own retries are off: it cannot tell a lost answer from a lost request, and counts nobody's patience.
One client serves what is read and what is small; larger bodies get one whose time-outs fit their length,
because a time-out counts while a body is still being sent.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sidecar import __version__
from sidecar.area.answers import SERVICE_MARK, Answer, is_panic, of_awscrt, of_obstore, of_token_service
from sidecar.area.credentials import crt_provider, lease_of, obstore_arguments, source_of
from sidecar.area.failures import Failure, Where, failure
from sidecar.area.ranges import AHEAD_IN_ALL
from sidecar.area.region import region_of
from sidecar.area.target import Target, target_of
from sidecar.area.traffic import Traffic
from sidecar.errors import RegionWrong, SettingsError, StoreError
from sidecar.settings import Settings

if TYPE_CHECKING:
    from obstore.store import S3Store

    from sidecar.area.signed import Pending, Reply, SignedRequests

CONNECT_SECONDS = 5
SILENCE_SECONDS = 20
WHOLE_SECONDS = 120
_SLOWEST_BYTES_PER_SECOND = 256 * 1024
_MOST_PATIENT = 16
# Each holds some 50 MiB while it runs, however many threads ask.
_LARGE_UPLOADS = 2

Value = TypeVar("Value")


class Connection:
    """Sends single requests, thread-safe, and says exactly why one failed.

    ``guarded``: conditions are honoured here, as far as anybody knows. ``composes``: also where an object
    is put together on the server; None until that was tried. ``lasting``: see `lease_of`.
    """

    def __init__(self, settings: Settings, *, lasting: bool = False) -> None:
        # Now, by one thread: a second one that imports it meanwhile finds the module half made.
        import obstore.exceptions  # noqa: F401

        self._aws = settings.aws
        self._target = target_of(settings)
        self._sse = _encryption(settings)
        self._credentials = source_of(self._aws)
        self._lease = lease_of(self._aws, self._target, lasting=lasting)
        self._arguments = obstore_arguments(self._aws, self._lease)
        self._certificates = self._target.certificates()
        self._stores: dict[int, S3Store] = {}
        self._signed: SignedRequests | None = None
        self._lock = threading.Lock()
        self._patience_factor = 1
        self._life = os.urandom(12).hex()
        self._writes = itertools.count()
        self.traffic = Traffic()
        self.ranges_ahead = threading.BoundedSemaphore(AHEAD_IN_ALL)
        self.large_uploads = threading.BoundedSemaphore(_LARGE_UPLOADS)
        self._proven = False
        self.guarded = True
        self.composing = threading.Lock()
        self.composes: bool | None = None

    @property
    def target(self) -> Target:
        return self._target

    def where(self, what: str, *, reads_object: bool = False) -> Where:
        target = self._target
        return Where(what, target.bucket, target.endpoint, target.region, self._credentials, reads_object)

    def credentials_end_at(self) -> float | None:
        """When the credentials end, in seconds since the epoch; None where they do not, or nobody knows."""
        end = self._lease.ends_at if self._lease else None
        return end.timestamp() if end else None

    def renew_credentials(self, *, at_once: bool) -> None:
        """Ask for new ones if it is time, or `at_once`; raises `Failure`, and the old ones stay."""
        if self._lease is None:
            return
        try:
            if self._lease.renew(at_once=at_once):
                with self._lock:
                    self._stores.clear()  # each keeps what it was given until shortly before its end
        except Exception as error:
            text = str(error)
            answer = of_token_service(text) if SERVICE_MARK in text else of_awscrt(error)
            raise failure(answer, self.where("renewing the credentials")) from error

    def write_mark(self) -> str:
        """A word that no other write bears, of this process or of any other."""
        return f"{self._life}{next(self._writes):08x}"

    def is_proven(self) -> bool:
        """True once the other side answered as only an S3 server does.

        Before that, "nothing there" may be the answer of somebody else.
        """
        return self._proven

    def prove(self) -> None:
        """Take note that it has."""
        self._proven = True

    def call(
        self,
        what: str,
        request: Callable[[S3Store], Value],
        *,
        body_bytes: int = 0,
        reads_object: bool = False,
        of_body: bool = False,
    ) -> Value:
        """What `request` returns; raises `Failure`. `what` begins the sentence of an error.

        `of_body`: it takes more of a body that was asked for already; no request of its own.
        """
        if of_body:
            return self._once(what, request, body_bytes, reads_object)
        with self.traffic.timed(what):
            return self.in_right_region(lambda: self._once(what, request, body_bytes, reads_object))

    def in_right_region(self, request: Callable[[], Value]) -> Value:
        """`request`, sent once more where it finds the bucket's region and nobody had chosen one."""
        used = self._target
        try:
            return request()
        except Failure as refused:
            if not isinstance(refused.error, RegionWrong):
                raise
            if not self._moved(used, refused):
                raise
        return request()

    def signed(self) -> SignedRequests:
        """awscrt's client, imported now if it was not."""
        with self._lock:
            if self._signed is None:
                from sidecar.area.signed import SignedRequests

                self._signed = SignedRequests(
                    self._target, crt_provider(self._aws, self._target, self._lease), self._sse_headers()
                )
            return self._signed

    def send_signed(
        self,
        what: str,
        operation: str,
        method: str,
        key: str,
        query: str = "",
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        moved_bytes: int = 0,
    ) -> Reply:
        """One request by awscrt; raises `Failure`. `moved_bytes`: what the server itself has to move."""

        def once() -> Reply:
            begun = self.signed().begin(operation, method, key, query, headers, body, moved_bytes)
            return self.reply_of(what, begun)

        return self.in_right_region(once)

    def reply_of(self, what: str, pending: Pending) -> Reply:
        """The reply to a request that is on its way; raises `Failure`."""
        from sidecar.area.signed import RequestFailed

        try:
            with self.traffic.timed(what):
                return pending.reply()
        except RequestFailed as failed:
            self._learn_from(failed.answer)
            raise failure(failed.answer, self.where(what)) from failed

    def _once(
        self, what: str, request: Callable[[S3Store], Value], body_bytes: int, reads_object: bool
    ) -> Value:
        target = self._target
        try:
            value = request(self._store(body_bytes))
        except BaseException as error:
            if not _is_told(error):
                raise
            answer = of_obstore(error, target.endpoint)
            self._learn_from(answer)
            if body_bytes and answer.trouble == "timeout":
                self._patience_factor = min(_MOST_PATIENT, self._patience_factor * 2)
            raise failure(answer, self.where(what, reads_object=reads_object)) from error
        if body_bytes:
            self._patience_factor = max(1, self._patience_factor // 2)
        return value

    def _learn_from(self, answer: Answer) -> None:
        if answer.code and not answer.of_credentials:
            self._proven = True

    def _store(self, body_bytes: int) -> S3Store:
        silence = silence_seconds(body_bytes, self._patience_factor)
        store = self._stores.get(silence)
        if store is None:
            with self._lock:
                store = self._stores.get(silence) or self._stores.setdefault(silence, self._made(silence))
        return store

    def _made(self, silence_seconds: int) -> S3Store:
        from obstore.store import S3Store

        target = self._target
        options: dict[str, Any] = {
            "allow_http": target.is_plain_http,
            "connect_timeout": f"{CONNECT_SECONDS}s",
            "read_timeout": f"{silence_seconds}s",
            "timeout": f"{max(WHOLE_SECONDS, 2 * silence_seconds)}s",
            "pool_idle_timeout": "15s",
            "user_agent": f"claude-sidecar/{__version__}",
        }
        if self._certificates:
            options["root_certificate"] = self._certificates
        config = {
            "endpoint": target.endpoint,
            "aws_endpoint_url_s3": target.endpoint,
            "region": target.region,
            "virtual_hosted_style_request": False,
            "disable_bulk_delete": True,
            **self._sse,
            **self._arguments.get("config", {}),
        }
        arguments = {**self._arguments, "config": config}
        try:
            return S3Store(
                target.bucket, client_options=cast(Any, options), retry_config={"max_retries": 0}, **arguments
            )
        except (ValueError, OSError) as error:
            raise SettingsError(f"the connection to {target.endpoint} cannot be set up: {error}") from error

    def _moved(self, used: Target, refused: Failure) -> bool:
        """True where the bucket's own region is now in use, whoever found it."""
        with self._lock:
            if self._target is not used:
                return True
            region = refused.answer.region or region_of(used)
            if used.region_given or not region or region == used.region:
                if region and not refused.answer.region:
                    refused.error = _with_region(refused.error, region)
                return False
            self._target = used.in_region(region, self._aws)
            self._stores.clear()
            self._signed = None
            return True

    def _sse_headers(self) -> dict[str, str]:
        names = {
            "server_side_encryption": "x-amz-server-side-encryption",
            "sse_kms_key_id": "x-amz-server-side-encryption-aws-kms-key-id",
        }
        return {names[option]: value for option, value in self._sse.items()}


def _is_told(error: BaseException) -> bool:
    """True for what obstore raises of a request, a panic among it; anything else is a mistake of ours."""
    from obstore.exceptions import BaseError

    return isinstance(error, BaseError | OSError | ValueError) or is_panic(error)


def silence_seconds(body_bytes: int, patience_factor: int) -> int:
    """How long nothing may be heard: 20 s, more for a body, in powers of two."""
    sending = body_bytes * patience_factor / _SLOWEST_BYTES_PER_SECOND
    extra = 0 if sending <= 4 else 1 << int(sending).bit_length()
    return SILENCE_SECONDS + extra


def _encryption(settings: Settings) -> dict[str, str]:
    config = {}
    if settings.sse:
        config["server_side_encryption"] = settings.sse
    if settings.sse_kms_key_id:
        config["sse_kms_key_id"] = settings.sse_kms_key_id
    return config


def _with_region(error: StoreError, region: str) -> StoreError:
    return RegionWrong(error.message, f"set AWS_REGION={region}")
