"""The two listeners: where they listen, what they say to what is wrong, and what cannot hold them up."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from sidecar.api import listeners as listening
from sidecar.api.connections import Limits
from sidecar.errors import SettingsError
from sidecar.logs import JsonFormatter
from tests.api.conftest import Lines
from tests.api.serving import Api, opened, settings, until

Serve = Callable[..., Awaitable[Api]]
Said = Callable[[], list[str]]

POST = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\n"


class Wire:
    """A connection without any manners."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> bytes:
        """Send `data`; everything that comes until the other side closes."""
        self.writer.write(data)
        return await self.rest()

    async def rest(self) -> bytes:
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@pytest.fixture
async def wire() -> AsyncIterator[Callable[[int], Awaitable[Wire]]]:
    """Opens connections that end with the test."""
    wires: list[Wire] = []

    async def connect(port: int) -> Wire:
        wires.append(Wire(*await asyncio.open_connection("127.0.0.1", port)))
        return wires[-1]

    yield connect
    for open_wire in wires:
        await open_wire.close()


Connect = Callable[[int], Awaitable[Wire]]


def body_of(answer: bytes) -> dict[str, Any]:
    return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))


# -- where


def listened(port: int) -> set[str]:
    """The addresses that `port` listens on, as the kernel tells."""
    found = set()
    for file, size in (("/proc/net/tcp", 8), ("/proc/net/tcp6", 32)):
        with open(file) as table:
            for line in table.readlines()[1:]:
                local, state = line.split()[1], line.split()[3]
                address, _, hexport = local.partition(":")
                if state == "0A" and int(hexport, 16) == port:
                    assert len(address) == size
                    found.add(address)
    return found


