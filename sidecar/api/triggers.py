"""``/v1/sync``, ``/v1/restore``, ``/v1/stats``: what a person, a script or an agent asks for by name.

Who waits for a flush gets one that started after they asked: one under way may have looked at a file before
its last line was written. All who wait for the next one share it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from sidecar import __version__
from sidecar.api import web
from sidecar.api.bodies import json_object
from sidecar.api.flights import Turns
from sidecar.api.identity import Verifier
from sidecar.api.invocations import InitialSyncs, broken, failed, invocation
from sidecar.api.manager import Manager
from sidecar.api.refusals import BadRequest, Busy, IdentityUnavailable
from sidecar.api.replies import reply
from sidecar.api.routes import MOST_WAIT_SECONDS
from sidecar.api.tenancy import Tenancy
from sidecar.errors import SidecarError
from sidecar.sync.results import BackupResult, SyncResult

DEFAULT_WAIT_SECONDS = 25.0
"""Under the 30 s that Kubernetes gives a pod to end: a preStop hook that waits is answered in time."""
MOST_REFUSED_LISTED = 100
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0)
"""Pauses between attempts of one waiting caller; the last one repeats until their time is up."""


class Ask(Struct, frozen=True):
    """The parameters of ``/v1/sync``: from the query, else from the body."""

    wait: str | None
    timeout_seconds: float

    @classmethod
    def of(cls, request: web.BaseRequest, body: bytes) -> Ask:
        """What `request` asks for; what cannot be meant is refused in either place.

        Raises
        ------
        BadRequest
        """
        in_body = _checked(json_object(body), numbers=(int, float))
        in_query = _checked(request.query, numbers=(str,))
        given = {**in_body, **in_query}
        return cls(given.get("wait"), given.get("timeout", DEFAULT_WAIT_SECONDS))


def _checked(given: Mapping[str, Any], numbers: tuple[type, ...]) -> dict[str, Any]:
    """The parameters in `given`; `numbers` is what a number looks like there."""
    known: dict[str, Any] = {}
    if "wait" in given:
        if given["wait"] not in ("durable", "checkpoint"):
            raise BadRequest("wait is neither durable nor checkpoint", "write ?wait=durable, or leave it out")
        known["wait"] = given["wait"]
    if "timeout" in given:
        known["timeout"] = _seconds(given["timeout"], numbers)
    return known


def _seconds(value: Any, numbers: tuple[type, ...]) -> float:
    seconds = math.nan
    if type(value) in numbers:  # True is an int, but no number of seconds
        with contextlib.suppress(ValueError):
            seconds = float(value)
    if not 0 < seconds <= MOST_WAIT_SECONDS:
        raise BadRequest(
            "timeout is not a number of seconds in bounds",
            f"give more than 0 and at most {MOST_WAIT_SECONDS}",
        )
    return seconds


def synced(results: Iterable[BackupResult]) -> dict[str, Any]:
    """The answer of ``/v1/sync`` for the users' `results`: durable only if all are."""
    results = tuple(results)
    refused = [r for result in results for r in result.refused]
    first_error = next((r for r in results if r.error), None)
    return {
        "durable": all(r.durable for r in results),
        "generation": max((r.generation for r in results), default=0),
        "files": sum(r.files for r in results),
        "bytes": sum(r.bytes for r in results),
        "unsynced_bytes": sum(r.unsynced_bytes for r in results),
        "refused": [{"path": r.path, "reason": r.reason} for r in refused[:MOST_REFUSED_LISTED]],
        "refused_count": len(refused),
        "error": first_error.error if first_error else None,
        "kind": first_error.kind if first_error else None,
        "hint": first_error.hint if first_error else None,
    }


