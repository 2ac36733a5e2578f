"""What a failed request said, whichever engine sent it: status, S3 code, and whether it may have been done.

obstore gives its error as text, which ends in a debug form of the answer; awscrt gives the answer itself.
S3's codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

import re

from msgspec import Struct

_STATUS = re.compile(r'inner: Status \{\s+status: (\d{3}),\s+body: (?:Some\(\s+"((?:[^"\\]|\\.)*)"|None)')
_REQUEST = re.compile(r"Error performing (?:GET|PUT|POST|HEAD|DELETE) (\S+) in ")
_CODE = re.compile(r"<Code>([^<]{1,100})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,500})</Message>")
_REGION = re.compile(r"<Region>([a-z0-9-]{1,40})</Region>")
_ENDPOINT_REGION = re.compile(r"<Endpoint>[^<]*?s3[.-]([a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws")
SERVICE_MARK = "token service:"
_SERVICE = re.compile(SERVICE_MARK + r" (\d+) (\S+) ?([^\n]*)")
_CREDENTIAL_SOURCES = ("Failed to read token file", "Failed to read EKS token file", "Unauthenticated {")
_NOBODY_REACHED = {
    "AWS_IO_SOCKET_CONNECTION_REFUSED",
    "AWS_IO_SOCKET_NO_ROUTE_TO_HOST",
    "AWS_IO_SOCKET_TIMEOUT",
}
# Answers that awscrt gives by its own names, without status and body.
_CRT_ANSWERS = {
    "AWS_ERROR_S3_SLOW_DOWN": (503, "SlowDown"),
    "AWS_ERROR_S3_INTERNAL_ERROR": (500, "InternalError"),
    "AWS_ERROR_S3_REQUEST_TIMEOUT": (400, "RequestTimeout"),
    "AWS_ERROR_S3_REQUEST_TIME_TOO_SKEWED": (403, "RequestTimeTooSkewed"),
}
_TLS = ("InvalidCertificate", "InvalidMessage", "AlertReceived", "InvalidContentType", "PeerIncompatible")


class Answer(Struct, frozen=True):
    """``trouble`` tells what happened where there is no status:

    ``connect`` nobody was reached, ``dns`` no such host, ``tls`` no trust, ``timeout``, ``broken`` the
    connection ended early, ``garbled`` not the answer of an S3 server, ``redirect`` another region,
    ``no ranges`` all of an object where a part was asked for, ``credentials`` there was nothing to sign with
    (``detail`` says why), ``key`` a key that cannot be sent.
    """

    status: int = 0
    code: str = ""
    message: str = ""
    region: str = ""
    trouble: str = ""
    detail: str = ""
    of_credentials: bool = False
    """True where it was not the store that failed, but whoever gives the credentials for it."""

    @property
    def maybe_done(self) -> bool:
        """True where the server may have acted although we were told of a failure, or not told at all."""
        if self.of_credentials or self.trouble in ("connect", "dns", "tls", "credentials", "key", "redirect"):
            return False
        return self.status == 0 or self.status >= 500 or self.status in (408, 409)


def of_status(status: int, body: str, of_credentials: bool = False) -> Answer:
    """The answer with `status` and S3's XML in `body` (empty after a HEAD)."""
    code, message = _CODE.search(body), _MESSAGE.search(body)
    region = _REGION.search(body) or _ENDPOINT_REGION.search(body)
    return Answer(
        status=status,
        code=code.group(1) if code else "",
        message=message.group(1) if message else "",
        region=region.group(1) if region else "",
        of_credentials=of_credentials,
    )


def is_panic(error: BaseException) -> bool:
    """True where obstore's Rust gave up, as it does of a request that it cannot write down."""
    return type(error).__name__ == "PanicException"  # of PyO3, which has no name to import it by


def of_obstore(error: BaseException, endpoint: str) -> Answer:
    """What obstore's `error` says; a request that went elsewhere than to `endpoint` was for credentials."""
    text = str(error)
    if is_panic(error):
        return Answer(trouble="panic", detail=_first_line(text))
    if isinstance(error, ValueError):
        return Answer(trouble="key", detail=_first_line(text))
    if SERVICE_MARK in text:
        return of_token_service(text)
    if any(sign in text for sign in _CREDENTIAL_SOURCES):
        return Answer(trouble="credentials", detail=_first_line(text), of_credentials=True)
    request = _REQUEST.search(text)
    elsewhere = request is not None and not request.group(1).startswith(endpoint + "/")
    status = _STATUS.search(text)
    if status:
        body = (status.group(2) or "").replace('\\"', '"')
        return of_status(int(status.group(1)), body, of_credentials=elsewhere)
    return Answer(trouble=_trouble(text), detail=_debug_detail(text), of_credentials=elsewhere)


def of_token_service(text: str) -> Answer:
    """What our own question to the token service came to, from the text of its error."""
    found = _SERVICE.search(text)
    assert found is not None
    status, code, detail = int(found.group(1)), found.group(2).strip("-"), found.group(3)
    if code == "TokenFile":
        return Answer(trouble="credentials", detail=detail, of_credentials=True)
    trouble = "" if status else "connect"
    return Answer(status=status, code=code, trouble=trouble, detail=detail, of_credentials=True)


def of_awscrt(error: Exception) -> Answer:
    """What awscrt's `error` says."""
    status = getattr(error, "status_code", None)
    if status is not None:
        body: bytes = getattr(error, "body", None) or b""
        return of_status(int(status), body.decode("utf-8", "replace"))
    name = str(getattr(error, "name", "") or type(error).__name__)
    if name in _CRT_ANSWERS:
        status, code = _CRT_ANSWERS[name]
        return Answer(status=status, code=code)
    if name.startswith("AWS_AUTH_"):
        return Answer(trouble="credentials", detail=name, of_credentials=True)
    return Answer(trouble=_crt_trouble(name), detail=name)


def _trouble(text: str) -> str:
    if "source: NotPartial" in text:
        return "no ranges"
    if "inner: BareRedirect" in text:
        return "redirect"
    if "InvalidListResponse" in text or "InvalidPutResponse" in text:
        return "garbled"
    if any(sign in text for sign in _TLS):
        return "tls"
    if '"dns error"' in text:
        return "dns"
    if "kind: Connect," in text:
        return "connect"
    return "timeout" if "kind: Timeout" in text or "TimedOut" in text else "broken"


def _crt_trouble(name: str) -> str:
    if name.startswith("AWS_IO_TLS_"):
        return "tls"
    if name.startswith("AWS_IO_DNS_"):
        return "dns"
    if name in (
        "AWS_IO_SOCKET_CONNECTION_REFUSED",
        "AWS_IO_SOCKET_NO_ROUTE_TO_HOST",
        "AWS_IO_SOCKET_TIMEOUT",
    ):
        return "connect"
    return "timeout" if "TIMEOUT" in name.upper() else "broken"


_DETAILS = (
    re.compile(r"InvalidCertificate\(\s*([A-Za-z]+)"),
    re.compile(r'message: "([^"]{1,120})"'),
    re.compile(r'"dns error",.*?error: "([^"]{1,160})"', re.S),
    re.compile(r"Invalid[A-Za-z]+\(\s*([A-Za-z]+)"),
    re.compile(r"error: ([A-Za-z]{3,40}),?\s"),
)


def _debug_detail(text: str) -> str:
    debug = text.partition("Debug source:")[2]
    for pattern in _DETAILS:
        if found := pattern.search(debug):
            return found.group(1)
    return ""


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:300]
