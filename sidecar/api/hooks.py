"""``POST /hooks/claude``: Claude Code says that something happened; there may be something to flush.

The answer is always 200 ``{}``, whatever came and however busy we are: a hook's answer can steer or block the
agent, and we want neither. A body that is late, too large or broken counts as "something changed": the hook
after a tool carries the tool's whole answer. Of a body only ``hook_event_name`` is read; paths in it are the
agent's word, and the sidecar looks at its own home.
"""

from __future__ import annotations

import asyncio

import orjson

from sidecar.api import bodies, web
from sidecar.api.connections import Limits
from sidecar.api.identity import Verifier
from sidecar.api.manager import Manager
from sidecar.api.refusals import Refusal
from sidecar.api.replies import reply
from sidecar.logs import log

# These come before anything is written. Every other event counts as a change, those nobody knows yet too.
# https://code.claude.com/docs/en/hooks
QUIET_EVENTS = frozenset({"PreToolUse", "PermissionRequest", "Notification", "SessionStart"})
COALESCE_SECONDS = 0.05
"""A burst of tool calls tells the manager once in this time: far below the delay of a flush."""


class Hooks:
    """Answers the hooks."""

    def __init__(self, manager: Manager, verifier: Verifier, limits: Limits) -> None:
        self._manager = manager
        self._verifier = verifier
        self._limits = limits
        self._pending: set[str | None] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def hooks(self, request: web.BaseRequest, body: bytes) -> web.Response:
        complete, event = await self._event_of(request)
        if event not in QUIET_EVENTS:
            self._changed(self._verifier.user_now(request.headers))
        response = reply(200, {})
        if not complete:
            response.force_close()
        return response

    def stop(self) -> None:
        """Tell the manager what is still to be told."""
        if self._timer is not None:
            self._timer.cancel()
            self._tell()

    async def _event_of(self, request: web.BaseRequest) -> tuple[bool, str]:
        """Whether the body was read to its end, and its event; an empty name where it gives none."""
        try:
            body = await bodies.read(request, self._limits.body_bytes, self._limits.hook_body_seconds)
        except Refusal:
            return False, ""
        try:
            event = orjson.loads(body)
        except orjson.JSONDecodeError:
            return True, ""
        name = event.get("hook_event_name") if isinstance(event, dict) else None
        return True, name if isinstance(name, str) else ""

    def _changed(self, user_id: str | None) -> None:
        self._pending.add(user_id)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(COALESCE_SECONDS, self._tell)

    def _tell(self) -> None:
        self._timer = None
        users, self._pending = self._pending, set()
        for user_id in (None,) if None in users else users:
            try:
                self._manager.changed(user_id)
            except Exception as problem:
                log.error("A hook could not be passed on: %s", type(problem).__name__, exc_info=problem)
