"""How a pod ends: a notice, SIGTERM, a bucket that is slow or away, and what is said of it."""

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sidecar.area.keys import AreaKeys
from sidecar.area.store import Store
from sidecar.sync.erasure import erase
from sidecar.sync.marks import RACY_NS
from tests import faults
from tests.fault_proxy import Fault, FaultProxy
from tests.processes import Sidecar, environ_of
from tests.running import LOG, append, eventually, fresh_pod, journalled, metrics, sidecar, termination
from tests.sync.pods import T0, MakeSettings, objects

MIB = 1024 * 1024
# Everything that a checkpoint does after its scan breaks.
BROKEN = """
import sys
from sidecar import cli
from sidecar.sync import checkpoint
checkpoint._eligible = lambda *_: 1 // 0
sys.exit(cli.main(sys.argv[1:]))
"""
# SIGTERM comes while the server's modules are imported.
ENDED_WHILE_IMPORTING = """
import os, signal, sys
from sidecar import cli
class Ending:
    def find_spec(self, name, path=None, target=None):
        if name == "sidecar.server":
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Ending())
sys.argv = ["claude-sidecar", "run"]
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.sync.initial.WAIT_FOR_OTHERS_SECONDS", 0.0)


def test_after_the_notice_every_change_is_flushed_at_once_and_sigterm_finds_it_durable(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    with sidecar(settings, tmp_path, CLAUDE_SIDECAR_SYNC_DELAY_SECONDS="600") as running:
        running.wait_for("/readyz")
        append(settings, LOG, '{"n": 1}\n')
        assert running.call("GET", "/prestop", port=running.health_port)[0] == 200
        eventually(lambda: journalled(s3, bucket).get(LOG) == b'{"n": 1}\n', running)
        append(settings, LOG, '{"n": 2}\n')
        eventually(lambda: journalled(s3, bucket)[LOG] == b'{"n": 1}\n{"n": 2}\n', running)
        assert running.end(signal.SIGTERM) == 0
    assert termination(tmp_path)[1]["durable"] is True


@pytest.mark.parametrize("fault", [faults.throttle(), faults.reset_before()], ids=["throttles", "drops"])
def test_a_bucket_that_fails_at_sigterm_and_recovers_in_time_is_a_good_end(
    fault: Fault,
    bucket: str,
    settings_for: MakeSettings,
    tmp_path: Path,
    s3: Any,
    fault_proxy: FaultProxy,
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    grace = {"CLAUDE_SIDECAR_GRACE_SECONDS": "15", "CLAUDE_SIDECAR_SYNC_DELAY_SECONDS": "600"}
    with sidecar(settings, tmp_path, **grace) as running:
        running.wait_for("/readyz")
        append(settings, LOG, '{"n": 1}\n')
        fault_proxy.clear()
        fault_proxy.on("*", fault, times=4)
        assert running.end(signal.SIGTERM) == 0, running.text()
    assert len([r for r in fault_proxy.requests if r.status == 503 or r.broken]) == 4
    assert objects(s3, bucket)[LOG] == b'{"n": 1}\n'
    assert termination(tmp_path)[0].startswith("All durable at 20")


def test_what_is_not_durable_at_the_end_is_named_with_its_bytes_and_the_reason(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, fault_proxy: FaultProxy
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    grace = {"CLAUDE_SIDECAR_GRACE_SECONDS": "3", "CLAUDE_SIDECAR_SYNC_DELAY_SECONDS": "600"}
    with sidecar(settings, tmp_path, **grace) as running:
        running.wait_for("/readyz")
        for number in range(80):
            append(settings, f"projects/-{'w' * 150}/{number}.jsonl", "x" * 99 + "\n")
        fault_proxy.on("*", faults.throttle(), times=None)
        assert running.end(signal.SIGTERM) == 1
    human, document = termination(tmp_path)
    assert human.startswith("NOT durable: 80 files, 8000 bytes, the oldest "), human
    assert "s old; last durable point: 20" in human
    assert "ended by SIGTERM" in human
    assert (document["pending_files"], document["unsynced_bytes"]) == (80, 8000)
    assert document["durable"] is False
    assert document["oldest_unsynced_seconds"] >= 0
    first = document["pending"][0]
    assert first["bytes"] == 100
    assert first["path"].endswith(".jsonl")
    assert first["why"]
    assert human in running.text()


def test_a_torn_last_line_stays_local_and_the_end_is_durable(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    with sidecar(settings, tmp_path, CLAUDE_SIDECAR_SYNC_DELAY_SECONDS="600") as running:
        running.wait_for("/readyz")
        append(settings, LOG, '{"n": 1}\n{"ha')
        assert running.end(signal.SIGTERM) == 0
    assert objects(s3, bucket)[LOG] == b'{"n": 1}\n'
    assert fresh_pod(settings_for, bucket, tmp_path).read(LOG) == b'{"n": 1}\n'


def test_two_seconds_are_enough_for_the_new_end_of_a_large_transcript(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, fault_proxy: FaultProxy
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    append(settings, LOG, ("x" * 1023 + "\n") * (40 * 1024))
    grace = {"CLAUDE_SIDECAR_GRACE_SECONDS": "2", "CLAUDE_SIDECAR_SYNC_DELAY_SECONDS": "600"}
    with sidecar(settings, tmp_path, **grace) as running:
        running.wait_for("/readyz")
        append(settings, LOG, ("y" * 1023 + "\n") * 4)
        fault_proxy.clear()
        fault_proxy.on("*", faults.delay(20), part="/.claude/", times=None)  # no object gets there in time
        begun = time.monotonic()
        assert running.end(signal.SIGTERM) == 0, running.text()
        assert time.monotonic() - begun < 20
    sent = fault_proxy.seen("PUT", "/journal/")
    assert sum(request.sent_bytes for request in sent) < 8192
    assert termination(tmp_path)[1]["durable"] is True
    restored = fresh_pod(settings_for, bucket, tmp_path).read(LOG)
    assert len(restored) == 40 * MIB + 4096


@pytest.mark.parametrize("seconds", [1.0, 60.0], ids=["slow", "hangs"])
def test_sigterm_in_the_middle_of_a_flush_loses_nothing_and_restores_nothing_twice(
    seconds: float, bucket: str, settings_for: MakeSettings, tmp_path: Path, fault_proxy: FaultProxy
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    grace = {"CLAUDE_SIDECAR_GRACE_SECONDS": "6", "CLAUDE_SIDECAR_SYNC_DELAY_SECONDS": "0.1"}
    with sidecar(settings, tmp_path, **grace) as running:
        running.wait_for("/readyz")
        append(settings, LOG, '{"n": 1}\n')
        eventually(lambda: fault_proxy.seen("PUT", "/journal/"), running)
        fault_proxy.clear()
        fault_proxy.on("PUT", faults.delay(seconds), part="/journal/")
        append(settings, LOG, '{"n": 2}\n')
        eventually(lambda: fault_proxy.seen("PUT", "/journal/"), running)
        assert running.end(signal.SIGTERM) == 0
    assert fresh_pod(settings_for, bucket, tmp_path).read(LOG) == b'{"n": 1}\n{"n": 2}\n'


def test_a_policy_that_knows_no_journal_met_first_at_the_end_leaves_time_for_the_checkpoint(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, fault_proxy: FaultProxy
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    grace = {"CLAUDE_SIDECAR_GRACE_SECONDS": "8", "CLAUDE_SIDECAR_SYNC_DELAY_SECONDS": "600"}
    with sidecar(settings, tmp_path, **grace) as running:
        running.wait_for("/readyz")
        append(settings, LOG, '{"n": 1}\n')
        fault_proxy.on("*", faults.answer(403, "AccessDenied"), part=".claude-sidecar", times=None)
        fault_proxy.on("PUT", faults.delay(2), part="/.claude/")
        assert running.end(signal.SIGTERM) == 0, running.text()
    assert objects(s3, bucket)[LOG] == b'{"n": 1}\n'
    assert termination(tmp_path)[1]["durable"] is True


@pytest.mark.parametrize("delay", ["600", "off"], ids=["journal", "interval"])
def test_a_checkpoint_that_breaks_at_the_end_leaves_a_message_that_is_true(
    delay: str, bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    settings.home_of("ada").mkdir()
    (tmp_path / "termination-log").touch()
    s3.put_object(Bucket=bucket, Key="user_data/ada/.claude/plans/known.md", Body=b"plan")
    environ = environ_of(settings, CLAUDE_SIDECAR_SYNC_DELAY_SECONDS=delay)
    with Sidecar(environ, tmp_path / "log", program=("-c", BROKEN)) as running:
        running.wait_for("/readyz")
        append(settings, LOG, '{"n": 1}\n')
        assert running.end(signal.SIGTERM) == (1 if delay == "off" else 0), running.text()
    human, document = termination(tmp_path)
    if delay == "off":
        assert human.startswith("NOT durable: 1 files, 9 bytes"), human
        assert document["pending"][0]["path"] == LOG
        assert "ZeroDivisionError" in document["errors"][0]
    else:
        assert document["durable"] is True
        assert journalled(s3, bucket)[LOG] == b'{"n": 1}\n'
    assert "ZeroDivisionError" in running.text(), "the log has the whole error"


def test_without_a_journal_what_was_not_in_time_is_named(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, fault_proxy: FaultProxy
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    grace = {"CLAUDE_SIDECAR_GRACE_SECONDS": "2", "CLAUDE_SIDECAR_SYNC_DELAY_SECONDS": "off"}
    with sidecar(settings, tmp_path, **grace) as running:
        running.wait_for("/readyz")
        append(settings, LOG, '{"n": 1}\n')
        fault_proxy.on("PUT", faults.delay(60), times=None)
        assert running.end(signal.SIGTERM) == 1
    human, document = termination(tmp_path)
    assert human.startswith("NOT durable: 1 files, 9 bytes"), human
    assert document["pending"][0]["path"] == LOG


def test_a_bucket_that_never_answered_leaves_nothing_durable_and_says_so_all_the_time(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, fault_proxy: FaultProxy
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    fault_proxy.down()
    with sidecar(settings, tmp_path, CLAUDE_SIDECAR_GRACE_SECONDS="2") as running:
        running.wait_for("/livez")
        append(settings, LOG, '{"n": 1}\n')
        eventually(lambda: metrics(running).get("unsynced_bytes") == 9, running, 60)
        told = metrics(running)
        assert told["unsynced_files"] == 1
        assert told["oldest_unsynced_age_seconds"] > 0
        assert "last_durable_timestamp_seconds" not in told
        user = running.call("GET", "/v1/stats")[1]["users"]["ada"]
        assert (user["unsynced_bytes"], user["last_durable_time"]) == (9, None)
        assert running.end(signal.SIGTERM) == 1
    human, document = termination(tmp_path)
    assert human.startswith("NOT durable: 1 files, 9 bytes, the oldest "), human
    assert "last durable point: never" in human
    assert document["pending"][0]["path"] == LOG
    assert running.text().count("Initial sync failed") == 1, running.text()


def test_a_flush_is_durable_while_a_long_checkpoint_runs_which_begins_no_file_meanwhile(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, fault_proxy: FaultProxy
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    more = {"CLAUDE_SIDECAR_SYNC_DELAY_SECONDS": "0.2", "CLAUDE_SIDECAR_CONCURRENCY": "2"}
    with sidecar(settings, tmp_path, CLAUDE_SIDECAR_GRACE_SECONDS="4", **more) as running:
        running.wait_for("/readyz")
        for number in range(100):
            append(settings, f"plans/{number}.md", "plan")
        eventually(lambda: len(journalled(s3, bucket)) == 100, running)
        fault_proxy.clear()
        fault_proxy.on("PUT", faults.delay(0.3), part="/plans/", times=None)
        fault_proxy.on("PUT", faults.delay(1.5), part="/journal/", times=2)
        running.call("POST", "/v1/sync?wait=checkpoint&timeout=0.5")
        append(settings, LOG, '{"n": 1}\n')
        eventually(lambda: fault_proxy.seen("PUT", "/journal/"), running)
        begun = len(fault_proxy.seen("PUT", "/plans/"))
        eventually(lambda: LOG in journalled(s3, bucket), running)
        after = len(fault_proxy.seen("PUT", "/plans/"))
        assert 0 < begun < 100, "the checkpoint was over"
        assert after - begun <= 4, "a file of the checkpoint began beside the flush"
        append(settings, LOG, '{"n": 2}\n')
        running.end(signal.SIGTERM)
    assert journalled(s3, bucket)[LOG] == b'{"n": 1}\n{"n": 2}\n', "the end's flush did not go first"
    assert len(objects(s3, bucket)) < 101


def test_sigterm_before_anything_began_still_backs_up_what_a_restart_finds(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    append(settings, LOG, '{"n": 1}\n')
    (tmp_path / "termination-log").touch()
    with Sidecar(environ_of(settings), tmp_path / "log", program=("-c", ENDED_WHILE_IMPORTING)) as running:
        assert running.process
        assert running.process.wait(60) == 0, running.text()
    assert objects(s3, bucket)[LOG] == b'{"n": 1}\n'
    assert termination(tmp_path)[1]["users"] == 1


def test_when_time_is_short_and_there_is_no_journal_transcripts_go_first(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, fault_proxy: FaultProxy
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    more = {"CLAUDE_SIDECAR_SYNC_DELAY_SECONDS": "off", "CLAUDE_SIDECAR_CONCURRENCY": "1"}
    with sidecar(settings, tmp_path, CLAUDE_SIDECAR_GRACE_SECONDS="3", **more) as running:
        running.wait_for("/readyz")
        append(settings, LOG, '{"n": 1}\n')
        for number in range(40):
            append(settings, f"plans/{number}.md", "plan")
        time.sleep(RACY_NS / 1e9 + 0.2)  # later its times alone prove that it is what was sent
        fault_proxy.on("PUT", faults.delay(0.3), part="/plans/", times=None)
        assert running.end(signal.SIGTERM) == 1
    assert objects(s3, bucket)[LOG] == b'{"n": 1}\n'
    left = termination(tmp_path)[1]["pending_files"]
    assert 41 - len(objects(s3, bucket)) <= left <= 40, "what was sent is not missing"


def test_without_a_journal_a_bucket_that_recovers_in_time_is_tried_again(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, fault_proxy: FaultProxy
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    with sidecar(
        settings, tmp_path, CLAUDE_SIDECAR_SYNC_DELAY_SECONDS="off", CLAUDE_SIDECAR_GRACE_SECONDS="20"
    ) as running:
        running.wait_for("/readyz")
        append(settings, LOG, '{"n": 1}\n')
        fault_proxy.down()
        assert running.process
        running.process.send_signal(signal.SIGTERM)
        eventually(lambda: "Backup failed" in running.text(), running)
        fault_proxy.up()
        assert running.process.wait(60) == 0, running.text()
    assert objects(s3, bucket)[LOG] == b'{"n": 1}\n'


def test_what_hangs_behind_the_last_file_takes_nothing_from_what_is_durable(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, fault_proxy: FaultProxy
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    grace = {"CLAUDE_SIDECAR_GRACE_SECONDS": "4", "CLAUDE_SIDECAR_SYNC_DELAY_SECONDS": "off"}
    with sidecar(settings, tmp_path, **grace) as running:
        running.wait_for("/readyz")
        append(settings, LOG, '{"n": 1}\n')
        time.sleep(RACY_NS / 1e9 + 0.2)  # later its times alone prove that it is what was sent
        fault_proxy.on("PUT", faults.delay(60), part="/manifest.json", times=None)
        assert running.end(signal.SIGTERM) == 0, running.text()
    human, document = termination(tmp_path)
    assert human.startswith("All durable at 20"), human
    assert document["durable"] is True
    assert objects(s3, bucket)[LOG] == b'{"n": 1}\n'


def test_what_was_forgotten_is_never_called_durable_in_the_end(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    """The sidecar learned of it; what it did not send is gone since, so nothing is left to name."""
    settings = settings_for(bucket, user_id="ada")
    append(settings, LOG, '{"n": 1}\n')
    os.utime(Path(settings.home) / LOG, ns=(T0, T0))  # its times alone prove that it is what was sent
    times = {"CLAUDE_SIDECAR_GRACE_SECONDS": "3", "CLAUDE_SIDECAR_SYNC_DELAY_SECONDS": "600"}
    with sidecar(settings, tmp_path, **times) as running:
        running.wait_for("/readyz")
        eventually(lambda: LOG in objects(s3, bucket), running)
        erase(Store.connect(settings), AreaKeys("user_data", "ada"), now=datetime.now(UTC))
        append(settings, "plans/a.md", "plan")
        running.call("POST", "/v1/sync?wait=checkpoint&timeout=10")
        eventually(lambda: "nothing is uploaded" in running.text(), running)
        (Path(settings.home) / "plans/a.md").unlink()
        assert running.end(signal.SIGTERM) == 1, running.text()
    human, document = termination(tmp_path)
    assert document["durable"] is False, human
    assert "All durable" not in running.text()


@pytest.mark.parametrize("behind", [False, True])
def test_who_learns_at_its_end_that_its_user_was_forgotten_calls_nothing_durable(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, behind: bool
) -> None:
    """`behind`: the last flush has something to send, and does not ask."""
    settings = settings_for(bucket, user_id="ada")
    keys = AreaKeys("user_data", "ada")
    append(settings, LOG, '{"n": 1}\n')
    os.utime(Path(settings.home) / LOG, ns=(T0, T0))
    times = {"CLAUDE_SIDECAR_GRACE_SECONDS": "10", "CLAUDE_SIDECAR_SYNC_DELAY_SECONDS": "600"}
    with sidecar(settings, tmp_path, **times) as running:
        running.wait_for("/readyz")
        eventually(lambda: LOG in objects(s3, bucket), running)
        erase(Store.connect(settings), keys, now=datetime.now(UTC))
        if behind:
            append(settings, LOG, '{"n": 2}\n')
        assert running.end(signal.SIGTERM) == 1, running.text()
    human, document = termination(tmp_path)
    assert document["durable"] is False, human
    assert "was forgotten" in running.text()
    assert "All durable" not in running.text()
    left = objects(s3, bucket, "user_data/ada/")
    assert keys.tombstone.removeprefix("user_data/ada/") in left
    assert len(left) == 1 + behind, "an end mark stands in an area that was erased"
