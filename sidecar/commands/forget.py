"""``forget``: erase a user's area for good, after saying what that is."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from msgspec import to_builtins

from sidecar.area.keys import AreaKeys
from sidecar.area.store import Store
from sidecar.commands.output import DONE, FAILED, PARTLY, WRONG_USE, mib, print_json, say
from sidecar.commands.syncing import demanded_user
from sidecar.errors import SettingsError
from sidecar.logs import log
from sidecar.settings import Settings
from sidecar.sync.erasure import ACTIVE_SECONDS, Erasure, Inventory, Tally, activity, erase, inventory
from sidecar.sync.ledger_peek import is_held

_LISTED = 20
_SAY_SECONDS = 10.0


def forget(settings: Settings, *, yes: bool = False, force: bool = False, as_json: bool = False) -> int:
    """Erase everything under the user's prefix: 0 gone, 3 something is left, 1 refused or cut off.

    Without `yes`: say what would be erased, and answer 2.

    Raises
    ------
    SettingsError: the user is not named on the command line itself.
    """
    user_id = demanded_user(settings)
    if not settings.origins.get("user_id", "").startswith("flag"):
        raise SettingsError("forget takes its user from the command line only", "give --user")
    store = Store.connect(settings, outage_seconds=settings.restore_timeout_seconds)
    keys = AreaKeys(settings.prefix, user_id)
    found = inventory(store, keys)
    busy = _activity(settings, user_id, found)
    if not yes:
        return _planned(keys, found, busy, as_json)
    if busy and not force:
        log.error(
            "Nothing was erased: user %s is still being written: %s (stop the user's pods and try again in "
            "some minutes, or give --force)",
            user_id,
            busy,
        )
        return FAILED
    erasure = erase(store, keys, now=datetime.now(UTC), removed=_Removed())
    if as_json:
        print_json({**to_builtins(erasure), "gone": not erasure.left})
    else:
        _say(keys, erasure, found)
    return PARTLY if erasure.left else DONE


def _activity(settings: Settings, user_id: str, found: Inventory) -> str:
    if is_held(settings.state_dir, user_id):
        return f"a claude-sidecar process works for this user on {settings.state_dir}"
    return activity(found, within_seconds=max(ACTIVE_SECONDS, 2 * 60 * settings.interval_minutes))


def _planned(keys: AreaKeys, found: Inventory, busy: str, as_json: bool) -> int:
    if as_json:
        print_json({"user_id": keys.user_id, "erased": False, "active": busy, **_inventory(found)})
        return WRONG_USE
    say(f"{keys.root} holds {_counts(found.tally)}")
    if found.tombstone:
        say(f"the user was forgotten before, on {found.tombstone.forgotten_at}")
    if found.newest_at:
        at = datetime.fromtimestamp(found.newest_at, UTC).isoformat(timespec="seconds")
        say(f"last written: {at}, {found.newest_key}")
    if busy:
        say(f"somebody may still be writing: {busy}")
    say("Nothing was erased. With --yes all of it is erased for good, every version of it.")
    return WRONG_USE


def _counts(tally: Tally) -> str:
    text = (
        f"{tally.objects} objects, {tally.old_versions} older versions, {tally.markers} delete markers and "
    )
    return f"{text}{tally.uploads} unfinished uploads: {mib(tally.bytes)} MiB"


def _inventory(found: Inventory) -> dict[str, Any]:
    return {
        **to_builtins(found.tally),
        "last_written": found.newest_at or None,
        "forgotten_at": found.tombstone.forgotten_at if found.tombstone else None,
        "lists_versions": found.lists_versions,
    }


def _say(keys: AreaKeys, erasure: Erasure, found: Inventory) -> None:
    if erasure.already:
        say(f"Nothing to erase: user {keys.user_id} was forgotten on {erasure.forgotten_at}")
        return
    say(f"User {keys.user_id}: erased {_counts(erasure.tally)}")
    if erasure.left:
        say(f"{len(erasure.left)} are still there:")
        for left in erasure.left[:_LISTED]:
            say(f"  {left.key} {left.version_id}: {left.reason}")
        if len(erasure.left) > _LISTED:
            say(f"  and {len(erasure.left) - _LISTED} more; --json lists all")
        return
    proof = "no version, no delete marker and no upload" if found.lists_versions else "no object"
    say(f"Looked again: {proof} is left under {keys.root} but the tombstone of {erasure.forgotten_at}")
    if not found.lists_versions:
        say("This store cannot list versions: whether it keeps old ones, ask its operator")


class _Removed:
    """Says now and then how far the erasing is."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, count: int) -> None:
        now = time.monotonic()
        if now - self._last >= _SAY_SECONDS:
            self._last = now
            log.info("Erased %d versions so far", count)
