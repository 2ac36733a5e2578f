"""kill -9 in the middle: what is half-done is known as half-done, and the next start finishes it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests import faults
from tests.fault_proxy import FaultProxy
from tests.processes import command, environ_of
from tests.sync.pods import MakeSettings, pods
from tests.sync.test_round_trip import fill


def test_a_restore_that_is_killed_leaves_no_half_file_and_the_next_one_finishes_it(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, fault_proxy: FaultProxy
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2, user_id="ada", endpoint=fault_proxy.endpoint)
    first.start()
    fill(first)
    for number in range(50):  # too few for a pack: they come one by one
        first.write(f"skills/s{number % 7}/{number}.md", f"skill {number} " * 500)
    first.backup()
    fault_proxy.on("GET", faults.delay(0.1), part="/skills/s", times=None)
    environ = environ_of(second.settings, CLAUDE_SIDECAR_CONCURRENCY="2")
    process = subprocess.Popen([sys.executable, "-m", "sidecar.cli", "restore"], env=environ)
    deadline = time.monotonic() + 30
    while len(list(second.home.rglob("*.md"))) < 15 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    came = {path: seen for path, seen in second.tree().items() if seen[0] == "file"}
    whole = first.tree()
    hidden = [path for path in came if Path(path).name.startswith(".claude-sidecar-")]
    assert 15 <= len(came) - len(hidden) < 57
    assert all(came[path] == whole[path] for path in came if path not in hidden), "a file is not as it was"
    fault_proxy.clear()
    ended = command(environ, "restore")
    assert ended.returncode == 0, ended.stderr
    assert second.tree() == whole


def test_a_backup_that_is_killed_is_finished_by_the_next(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, fault_proxy: FaultProxy
) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2, user_id="ada", endpoint=fault_proxy.endpoint)
    fill(first)
    for number in range(60):
        first.write(f"skills/s{number % 7}/{number}.md", f"skill {number} " * 500)
    fault_proxy.on("PUT", faults.delay(0.1), part="/skills/s", times=None)
    environ = environ_of(first.settings, CLAUDE_SIDECAR_CONCURRENCY="2")
    process = subprocess.Popen([sys.executable, "-m", "sidecar.cli", "backup"], env=environ)
    deadline = time.monotonic() + 30
    while len(fault_proxy.seen("PUT", "/skills/s")) < 15 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    fault_proxy.clear()
    ended = command(environ, "backup")
    assert ended.returncode == 0, ended.stderr
    sent_again = {request.target for request in fault_proxy.seen("PUT", "/skills/s")}
    assert len(sent_again) < 60, "what was acknowledged before the kill was sent again"
    second.start()
    assert second.tree() == first.tree()
