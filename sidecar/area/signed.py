"""Single signed requests by awscrt, for what obstore has no call for. Imported late: 50 ms and 7 MiB.

awscrt's own retries are off, as obstore's are: see `sidecar.area.connection`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from awscrt.auth import AwsSignedBodyHeaderType, AwsSigningConfig  # type: ignore[import-untyped]
from awscrt.http import HttpHeaders, HttpRequest  # type: ignore[import-untyped]
from awscrt.io import (  # type: ignore[import-untyped]
    ClientBootstrap,
    ClientTlsContext,
    DefaultHostResolver,
    EventLoopGroup,
    TlsConnectionOptions,
    TlsContextOptions,
)
from awscrt.s3 import S3Client, S3RequestTlsMode, S3RequestType, S3RetryConfig, S3RetryMode  # type: ignore[import-untyped]
from msgspec import Struct

from sidecar.area.answers import Answer, of_awscrt, of_token_service
from sidecar.area.target import Target
from sidecar.area.web_identity import TokenServiceError

if TYPE_CHECKING:
    from awscrt.auth import AwsCredentialsProvider
    from awscrt.s3 import S3Request

_CONNECT_MILLISECONDS = 5000
_SECONDS = 30.0
_SLOWEST_BYTES_PER_SECOND = 64 * 1024
_SLOWEST_COPY = 8 * 1024 * 1024  # bytes a second
_MEMORY_BYTES = 1024 * 1024 * 1024  # a limit, not what is taken; the least that the library accepts


class Reply(Struct, frozen=True):
    """A success: header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class RequestFailed(Exception):
    """A failure, as far as it is known."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


class SignedRequests:
    """Requests to one bucket; thread-safe."""

    def __init__(
        self,
        target: Target,
        provider: Callable[[], AwsCredentialsProvider],
        sse_headers: dict[str, str],
    ) -> None:
        self._target = target
        self._provider = provider
        self.sse_headers = sse_headers
        loops = EventLoopGroup(1)
        self._client = S3Client(
            bootstrap=ClientBootstrap(loops, DefaultHostResolver(loops)),
            region=target.region,
            tls_mode=S3RequestTlsMode.DISABLED if target.is_plain_http else S3RequestTlsMode.ENABLED,
            tls_connection_options=_tls(target),
            retry_config=S3RetryConfig(retry_mode=S3RetryMode.NONE),
            connect_timeout_ms=_CONNECT_MILLISECONDS,
            memory_limit=_MEMORY_BYTES,
            throughput_target_gbps=1.0,
        )

    def begin(
        self,
        operation: str,
        method: str,
        key: str,
        query: str = "",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        moved_bytes: int = 0,
    ) -> Pending:
        """Send a request. `operation` is its name in the S3 API; `key` empty means the bucket itself.

        `moved_bytes`: what the server itself moves before it answers.
        """
        host, _, base = self._target.host.partition("/")
        path = "/" + "/".join(part for part in (base, self._target.bucket) if part)
        path += "/" + quote(key, safe="/-_.~") if key else ""
        fields = HttpHeaders([("Host", host), *(headers or {}).items()])
        if body is not None or method in ("PUT", "POST"):
            fields.add("Content-Length", str(len(body or b"")))
        request = HttpRequest(method, f"{path}?{query}" if query else path, fields, _stream(body))
        try:
            signing = self._signing(body)
        except TokenServiceError as error:
            return Pending(unsent=of_token_service(str(error)))
        seconds = _SECONDS + len(body or b"") / _SLOWEST_BYTES_PER_SECOND + moved_bytes / _SLOWEST_COPY
        return Pending(seconds).started(self._client, request, operation, signing)

    def _signing(self, body: bytes | None) -> AwsSigningConfig:
        digest = None
        if body is not None:
            import hashlib

            digest = hashlib.sha256(body).hexdigest()  # the store then refuses bytes that changed on the way
        return AwsSigningConfig(
            credentials_provider=self._provider(),
            region=self._target.region,
            service="s3",
            use_double_uri_encode=False,
            should_normalize_uri_path=False,
            signed_body_value=digest,
            signed_body_header_type=AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
        )


class Pending:
    """A request on its way, or one that could not be sent (``unsent`` says why)."""

    def __init__(self, seconds: float = 0.0, unsent: Answer | None = None) -> None:
        self._seconds = seconds
        self._unsent = unsent
        self._request: S3Request | None = None
        self._arriving = _Arriving()

    def started(self, client: S3Client, request: HttpRequest, operation: str, signing: object) -> Pending:
        self._request = client.make_request(
            type=S3RequestType.DEFAULT,
            request=request,
            operation_name=operation,
            signing_config=signing,
            on_headers=self._arriving.on_headers,
            on_body=self._arriving.on_body,
        )
        return self

    def reply(self) -> Reply:
        """Wait for the answer; raises `RequestFailed`."""
        if self._request is None:
            raise RequestFailed(self._unsent or Answer(trouble="broken"))
        try:
            self._request.finished_future.result(self._seconds)
        except TimeoutError:
            self._request.cancel()
            raise RequestFailed(Answer(trouble="timeout")) from None
        except Exception as error:
            raise RequestFailed(of_awscrt(error)) from error
        return Reply(self._arriving.status, self._arriving.headers, bytes(self._arriving.body))

    def cancel(self) -> None:
        if self._request is not None:
            self._request.cancel()


class _Arriving:
    """What awscrt hands over. It must not know the request: native code holds it, no collector sees the ring,
    and each part of an upload would stay in memory."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()

    def on_headers(self, status_code: int, headers: list[tuple[str, str]], **_: object) -> None:
        self.status = status_code
        self.headers = {name.lower(): value for name, value in headers}

    def on_body(self, chunk: bytes, offset: int, **_: object) -> None:
        self.body += chunk


def _stream(body: bytes | None) -> io.BytesIO | None:
    return io.BytesIO(body) if body is not None else None


def _system_certificates() -> str:
    """What is trusted anyway: a bundle replaces it here, and adds to it at obstore."""
    import ssl

    cafile = ssl.get_default_verify_paths().cafile
    return "\n" + Path(cafile).read_text() if cafile and Path(cafile).is_file() else ""


def _tls(target: Target) -> TlsConnectionOptions | None:
    if target.is_plain_http:
        return None
    options = TlsContextOptions()
    if certificates := target.certificates():
        options.override_default_trust_store((certificates + _system_certificates()).encode())
    connection_options = ClientTlsContext(options).new_connection_options()
    connection_options.set_server_name(target.host.partition("/")[0].partition(":")[0])
    return connection_options
