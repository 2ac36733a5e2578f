"""``claude-sidecar run`` as Kubernetes sees it: probes, signals, the exit code, the termination message."""

import json
import signal
import time
from pathlib import Path
from typing import Any

from tests import faults
from tests.fault_proxy import FaultProxy
from tests.processes import Sidecar, command, environ_of
from tests.sync.pods import MakeSettings, objects

LOG = "projects/-w/s.jsonl"


def sidecar(settings: Any, tmp_path: Path, **more: str) -> Sidecar:
    return Sidecar(environ_of(settings, **more), tmp_path / "log")


def write(settings: Any, path: str, text: str) -> None:
    file = Path(settings.home) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as opened:
        opened.write(text)


def termination(tmp_path: Path) -> tuple[str, dict[str, Any]]:
    human, _, document = (tmp_path / "termination-log").read_text().partition("\n")
    return human, json.loads(document)


def test_sigterm_backs_up_what_nobody_asked_for_and_says_so(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    (tmp_path / "termination-log").touch()
    with sidecar(settings, tmp_path) as running:
        running.wait_for("/readyz")
        write(settings, LOG, '{"n": 1}\n')
        write(settings, "settings.json", "{}")
        assert running.end(signal.SIGTERM) == 0
    assert objects(s3, bucket) == {LOG: b'{"n": 1}\n', "settings.json": b"{}"}
    human, document = termination(tmp_path)
    assert human.startswith("All durable at 20")
    assert document["durable"] is True
    assert "Background backup task stopped" in running.text()


def test_an_unreachable_bucket_at_the_end_is_an_exit_code_and_a_list(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, fault_proxy: FaultProxy
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    (tmp_path / "termination-log").touch()
    with sidecar(settings, tmp_path, CLAUDE_SIDECAR_GRACE_SECONDS="3") as running:
        running.wait_for("/readyz")
        write(settings, LOG, '{"n": 1}\n')
        fault_proxy.down()
        begun = time.monotonic()
        assert running.end(signal.SIGTERM) == 1
        assert time.monotonic() - begun < 30, "it outlived its grace period by far"
    human, document = termination(tmp_path)
    assert human.startswith("NOT durable")
    assert document["durable"] is False


def test_a_restarted_container_never_restores_over_live_data(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    with sidecar(settings, tmp_path) as first:
        first.wait_for("/readyz")
        write(settings, "settings.json", '{"v": 1}')
        assert first.call("POST", "/v1/sync?wait=durable")[1]["durable"] is True
        first.end(signal.SIGKILL)
    s3.put_object(Bucket=bucket, Key="user_data/ada/.claude/settings.json", Body=b'{"v": "other"}')
    write(settings, LOG, "{}\n")
    with sidecar(settings, tmp_path) as second:
        second.wait_for("/readyz")
        assert second.call("POST", "/invocations")[1]["action"] == "already_synced"
        assert (Path(settings.home) / "settings.json").read_text() == '{"v": 1}'
        assert second.end(signal.SIGTERM) == 0
    assert objects(s3, bucket)[LOG] == b"{}\n"


def test_the_interval_backs_up_and_an_idle_round_is_silent_after_the_first(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    with sidecar(settings, tmp_path, CLAUDE_BACKUP_INTERVAL_MINUTES="0.01") as running:
        running.wait_for("/readyz")
        write(settings, LOG, "{}\n")
        deadline = time.monotonic() + 20
        while LOG not in objects(s3, bucket) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert objects(s3, bucket)[LOG] == b"{}\n"
        time.sleep(3)
        running.end(signal.SIGTERM)
    assert running.text().count("Starting periodic backup for 1 users") <= 2
    assert "Starting .claude backup loop (interval: 0.01 minutes)" in running.text()


def test_without_a_bucket_it_says_so_and_stays_up_disabled(
    settings_for: MakeSettings, tmp_path: Path
) -> None:
    settings = settings_for(None, user_id="ada")
    with sidecar(settings, tmp_path) as running:
        running.wait_for("/readyz")
        assert running.call("POST", "/invocations")[1]["action"] == "disabled"
        assert running.end(signal.SIGTERM) == 0
    assert "S3_WORKSPACE_BUCKET not configured, .claude sync/backup will be disabled" in running.text()


def test_the_agent_is_not_held_up_by_a_bucket_that_is_away(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint="http://127.0.0.1:9")
    with sidecar(settings, tmp_path) as running:
        running.wait_for("/startupz")
        running.wait_for("/livez")
        assert running.call("GET", "/readyz")[0] == 503
        running.end(signal.SIGKILL)


def test_a_second_sigterm_ends_at_once(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, fault_proxy: FaultProxy
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    with sidecar(settings, tmp_path, CLAUDE_SIDECAR_GRACE_SECONDS="600") as running:
        running.wait_for("/readyz")
        write(settings, LOG, "{}\n")
        fault_proxy.down()
        assert running.process
        running.process.send_signal(signal.SIGTERM)
        while "the last backup begins" not in running.text():
            time.sleep(0.05)
        assert running.end(signal.SIGTERM) != 0


def test_a_port_that_is_taken_is_one_sentence(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    settings = settings_for(bucket, user_id="ada")
    with sidecar(settings, tmp_path) as running:
        running.wait_for("/startupz")
        taken = {
            "CLAUDE_SIDECAR_API_PORT": str(running.api_port),
            "CLAUDE_SIDECAR_STATE_DIR": str(tmp_path / "other-state"),
        }
        second = command(environ_of(settings, **taken), "run")
        running.end(signal.SIGTERM)
    assert second.returncode == 2
    assert "CLAUDE_SIDECAR_API_PORT" in second.stderr
    assert "Traceback" not in second.stderr


def test_sigterm_in_the_middle_of_the_first_restore_stops_it_and_backs_up_what_the_agent_wrote(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, fault_proxy: FaultProxy, s3: Any
) -> None:
    for number in range(80):
        s3.put_object(Bucket=bucket, Key=f"user_data/ada/.claude/skills/{number}.md", Body=b"skill")
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    fault_proxy.on("GET", faults.delay(0.25), part="/skills/", times=None)
    slow = {"CLAUDE_SIDECAR_CONCURRENCY": "1", "CLAUDE_SIDECAR_GRACE_SECONDS": "15"}
    with sidecar(settings, tmp_path, **slow) as running:
        deadline = time.monotonic() + 20
        while len(list(Path(settings.home).rglob("*.md"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        write(settings, LOG, "written while the restore ran\n")
        running.end(signal.SIGTERM)
    assert len(list(Path(settings.home).rglob("*.md"))) < 80, "the restore was not stopped"
    assert objects(s3, bucket)[LOG] == b"written while the restore ran\n"
