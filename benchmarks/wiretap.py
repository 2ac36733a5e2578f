"""A proxy in a process of its own that counts requests and bytes on their way, and can stretch the way.

It passes bytes on as they come and reads of them only where requests begin. `delay_seconds` is one round
trip: half of it for each direction, and one whole for the handshake of a connection, as TCP has it. It is a
delay only: the bandwidth is the machine's, and no slow start is played.

``python -m benchmarks.wiretap UPSTREAM DELAY_SECONDS`` prints its port, then answers each line on standard
input with what it counted since the last, and ends with its input. `benchmarks.counting` starts it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, deque
from collections.abc import Callable
from urllib.parse import urlsplit

MOST_QUEUED_BYTES = 32 * 1024 * 1024


class _Tap:
    """What was counted, and where to."""

    def __init__(self, upstream: str, delay_seconds: float) -> None:
        parts = urlsplit(upstream)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.one_way_seconds = delay_seconds / 2
        self.clear()

    def clear(self) -> None:
        self.requests: Counter[str] = Counter()
        self.sent_bytes = self.received_bytes = 0

    def note(self, method: str, target: str) -> None:
        path, _, query = target.partition("?")
        on_bucket = "/" not in path.strip("/") and "location" not in query
        self.requests["LIST" if method == "GET" and on_bucket else method] += 1

    def taken(self) -> str:
        figures = {
            "requests": dict(self.requests),
            "sent_bytes": self.sent_bytes,
            "received_bytes": self.received_bytes,
        }
        self.clear()
        return json.dumps(figures)


class _Requests:
    """Finds where requests begin in what a client sends."""

    def __init__(self, note: Callable[[str, str], None]) -> None:
        self._note = note
        self._head = b""
        self._body_left = 0
        self._chunked = False

    def feed(self, data: bytes) -> None:
        while data:
            if self._body_left:
                passed = min(self._body_left, len(data))
                self._body_left -= passed
                data = data[passed:]
                continue
            self._head += data
            end = self._head.find(b"\r\n" if self._chunked else b"\r\n\r\n")
            if end < 0:
                return
            head, data = self._head[:end], self._head[end + (2 if self._chunked else 4) :]
            self._head = b""
            (self._chunk if self._chunked else self._begin)(head)

    def _begin(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        self._note(method, target)
        for name, _, value in (line.partition(":") for line in lines):
            if name.lower() == "content-length":
                self._body_left = int(value)
            elif name.lower() == "transfer-encoding":
                self._chunked = "chunked" in value.lower()

    def _chunk(self, line: bytes) -> None:
        if not line:  # the end of the trailer
            self._chunked = False
        elif b":" not in line and (size := int(line.split(b";")[0], 16)):
            self._body_left = size + 2


class _Side(asyncio.Protocol):
    """One end of a connection: what it receives goes to `other`, half a round trip later."""

    def __init__(self, one_way_seconds: float, count: Callable[[bytes], None]) -> None:
        self._delay = one_way_seconds
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._queue: deque[bytes | None] = deque()
        self._queued_bytes = 0
        self._other_is_full = False
        self.not_before = 0.0
        self.other: _Side
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(4 * 1024 * 1024)

    def data_received(self, data: bytes) -> None:
        self._count(data)
        self._queued_bytes += len(data)
        self._pass_on(data)
        self._let_flow()

    def eof_received(self) -> bool:
        self._pass_on(None)
        return True  # what the other side still sends is delivered

    def connection_lost(self, exc: Exception | None) -> None:
        self._pass_on(None)

    def pause_writing(self) -> None:
        self.other._other_is_full = True
        self.other._let_flow()

    def resume_writing(self) -> None:
        self.other._other_is_full = False
        self.other._let_flow()

    def _pass_on(self, data: bytes | None) -> None:
        self._queue.append(data)
        if not self._delay:
            return self._deliver()
        self._loop.call_at(max(self._loop.time() + self._delay, self.not_before), self._deliver)

    def _deliver(self) -> None:
        data = self._queue.popleft()
        if data is None:
            self.other.transport.close()
            return
        self._queued_bytes -= len(data)
        self.other.transport.write(data)
        self._let_flow()

    def _let_flow(self) -> None:
        if self.transport.is_closing():
            return
        if self._other_is_full or self._queued_bytes > MOST_QUEUED_BYTES:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()


class _Client(_Side):
    """The client's end; finds the server's before it reads."""

    def __init__(self, tap: _Tap) -> None:
        requests = _Requests(tap.note)

        def count(data: bytes) -> None:
            tap.sent_bytes += len(data)
            requests.feed(data)

        super().__init__(tap.one_way_seconds, count)
        self._tap = tap

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()
        self.not_before = self._loop.time() + 3 * self._delay
        self._task = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        def count(data: bytes) -> None:
            self._tap.received_bytes += len(data)

        server = _Side(self._delay, count)
        self.other, server.other = server, self
        try:
            await self._loop.create_connection(lambda: server, self._tap.host, self._tap.port)
        except OSError:
            return self.transport.abort()
        self.transport.resume_reading()


async def _serve(upstream: str, delay_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    tap = _Tap(upstream, delay_seconds)
    server = await loop.create_server(lambda: _Client(tap), "127.0.0.1", 0, backlog=1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(tap.taken(), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], float(sys.argv[2])))
