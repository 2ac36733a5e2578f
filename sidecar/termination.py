"""The termination message: what Kubernetes shows of a container that ended (``kubectl describe pod``).

A human first line, then one line of JSON; 4,096 bytes at most
(https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from sidecar.logs import encodable, log
from sidecar.sync.results import BackupResult, Unsynced

MAX_BYTES = 4096
# What is named of each, less and less until the message fits; in characters, which have up to six bytes.
_STEPS = ((10, 160), (10, 80), (5, 80), (3, 80), (1, 80), (0, 40))


class Durability(Struct, frozen=True):
    """``durable_at``: when all was last known to be in the bucket; ``oldest_unsynced_at``: since when the
    oldest byte is not. Both in seconds since the epoch; 0: never, or nothing."""

    durable_at: float = 0.0
    oldest_unsynced_at: float = 0.0


def message(
    results: Sequence[BackupResult], known: Durability, reason: str, now: float | None = None
) -> bytes:
    """The message for `results`, the last backup of each user.

    Parameters
    ----------
    reason: why the process ended, as half a sentence.
    now: seconds since the epoch, for the age of what is not durable.
    """
    import orjson

    failed = [result for result in results if not result.durable]
    age = (time.time() if now is None else now) - known.oldest_unsynced_at
    oldest_seconds = max(0, round(age)) if failed and known.oldest_unsynced_at else None
    human = encodable(_human(failed, known, reason, oldest_seconds)).encode()
    data = b""
    for named, characters in _STEPS:
        document = _document(results, failed, known, reason, named, characters)
        document["oldest_unsynced_seconds"] = oldest_seconds
        data = human + b"\n" + orjson.dumps(document)
        if len(data) <= MAX_BYTES:
            break
    return data


def _human(failed: list[BackupResult], known: Durability, reason: str, oldest_seconds: int | None) -> str:
    at = _point(known.durable_at)
    if not failed:
        return f"All durable at {at}; {reason[:200]}"
    files, size = sum(len(r.pending) for r in failed), sum(r.unsynced_bytes for r in failed)
    age = f", the oldest {oldest_seconds} s old" if oldest_seconds is not None else ""
    what = f"{files} files, {size} bytes{age}" if files else (failed[0].error or "nobody could look")[:200]
    return f"NOT durable: {what}; last durable point: {at}; {reason[:200]}"


def _point(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else "never"


def _document(
    results: Sequence[BackupResult],
    failed: list[BackupResult],
    known: Durability,
    reason: str,
    named: int,
    characters: int,
) -> dict[str, Any]:
    pending = [(result.user_id, entry) for result in failed for entry in result.pending]
    errors = [f"{r.error} ({r.hint})" if r.hint else str(r.error) for r in failed if r.error]
    return {
        "durable": not failed,
        "last_durable_time": _point(known.durable_at),
        "reason": encodable(reason)[:200],
        "users": len(results),
        "unsynced_bytes": sum(result.unsynced_bytes for result in failed),
        "pending_files": len(pending),
        "pending": [_named(user, entry, characters) for user, entry in pending[:named]],
        "refused_files": sum(len(result.refused) for result in results),
        "errors": [encodable(error)[: 2 * characters] for error in errors[: max(1, named // 3)]],
    }


def _named(user: str, entry: Unsynced, characters: int) -> dict[str, Any]:
    path, why = entry.path, entry.reason
    if len(path) > characters:  # the end of a path tells one file from the next
        path = "…" + path[-characters:]
    return {"user": user[:characters], "path": path, "bytes": entry.size_bytes, "why": why[:characters]}


def hold_signals() -> list[int]:
    """Keep SIGTERM and SIGINT from ending the process before it can act on them; returns those that came."""
    came: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: came.append(number))
    return came


def write(path: str, data: bytes) -> None:
    """Write `data` to the termination log, if Kubernetes made one."""
    file = Path(path)
    if not file.exists() and not file.parent.is_dir():
        return
    if not file.exists() and file.parent == Path("/dev"):
        return  # not in a container
    try:
        file.write_bytes(data)
    except OSError as error:
        log.warning("The termination message was not written to %s: %s", path, error.strerror)
