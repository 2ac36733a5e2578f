"""The ids by which a request is found again: ``traceparent`` and ``x-request-id`` of the caller.

They stand in every JSON log line of what the request started, threads included, for they travel in a context
variable. What does not look like an id is left out: a log line is no place for a caller's text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from contextvars import ContextVar

# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")

_ids: ContextVar[Mapping[str, str] | None] = ContextVar("request ids", default=None)


def begin(headers: Mapping[str, str]) -> dict[str, str]:
    """Take the ids of the request with `headers`; they hold in this task and in what it starts."""
    ids: dict[str, str] = {}
    if match := _TRACEPARENT.fullmatch(headers.get("traceparent", "")):
        ids["trace_id"], ids["span_id"] = match["trace"], match["span"]
    if _REQUEST_ID.fullmatch(request_id := headers.get("x-request-id", "")):
        ids["request_id"] = request_id
    _ids.set(ids)
    return ids


class TraceFilter(logging.Filter):
    """Adds the ids to the fields of each log record; what the record says itself wins."""

    def filter(self, record: logging.LogRecord) -> bool:
        if ids := _ids.get():
            record.fields = {**ids, **(getattr(record, "fields", None) or {})}
        return True
