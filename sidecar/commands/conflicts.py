"""``conflicts ls``, ``show`` and ``take``: what was displaced, how it differs, and one version back."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins

from sidecar.area.keys import AreaKeys
from sidecar.area.manifest import Manifest
from sidecar.area.store import Store
from sidecar.commands.output import DONE, WRONG_USE, print_error, print_json, say
from sidecar.commands.syncing import demanded_user
from sidecar.errors import FormatError, HomeError, LedgerError, ObjectMissing, SidecarError, StoreError
from sidecar.home.beneath import Home
from sidecar.home.rules import Rules
from sidecar.logs import log
from sidecar.settings import Settings
from sidecar.sync import picture
from sidecar.sync.bodies import Spool
from sidecar.sync.conflicts import Difference, Kept, UnknownVersion, difference, find, listed, only
from sidecar.sync.ledger_peek import peek
from sidecar.sync.taking_back import Taken, take
from sidecar.sync.version_diff import Comparison, compared

SHOWN_LINES = 200


class _Area(Struct, frozen=True):
    settings: Settings
    store: Store
    keys: AreaKeys

    @classmethod
    def of(cls, settings: Settings) -> _Area:
        user_id = demanded_user(settings)
        return cls(
            settings,
            Store.connect(settings, outage_seconds=settings.restore_timeout_seconds),
            AreaKeys(settings.prefix, user_id),
        )

    def manifest(self) -> Manifest:
        """It only saves reading: without it less is told."""
        try:
            return picture.read(self.store, self.keys).manifest
        except (StoreError, FormatError) as error:
            if isinstance(error, StoreError) and error.outage:
                raise
            return Manifest()

    def spool_directory(self) -> Path:
        directory = self.settings.state_dir / "tmp"
        # Where a directory above is closed, Path raises.
        return directory if os.path.isdir(directory) else Path(tempfile.gettempdir())  # noqa: PTH112


def ls(settings: Settings, *, as_json: bool = False) -> int:
    """List what is kept, the newest first."""
    area = _Area.of(settings)
    kept = listed(area.store, area.keys)
    current = area.store.list(area.keys.objects).objects if kept else {}
    manifest = area.manifest() if kept else Manifest()
    rows = [
        (one, difference(one, current.get(area.keys.object(one.path)), manifest.files.get(one.path)))
        for one in kept
    ]
    if as_json:
        print_json([_as_dict(one, told) for one, told in rows])
    elif not rows:
        say(f"Nothing is kept under {area.keys.conflicts}")
    else:
        _say_rows(rows)
    return DONE


def _as_dict(one: Kept, told: Difference) -> dict[str, Any]:
    return {**to_builtins(one), "when": one.when, "difference": to_builtins(told)}


def _say_rows(rows: list[tuple[Kept, Difference]]) -> None:
    size = max(len(f"{one.size:,}") for one, _ in rows)
    writer = max(len(one.writer) for one, _ in rows)
    for one, told in rows:
        say(
            f"{one.id}  {one.when:<25}  {one.size:>{size},}  {one.writer:<{writer}}  {one.path}"
            f"  ({told.text})"
        )


def show(settings: Settings, word: str, *, most_lines: int = SHOWN_LINES, as_json: bool = False) -> int:
    """Show how a kept version differs from the current object; `most_lines` of it, 0 for all."""
    area = _Area.of(settings)
    try:
        found = find(listed(area.store, area.keys), word)
    except UnknownVersion as error:
        log.error("%s", error)
        if as_json:
            print_error(error)
        return WRONG_USE
    one, others = found[0], found[1:]
    comparison = _compared(area, one)
    if as_json:
        print_json({**to_builtins(one), "when": one.when, "comparison": to_builtins(comparison)})
        return DONE
    say(f"{one.path}: version {one.id}, displaced {one.when} by {one.writer}, {one.size:,} bytes")
    if others:
        say(f"{len(others)} older versions of it are kept: {', '.join(other.id for other in others[:20])}")
    _say_comparison(comparison, one, most_lines)
    return DONE


def _compared(area: _Area, one: Kept) -> Comparison:
    directory = area.spool_directory()
    with contextlib.ExitStack() as stack:
        download = stack.enter_context(area.store.open(one.key))
        kept = stack.enter_context(Spool(download.chunks(), directory))
        try:
            other = stack.enter_context(area.store.open(area.keys.object(one.path)))
        except ObjectMissing:
            return compared(kept, None, one.path)
        return compared(kept, stack.enter_context(Spool(other.chunks(), directory)), one.path)


def _say_comparison(comparison: Comparison, one: Kept, most_lines: int) -> None:
    if comparison.kind == "text":
        say("--- current")
        say(f"+++ kept {one.id}")
    shown = comparison.lines[: most_lines or None]
    for line in shown:
        say(line)
    if len(shown) < len(comparison.lines):
        say(f"… {len(comparison.lines) - len(shown):,} more lines; --lines 0 shows all")


def take_back(settings: Settings, word: str, *, bucket_only: bool = False, as_json: bool = False) -> int:
    """Make a kept version the current one again."""
    area = _Area.of(settings)
    try:
        one = only(listed(area.store, area.keys), word)
    except UnknownVersion as error:
        log.error("%s", error)
        if as_json:
            print_error(error)
        return WRONG_USE
    verdict = Rules(include=settings.include, exclude=settings.exclude).decide(one.path, False)
    if not verdict.taken:
        raise SidecarError(
            f"{one.path} is not taken back: {verdict.reason}", "it would never be backed up; see --include"
        )
    home, reason = (None, "as asked") if bucket_only else _home(area)
    with home or contextlib.nullcontext():
        taken = take(
            area.store,
            area.keys,
            one,
            home,
            writer=f"take-{secrets.token_hex(6)}",
            spool_directory=area.spool_directory(),
        )
    if as_json:
        print_json({**to_builtins(taken), "why_no_home": reason})
    else:
        _say_taken(area, taken, home, reason)
    return DONE


def _home(area: _Area) -> tuple[Home | None, str]:
    """The home of this user here; None and why, where there is none: another's must not be written into."""
    settings, user_id = area.settings, area.keys.user_id
    root = settings.home_of(user_id)
    try:
        known = peek(settings.state_dir, user_id)
        if known is None or known[0].area != f"s3://{settings.bucket}/{area.keys.root}":
            return None, f"{settings.state_dir} knows of no home of user {user_id} here"
        owner = settings.owner.ids if settings.owner else None
        home = Home.open(root, owner=owner, private=settings.private_files)
    except (HomeError, LedgerError, FormatError) as error:
        return None, error.message
    if tuple(known[0].home) != home.identity:
        home.close()
        return None, f"{root} is not the directory that was synced for user {user_id}"
    return home, ""


def _say_taken(area: _Area, taken: Taken, home: Home | None, reason: str) -> None:
    where = {
        "written": "now holds it",
        "same": "has these bytes already",
        "next checkpoint": "gets it with the next checkpoint",
    }
    say(f"Version {taken.id} of {taken.path} is back:")
    if home is None:
        say(f"  the home was not touched: {reason}; a pod that runs takes it with its next restore")
    else:
        say(f"  the home {home.root} {where[taken.home]}")
    say(f"  the bucket {where[taken.bucket]}")
    for key in taken.kept_aside:
        say(f"  kept what stood there: s3://{area.store.bucket}/{key}")
