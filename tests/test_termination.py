"""The termination message: whole JSON in 4 KiB, whatever has to be named."""

import json

import pytest

from sidecar.sync.results import BackupResult, Unsynced
from sidecar.termination import MAX_BYTES, Durability, message

KNOWN = Durability(durable_at=1_700_000_000.0, oldest_unsynced_at=1_700_000_100.0)
NAMES = {
    "long": "projects/" + "w" * 4000 + "/{}.jsonl",
    "wide": "projects/" + "日本語😀" * 60 + "/{}.jsonl",
    "escaped": 'projects/"\\\n\t\x01' * 40 + "/{}.jsonl",
    "broken": "projects/\udcff\udcfe" * 100 + "/{}.jsonl",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
@pytest.mark.parametrize("users", [1, 20])
def test_ten_thousand_files_with_long_names_are_whole_json_within_four_kibibytes(
    name: str, users: int
) -> None:
    each = 10_000 // users
    results = [
        BackupResult(
            "ü" * 127 + str(user),
            durable=False,
            unsynced_bytes=100 * each,
            pending=tuple(
                Unsynced(name.format(n), "the bucket did not take it " * 20, 100) for n in range(each)
            ),
            error="the bucket is away \ud800 " * 40,
            hint="look why " * 40,
        )
        for user in range(users)
    ]
    data = message(results, KNOWN, "ended by SIGTERM", now=1_700_000_142.0)
    human, _, document = data.decode().partition("\n")
    told = json.loads(document)
    assert len(data) <= MAX_BYTES
    assert human == (
        "NOT durable: 10000 files, 1000000 bytes, the oldest 42 s old; "
        "last durable point: 2023-11-14T22:13:20+00:00; ended by SIGTERM"
    )
    assert (told["pending_files"], told["unsynced_bytes"], told["oldest_unsynced_seconds"]) == (
        10_000,
        1_000_000,
        42,
    )
    assert told["last_durable_time"] == "2023-11-14T22:13:20+00:00"
    assert told["reason"] == "ended by SIGTERM"
    assert told["pending"][0]["path"].endswith("/0.jsonl"), "nothing is named, or not so that it can be found"
    assert told["pending"][0]["bytes"] == 100
    assert told["errors"]


def test_a_reason_without_end_leaves_whole_json() -> None:
    data = message([BackupResult("ada", durable=True)], Durability(), "ended by " + "日" * 5000)
    assert len(data) <= MAX_BYTES
    human, _, document = data.decode().partition("\n")
    assert human.startswith("All durable at never; ended by 日")
    assert json.loads(document)["oldest_unsynced_seconds"] is None
