"""The OpenAPI 3.1 document of the trigger API, built from the table of routes."""

from __future__ import annotations

from typing import Any

from sidecar import __version__
from sidecar.api.routes import ROUTES, Route
from sidecar.sync.results import ACTIONS

_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_COUNT = {"type": "integer", "minimum": 0}


def _object(properties: dict[str, Any], *, more: bool = False) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": more,
    }


_REFUSED = _object({"path": _TEXT, "reason": _TEXT})
_WHY = {"error": _TEXT_OR_NULL, "kind": _TEXT_OR_NULL, "hint": _TEXT_OR_NULL}

SCHEMAS: dict[str, dict[str, Any]] = {
    "Error": _object({"error": _TEXT, "kind": _TEXT, "hint": _TEXT}),
    "Invocation": _object(
        {
            "user_id": {"type": "string", "description": "empty where the user could not be told"},
            "synced": {"type": "boolean"},
            "action": {"type": "string", "enum": list(ACTIONS)},
            "files": _COUNT,
            "bytes": _COUNT,
            **_WHY,
        }
    ),
    "Sync": _object(
        {
            "durable": {"type": "boolean"},
            "generation": _COUNT,
            "files": _COUNT,
            "bytes": _COUNT,
            "unsynced_bytes": _COUNT,
            "refused": {"type": "array", "items": _REFUSED},
            "refused_count": _COUNT,
            **_WHY,
        }
    ),
    "Stats": _object(
        {"version": _TEXT, "ready": {"type": "boolean"}, "readiness": {"type": "object"}}, more=True
    ),
    "Probe": _object({"ok": {"type": "boolean"}}, more=True),
    "Draining": _object({"draining": {"type": "boolean"}}),
    "Empty": {"type": "object", "maxProperties": 0},
    "Document": {"type": "object"},
    "Text": {"type": "string"},
}

# What any call can be answered, whatever it does.
_ANYWHERE = {
    400: ("Error", "not a request that can be read"),
    408: ("Error", "the body did not come in time"),
    413: ("Error", "the body is too large"),
}


def document(token_header: str) -> dict[str, Any]:
    """The document; `token_header` is the header that carries tokens here."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "claude-sidecar",
            "version": __version__,
            "description": "Makes a pod's .claude directory outlive the pod.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {route.path: _path(route) for route in ROUTES},
        "components": {"schemas": SCHEMAS, "securitySchemes": {"token": _scheme(token_header)}},
    }


def _scheme(header: str) -> dict[str, str]:
    if header.lower() == "authorization":
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    return {"type": "apiKey", "in": "header", "name": header}


def _path(route: Route) -> dict[str, Any]:
    return {method.lower(): _operation(route, method) for method in route.methods}


def _operation(route: Route, method: str) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.call}_{method.lower()}",
        "summary": route.summary,
        "responses": {
            str(status): _response(route, schema, meaning, method)
            for status, (schema, meaning) in sorted({**_ANYWHERE, **route.answers}.items())
        },
    }
    if route.parameters:
        operation["parameters"] = [
            {"name": p.name, "in": "query", "description": p.meaning, "schema": p.schema}
            for p in route.parameters
        ]
    if (body := _body(route)) is not None and method in ("POST", "PUT", "PATCH"):
        operation["requestBody"] = {"required": False, "content": {"application/json": {"schema": body}}}
    if route.token:
        operation["security"] = [{"token": []}, {}]
    return operation


def _response(route: Route, schema: str, meaning: str, method: str) -> dict[str, Any]:
    if method == "HEAD":
        return {"description": meaning}
    media_type = route.media_type if schema == "Text" else "application/json"
    return {
        "description": meaning,
        "content": {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def _body(route: Route) -> dict[str, Any] | None:
    if route.body == "parameters":
        return {"type": "object", "properties": {p.name: p.schema for p in route.parameters}}
    return {} if route.body == "hook" else None
