"""``journal ls``, ``journal show``, ``checkpoint --all-users`` and ``drain``: the journal for people."""

from __future__ import annotations

import http.client
from datetime import UTC, datetime
from typing import Any

from sidecar.area import journal
from sidecar.area.journal import Entry, Lines
from sidecar.area.keys import AreaKeys
from sidecar.area.store import Store
from sidecar.commands.output import DONE, FAILED, PARTLY, print_json, say
from sidecar.errors import SettingsError, SidecarError
from sidecar.logs import log
from sidecar.settings import BUCKET_NOT_CONFIGURED, Settings


def _reached(settings: Settings) -> tuple[Store, AreaKeys]:
    if not settings.bucket:
        raise SettingsError(BUCKET_NOT_CONFIGURED, "give --bucket or S3_WORKSPACE_BUCKET")
    if settings.user_id is None:
        raise SettingsError("no user is given", "give --user-id or CLAUDE_SIDECAR_USER_ID")
    store = Store.connect(settings, outage_seconds=settings.restore_timeout_seconds)
    return store, AreaKeys(settings.prefix, settings.user_id)


def journal_ls(settings: Settings, *, as_json: bool = False) -> int:
    """List the entries that no checkpoint removed yet; 3 if one of them cannot be read."""
    store, keys = _reached(settings)
    rows = [_row(store, keys, key) for key in sorted(store.list(keys.journal).objects)]
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            what = (
                row.get("problem")
                or f"{row['records']} records, {row['bytes']} bytes of {row['files']} files"
            )
            say(f"{row['modified']}  {row['entry']}  {row['size']:>8} B  {what}")
        say(f"{len(rows)} entries")
    return PARTLY if any("problem" in row for row in rows) else DONE


def _row(store: Store, keys: AreaKeys, key: str) -> dict[str, Any]:
    with store.open(key) as download:
        at = datetime.fromtimestamp(download.info.modified, UTC).isoformat(timespec="seconds")
        row: dict[str, Any] = {
            "entry": key[len(keys.journal) :],
            "size": download.info.size,
            "modified": at,
        }
        try:
            entry = journal.decoded(download.read(), key)
        except SidecarError as error:
            return {**row, "problem": error.message}
    return {
        **row,
        "records": len(entry.records),
        "files": len({record.path for record in entry.records}),
        "bytes": sum(len(record.data) for record in entry.records),
        "ended": entry.ended,
    }


def journal_show(settings: Settings, name: str, *, as_json: bool = False) -> int:
    """Show what one entry carries: never its content, only paths, offsets, lengths and digests."""
    store, keys = _reached(settings)
    key = keys.journal + name.removeprefix(keys.journal)
    if journal.parsed(key[len(keys.journal) :]) is None:
        raise SettingsError(f"{name!a} is not the name of an entry", "see claude-sidecar journal ls")
    with store.open(key) as download:
        entry = journal.decoded(download.read(), key)
    described = _described(entry)
    if as_json:
        print_json(described)
        return DONE
    say(f"writer    {entry.writer}")
    say(f"sequence  {entry.sequence}")
    say(f"written   {described['written']}")
    for record in described["records"]:
        say("  ".join(f"{field}={value}" for field, value in record.items()))
    return DONE


def _described(entry: Entry) -> dict[str, Any]:
    written = datetime.fromtimestamp(entry.written_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    records: list[dict[str, Any]] = []
    for record in entry.records:
        row: dict[str, Any] = {"kind": type(record).__name__.lower(), "path": record.path}
        row |= {"length": len(record.data), "base": record.base[:16]}
        if isinstance(record, Lines):
            row |= {"offset": record.offset, "lines": record.data.count(b"\n")}
        records.append(row)
    return {
        "writer": entry.writer,
        "sequence": entry.sequence,
        "written": written,
        "ended": entry.ended,
        "records": records,
    }


def checkpoint_all_users(settings: Settings, *, as_json: bool = False) -> int:
    """Fold every journal of the bucket into its objects; 3 if entries are left, 1 if a user failed."""
    import tempfile
    from pathlib import Path

    from sidecar.sync.all_users import fold_all_users

    if not settings.bucket:
        raise SettingsError(BUCKET_NOT_CONFIGURED, "give --bucket or S3_WORKSPACE_BUCKET")
    store = Store.connect(settings, outage_seconds=settings.restore_timeout_seconds)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="claude-sidecar-") as place:
        for done in fold_all_users(settings, store, Path(place)):
            problem = str(done.error) if done.error else None
            rows.append(
                {"user": done.user_id, "removed": done.removed, "left": done.left, "alive": done.alive}
            )
            rows[-1]["problem"] = problem
            if not as_json:
                why = problem or (f"{done.alive} of writers at work" if done.alive else "")
                say(f"{done.user_id}: {done.removed} folded, {done.left} left" + (f"; {why}" if why else ""))
    left = sum(row["left"] for row in rows)
    if as_json:
        print_json(rows)
    else:
        say(f"{len(rows)} users with a journal, {left} entries left")
    if any(row["problem"] for row in rows):
        return FAILED
    return PARTLY if left else DONE


def drain(settings: Settings) -> int:
    """Tell the sidecar of this pod that the end is near: it flushes on every change from now on."""
    connection = http.client.HTTPConnection("127.0.0.1", settings.api_port, timeout=5)
    try:
        connection.request("GET", "/prestop")
        answer = connection.getresponse()
        answer.read()
    except OSError as error:
        log.error(
            "No sidecar answers on 127.0.0.1:%d (%s); see CLAUDE_SIDECAR_API_PORT", settings.api_port, error
        )
        return FAILED
    finally:
        connection.close()
    return DONE if answer.status == 200 else FAILED
