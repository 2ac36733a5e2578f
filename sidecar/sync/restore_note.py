"""What the init hook's restore came to, left on the state volume for the sidecar that counts.

The hook is a process of its own, gone before anybody scrapes it. The note is for metrics alone: nothing is
decided by it, and one that is lost or damaged is as good as none.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from sidecar.logs import log
from sidecar.sync.results import SyncResult

_NAME = "restore.json"
_FIELDS = ("user_id", "synced", "action", "files", "bytes", "packed", "seconds", "kind")


def leave(state_dir: Path, result: SyncResult) -> None:
    """Note `result` for `taken`."""
    import orjson

    told = {name: getattr(result, name) for name in _FIELDS}
    new = state_dir / (_NAME + ".new")
    try:
        new.write_bytes(orjson.dumps({**told, "not_restored": len(result.not_restored)}))
        new.replace(state_dir / _NAME)
    except OSError as error:
        log.debug("The result was not noted for the metrics: %s", error)


def taken(state_dir: Path) -> tuple[SyncResult, bool] | None:
    """What was left, once, and whether something did not come; None where nothing was."""
    import orjson

    note = state_dir / _NAME
    try:
        told = orjson.loads(note.read_bytes())
        partly = bool(told.pop("not_restored"))
        result = SyncResult(**{name: told[name] for name in _FIELDS})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    finally:
        with contextlib.suppress(OSError):
            note.unlink()
    return result, partly
