"""Reading what a caller sends: bounded in bytes and in time, whatever its headers promise."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from sidecar.api import web
from sidecar.api.refusals import BadRequest, BodyLarge, BodySlow


async def read(request: web.BaseRequest, limit_bytes: int, seconds: float) -> bytes:
    """The body of `request`.

    Raises
    ------
    BodyLarge: it is declared larger than `limit_bytes`, or turns out to be: no more than that is ever held.
    BodySlow: it is not whole after `seconds`.
    BadRequest: its framing is broken.
    """
    if (request.content_length or 0) > limit_bytes:
        raise BodyLarge(limit_bytes)
    if not request.body_exists:
        return b""
    if request.headers.get("Expect", "").lower() == "100-continue":
        # curl asks first from 1 MiB on: what is too large is refused above, before it is sent.
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > limit_bytes:
                    raise BodyLarge(limit_bytes)
    except TimeoutError:
        raise BodySlow(seconds) from None
    except web.RequestPayloadError:
        raise BadRequest("the body's framing is broken", "send a correct Content-Length or chunks") from None
    return bytes(body)


def json_object(body: bytes) -> dict[str, Any]:
    """`body` as a JSON object; an empty one is ``{}``.

    Raises
    ------
    BadRequest: it is something else.
    """
    if not body.strip():
        return {}
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        raise BadRequest(f"the body is not JSON: {problem.msg}", "send a JSON object, or no body") from None
    if not isinstance(value, dict):
        raise BadRequest("the body is JSON, but not an object", "send a JSON object, or no body")
    return value
