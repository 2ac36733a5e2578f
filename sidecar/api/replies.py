"""Answers: JSON, never cached, one shape for every error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.api import web
from sidecar.api.refusals import Refusal
from sidecar.logs import as_json

_HEADERS = {"Cache-Control": "no-store", "Server": "claude-sidecar", "X-Content-Type-Options": "nosniff"}


def reply(
    status: int,
    body: Any,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """`body` as JSON."""
    text = as_json(body)
    return raw(status, text, "application/json", headers)


def raw(
    status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """`body` as it is."""
    return web.Response(
        status=status, body=body, headers={**_HEADERS, "Content-Type": content_type, **(headers or {})}
    )


def refused(refusal: Refusal) -> web.Response:
    """The answer that `refusal` stands for."""
    response = reply(refusal.status, refusal.as_dict(), refusal.headers)
    if refusal.closes:
        response.force_close()
    return response