async def test_triggers_are_on_loopback_alone_and_health_on_all_addresses(api: Api) -> None:
    loopback6, any6 = "00000000000000000000000001000000", "0" * 32
    assert listened(api.listeners.api_port) == {"0100007F", loopback6}
    assert listened(api.listeners.health_port) == {"00000000", any6}


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_both_families_are_answered(api: Api, address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    for port, path in ((api.listeners.api_port, "/invocations"), (api.listeners.health_port, "/livez")):
        async with api.session.get(f"http://{host}:{port}{path}") as response:
            assert response.status == 200


async def test_a_kernel_without_ipv6_is_said_once_and_served_over_ipv4(
    serve: Serve, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.socket

    def without_ipv6(family: int = -1, *rest: Any, **more: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *rest, **more)

    monkeypatch.setattr(listening.socket, "socket", without_ipv6)
    api = await serve()
    monkeypatch.undo()
    assert (await api.get("/livez")).status == 200
    assert [line for line in said() if "this kernel does not have it" in line] == [
        "INFO: Not listening on ::1: this kernel does not have it",
        "INFO: Not listening on ::: this kernel does not have it",
    ]


@pytest.mark.parametrize(
    ("field", "variable"),
    [("api_port", "CLAUDE_SIDECAR_API_PORT"), ("health_port", "CLAUDE_SIDECAR_HEALTH_PORT")],
)
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_port_that_is_taken_is_one_sentence_with_the_setting(
    field: str, variable: str, address: str
) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as taken:
        taken.bind((address, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError) as caught:
            await opened(settings(**{field: port}))
    assert f"port {port}" in str(caught.value) and "taken" in str(caught.value)
    assert variable in caught.value.hint


async def test_after_a_failed_start_nothing_is_listened_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        api_port, health_port = free.getsockname()[1], taken.getsockname()[1]
        free.close()
        with pytest.raises(SettingsError):
            await opened(settings(api_port=api_port, health_port=health_port))
    assert listened(api_port) == set()


# -- what is wrong


async def test_an_unknown_path_is_404_and_says_what_there_is(api: Api) -> None:
    answer = await api.get("/invocation")
    assert (answer.status, answer.body["kind"]) == (404, "not_found")
    assert set(answer.body) == {"error", "kind", "hint"}
    assert "/invocations" in answer.body["hint"]
    assert (await api.get("/invocations/")).status == 404


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/sync", "POST"),
        ("PUT", "/v1/restore", "POST"),
        ("POST", "/v1/stats", "GET, HEAD"),
        ("DELETE", "/livez", "GET, HEAD"),
        ("OPTIONS", "/metrics", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_405_with_those_that_are_right(
    api: Api, method: str, path: str, allow: str
) -> None:
    answer = await api.call(method, path)
    assert (answer.status, answer.headers["Allow"]) == (405, allow)
    assert answer.body["kind"] == "method_not_allowed"


async def test_a_fault_of_ours_is_a_500_without_its_insides(
    api: Api, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    def fail() -> dict[str, Any]:
        raise RuntimeError("an inner thing")

    monkeypatch.setattr(api.manager, "get_stats", fail)
    answer = await api.get("/v1/stats")
    assert (answer.status, answer.body["kind"]) == (500, "internal")
    assert "inner" not in json.dumps(answer.body)
    monkeypatch.undo()
    assert b'route="/v1/stats",status="500"} 1.0' in api.metrics.exposed("")[0]
    assert any(line.startswith("ERROR") for line in said())


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/sync HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /v1/sync HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["tls", "no version", "odd version", "odd length", "two lengths", "huge header", "huge path"],
)
async def test_what_is_no_request_gets_a_400_in_json_and_no_traceback(
    api: Api, wire: Connect, said: Said, noise: bytes
) -> None:
    answer = await (await wire(api.port)).say(noise)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert set(body_of(answer)) == {"error", "kind", "hint"}
    assert not any(line.startswith(("ERROR", "WARNING")) for line in said())


# -- bodies


async def test_a_body_declared_too_large_is_refused_before_it_is_sent(serve: Serve, wire: Connect) -> None:
    api = await serve(limits=Limits(stop_seconds=0.05))
    for path in (b"/invocations", b"/v1/sync", b"/v1/restore"):
        connection = await wire(api.port)
        answer = await connection.say(
            b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
        )
        assert answer.startswith(b"HTTP/1.1 413")
        assert body_of(answer)["kind"] == "body_large"


async def test_who_asks_before_sending_is_told_no_or_go_on(serve: Serve, wire: Connect) -> None:
    api = await serve(limits=Limits(stop_seconds=0.05))
    head = b"POST /v1/sync?timeout=1 HTTP/1.1\r\nHost: localhost\r\n"
    head += b"Expect: 100-continue\r\nConnection: close\r\n"
    refused = await (await wire(api.port)).say(head + b"Content-Length: 2000000\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 413")
    connection = await wire(api.port)
    connection.writer.write(head + b"Content-Length: 2\r\n\r\n")
    assert await connection.reader.readline() == b"HTTP/1.1 100 Continue\r\n"
    assert b"HTTP/1.1 202" in await connection.say(b"{}")


async def test_a_body_that_turns_out_too_large_is_refused_without_holding_it(
    serve: Serve, wire: Connect
) -> None:
    api = await serve(limits=Limits(body_bytes=1000, stop_seconds=0.05))
    connection = await wire(api.port)
    connection.writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    chunk = b"400\r\n" + b"x" * 0x400 + b"\r\n"
    answer = await connection.say(chunk * 4)
    assert answer.startswith(b"HTTP/1.1 413")
    assert api.manager.runs["initial", "ada"] == 0


async def test_a_body_of_the_largest_size_is_taken(api: Api) -> None:
    padding = b" " * (1024 * 1024 - 2)
    assert (await api.post("/v1/sync", data=io.BytesIO(b"{}" + padding))).status == 202
    assert (await api.post("/v1/sync", data=io.BytesIO(b"{} " + padding))).status == 413


async def test_a_compressed_bomb_is_just_bytes(api: Api) -> None:
    import zlib

    bomb = zlib.compress(b" " * 50_000_000)
    answer = await api.post("/v1/sync", data=bomb, headers={"Content-Encoding": "deflate"})
    assert (answer.status, answer.body["kind"]) == (400, "bad_request")


async def test_broken_framing_is_a_400(api: Api, wire: Connect) -> None:
    answer = await (await wire(api.port)).say(POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))


async def test_a_body_that_does_not_come_is_given_up_with_a_408(serve: Serve, wire: Connect) -> None:
    api = await serve(limits=Limits(body_seconds=0.05, stop_seconds=0.05))
    answer = await (await wire(api.port)).say(POST + b"Content-Length: 10\r\n\r\nhalf")
    assert answer.startswith(b"HTTP/1.1 408")
    assert body_of(answer)["kind"] == "body_slow"


# -- who would hold us up


async def test_a_connection_on_which_nothing_is_asked_is_closed(serve: Serve, wire: Connect) -> None:
    api = await serve(limits=Limits(idle_seconds=0.1))
    silent, slow, polite = await wire(api.port), await wire(api.port), await wire(api.port)
    slow.writer.write(b"POST /invocations HT")
    polite.writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert await silent.rest() == b""
    assert await slow.rest() == b""
    assert (await polite.rest()).startswith(b"HTTP/1.1 200")  # kept open, then closed


async def test_headers_that_trickle_do_not_get_more_time(serve: Serve, wire: Connect) -> None:
    api = await serve(limits=Limits(idle_seconds=0.2))
    connection = await wire(api.port)
    connection.writer.write(b"GET /livez HTTP/1.1\r\n")

    async def trickle() -> None:
        while True:
            connection.writer.write(b"X: y\r\n")
            await asyncio.sleep(0.01)

    trickling = asyncio.create_task(trickle())
    assert await connection.rest() == b""
    trickling.cancel()
    await asyncio.gather(trickling, return_exceptions=True)


async def test_a_thousand_silent_connections_keep_nobody_out(api: Api, wire: Connect) -> None:
    for port, path, health in (
        (api.port, "/invocations", False),
        (api.listeners.health_port, "/livez", True),
    ):
        for _ in range(10):
            await asyncio.gather(*(wire(port) for _ in range(100)))
        assert (await api.get(path, health=health)).status == 200


async def test_when_there_are_too_many_the_one_idle_for_longest_goes(serve: Serve, wire: Connect) -> None:
    api = await serve(limits=Limits(connections=40))
    api.manager.gate.clear()
    busy = await wire(api.port)
    busy.writer.write(POST + b"Connection: close\r\n\r\n")
    await until(lambda: api.manager.waiting_at_the_gate)
    idle = [await wire(api.port) for _ in range(40)]
    assert await idle[0].rest() == b""
    assert not any(connection.reader.at_eof() for connection in idle[1:])
    api.manager.gate.set()
    assert b'"restored"' in await busy.rest()


async def test_a_thousand_requests_at_once_are_all_answered(api: Api) -> None:
    api.manager.gate.clear()
    asked = [asyncio.create_task(api.post("/invocations")) for _ in range(1000)]
    await until(lambda: api.manager.waiting_at_the_gate)
    assert (await api.get("/livez", health=True)).status == 200
    api.manager.gate.set()
    answers = await asyncio.gather(*asked)
    assert {answer.status for answer in answers} == {200}
    assert api.manager.runs["initial", "ada"] == 1


async def test_a_reader_who_stalls_is_cut_off(serve: Serve, wire: Connect) -> None:
    api = await serve(limits=Limits(write_seconds=0.1))
    # More than the kernel's buffers of a loopback connection hold.
    api.manager.more_stats = {"much": "x" * 50_000_000}
    connection = await wire(api.port)
    connection.writer.write(b"GET /v1/stats HTTP/1.1\r\nHost: localhost\r\n\r\n")
    server, _ = api.listeners._serving[0]
    await until(lambda: server.connections)
    await until(lambda: not server.connections)


async def test_a_stop_does_not_wait_for_who_waits(serve: Serve, wire: Connect) -> None:
    api = await serve(limits=Limits(stop_seconds=0.05))
    api.manager.gate.clear()
    waiting = await wire(api.port)
    waiting.writer.write(b"POST /v1/sync?wait=durable&timeout=600 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await until(lambda: api.manager.waiting_at_the_gate)
    await api.listeners.stop()
    assert await waiting.rest() == b""
    assert api.manager.waiting_at_the_gate == 0
    assert listened(api.port) == set()


# -- logs


async def test_requests_are_logged_at_debug_without_their_parameters(api: Api, said: Said) -> None:
    await api.post("/v1/sync?wait=durable&secret=hunter2")
    (line,) = [line for line in said() if "/v1/sync" in line]
    assert line.startswith("DEBUG: POST /v1/sync 200")
    assert not any("hunter2" in line for line in said())


async def test_the_ids_of_a_request_are_in_the_json_lines_of_what_it_started(api: Api, lines: Lines) -> None:
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    api.manager.raises = RuntimeError("a fault")
    answer = await api.post(
        "/invocations", headers={"traceparent": f"00-{trace}-{span}-01", "x-request-id": "req-7"}
    )
    assert answer.headers["X-Request-Id"] == "req-7"
    written = [json.loads(JsonFormatter().format(record)) for record in lines.records]
    request = next(line for line in written if line["message"].startswith("POST /invocations"))
    fault = next(line for line in written if "failed" in line["message"])
    for line in (request, fault):
        assert (line["trace_id"], line["span_id"], line["request_id"]) == (trace, span, "req-7")


@pytest.mark.parametrize("odd", ["a b", "x" * 200, "ü", '{"level":"ERROR"}', ""])
async def test_what_is_no_id_is_not_logged(api: Api, lines: Lines, odd: str) -> None:
    answer = await api.get("/livez", headers={"traceparent": odd, "x-request-id": odd})
    assert "X-Request-Id" not in answer.headers
    assert all(not getattr(record, "fields", None) for record in lines.records)


async def test_requests_do_not_leave_their_ids_behind(api: Api, lines: Lines) -> None:
    await api.get("/livez", headers={"x-request-id": "first"})
    await api.get("/livez")
    fields = [getattr(record, "fields", None) for record in lines.records if "/livez" in record.getMessage()]
    assert fields == [{"request_id": "first"}, None]
