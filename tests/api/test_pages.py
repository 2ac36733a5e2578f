"""A page on the web must not reach the loopback of whoever looks at it."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Sidecar, environ_of
from tests.sync.pods import MakeSettings


def answer(port: int, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.putrequest("POST", "/v1/sync", skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        got = connection.getresponse()
        return got.status, json.loads(got.read())
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 202),
        ({"Host": "localhost:8377"}, 202),
        ({"Host": "[::1]:8377"}, 202),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example:8377"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
    ],
)
def test_only_a_caller_of_this_host_is_answered(
    headers: dict[str, str], status: int, page_target: Sidecar
) -> None:
    got, body = answer(page_target.api_port, headers)
    assert got == status
    assert (body.get("kind") == "from_a_page") == (status == 403)


@pytest.fixture
def page_target(bucket: str, settings_for: MakeSettings, tmp_path: Path) -> Iterator[Sidecar]:
    with Sidecar(environ_of(settings_for(bucket, user_id="ada")), tmp_path / "log") as running:
        running.wait_for("/readyz")
        yield running
