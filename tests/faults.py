"""What can go wrong with one request, each as a value for `FaultProxy.on`."""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
import time
from collections.abc import Callable

from tests.fault_proxy import Exchange, Fault
from tests.wire import Response


def pass_on() -> Fault:
    return lambda x: x.answer(x.ask_server())


def answer(status: int, code: str, message: str = "made up", headers: dict[str, str] | None = None) -> Fault:
    """S3's XML error, made here; the server is not asked."""
    error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    text = f'<?xml version="1.0" encoding="UTF-8"?>{error}'
    all_headers = [("Content-Type", "application/xml"), *(headers or {}).items()]
    return lambda x: x.answer(Response(status, all_headers, text.encode()))


def throttle() -> Fault:
    return answer(503, "SlowDown", "Please reduce your request rate.")


def reset_before() -> Fault:
    """The request never reaches the server."""
    return lambda x: x.reset()


def lose_answer(then: Callable[[], None] = lambda: None) -> Fault:
    """The server has done it (and `then` has happened), the client never hears of it."""

    def fault(x: Exchange) -> None:
        x.ask_server()
        then()
        x.reset()

    return fault


def fail_after(status: int = 500, code: str = "InternalError") -> Fault:
    """The server has done it; the client is told that it failed."""

    def fault(x: Exchange) -> None:
        x.ask_server()
        answer(status, code)(x)

    return fault


def deliver_late(released: threading.Event) -> Fault:
    """The client is cut off at once; the server gets the request when `released` is set."""

    def fault(x: Exchange) -> None:
        def later() -> None:
            released.wait()
            with contextlib.suppress(OSError):
                x.ask_server()

        x.spawn(later)
        x.reset()

    return fault


def cut_body(after_bytes: int) -> Fault:
    """A reset after `after_bytes` of the answer's body."""

    def fault(x: Exchange) -> None:
        response = x.ask_server()
        x.request.status = response.status
        x.send(response.head(x.request.method) + response.body[:after_bytes])
        time.sleep(0.05)  # a RST overtakes what the client has not yet read
        x.reset()

    return fault


def half_close(after_bytes: int) -> Fault:
    """An orderly end of the connection after `after_bytes` of the answer's body."""

    def fault(x: Exchange) -> None:
        response = x.ask_server()
        x.request.status = response.status
        x.send(response.head(x.request.method) + response.body[:after_bytes])
        x.hang_up()

    return fault


def delay(seconds: float) -> Fault:
    def fault(x: Exchange) -> None:
        x.sleep(seconds)
        x.answer(x.ask_server())

    return fault


def stall(after_bytes: int, seconds: float) -> Fault:
    """`after_bytes` of the body, silence for `seconds`, the rest."""

    def fault(x: Exchange) -> None:
        response = x.ask_server()
        x.request.status = response.status
        x.send(response.head(x.request.method) + response.body[:after_bytes])
        x.sleep(seconds)
        x.send(response.body[after_bytes:])

    return fault


def trickle(bytes_per_second: int) -> Fault:
    """The body, ten times a second a few bytes."""

    def fault(x: Exchange) -> None:
        response = x.ask_server()
        x.request.status = response.status
        x.send(response.head(x.request.method))
        step = max(1, bytes_per_second // 10)
        for start in range(0, len(response.body), step):
            x.send(response.body[start : start + step])
            x.sleep(0.1)

    return fault


def rewrite(change: Callable[[Response], None]) -> Fault:
    """The real answer, changed: another ETag, a body that is short by design, a listing with a key twice."""

    def fault(x: Exchange) -> None:
        response = x.ask_server()
        change(response)
        x.answer(response)

    return fault


def with_etag(etag: str) -> Fault:
    return rewrite(lambda r: r.set_header("ETag", etag))


def with_body(change: Callable[[bytes], bytes]) -> Fault:
    """The real answer with another body, well formed (Content-Length fits)."""

    def apply(response: Response) -> None:
        response.body = change(response.body)

    return rewrite(apply)


def without_listed(key: str) -> Fault:
    """A listing that misses `key`."""
    pattern = re.compile(
        rb"<Contents>(?:(?!</Contents>).)*<Key>[^<]*%s</Key>.*?</Contents>" % key.encode(), re.S
    )
    return with_body(lambda body: pattern.sub(b"", body))


def with_listed_twice() -> Fault:
    """A listing in which every entry stands twice."""
    pattern = re.compile(rb"(<Contents>.*?</Contents>)", re.S)
    return with_body(lambda body: pattern.sub(rb"\1\1", body))


def every(number: int, fault: Fault) -> Fault:
    """Each `number`-th of the requests that come; the others pass."""
    counted = itertools.count(1)

    def sometimes(x: Exchange) -> None:
        (fault if next(counted) % number == 0 else pass_on())(x)

    return sometimes