class Triggers:
    """Answers the calls under ``/v1``."""

    def __init__(
        self, manager: Manager, verifier: Verifier, tenancy: Tenancy, initial: InitialSyncs, many_users: bool
    ) -> None:
        self._manager = manager
        self._verifier = verifier
        self._tenancy = tenancy
        self._initial = initial
        self._many_users = many_users
        self._flushes = Turns(self._flush)
        self._checkpoints = Turns(self._checkpoint)
        self._restores = Turns(self._restore)

    async def sync(self, request: web.BaseRequest, body: bytes) -> web.Response:
        ask = Ask.of(request, body)
        users = await self._users_of(request)
        if not users:
            return self._nobody()
        turns = self._checkpoints if ask.wait == "checkpoint" else self._flushes
        if ask.wait is None:
            for user_id in users:
                turns.start(user_id)
            return reply(202, synced(self._unfinished(user_id) for user_id in users))
        latest: dict[str, BackupResult] = {}
        try:
            async with asyncio.timeout(ask.timeout_seconds):
                await asyncio.gather(*(self._until_durable(turns, user_id, latest) for user_id in users))
        except TimeoutError:
            return reply(504, synced(latest.get(user_id) or self._late(user_id) for user_id in users))
        answer = synced(latest[user_id] for user_id in users)
        return reply(200 if answer["durable"] or answer["kind"] == "disabled" else 502, answer)

    async def restore(self, request: web.BaseRequest, body: bytes) -> web.Response:
        json_object(body)
        try:
            user_id = self._tenancy.admit(await self._verifier.user_of(request.headers))
        except IdentityUnavailable as ours:
            return reply(502, invocation(failed("", ours)))
        result = await self._restores.join(user_id)
        return reply(502 if result.action == "failed" else 200, invocation(result))

    async def stats(self, request: web.BaseRequest, body: bytes) -> web.Response:
        ready, why = self._manager.readiness()
        more = {"version": __version__, "ready": ready, "readiness": why}
        return reply(200, {**more, **self._manager.get_stats()})

    async def stop(self) -> None:
        """End what runs."""
        for turns in (self._flushes, self._checkpoints, self._restores):
            await turns.stop()

    async def _users_of(self, request: web.BaseRequest) -> tuple[str, ...]:
        user_id = await self._verifier.user_if_any(request.headers)
        return self._manager.users() if user_id is None else (self._tenancy.admit(user_id),)

    def _nobody(self) -> web.Response:
        """No user is known. Where each has a home of their own, nothing is all there is: it is durable."""
        if self._many_users:
            return reply(200, synced(()))
        unknown = BackupResult(
            "",
            durable=False,
            error="nobody has said yet whose .claude this is, so nothing of it can be durable",
            kind="no_user",
            hint="send the user's first request to /invocations, or set CLAUDE_SIDECAR_USER_ID",
        )
        return reply(502, synced([unknown]))

    async def _until_durable(
        self, turns: Turns[str, BackupResult], user_id: str, latest: dict[str, BackupResult]
    ) -> None:
        """Try until all of `user_id` is durable, or until trying again cannot help; keep the last outcome."""
        attempt = 0
        while True:
            try:
                result = latest[user_id] = await turns.join(user_id)
            except Busy as busy:
                latest[user_id] = _not_backed_up(failed(user_id, busy))
                return
            if result.durable or not _may_pass(result):
                return
            await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
            attempt += 1

    def _unfinished(self, user_id: str) -> BackupResult:
        """What is known of a user whose flush has not ended."""
        known = self._manager.get_stats().get("users", {}).get(user_id, {})
        last = known.get("last_backup") or {}
        return BackupResult(
            user_id,
            durable=False,
            generation=last.get("generation", 0),
            unsynced_bytes=known.get("unsynced_bytes") or 0,
        )

    def _late(self, user_id: str) -> BackupResult:
        return replace(
            self._unfinished(user_id),
            error="time is up before everything was durable",
            kind="timeout",
            hint="it goes on in the background; ask again, or give a longer timeout",
        )

    async def _flush(self, user_id: str) -> BackupResult:
        return await self._backed_up(user_id, checkpoint=False)

    async def _checkpoint(self, user_id: str) -> BackupResult:
        return await self._backed_up(user_id, checkpoint=True)

    async def _backed_up(self, user_id: str, *, checkpoint: bool) -> BackupResult:
        try:
            # Nothing is flushed over an area that nobody has read yet.
            first = await self._initial.ensure(user_id)
            if not first.synced:
                return _not_backed_up(first)
            if checkpoint:
                return await self._manager.backup_user_claude_dir(user_id)
            return await self._manager.flush(user_id)
        except SidecarError as error:
            return _not_backed_up(failed(user_id, error))
        except Exception as problem:
            return _not_backed_up(broken(user_id, "The backup", problem))

    async def _restore(self, user_id: str) -> SyncResult:
        try:
            return await self._manager.restore_user(user_id)
        except SidecarError as error:
            return failed(user_id, error)
        except Exception as problem:
            return broken(user_id, "The restore", problem)


def _not_backed_up(first: SyncResult) -> BackupResult:
    disabled = "disabled" if first.action == "disabled" else None
    return BackupResult(
        first.user_id,
        durable=False,
        error=first.error or "sync is disabled",
        kind=first.kind or disabled,
        hint=first.hint,
    )


def _may_pass(result: BackupResult) -> bool:
    """Whether another attempt may do better: an outage, or files that moved under our hands."""
    return result.error is None or result.kind in OUTAGES


def _outages(root: type[SidecarError]) -> frozenset[str]:
    own = {root.kind} if root.outage else set()
    return frozenset(own).union(*(_outages(sub) for sub in root.__subclasses__()))


OUTAGES = _outages(SidecarError)
