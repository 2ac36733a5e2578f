"""What an agent writes is in the bucket within seconds, and nobody asked for it."""

from pathlib import Path
from typing import Any

import pytest

from tests import faults
from tests.fault_proxy import FaultProxy
from tests.processes import Sidecar, environ_of
from tests.running import LOG, append, eventually, fresh_pod, journalled, metrics, sidecar
from tests.sync.pods import MakeSettings, objects

SHORT_JOURNAL = """
import sys
from sidecar import cli
from sidecar.sync import flusher
flusher.MAX_ENTRIES = 4
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.sync.initial.WAIT_FOR_OTHERS_SECONDS", 0.0)


def test_a_write_a_new_directory_and_a_rename_are_in_the_journal_without_any_trigger(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    home = Path(settings.home)
    with sidecar(settings, tmp_path) as running:
        running.wait_for("/readyz")
        append(settings, LOG, '{"n": 1}\n')
        eventually(lambda: journalled(s3, bucket).get(LOG) == b'{"n": 1}\n', running)
        (home / "plans/new/deep").mkdir(parents=True)
        (home / "plans/new/deep/plan.md").write_text("plan")
        (home / "settings.json.tmp").write_text('{"v": 1}')
        (home / "settings.json.tmp").rename(home / "settings.json")
        (home / "plans/new").rename(home / "plans/moved")
        want = {"plans/moved/deep/plan.md": b"plan", "settings.json": b'{"v": 1}'}
        eventually(lambda: want.items() <= journalled(s3, bucket).items(), running)
    assert not objects(s3, bucket), "no checkpoint was due"


def test_ten_thousand_files_at_once_all_become_durable(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    with sidecar(settings, tmp_path) as running:
        running.wait_for("/readyz")
        for directory in range(100):
            place = Path(settings.home) / f"plans/{directory}"
            place.mkdir(parents=True)
            for number in range(100):
                (place / f"{number}.md").write_text(f"{directory} {number}\n")
        want = {f"plans/{d}/{n}.md": f"{d} {n}\n".encode() for d in range(100) for n in range(100)}
        eventually(lambda: journalled(s3, bucket) == want, running, 60)
        assert running.call("POST", "/v1/sync?wait=durable")[1]["unsynced_bytes"] == 0
    assert fresh_pod(settings_for, bucket, tmp_path).read("plans/99/99.md") == b"99 99\n"


def test_switching_the_flushes_off_and_on_again_loses_nothing(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    text = ""
    for number, delay in enumerate(("off", "0.1", "off", "0.1")):
        with sidecar(settings, tmp_path, CLAUDE_SIDECAR_SYNC_DELAY_SECONDS=delay) as running:
            running.wait_for("/readyz")
            append(settings, LOG, f'{{"n": {number}}}\n')
            text += f'{{"n": {number}}}\n'
            if delay == "off":
                before = objects(s3, bucket, "user_data/ada/.claude-sidecar/journal/")
                assert running.call("POST", "/v1/sync?wait=durable")[1]["durable"] is True
                after = objects(s3, bucket, "user_data/ada/.claude-sidecar/journal/")
                assert after.keys() <= before.keys(), "a journal although it is off"
                assert objects(s3, bucket)[LOG] == text.encode()
            else:
                last = text.splitlines(keepends=True)[-1].encode()
                eventually(lambda last=last: journalled(s3, bucket).get(LOG, b"").endswith(last), running)
        restored = fresh_pod(settings_for, bucket, tmp_path, f"after-{number}")
        assert restored.read(LOG) == text.encode()


def test_a_policy_that_knows_no_journal_means_intervals_one_warning_and_a_restore_that_works(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, fault_proxy: FaultProxy
) -> None:
    s3.put_object(Bucket=bucket, Key=f"user_data/ada/.claude/{LOG}", Body=b"one\n")
    denied = faults.answer(403, "AccessDenied")
    fault_proxy.on("*", denied, part=".claude-sidecar", times=None)
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    more = {"CLAUDE_SIDECAR_SYNC_DELAY_SECONDS": "0.1"}
    with sidecar(settings, tmp_path, **more) as running:
        running.wait_for("/readyz")
        assert (Path(settings.home) / LOG).read_bytes() == b"one\n"
        append(settings, LOG, "two\n")
        eventually(lambda: objects(s3, bucket)[LOG] == b"one\ntwo\n", running)
        assert running.call("GET", "/v1/stats")[1]["journal_enabled"] is False
        puts = len(fault_proxy.seen("PUT", LOG))
        append(settings, LOG, "three\n")
        assert running.call("POST", "/v1/sync?wait=durable")[1]["durable"] is True
        assert objects(s3, bucket)[LOG] == b"one\ntwo\nthree\n"
        assert len(fault_proxy.seen("PUT", LOG)) == puts + 1
    warnings = [line for line in running.text().splitlines() if line.startswith("WARNING")]
    assert len(warnings) == 1, "\n".join(warnings)
    assert "interval mode" in warnings[0]


def test_a_journal_that_grew_long_is_folded_ahead_of_the_interval(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    settings.home_of("ada").mkdir()
    environ = environ_of(settings, CLAUDE_SIDECAR_SYNC_DELAY_SECONDS="0.05")
    with Sidecar(environ, tmp_path / "log", program=("-c", SHORT_JOURNAL)) as running:
        running.wait_for("/readyz")
        for number in range(5):
            append(settings, LOG, f'{{"n": {number}}}\n')
            eventually(lambda n=number: f'"n": {n}}}' in str(held(s3, bucket)), running)
        eventually(lambda: metrics(running)["journal_entries"] <= 1, running)
    assert objects(s3, bucket)[LOG].count(b"\n") >= 4


def held(s3: Any, bucket: str) -> bytes:
    """The transcript's lines, wherever they are."""
    return objects(s3, bucket).get(LOG, b"") + journalled(s3, bucket).get(LOG, b"")
