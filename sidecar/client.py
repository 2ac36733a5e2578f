"""A client of the sidecar's trigger API: one file, standard library only. Copy it into the agent's image.

    from client import Client

    sidecar = Client()
    sidecar.ensure_initial_sync()                      # before the agent's first turn
    sidecar.sync(wait="durable", timeout=25)           # after a turn that must not be lost

It never raises into the agent: what went wrong is in the result. With ``strict=True`` a result that is not
``ok`` is raised as `SidecarFailed`. From asyncio: ``await asyncio.to_thread(sidecar.ensure_initial_sync)``.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

_MOST_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Result:
    """What the sidecar answered.

    ``ok``: the home is in step (`ensure_initial_sync`, `restore`), everything is durable (`sync`), or, where
    nobody waits, it is begun. ``status`` is the HTTP status, None where no answer came; then ``kind`` is
    ``unreachable`` or ``timeout``.
    """

    ok: bool
    status: int | None = None
    user_id: str | None = None
    action: str | None = None
    durable: bool = False
    files: int = 0
    bytes: int = 0
    unsynced_bytes: int = 0
    error: str | None = None
    kind: str | None = None
    hint: str | None = None


class SidecarFailed(RuntimeError):
    """A result that is not ``ok``, with ``strict=True``."""

    def __init__(self, result: Result) -> None:
        super().__init__(f"{result.error or 'not done'} ({result.hint})" if result.hint else result.error)
        self.result = result


class Client:
    """Talks to the sidecar at `url`.

    Parameters
    ----------
    url: the trigger API.
    token: the user's token; not needed where the pod has a fixed user.
    strict: raise `SidecarFailed` instead of returning a result that is not ``ok``.
    connect_seconds: how long to wait for a connection: on loopback it is there at once or not at all.
    header: the header that carries the token (CLAUDE_SIDECAR_JWT_HEADER).
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8377",
        token: str | None = None,
        *,
        strict: bool = False,
        connect_seconds: float = 1.0,
        header: str = "Authorization",
    ) -> None:
        self._url = url
        self._token = token
        self._strict = strict
        self._connect_seconds = connect_seconds
        self._header = header

    def ensure_initial_sync(
        self, token: str | None = None, *, wait: bool = True, timeout: float = 65.0
    ) -> Result:
        """Bring the user's ``.claude``, once; later calls find it done at once.

        ``timeout`` is a little more than the sidecar waits for a bucket that is away (60 s without progress).
        With ``wait=False`` it is only begun: the result's action is ``started``.
        """
        return self._call("/invocations", {"wait": "true" if wait else "false"}, token, timeout)

    def sync(
        self, wait: str | None = "durable", timeout: float = 25.0, *, token: str | None = None
    ) -> Result:
        """Flush now. ``wait``: ``durable``, ``checkpoint``, or None to begin it and go on."""
        query = {"wait": wait, "timeout": f"{timeout:g}"} if wait else {}
        return self._call("/v1/sync", query, token, timeout + 1.0)

    def restore(self, token: str | None = None, *, timeout: float = 65.0) -> Result:
        """Restore and merge into the home now."""
        return self._call("/v1/restore", {}, token, timeout)

    def _call(self, path: str, query: dict[str, str], token: str | None, timeout: float) -> Result:
        try:
            result = self._asked(path, query, token or self._token, timeout)
        except TimeoutError:
            result = Result(False, error=f"no answer within {timeout:g} s", kind="timeout")
        except (OSError, http.client.HTTPException, ValueError) as problem:
            # ValueError: a URL, a token or an answer that is none.
            error = f"the sidecar at {self._url} does not answer: {problem or type(problem).__name__}"
            result = Result(False, error=error, kind="unreachable", hint="look whether it runs in this pod")
        if self._strict and not result.ok:
            raise SidecarFailed(result)
        return result

    def _asked(self, path: str, query: dict[str, str], token: str | None, timeout: float) -> Result:
        deadline = time.monotonic() + timeout
        url = urlsplit(self._url)
        # http.client knows nothing of proxies: nothing leaves the pod.
        connection = http.client.HTTPConnection(
            url.hostname or "127.0.0.1", url.port or 8377, timeout=min(self._connect_seconds, timeout)
        )
        try:
            connection.connect()
            _within(connection.sock, deadline)
            headers = {self._header: f"Bearer {token}"} if token else {}
            target = path + (f"?{urlencode(query)}" if query else "")
            connection.request("POST", target, headers=headers)
            answer = connection.getresponse()
            return _result(answer.status, json.loads(answer.read(_MOST_BYTES)))
        finally:
            connection.close()


def _within(sock: socket.socket, deadline: float) -> None:
    sock.settimeout(max(0.001, deadline - time.monotonic()))


def _result(status: int, body: Any) -> Result:
    if not isinstance(body, dict):
        raise ValueError("its answer is no JSON object")
    known = {name: body[name] for name in Result.__dataclass_fields__ if name in body}
    done = body.get("synced") is True or body.get("durable") is True
    begun = status == 202 or body.get("action") == "started"
    return Result(**{**known, "ok": status < 300 and (done or begun), "status": status})
