"""``/invocations``: the first request of a user brings their ``.claude``; the others find it done.

No failure of ours fails the caller's request: it is a 200 whose action is ``failed``, and the next request
tries again.
"""

from __future__ import annotations

from typing import Any

from sidecar.api import web
from sidecar.api.flights import Flights
from sidecar.api.identity import Verifier
from sidecar.api.manager import Manager
from sidecar.api.refusals import BadRequest, Broken, Busy, IdentityUnavailable, Refusal
from sidecar.api.replies import reply
from sidecar.api.tenancy import Tenancy
from sidecar.errors import SidecarError
from sidecar.logs import log
from sidecar.sync.results import SyncResult

FIELDS = ("user_id", "synced", "action", "files", "bytes", "error", "kind", "hint")


def invocation(result: SyncResult) -> dict[str, Any]:
    """The answer that `result` is."""
    return {name: getattr(result, name) for name in FIELDS}


def failed(user_id: str, error: SidecarError) -> SyncResult:
    """The result of a sync that `error` kept from running."""
    return SyncResult(
        user_id, synced=False, action="failed", error=error.message, kind=error.kind, hint=error.hint
    )


def broken(user_id: str, what: str, problem: Exception) -> SyncResult:
    """The result of a sync that failed by a fault of ours; the log holds the fault."""
    log.error("%s of user %s failed: %s", what, user_id, type(problem).__name__, exc_info=problem)
    return failed(user_id, Broken())


class InitialSyncs:
    """One initial sync for each user, however many ask; done ones are known without asking anybody."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._synced: set[str] = set()
        self._flights = Flights(self._run)

    def known(self, user_id: str) -> bool:
        """Whether it is done."""
        return user_id in self._synced

    def start(self, user_id: str) -> None:
        """Let it run. Raises Busy."""
        self._flights.start(user_id)

    async def ensure(self, user_id: str) -> SyncResult:
        """Wait for it. Raises Busy."""
        if self.known(user_id):
            return SyncResult(user_id, synced=True, action="already_synced")
        return await self._flights.join(user_id)

    async def stop(self) -> None:
        """End what runs."""
        await self._flights.stop()

    async def _run(self, user_id: str) -> SyncResult:
        try:
            result = await self._manager.ensure_initial_sync(user_id)
        except SidecarError as error:
            return failed(user_id, error)
        except Exception as problem:
            return broken(user_id, "The initial sync", problem)
        if result.synced:
            self._synced.add(user_id)
        return result


class Invocations:
    """Answers ``/invocations``."""

    def __init__(self, verifier: Verifier, tenancy: Tenancy, initial: InitialSyncs) -> None:
        self._verifier = verifier
        self._tenancy = tenancy
        self._initial = initial

    async def invocations(self, request: web.BaseRequest, body: bytes) -> web.Response:
        waits = _waits(request)
        user_id = ""
        try:
            user_id = self._tenancy.admit(await self._verifier.user_of(request.headers))
            if not waits and not self._initial.known(user_id):
                self._initial.start(user_id)
                return reply(200, invocation(SyncResult(user_id, synced=False, action="started")))
            return reply(200, invocation(await self._initial.ensure(user_id)))
        except (IdentityUnavailable, Busy) as ours:
            return reply(200, invocation(failed(user_id, ours)))
        except Refusal:
            raise
        except Exception as problem:
            return reply(200, invocation(broken(user_id, "The request", problem)))


def _waits(request: web.BaseRequest) -> bool:
    word = request.query.get("wait", "true").lower()
    if word in ("true", "1"):
        return True
    if word in ("false", "0"):
        return False
    raise BadRequest("wait is neither true nor false", "write ?wait=false, or leave it out")
