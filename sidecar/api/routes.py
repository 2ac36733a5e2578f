"""The table of calls: the one place that says what is answered where.

It drives the server and ``/openapi.json``.

It knows nothing of aiohttp. ``call`` is the name under which `application` finds the coroutine.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

ANY = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


class Parameter(Struct, frozen=True):
    """One query parameter, with its JSON schema."""

    name: str
    meaning: str
    schema: dict[str, Any]


class Route(Struct, frozen=True):
    """One path. ``answers`` is status → (schema, meaning); ``everywhere``: on the health listener too.

    ``body``: ``ignored`` (read and thrown away), ``parameters`` (a JSON object that may hold the query's
    names) or ``hook`` (anything at all is accepted).
    """

    path: str
    methods: tuple[str, ...]
    call: str
    summary: str
    answers: dict[int, tuple[str, str]]
    parameters: tuple[Parameter, ...] = ()
    body: str = "ignored"
    token: bool = False
    everywhere: bool = False
    media_type: str = "application/json"

    def takes(self, method: str) -> bool:
        """Whether `method` is answered here."""
        return self.methods is ANY or method in self.methods


_WAIT_TRUTH = Parameter(
    "wait",
    "false answers at once and lets the sync run on",
    {"type": "string", "enum": ["true", "false", "1", "0"], "default": "true"},
)
_WAIT_FOR = Parameter(
    "wait",
    "durable: until everything written before this call is in the bucket; checkpoint: until the objects are"
    " up to date; not given: do not wait",
    {"type": "string", "enum": ["durable", "checkpoint"]},
)
MOST_WAIT_SECONDS = 600
_TIMEOUT = Parameter(
    "timeout",
    "seconds to wait",
    {"type": "number", "exclusiveMinimum": 0, "maximum": MOST_WAIT_SECONDS, "default": 25},
)

_TOKEN_ANSWERS = {
    401: ("Error", "no token, or one that does not hold"),
    403: ("Error", "a token of another user than the pod's"),
    409: ("Error", "a second user on a home that serves one"),
}


def _probe(path: str, call: str, summary: str) -> Route:
    answers = {200: ("Probe", "yes"), 503: ("Probe", "no, and why")}
    return Route(path, ("GET", "HEAD"), call, summary, answers, everywhere=True)


ROUTES: tuple[Route, ...] = (
    Route(
        "/invocations",
        ANY,
        "invocations",
        "Ensure the initial sync of the token's user. A failed sync is still 200.",
        {
            200: ("Invocation", "what was done; read action"),
            400: ("Error", "a parameter that cannot be meant"),
            **_TOKEN_ANSWERS,
        },
        (_WAIT_TRUTH,),
        token=True,
    ),
    Route(
        "/v1/sync",
        ("POST",),
        "sync",
        "Flush (or checkpoint) now: of the token's user, or of all where there is no token.",
        {
            200: ("Sync", "done; durable says whether it is all in the bucket"),
            202: ("Sync", "begun"),
            400: ("Error", "a parameter or a body that cannot be meant"),
            502: ("Sync", "it failed, and waiting does not help"),
            503: ("Error", "tokens cannot be checked, or too much at once"),
            504: ("Sync", "time is up; it goes on"),
            **_TOKEN_ANSWERS,
        },
        (_WAIT_FOR, _TIMEOUT),
        body="parameters",
        token=True,
    ),
    Route(
        "/v1/restore",
        ("POST",),
        "restore",
        "Restore and merge into the home now.",
        {
            200: ("Invocation", "what was done"),
            400: ("Error", "a body that cannot be meant"),
            502: ("Invocation", "it failed"),
            503: ("Error", "too much at once"),
            **_TOKEN_ANSWERS,
        },
        body="parameters",
        token=True,
    ),
    Route(
        "/v1/stats",
        ("GET", "HEAD"),
        "stats",
        "What the sidecar knows, per user.",
        {200: ("Stats", "the statistics")},
    ),
    Route(
        "/hooks/claude",
        ("POST",),
        "hooks",
        "A Claude Code http hook. Whatever comes, the answer is {} at once: the agent is never held.",
        {200: ("Empty", "noted")},
        body="hook",
    ),
    _probe("/livez", "livez", "Whether the process works; never false because the bucket is away."),
    _probe("/readyz", "readyz", "Whether the home is restored or known fresh."),
    _probe("/startupz", "startupz", "Whether the listeners are up and the watch is armed."),
    Route(
        "/prestop",
        ("GET",),
        "prestop",
        "The pod begins to end: flush on every change from now on. Answered at once.",
        {200: ("Draining", "noted")},
        everywhere=True,
    ),
    Route(
        "/metrics",
        ("GET", "HEAD"),
        "metrics",
        "Metrics for Prometheus, in OpenMetrics where Accept asks for it.",
        {200: ("Text", "the metrics")},
        everywhere=True,
        media_type="text/plain",
    ),
    Route(
        "/openapi.json",
        ("GET", "HEAD"),
        "openapi",
        "This table, as an OpenAPI 3.1 document.",
        {200: ("Document", "the document")},
    ),
)
