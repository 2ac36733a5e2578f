"""The termination message: what Kubernetes shows of a container that ended (``kubectl describe pod``).

A human first line, then one line of JSON; 4,096 bytes at most
(https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from sidecar.logs import log
from sidecar.sync.results import BackupResult

MAX_BYTES = 4096
_NAMED = 10


def message(results: Sequence[BackupResult], durable_at: float, reason: str) -> bytes:
    """The message for `results`, the last backup of each user.

    Parameters
    ----------
    durable_at: when all was last known to be in the bucket, in seconds since the epoch; 0 means never.
    reason: why the process ended, as half a sentence.
    """
    import orjson

    pending = [(result.user_id, entry) for result in results for entry in result.pending]
    failed = [result for result in results if not result.durable]
    at = datetime.fromtimestamp(durable_at, UTC).isoformat(timespec="seconds") if durable_at else "never"
    if failed:
        size = sum(result.unsynced_bytes for result in failed)
        human = f"NOT durable: {len(pending)} files, {size} bytes; last durable point: {at}; {reason}"
    else:
        human = f"All durable at {at}; {reason}"
    for named in (_NAMED, 3, 0):
        document = {
            "durable": not failed,
            "last_durable_time": at,
            "reason": reason,
            "users": len(results),
            "unsynced_bytes": sum(result.unsynced_bytes for result in results),
            "pending_files": len(pending),
            "pending": [
                {"user": user, "path": entry.path[:120], "bytes": entry.size_bytes, "why": entry.reason[:120]}
                for user, entry in pending[:named]
            ],
            "refused_files": sum(len(result.refused) for result in results),
            "errors": [f"{r.error} ({r.hint})"[:200] for r in failed if r.error][:named],
        }
        data = human.encode()[:500] + b"\n" + orjson.dumps(document)
        if len(data) <= MAX_BYTES:
            break
    return data[:MAX_BYTES]


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
