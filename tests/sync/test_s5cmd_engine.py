"""``CLAUDE_SIDECAR_ENGINE=s5cmd``: the same trees, the same metadata, the same area, carried by the program."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sync.pods import MakeSettings, Pod, conflicts, objects, pods
from tests.sync.test_round_trip import fill

AREA = "user_data/ada/.claude/"
AWKWARD = (
    "plans/with space .md",
    "plans/ leading",
    "plans/it's \"quoted\".md",
    "plans/st*r?[x]{a,b}.md",
    "plans/$HOME `id` ;&|<>.md",
    "plans/#hash",
    "plans/-n",
    "plans/%41+b.md",
    "plans/grün-ñ-漢.md",
    "plans/s3:x",
)


@pytest.fixture(autouse=True)
def _on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def described(s3: Any, bucket: str, path: str) -> dict[str, str]:
    """An object's metadata as an outsider reads it, without this write's own mark."""
    found = s3.head_object(Bucket=bucket, Key=AREA + path)
    return {**found["Metadata"], "type": found["ContentType"], "write": "", "writer": ""}


def test_a_home_goes_up_and_comes_down_by_s5cmd_as_it_was(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2, engine="s5cmd")
    first.start()
    fill(first)
    first.write("projects/-w/big.jsonl", b"x" * 1023 + b"\n" * (40 * 1024 * 1024))
    for number, path in enumerate(AWKWARD):
        first.write(path, f"text {number}", mtime_ns=1_700_000_000_123_456_789 + number)
    assert first.backup().durable
    assert first.store.carried["up"] == len(objects(s3, bucket))
    assert second.start().action == "restored"
    assert second.tree() == first.tree()
    assert second.store.carried["down"] > len(AWKWARD)
    assert second.backup().files == 0
    assert not conflicts(s3, bucket)
    assert list((second.settings.state_dir / "tmp").glob("staging-*/*")) == []
