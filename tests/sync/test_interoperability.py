"""The layout belongs to every tool: s5cmd restores what we wrote, we restore what s5cmd wrote."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.sync.pods import MakeSettings, Pod, conflicts, objects, pods
from tests.sync.test_round_trip import fill


def s5cmd(pod: Pod, *arguments: str) -> None:
    """The real s5cmd, from this environment's scripts."""
    found = shutil.which("s5cmd", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found, "s5cmd is not installed; it is in the test extra"
    aws = dict(pod.settings.aws)
    environ = {**aws, "S3_ENDPOINT_URL": aws["AWS_ENDPOINT_URL"], "PATH": os.environ["PATH"]}
    subprocess.run([found, "--log", "error", *arguments], env=environ, check=True, timeout=60)


def contents(home: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_s5cmd_restores_what_we_wrote_and_then_nothing_is_sent_twice(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    first.start()
    fill(first)
    first.backup()
    second.home.mkdir(parents=True)
    s5cmd(second, "cp", f"s3://{bucket}/user_data/ada/.claude/*", f"{second.home}/")
    assert contents(second.home) == contents(first.home)
    before, sent = objects(s3, bucket), second.store.requests["put"].bytes_sent if second.requests() else 0
    result = second.start()
    assert (result.action, result.files) == ("restored", 0)
    assert second.backup().files == 0
    assert objects(s3, bucket) == before
    assert not conflicts(s3, bucket)
    flow = second.store.requests.get("put")
    manifest_only = flow.bytes_sent - sent if flow else 0
    assert manifest_only < 4096, "a file was sent twice"


def test_we_restore_what_s5cmd_wrote_and_then_nothing_is_sent_twice(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    fill(first)
    (first.home / "skills/latest").unlink()
    (first.home / "plans/up").unlink()
    s5cmd(first, "cp", f"{first.home}/", f"s3://{bucket}/user_data/ada/.claude/")
    before = objects(s3, bucket)
    assert second.start().files == len(before)
    assert contents(second.home) == contents(first.home)
    assert second.backup().files == 0
    assert first.start().files == 0
    assert first.backup().files == 0
    assert objects(s3, bucket) == before
    assert not conflicts(s3, bucket)


def test_an_area_that_s5cmd_synced_over_ours_is_united_and_not_lost(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, other = pods(settings_for, bucket, tmp_path, 2)
    first.start()
    first.append("projects/p/s.jsonl", "one\n")
    first.backup()
    other.write("projects/p/s.jsonl", "one\nfrom another tool\n")
    s5cmd(other, "cp", f"{other.home}/", f"s3://{bucket}/user_data/ada/.claude/")
    first.append("projects/p/s.jsonl", "two\n")
    assert first.backup().durable
    assert objects(s3, bucket)["projects/p/s.jsonl"] == b"one\nfrom another tool\ntwo\n"
