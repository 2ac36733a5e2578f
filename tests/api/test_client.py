"""The client that agents copy: it never raises into them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from sidecar.client import Client, SidecarFailed
from sidecar.settings import Settings
from tests.api.memory_manager import MemoryManager
from tests.api.serving import Api, settings
from tests.api.signing import Signer

Serve = Callable[..., Awaitable[Api]]


def client_of(api: Api, **options: Any) -> Client:
    return Client(f"http://127.0.0.1:{api.port}", **options)


async def in_thread(call: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(call)


async def test_the_initial_sync_and_a_flush(api: Api) -> None:
    client = client_of(api)
    first = await in_thread(client.ensure_initial_sync)
    assert (first.ok, first.action, first.user_id, first.files) == (True, "restored", "ada", 3)
    assert (await in_thread(client.ensure_initial_sync)).action == "already_synced"
    api.manager.write("ada", 9)
    synced = await in_thread(client.sync)
    assert (synced.ok, synced.durable, synced.bytes) == (True, True, 9)
    assert (await in_thread(client.restore)).action == "restored"


async def test_tokens_are_sent_in_the_header_that_was_set(
    serve: Serve, many: Settings, signer: Signer
) -> None:
    from msgspec.structs import replace

    api = await serve(replace(many, jwt_header="X-User-Token"))
    client = client_of(api, token=signer.token("ben"), header="X-User-Token")
    assert (await in_thread(client.ensure_initial_sync)).user_id == "ben"
    assert (await in_thread(lambda: client.ensure_initial_sync(signer.token("cy")))).user_id == "cy"
    refused = await in_thread(lambda: client.sync(token="forged"))
    assert (refused.ok, refused.status, refused.kind) == (False, 401, "token_refused")


async def test_without_waiting_begun_is_ok(api: Api) -> None:
    client = client_of(api, strict=True)
    api.manager.gate.clear()
    begun = await in_thread(lambda: client.ensure_initial_sync(wait=False))
    assert (begun.ok, begun.action) == (True, "started")
    assert (await in_thread(lambda: client.sync(wait=None))).status == 202
    api.manager.gate.set()


async def test_a_failed_sync_is_a_result_and_raised_only_if_asked_for(api: Api) -> None:
    api.manager.failures = 2
    failed = await in_thread(client_of(api).ensure_initial_sync)
    assert (failed.ok, failed.status, failed.kind) == (False, 200, "unreachable")
    with pytest.raises(SidecarFailed) as caught:
        await in_thread(client_of(api, strict=True).ensure_initial_sync)
    assert caught.value.result.kind == "unreachable"


async def test_no_bucket_is_not_ok(serve: Serve) -> None:
    api = await serve(settings(bucket=None), manager=MemoryManager(disabled=True))
    result = await in_thread(client_of(api).ensure_initial_sync)
    assert (result.ok, result.action) == (False, "disabled")


async def test_a_sidecar_that_takes_too_long_is_given_up(api: Api) -> None:
    api.manager.gate.clear()
    client = client_of(api)
    late = await in_thread(lambda: client.ensure_initial_sync(timeout=0.1))
    assert (late.ok, late.status, late.kind) == (False, None, "timeout")
    api.manager.gate.set()


@pytest.fixture
def garbage() -> Iterator[Callable[[bytes], int]]:
    """``garbage(answer)`` is the port of a server that says `answer` whatever it is asked."""
    servers: list[tuple[socket.socket, threading.Thread]] = []

    def start(answer: bytes) -> int:
        server = socket.create_server(("127.0.0.1", 0))

        def serve_once() -> None:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve_once)
        thread.start()
        servers.append((server, thread))
        return int(server.getsockname()[1])

    yield start
    for server, thread in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nxyz",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xff",
    ],
)
def test_an_answer_that_is_none_is_a_result(garbage: Callable[[bytes], int], answer: bytes) -> None:
    result = Client(f"http://127.0.0.1:{garbage(answer)}").sync()
    assert (result.ok, result.kind) == (False, "unreachable")
    assert result.error


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("http://127.0.0.1:1", None),
        ("http://127.0.0.1:99999", None),
        ("http://[::1", None),
        ("", None),
        ("http://127.0.0.1:1", "a token\nwith a line"),
        ("http://127.0.0.1:1", "tökén→"),
    ],
)
def test_nothing_that_can_be_given_raises(url: str, token: str | None) -> None:
    result = Client(url, token).ensure_initial_sync(timeout=1)
    assert (result.ok, result.status) == (False, None)


def test_a_proxy_in_the_environment_is_not_asked(
    garbage: Callable[[bytes], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"durable":true}'
    assert Client(f"http://127.0.0.1:{garbage(answer)}").sync().ok is True
