"""Connections that cannot be held against us: bounded in number, each with a time limit for each state.

A connection is idle (nothing asked yet, or between two requests) or busy. When there are too many, the one
that was idle for longest goes: half-open connections never keep a probe or an agent out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct

from sidecar.api import web
from sidecar.api.refusals import BadRequest, Broken
from sidecar.api.replies import refused
from sidecar.logs import log

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Limits(Struct, frozen=True):
    """What a caller may take of us.

    ``idle_seconds`` bounds the wait for the next request including its headers: longer than the 4 to 15 s for
    which HTTP clients keep a connection, so that they, not we, end it. ``connections`` is for each listener.
    """

    idle_seconds: float = 30.0
    body_seconds: float = 10.0
    write_seconds: float = 10.0
    hook_body_seconds: float = 1.0
    stop_seconds: float = 1.0
    body_bytes: int = 1024 * 1024
    header_bytes: int = 32 * 1024
    connections: int = 1024


class Server(web.Server):
    """aiohttp's server with a bound on connections."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        # A caller who goes away frees their handler at once; the work behind it is shielded.
        super().__init__(self._answer, handler_cancellation=True)
        self.limits = limits
        self._handler = handler
        self._open = 0
        self._idle: dict[web.RequestHandler, None] = {}

    def __call__(self) -> web.RequestHandler:
        return Connection(self)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._open += 1
        self.idle(handler)
        if self._open > self.limits.connections:
            oldest = next(iter(self._idle))
            self.busy(oldest)
            if oldest.transport is not None:
                oldest.transport.abort()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        self._open -= 1
        self.busy(handler)
        super().connection_lost(handler, exc)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.busy(request.protocol)
        return await self._handler(request)

    def busy(self, handler: web.RequestHandler) -> None:
        """`handler` works on a request: it is not one to end."""
        self._idle.pop(handler, None)

    def idle(self, handler: web.RequestHandler) -> None:
        """`handler` waits for a request, from now on."""
        self._idle.pop(handler, None)
        self._idle[handler] = None


class Connection(web.RequestHandler):
    """One connection. What is no HTTP gets a JSON answer and no traceback; a reader who stalls is cut off."""

    __slots__ = ("_server",)

    def __init__(self, server: Server) -> None:
        limits = server.limits
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # ours is in `application`
            keepalive_timeout=limits.idle_seconds,
            lingering_time=limits.stop_seconds,
            max_field_size=limits.header_bytes,
            auto_decompress=False,  # a body is bounded as it is, not as what it unfolds to
        )
        self._server = server

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status == 400:
            log.debug("A request could not be read: %s", type(exc).__name__)
            response = refused(
                BadRequest("this is no HTTP/1.1 request that can be read", "look at its headers")
            )
        else:
            log.error("A request failed: %s", type(exc).__name__, exc_info=exc)
            response = refused(Broken())
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        try:
            async with asyncio.timeout(self._server.limits.write_seconds):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            return resp, True
        finally:
            if self.transport is not None:
                self._server.idle(self)
