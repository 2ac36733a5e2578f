"""A running API on free ports, and the ways to talk to it that the tests need."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from sidecar.api.connections import Limits
from sidecar.api.identity import Verifier
from sidecar.api.listeners import Listeners
from sidecar.api.metrics import Metrics
from sidecar.settings import Settings
from tests.api.memory_manager import MemoryManager


def settings(**changes: Any) -> Settings:
    """Settings of a pod with the fixed user ``ada``, on free ports; `changes` are fields."""
    fields: dict[str, Any] = {
        "bucket": "bucket",
        "home": "/home/agent/.claude",
        "state_dir": Path("/var/lib/claude-sidecar"),
        "user_id": "ada",
        "api_port": 0,
        "health_port": 0,
    }
    return Settings(**{**fields, **changes})


@dataclass
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: Mapping[str, str]
    """Whatever the case of their names."""


@dataclass
class Api:
    """One running API."""

    listeners: Listeners
    manager: MemoryManager
    metrics: Metrics
    session: aiohttp.ClientSession

    @property
    def port(self) -> int:
        return self.listeners.api_port

    def url(self, path: str, *, health: bool = False) -> str:
        return f"http://127.0.0.1:{self.listeners.health_port if health else self.port}{path}"

    async def call(
        self, method: str, path: str, *, health: bool = False, token: str | None = None, **options: Any
    ) -> Answer:
        """One request; its answer with the body as JSON where it is JSON."""
        headers = dict(options.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        url = self.url(path, health=health)
        async with self.session.request(method, url, headers=headers, **options) as response:
            is_json = response.content_type == "application/json" and method != "HEAD"
            body = await response.json() if is_json else await response.text()
            return Answer(response.status, body, response.headers)

    async def post(self, path: str, **options: Any) -> Answer:
        return await self.call("POST", path, **options)

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.call("GET", path, **options)


async def opened(
    given: Settings,
    manager: MemoryManager | None = None,
    limits: Limits | None = None,
    clock: Callable[[], float] | None = None,
) -> Api:
    """The API of `given`, serving. `closed` ends it."""
    manager = manager or MemoryManager()
    metrics = Metrics()
    verifier = Verifier.from_settings(given, **({"clock": clock} if clock else {}))
    listeners = Listeners(given, manager, verifier, metrics, limits)
    await listeners.start()
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=30)
    )
    return Api(listeners, manager, metrics, session)


async def closed(api: Api) -> None:
    await api.session.close()
    await api.listeners.stop()


async def until(condition: Callable[[], Any]) -> None:
    """Wait for `condition`; the test's own time limit ends a wait for ever."""
    while not condition():
        await asyncio.sleep(0.002)
