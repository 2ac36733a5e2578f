"""``/livez``, ``/readyz``, ``/startupz`` for the kubelet, and ``/prestop``, its word that the pod ends.

The health listener is open to all addresses: what it says of files are numbers, never their names.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sidecar.api import web
from sidecar.api.manager import Manager
from sidecar.api.replies import reply
from sidecar.logs import log

DRAIN_FLOOR_SECONDS = 1.0
"""``/prestop`` is open to all addresses: within this time of one call the next ones cost nothing."""


class Health:
    """Answers the probes."""

    def __init__(self, manager: Manager, clock: Callable[[], float] = time.monotonic) -> None:
        self._manager = manager
        self._clock = clock
        self._drained_at = float("-inf")

    async def livez(self, request: web.BaseRequest, body: bytes) -> web.Response:
        return _probe(self._manager.liveness)

    async def readyz(self, request: web.BaseRequest, body: bytes) -> web.Response:
        return _probe(self._manager.readiness)

    async def readyz_for_strangers(self, request: web.BaseRequest, body: bytes) -> web.Response:
        return _probe(self._manager.readiness, without=("unreadable",))

    async def startupz(self, request: web.BaseRequest, body: bytes) -> web.Response:
        return _probe(self._manager.started)

    async def prestop(self, request: web.BaseRequest, body: bytes) -> web.Response:
        now = self._clock()
        if now - self._drained_at >= DRAIN_FLOOR_SECONDS:
            self._manager.drain("preStop")
            self._drained_at = now
        return reply(200, {"draining": True})


def _probe(ask: Callable[[], tuple[bool, dict[str, Any]]], without: tuple[str, ...] = ()) -> web.Response:
    try:
        well, why = ask()
    except Exception as problem:
        log.error("A probe failed: %s", type(problem).__name__, exc_info=problem)
        well, why = False, {"reason": "the sidecar failed on this probe; its log says why"}
    told = {name: value for name, value in why.items() if name not in without}
    return reply(200 if well else 503, {**told, "ok": well})
