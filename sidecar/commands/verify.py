"""``verify``: is what the home holds in the bucket, and the other way round? Are manifest and packs sound?

Reads all of it, changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sidecar.area.keys import AreaKeys
from sidecar.area.store import Store
from sidecar.commands.output import COULD_NOT_TELL, DONE, FAILED, Shown, mib, print_error, print_json, say
from sidecar.commands.syncing import demanded_user
from sidecar.errors import SettingsError, SidecarError
from sidecar.home.beneath import Home
from sidecar.home.rules import Rules
from sidecar.logs import log
from sidecar.settings import Settings
from sidecar.sync.findings import Finding, Kind
from sidecar.sync.inspection import Inspection, inspect
from sidecar.sync.views import Sides


def verify(
    settings: Settings, *, sample: str = "100%", seed: str | None = None, as_json: bool = False
) -> int:
    """Compare home, ledger, area, manifest and packs: 0 equal, 1 differences, 2 could not tell.

    Parameters
    ----------
    sample: how many of the files and packs that look untouched are read, in percent; at least one of each.
    seed: draws them; default: the day.
    """
    user_id = demanded_user(settings)
    fraction = _fraction(sample)
    drawn = seed if seed is not None else datetime.now(UTC).date().isoformat()
    try:
        inspection = _inspected(settings, user_id, fraction, drawn)
    except SidecarError as error:
        log.error("It could not be told whether home and bucket are equal: %s", error)
        if as_json:
            print_error(error)
        return COULD_NOT_TELL
    code = _code(inspection.findings)
    if as_json:
        print_json(_as_dict(user_id, inspection, code, fraction, drawn))
    else:
        _say(user_id, inspection, code, fraction, drawn)
    return code


def _fraction(sample: str) -> float:
    try:
        percent = float(sample.removesuffix("%"))
    except ValueError:
        percent = 0.0
    if not 0 < percent <= 100:
        raise SettingsError(f"--sample is {sample!a}", "give a part in percent, such as 5%")
    return percent / 100


def _inspected(settings: Settings, user_id: str, fraction: float, seed: str) -> Inspection:
    # As patient as a restore, in all: an outage ends it within that time.
    store = Store.connect(settings, outage_seconds=settings.restore_timeout_seconds)
    keys = AreaKeys(settings.prefix, user_id)
    rules = Rules(include=settings.include, exclude=settings.exclude)
    private = settings.private_files
    with (
        Home.open(settings.home_of(user_id), private=private) as home,
        _spool_directory(settings) as directory,
    ):
        sides = Sides(settings, store, keys, home, rules)
        return inspect(sides, fraction=fraction, seed=seed, spool_directory=directory, watcher=Shown())


@contextlib.contextmanager
def _spool_directory(settings: Settings) -> Iterator[Path]:
    """Where a large transcript that differs is put while its lines are counted."""
    kept = settings.state_dir / "tmp"
    if os.path.isdir(kept):  # noqa: PTH112 - where a directory above is closed, Path raises
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="claude-sidecar-") as directory:
        yield Path(directory)


def _code(findings: Sequence[Finding]) -> int:
    if any(not f.by_design and f.kind is not Kind.COULD_NOT_TELL for f in findings):
        return FAILED
    return COULD_NOT_TELL if any(f.kind is Kind.COULD_NOT_TELL for f in findings) else DONE


def _as_dict(user_id: str, inspection: Inspection, code: int, fraction: float, seed: str) -> dict[str, Any]:
    rows = [{"path": f.path, "kind": f.kind.value, "reason": f.reason} for f in inspection.findings]
    pairs = list(zip(rows, inspection.findings, strict=True))
    seen = inspection.manifest
    return {
        "user_id": user_id,
        "equal": code == DONE,
        "differences": [row for row, f in pairs if not f.by_design and f.kind is not Kind.COULD_NOT_TELL],
        "could_not_tell": [row for row, f in pairs if f.kind is Kind.COULD_NOT_TELL],
        "by_design": [row for row, f in pairs if f.by_design],
        "paths": inspection.paths,
        "read": inspection.read,
        "manifest": {field: getattr(seen, field) for field in seen.__struct_fields__} if seen else None,
        "packs": {"named": inspection.packs, "read": inspection.packs_read},
        "bytes": inspection.bytes,
        "sample": fraction,
        "seed": seed,
        "ledger": inspection.ledger,
    }


def _say(user_id: str, inspection: Inspection, code: int, fraction: float, seed: str) -> None:
    shown = [f for f in inspection.findings if not f.by_design]
    width = max((len(f.kind.value) for f in shown), default=0)
    for finding in shown:
        say(f"{finding.kind.value:<{width}}  {finding.path}: {finding.reason}")
    by_design = len(inspection.findings) - len(shown)
    word = {DONE: "equal", FAILED: "DIFFERENT", COULD_NOT_TELL: "could not tell"}[code]
    sampled = f" (sample {fraction * 100:g}%, seed {seed})" if fraction < 1 else ""
    say(
        f"User {user_id}: {word}; {inspection.paths} paths, {inspection.read} of them read{sampled}, "
        f"{mib(inspection.bytes)} MiB; {len(shown)} differences, {by_design} by design (--json lists them); "
        f"{_manifest_in_words(inspection)}; {inspection.ledger}"
    )


def _manifest_in_words(inspection: Inspection) -> str:
    seen = inspection.manifest
    if seen is None:
        return "no manifest that counts"
    return (
        f"the manifest: {seen.entries} entries, {seen.stale} of them stale, {seen.directories} directories, "
        f"{seen.links} links, and {inspection.packs} packs, {inspection.packs_read} of them read"
    )
