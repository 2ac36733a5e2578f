"""The two listeners: triggers on loopback alone, health on all addresses, both over IPv4 and IPv6.

The one place where the API is put together. A port that cannot be had is said before anything is served.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from sidecar.api import openapi, web
from sidecar.api.application import Application, Call
from sidecar.api.connections import Limits, Server
from sidecar.api.health import Health
from sidecar.api.hooks import Hooks
from sidecar.api.identity import Verifier
from sidecar.api.invocations import InitialSyncs, Invocations
from sidecar.api.manager import Manager
from sidecar.api.metrics import Metrics
from sidecar.api.replies import raw, reply
from sidecar.api.routes import ROUTES
from sidecar.api.scrapes import Scrapes
from sidecar.api.tenancy import Tenancy
from sidecar.api.trace import TraceFilter
from sidecar.api.triggers import Triggers
from sidecar.errors import SettingsError
from sidecar.logs import log
from sidecar.settings import Settings

LOOPBACK = ("127.0.0.1", "::1")
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - the kubelet asks the pod's IP; this listener only reads, and drains
BACKLOG = 512
FILES_WANTED = 8192
"""Open files that we ask for: container runtimes give 1024 by default, and raise it on request."""
FILES_FOR_SYNC = 256
"""Of these, what transfers and the home may need: connections take their share of the rest."""
NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


class Listeners:
    """The API of one process. `start` serves until `stop`.

    Port 0 in `settings` takes any free port: `api_port` and `health_port` say which.
    """

    def __init__(
        self,
        settings: Settings,
        manager: Manager,
        verifier: Verifier,
        metrics: Metrics,
        limits: Limits | None = None,
    ) -> None:
        self._settings = settings
        self._limits = limits or Limits()
        self._verifier = verifier
        self._metrics = metrics
        self._scrapes = Scrapes(metrics)
        self._trace = TraceFilter()
        metrics.watch(manager)
        verifier.tell(metrics.token_refused, metrics.identity_unavailable)
        self._serving: list[tuple[Server, list[asyncio.Server]]] = []
        tenancy = Tenancy(settings, manager.users)
        self._initial = InitialSyncs(manager)
        self._invocations = Invocations(verifier, tenancy, self._initial)
        self._triggers = Triggers(manager, verifier, tenancy, self._initial, settings.serves_many_users)
        self._hooks = Hooks(manager, verifier, self._limits)
        self._health = Health(manager)
        self.api_port = settings.api_port
        self.health_port = settings.health_port

    def _calls(self) -> dict[str, Call]:
        """The coroutine behind each name in the table of routes."""
        return {
            "invocations": self._invocations.invocations,
            "sync": self._triggers.sync,
            "restore": self._triggers.restore,
            "stats": self._triggers.stats,
            "hooks": self._hooks.hooks,
            "livez": self._health.livez,
            "readyz": self._health.readyz,
            "startupz": self._health.startupz,
            "prestop": self._health.prestop,
            "metrics": self._scrape,
            "openapi": self._document,
        }

    async def start(self) -> None:
        """Serve.

        Raises
        ------
        SettingsError: a port is taken or not ours to take.
        """
        api = bound(LOOPBACK, self.api_port, "CLAUDE_SIDECAR_API_PORT")
        try:
            health = bound(EVERYWHERE, self.health_port, "CLAUDE_SIDECAR_HEALTH_PORT")
        except SettingsError:
            _close(api)
            raise
        self.api_port, self.health_port = _port(api), _port(health)
        log.addFilter(self._trace)
        limits = _within_open_files(self._limits)
        # An eighth for health: probes come one by one, and whoever else reaches that port is a stranger.
        few = replace(limits, connections=max(32, limits.connections // 8))
        on_loopback = Application(ROUTES, self._calls(), self._metrics, limits, loopback=True)
        await self._serve(on_loopback, api)
        on_health = [route for route in ROUTES if route.everywhere]
        calls = {**self._calls(), "readyz": self._health.readyz_for_strangers}
        await self._serve(Application(on_health, calls, self._metrics, few), health)

    async def stop(self) -> None:
        """Serve no more; requests under way have a moment, and what they wait for is cancelled."""
        self._hooks.stop()
        for server, listening in self._serving:
            for one in listening:
                one.close()
            await asyncio.sleep(0)  # what was accepted already begins, and is waited for
            server.pre_shutdown()
            await server.shutdown(self._limits.stop_seconds)
        self._serving.clear()
        await self._triggers.stop()
        await self._initial.stop()
        await self._verifier.close()
        log.removeFilter(self._trace)

    async def _serve(self, application: Application, sockets: Sequence[socket.socket]) -> None:
        server, loop = application.server(), asyncio.get_running_loop()
        listening = [await loop.create_server(server, sock=one, backlog=BACKLOG) for one in sockets]
        self._serving.append((server, listening))

    async def _scrape(self, request: web.BaseRequest, body: bytes) -> web.Response:
        text, content_type = self._scrapes.text(request.headers.get("Accept", ""))
        return raw(200, text, content_type)

    async def _document(self, request: web.BaseRequest, body: bytes) -> web.Response:
        return reply(200, openapi.document(self._settings.jwt_header))


def bound(addresses: Sequence[str], port: int, variable: str) -> list[socket.socket]:
    """A bound socket for each of `addresses` that this kernel has, all on one port.

    Raises
    ------
    SettingsError: the port is taken, not ours to take, or there is none of the addresses.
    """
    sockets: list[socket.socket] = []
    for address in addresses:
        try:
            sockets.append(_socket(address, _port(sockets) if sockets else port))
        except OSError as problem:
            if problem.errno in NO_SUCH_FAMILY:
                log.info("Not listening on %s: this kernel does not have it", address)
                continue
            _close(sockets)
            raise SettingsError(*_why_not(problem, address, port, variable)) from None
    if not sockets:
        raise SettingsError(f"none of {', '.join(addresses)} can be listened on", "look at the pod's network")
    return sockets


def _socket(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.setblocking(False)
        listening.bind((address, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _why_not(problem: OSError, address: str, port: int, variable: str) -> tuple[str, str]:
    if problem.errno == errno.EADDRINUSE:
        return f"port {port} on {address} is taken", f"set {variable} to a free port"
    if problem.errno == errno.EACCES:
        return f"port {port} on {address} is for root alone", f"set {variable} to 1024 or more"
    return f"port {port} on {address} cannot be listened on: {problem.strerror}", f"set {variable} to another"


def _port(sockets: Sequence[socket.socket]) -> int:
    name: Any = sockets[0].getsockname()
    return int(name[1])


def _close(sockets: Sequence[socket.socket]) -> None:
    for listening in sockets:
        listening.close()


def _within_open_files(limits: Limits) -> Limits:
    """`limits` with no more connections than there are files to hold them, beside those of the sync."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft == resource.RLIM_INFINITY:
        return limits
    return replace(limits, connections=min(limits.connections, max(32, (soft - FILES_FOR_SYNC) * 3 // 4)))
