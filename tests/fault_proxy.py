"""A loopback HTTP proxy that breaks what it is told to break, in front of a real server.

    from tests import faults

    proxy.on("PUT", faults.lose_answer())         the next PUT reaches the server, its answer is lost
    proxy.on("GET", faults.cut_body(1000), part="big", times=2)      twice: a reset after 1,000 bytes
    proxy.on("*", faults.throttle(), times=None)  every request, until proxy.clear()
    proxy.down(); proxy.up()                      nobody listens; the same port again
    proxy.seen("PUT", "journal/")                 what was asked, with bytes on the wire both ways

The first rule that matches a request is used, in the order given; rules count down. All else passes.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.wire import Request, Response, read_request, read_response


class Exchange:
    """What a fault may do with one request: ask the server, answer the client, break the connection."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, request: Request) -> None:
        self.request = request
        self._proxy = proxy
        self._client = client

    def ask_server(self) -> Response:
        return self._proxy._forward(self.request)

    def send(self, data: bytes) -> None:
        self._client.sendall(data)
        self.request.received_bytes += len(data)

    def answer(self, response: Response) -> None:
        self.request.status = response.status
        body = b"" if self.request.method == "HEAD" else response.body
        self.send(response.head(self.request.method) + body)

    def reset(self) -> None:
        """End the connection with a RST: what the client has not read is gone."""
        self.request.broken = True
        linger = struct.pack("ii", 1, 0)
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        raise _Broken

    def hang_up(self) -> None:
        """End the connection in an orderly way, in the middle of whatever was going on."""
        self.request.broken = True
        raise _Broken

    def spawn(self, target: Callable[[], None]) -> None:
        """Go on after the client was cut off; see `FaultProxy.settle`."""
        self._proxy._late.append(self._proxy._spawn(target))

    def sleep(self, seconds: float) -> None:
        if self._proxy._stopping.wait(seconds):
            raise _Broken


Fault = Callable[[Exchange], None]


class _Broken(Exception):
    """The connection was ended on purpose."""


@dataclass
class _Rule:
    method: str
    part: str
    fault: Fault
    times: int | None

    def takes(self, request: Request) -> bool:
        return self.method in ("*", request.method) and self.part in request.target and self.times != 0


class FaultProxy:
    """Listens on a free port of 127.0.0.1; use as a context manager. `tls`: a server context, for HTTPS."""

    def __init__(self, upstream: str | None, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(upstream or "http://127.0.0.1:9")
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._tls = tls
        self._port = 0
        self._listener: socket.socket | None = None
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._late: list[threading.Thread] = []
        self._stopping = threading.Event()
        self.requests: list[Request] = []

    @property
    def endpoint(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def on(self, method: str, fault: Fault, *, part: str = "", times: int | None = 1) -> None:
        """Apply `fault` to the next `times` requests of `method` (``*``: any) with `part` in the target."""
        with self._lock:
            self._rules.append(_Rule(method, part, fault, times))

    def clear(self) -> None:
        """Forget all rules and all that was recorded."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()

    def seen(self, method: str = "*", part: str = "") -> list[Request]:
        with self._lock:
            return [r for r in self.requests if method in ("*", r.method) and part in r.target]

    @property
    def bytes_to_server(self) -> int:
        return sum(r.sent_bytes for r in self.seen())

    @property
    def bytes_to_client(self) -> int:
        return sum(r.received_bytes for r in self.seen())

    def up(self) -> None:
        """Listen (again, on the same port)."""
        self._stopping.clear()
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
        self._port = self._listener.getsockname()[1]
        self._spawn(self._accept, self._listener)

    def down(self) -> None:
        """Refuse connections and break those that are open."""
        self._stopping.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            threads, self._threads = self._threads, []
        for thread in threads:
            thread.join(10)

    def settle(self) -> None:
        """Wait until what was to be delivered late has been, once it was released."""
        for thread in self._late:
            thread.join(10)

    def __enter__(self) -> FaultProxy:
        self.up()
        return self

    def __exit__(self, *exc: object) -> None:
        self.down()

    def _spawn(self, target: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, daemon=True, name="fault-proxy")
        with self._lock:
            self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        thread.start()
        return thread

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError, _Broken), self._registered(client):
            if self._tls is None:
                self._converse(client)
                return
            wrapped = self._tls.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
            with self._registered(wrapped):
                wrapped.do_handshake()
                self._converse(wrapped)

    def _converse(self, client: socket.socket) -> None:
        with client.makefile("rb") as incoming:
            while (request := read_request(incoming, client)) is not None:
                with self._lock:
                    self.requests.append(request)
                    fault = self._fault_for(request)
                fault(Exchange(self, client, request))
                if self._stopping.is_set():
                    return

    def _fault_for(self, request: Request) -> Fault:
        for rule in self._rules:
            if rule.takes(request):
                rule.times = None if rule.times is None else rule.times - 1
                return rule.fault
        return lambda x: x.answer(x.ask_server())

    def _forward(self, request: Request) -> Response:
        with socket.create_connection(self._upstream, timeout=60) as server, self._registered(server):
            server.sendall(request.raw)
            with server.makefile("rb") as incoming:
                return read_response(incoming, request.method)

    @contextlib.contextmanager
    def _registered(self, one: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(one)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(one)
            one.close()
