"""Log lines: ``LEVEL: message`` as text, or one JSON object a line.

ERROR a person must act; WARNING we degrade; INFO a pod's life in about ten lines. The texts are a
documented contract: people grep them. A message never holds a file's content, a token or a key.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

LOGGER_NAME = "sidecar"

log = logging.getLogger(LOGGER_NAME)


class TextFormatter(logging.Formatter):
    """``INFO: Background backup task started``; control characters in a message are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        text = printable(f"{record.levelname}: {record.getMessage()}")
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JsonFormatter(logging.Formatter):
    """``{"time": …, "level": …, "message": …}`` and the fields given as ``extra={"fields": {…}}``."""

    def format(self, record: logging.LogRecord) -> str:
        import datetime

        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, object] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if fields:
            line.update(fields)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return as_json(line).decode()


def as_json(value: Any, *, indented: bool = False) -> bytes:
    """`value` as JSON, whatever its keys and values are; stray bytes of names as `encodable` has them."""
    import orjson

    option = orjson.OPT_NON_STR_KEYS | (orjson.OPT_INDENT_2 if indented else 0)
    try:
        return orjson.dumps(value, default=str, option=option)
    except TypeError:  # a text that UTF-8 cannot carry
        return orjson.dumps(_all_encodable(value), default=str, option=option)


def _all_encodable(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {_all_encodable(key): _all_encodable(below) for key, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [_all_encodable(below) for below in value]
    return value


def encodable(text: str) -> str:
    """`text` as UTF-8 can carry it: a file name's stray bytes become ``\\udcff`` and the like."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """`text` with every character that could forge a log line or move a terminal's cursor escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def set_up(log_format: str = "text", level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send the ``sidecar`` logger to `stream` (default: standard error) in `log_format` (text or json)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(level)
