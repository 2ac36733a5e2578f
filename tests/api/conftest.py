"""``serve(settings(...))`` starts an API; ``api`` is one of a fixed user; ``signer`` signs tokens."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.logs import log
from sidecar.settings import Settings
from tests.api.serving import Api, closed, opened, settings
from tests.api.signing import SECRET, Signer

Serve = Callable[..., Awaitable[Api]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts APIs that end with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(given: Settings | None = None, **options: Any) -> Api:
            api = await opened(given or settings(), **options)
            stack.push_async_callback(closed, api)
            return api

        yield start


@pytest.fixture
async def api(serve: Serve) -> Api:
    """A pod with the fixed user ``ada``."""
    return await serve()


@pytest.fixture(scope="session")
def signer() -> Signer:
    """Whoever issues tokens: an RSA pair, an EC pair, an Ed25519 pair and a secret."""
    return Signer()


@pytest.fixture
def many(signer: Signer, tmp_path: Path) -> Settings:
    """Settings of a pod that serves many users, known by tokens of `signer`."""
    return settings(
        user_id=None, home="/home/{user_id}/.claude", jwt_public_key_file=signer.public_pem_file(tmp_path)
    )


@pytest.fixture
def pem(signer: Signer, tmp_path: Path) -> dict[str, Any]:
    return {"user_id": None, "jwt_public_key_file": signer.public_pem_file(tmp_path)}


@pytest.fixture
def jwks(signer: Signer, tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "jwks.json"
    file.write_bytes(signer.jwks())
    return {"user_id": None, "jwt_jwks_file": str(file)}


@pytest.fixture
def secret(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    return {"user_id": None, "jwt_secret_file": str(file)}


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Every record that the sidecar logs, DEBUG too."""
    handler, was = Lines(), log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    yield handler
    log.setLevel(was)
    log.removeHandler(handler)


@pytest.fixture
def said(lines: Lines) -> Callable[[], list[str]]:
    """The lines that the sidecar logged so far."""
    return lambda: [f"{record.levelname}: {record.getMessage()}" for record in lines.records]
