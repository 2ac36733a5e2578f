"""From a request to its answer: find the call in the table, read the body, answer, count, log.

Every error is JSON with ``error``, ``kind`` and ``hint``. Requests are logged at DEBUG only.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from sidecar.api import bodies, trace, web
from sidecar.api.connections import Limits, Server
from sidecar.api.metrics import ROUTE_OTHER, Metrics
from sidecar.api.refusals import (
    Broken,
    FromAPage,
    MethodUnknown,
    PathUnknown,
    Refusal,
)
from sidecar.api.replies import refused
from sidecar.api.routes import Route
from sidecar.logs import log

Call = Callable[[web.BaseRequest, bytes], Awaitable[web.Response]]


class Application:
    """Answers the requests of one listener: those of `routes`, by the coroutines of `calls`."""

    def __init__(
        self,
        routes: Sequence[Route],
        calls: Mapping[str, Call],
        metrics: Metrics,
        limits: Limits,
        *,
        loopback: bool = False,
    ) -> None:
        self._routes = {route.path: route for route in routes}
        self._calls = {route.path: calls[route.call] for route in routes}
        self._metrics = metrics
        self._limits = limits
        self._loopback = loopback

    def server(self) -> Server:
        """The server that answers by this application. Needs a running loop."""
        return Server(self.answer, self._limits)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to `request`; only a caller who went away ends it with an exception."""
        started = time.perf_counter()
        ids = trace.begin(request.headers)
        route = self._routes.get(request.path)
        try:
            response = await self._answered(request, route)
        except Refusal as refusal:
            response = refused(refusal)
        except ConnectionError:
            raise
        except Exception as problem:
            log.error("A request failed: %s", type(problem).__name__, exc_info=problem)
            response = refused(Broken())
        if request_id := ids.get("request_id"):
            response.headers["X-Request-Id"] = request_id
        path = route.path if route else ROUTE_OTHER
        self._metrics.http_request(path, response.status)
        milliseconds = 1000 * (time.perf_counter() - started)
        log.debug("%s %s %d %.1f ms", request.method, path, response.status, milliseconds)
        return response

    async def _answered(self, request: web.BaseRequest, route: Route | None) -> web.Response:
        if self._loopback and _comes_from_a_page(request):
            raise FromAPage()
        if route is None:
            raise PathUnknown(tuple(self._routes))
        if not route.takes(request.method):
            raise MethodUnknown(route.methods)
        body = b""
        if route.body != "hook":  # a hook reads its own: it is never refused
            body = await bodies.read(request, self._limits.body_bytes, self._limits.body_seconds)
        return await self._calls[route.path](request, body)


def _comes_from_a_page(request: web.BaseRequest) -> bool:
    """True for what only a browser sends: an Origin, or a Host that was made to resolve to loopback.

    https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Origin
    """
    if request.headers.get("Origin"):
        return True
    host = request.headers.get("Host", "")
    name = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return name.lower() not in ("", "localhost", "127.0.0.1", "::1")
