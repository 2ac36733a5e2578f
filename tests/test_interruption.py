"""Commands that are told to end, or that must not begin to write: real signals to real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sidecar.embedded import EmbeddedS3
from sidecar.errors import SidecarError
from sidecar.settings import Settings
from tests import faults
from tests.fault_proxy import FaultProxy
from tests.processes import command, environ_of
from tests.sync.pods import MakeSettings, objects

NAMES = [f"skills/{number}.md" for number in range(60)]


def fill_area(s3: Any, bucket: str) -> None:
    for name in NAMES:
        s3.put_object(Bucket=bucket, Key=f"user_data/ada/.claude/{name}", Body=name.encode())


def fill_home(settings: Settings) -> None:
    for name in NAMES:
        (Path(settings.home) / name).parent.mkdir(parents=True, exist_ok=True)
        (Path(settings.home) / name).write_text(name)


def signalled(
    settings: Settings, number: int, verb: str, proxy: FaultProxy
) -> subprocess.CompletedProcess[str]:
    """`verb`, ended by `number` when the store has seen some of it."""
    environ = environ_of(settings, CLAUDE_SIDECAR_CONCURRENCY="2")
    with subprocess.Popen(
        [sys.executable, "-m", "sidecar.cli", verb],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 30
        while sum("/skills/" in request.target for request in proxy.seen()) < 4:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
        return subprocess.CompletedProcess(verb, process.returncode, output, errors)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("verb", ["restore", "backup", "verify"])
def test_a_signal_ends_a_command_with_a_sentence_and_the_code_of_the_signal(
    bucket: str,
    settings_for: MakeSettings,
    fault_proxy: FaultProxy,
    s3: Any,
    verb: str,
    number: int,
    code: int,
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    if verb != "restore":
        fill_home(settings)
    if verb != "backup":
        fill_area(s3, bucket)
    fault_proxy.on("*", faults.delay(0.5), part="/skills/", times=None)
    ended = signalled(settings, number, verb, fault_proxy)
    assert ended.returncode == code, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"WARNING: {verb} was ended by {signal.Signals(number).name}; what is done stays")
    assert "Traceback" not in ended.stderr


# Commands whose output goes nowhere, as they are started by a shell.
_STALLED = "lambda: sys.stdout.write('x' * 2_000_000)"
_CLOSED = "lambda: print('begun', file=sys.stderr, flush=True) or time.sleep(60)"


@pytest.mark.parametrize(
    ("work", "closed"), [(_STALLED, ""), (_CLOSED, ">&-")], ids=["nobody reads it", "it is closed"]
)
def test_a_signal_ends_a_command_whose_output_goes_nowhere(work: str, closed: str) -> None:
    code = (
        "import sys, time; from sidecar.commands.interruption import until_signalled; "
        f"until_signalled('it', {work})"
    )
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code],
        env=buffered,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stderr
        (process.stderr if closed else process.stdout).read(1)  # it has begun
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(timeout=30) == 143
        finally:
            process.kill()
        assert "Traceback" not in process.stderr.read()


def test_what_a_signal_cut_off_goes_on_and_is_whole(
    bucket: str, settings_for: MakeSettings, fault_proxy: FaultProxy, s3: Any
) -> None:
    fill_area(s3, bucket)
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    fault_proxy.on("GET", faults.delay(0.2), part="/skills/", times=20)
    assert signalled(settings, signal.SIGTERM, "restore", fault_proxy).returncode == 143
    came = [path for path in Path(settings.home).rglob("*") if path.is_file()]
    assert len(came) < len(NAMES)
    assert command(environ_of(settings), "restore").returncode == 0
    found = {str(path.relative_to(settings.home)) for path in Path(settings.home).rglob("*.md")}
    assert found == set(NAMES)
    assert all((Path(settings.home) / name).read_text() == name for name in NAMES)


def test_verify_ends_an_outage_within_its_time_as_could_not_tell(
    bucket: str, settings_for: MakeSettings, fault_proxy: FaultProxy, s3: Any
) -> None:
    fill_area(s3, bucket)
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    fill_home(settings)
    fault_proxy.on("GET", faults.answer(503, "InternalError", "away"), part="/skills/", times=None)
    ended = command(environ_of(settings, CLAUDE_SIDECAR_RESTORE_TIMEOUT_SECONDS="1"), "verify")
    assert ended.returncode == 2, ended.stderr
    assert "It could not be told whether home and bucket are equal" in ended.stderr
    tries = [request.target for request in fault_proxy.seen() if "/skills/" in request.target]
    assert len(tries) < 10 * len(NAMES), "it went on as if it had a minute for each"


def test_a_dry_run_of_a_restore_makes_nothing(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    fill_area(s3, bucket)
    settings = settings_for(bucket, user_id="ada")
    before = objects(s3, bucket)
    for made in ((), (Path(settings.home),), (Path(settings.home), settings.state_dir)):
        for directory in made:
            directory.mkdir(exist_ok=True)
        ended = command(environ_of(settings), "restore", "--dry-run")
        assert ended.returncode == 0, ended.stderr
        assert f"restore would move {len(NAMES)} files" in ended.stdout
        assert "claude-sidecar-plan-" not in ended.stderr
        found = {path for path in tmp_path.rglob("*") if path.name != "log"}
        assert found == set(made), "something was made"
    assert objects(s3, bucket) == before


def test_a_dry_run_after_a_restore_tells_what_is_new(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    fill_area(s3, bucket)
    settings = settings_for(bucket, user_id="ada")
    assert command(environ_of(settings), "restore").returncode == 0
    s3.put_object(Bucket=bucket, Key="user_data/ada/.claude/CLAUDE.md", Body=b"new")
    ended = command(environ_of(settings), "restore", "--dry-run")
    assert "restore would move 1 files" in ended.stdout, ended.stderr
    assert not (Path(settings.home) / "CLAUDE.md").exists()


def test_a_bucket_that_the_embedded_server_will_not_have_is_a_sentence(weed_server: EmbeddedS3) -> None:
    with pytest.raises(SidecarError, match=r"did not make the bucket 'b' .*3 to 63"):
        weed_server.create_bucket("b")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_command_that_has_nowhere_to_speak_ends_as_it_would(
    settings_for: MakeSettings, closed: str
) -> None:
    ended = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -m sidecar.cli restore {closed}', sys.executable],
        env=environ_of(settings_for(None, user_id=None)),
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0  # no user is known yet: the restore waits for the first trigger
