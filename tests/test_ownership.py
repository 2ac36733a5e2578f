"""Under which UID the sidecar runs and whose the home is, with real processes of both."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sidecar.settings import Owner, Settings
from tests.processes import Sidecar, command, environ_of
from tests.running import eventually, metrics
from tests.sync.pods import MakeSettings

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs to act as several users: run the tests as root"
)

LOG = "projects/-w/s.jsonl"
AGENT, STRANGER = 1234, 65533

# Everything is imported first: under another UID the interpreter's packages may be out of reach.
BECOME = """
import importlib, os, pkgutil, sys
import aiohttp, backports.zstd, inotify_simple, jwt, obstore, obstore.store, orjson, pathspec
import encodings.idna, zoneinfo
import sidecar
for module in pkgutil.walk_packages(sidecar.__path__, "sidecar."):
    if "embedded" not in module.name and "injector" not in module.name:
        importlib.import_module(module.name)
uid = int(sys.argv.pop(1))
os.setgroups([]); os.setgid(uid); os.setuid(uid)
sys.exit(sidecar.cli.main(sys.argv[1:]))
"""


def as_user(uid: int) -> tuple[str, ...]:
    """How an interpreter is started that is `uid`, without any capability, before it begins its work."""
    return ("-c", BECOME, str(uid))


@pytest.fixture
def volume() -> Iterator[Path]:
    """A directory that every user can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="volumes-of-a-pod-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def settings(bucket: str, settings_for: MakeSettings, volume: Path, s3: Any) -> Settings:
    """Of a pod whose area holds a transcript and a file."""
    for path in (LOG, "settings.json"):
        s3.put_object(Bucket=bucket, Key=f"user_data/ada/.claude/{path}", Body=b"{}\n")
    state = volume / "state"
    state.mkdir(mode=0o777)
    state.chmod(0o777)
    return settings_for(bucket, home=str(volume / "home"), state_dir=state, user_id="ada")


def owners(home: Path) -> set[tuple[int, int]]:
    return {(found.stat().st_uid, found.stat().st_gid) for found in (home, *home.rglob("*"))}


def readable_by_the_agent(home: Path) -> bool:
    user = ["setpriv", f"--reuid={AGENT}", f"--regid={AGENT}", "--clear-groups"]
    return subprocess.run([*user, "cat", str(home / LOG)], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("before", ["missing", "made by the kubelet for a subPath", "an emptyDir"])
def test_root_gives_all_that_it_restores_to_the_owner_that_is_named(settings: Settings, before: str) -> None:
    home = Path(settings.home)
    if before != "missing":
        home.mkdir()
        home.chmod(0o777 if "empty" in before else 0o755)
    ended = command(environ_of(settings, CLAUDE_SIDECAR_OWNER="1234:2345"), "restore")
    assert ended.returncode == 0, ended.stderr
    assert owners(home) == {(1234, 2345)}
    assert readable_by_the_agent(home)
    assert "INFO: Restored files are given to UID 1234 (CLAUDE_SIDECAR_OWNER)" in ended.stderr
    assert "WARNING" not in ended.stderr


def test_root_takes_the_owner_of_the_home_where_none_is_named(settings: Settings) -> None:
    home = Path(settings.home)
    home.mkdir(mode=0o700)
    os.chown(home, AGENT, AGENT)
    ended = command(environ_of(settings), "restore")
    assert ended.returncode == 0, ended.stderr
    assert owners(home) == {(AGENT, AGENT)}
    assert f"INFO: Restored files are given to UID {AGENT}, the owner of the home" in ended.stderr


def test_root_in_a_home_that_nobody_owns_says_what_to_set(settings: Settings) -> None:
    home = Path(settings.home)
    home.mkdir()
    home.chmod(0o777)
    ended = command(environ_of(settings), "restore")
    assert ended.returncode == 0, ended.stderr
    assert not readable_by_the_agent(home)
    warnings = [line for line in ended.stderr.splitlines() if line.startswith("WARNING")]
    assert len(warnings) == 1
    assert "belong to root" in warnings[0] and "CLAUDE_SIDECAR_OWNER" in warnings[0]


def test_what_another_uid_wrote_is_said_at_start_and_shown_until_it_is_mended(
    settings: Settings, volume: Path
) -> None:
    home = Path(settings.home)
    secret_plans = [f"projects/-secret/{name}.jsonl" for name in "abcdef"]
    for path in secret_plans:
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text("{}\n")
        (home / path).chmod(0o600)
    for directory in (home, *home.rglob("")):
        directory.chmod(0o777)
    environ = environ_of(settings)
    with Sidecar(environ, volume / "log", program=as_user(STRANGER)) as running:
        ready = running.wait_for("/readyz")
        assert ready["ok"] is True
        assert ready["unreadable_files"] == 6
        assert set(ready["unreadable"]) == set(secret_plans)
        assert "run the sidecar as UID 0 (runAsUser)" in ready["unreadable_hint"]
        outside = running.call("GET", "/readyz", port=running.health_port)[1]
        assert outside["unreadable_files"] == 6
        assert "secret" not in str(outside), "names of files are not for everybody on the network"
        assert metrics(running)["unreadable_files"] == 6
        assert running.call("POST", "/v1/sync?wait=checkpoint")[1]["refused_count"] == 6
        said = [line for line in running.text().splitlines() if "cannot be read" in line]
        assert len(said) == 1 and said[0].startswith("WARNING: 6 files of")
        assert sum(path in said[0] for path in secret_plans) == 3, "some of them, not all"
        assert "run the sidecar as UID 0 (runAsUser)" in said[0]
        for path in secret_plans:
            os.chown(home / path, STRANGER, STRANGER)
        assert running.call("POST", "/v1/sync?wait=checkpoint")[1]["durable"] is True
        assert "unreadable_files" not in running.call("GET", "/readyz")[1]
        assert metrics(running)["unreadable_files"] == 0


def test_an_owner_that_nobody_can_give_files_to_is_a_warning(settings: Settings, volume: Path) -> None:
    (volume / "home").mkdir()
    os.chown(volume / "home", STRANGER, STRANGER)
    named = environ_of(replace(settings, owner=Owner(AGENT)), CLAUDE_SIDECAR_OWNER=str(AGENT))
    ended = subprocess.run(
        [sys.executable, *as_user(STRANGER), "restore"],
        env=named,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert f"WARNING: CLAUDE_SIDECAR_OWNER is {AGENT}, but this process is UID {STRANGER}" in ended.stderr
    assert owners(volume / "home") == {(STRANGER, STRANGER)}


def test_running_root_restores_and_appends_for_the_agent_while_it_lives(
    settings: Settings, volume: Path, s3: Any, bucket: str
) -> None:
    home = Path(settings.home)
    with Sidecar(environ_of(settings, CLAUDE_SIDECAR_OWNER=str(AGENT)), volume / "log") as running:
        running.wait_for("/readyz")
        s3.put_object(Bucket=bucket, Key="user_data/ada/.claude/agents/new.md", Body=b"new")
        assert running.call("POST", "/v1/restore")[1]["synced"] is True
        eventually((home / "agents/new.md").exists, running)
        assert {uid for uid, _ in owners(home)} == {AGENT}


@pytest.mark.parametrize("words", ["restore", "backup", "verify", "conflicts ls"])
def test_a_state_directory_of_somebody_else_gets_a_sentence(settings: Settings, words: str) -> None:
    """A sidecar that ran as root before, or as another UID."""
    home = Path(settings.home)
    home.mkdir(exist_ok=True)
    os.chown(home, AGENT, AGENT)
    settings.state_dir.mkdir(exist_ok=True)
    settings.state_dir.chmod(0o700)
    os.chown(settings.state_dir, 0, 0)
    ended = subprocess.run(
        [sys.executable, *as_user(AGENT), *words.split()],
        env=environ_of(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in ended.stderr
    if words != "conflicts ls":
        assert ended.returncode != 0
        assert "cannot be used: Permission denied (give CLAUDE_SIDECAR_STATE_DIR" in ended.stderr


def test_a_home_that_cannot_be_used_is_never_called_durable_in_the_end(
    settings: Settings, volume: Path
) -> None:
    """What may not be read in it is not eligible, so nothing is left to name."""
    home = Path(settings.home)
    (home / LOG).parent.mkdir(parents=True)
    (home / LOG).write_text("{}\n")
    (home / LOG).chmod(0o600)
    for directory in (home, *home.rglob("")):
        directory.chmod(0o755)
    environ = environ_of(settings, CLAUDE_SIDECAR_TERMINATION_LOG=str(volume / "termination"))
    (volume / "termination").touch()
    (volume / "termination").chmod(0o666)
    with Sidecar(environ, volume / "log", program=as_user(STRANGER)) as running:
        running.wait_for("/readyz", 503)
        running.wait_for("/livez")
        assert running.end(signal.SIGTERM) == 1, running.text()
    human, _, document = (volume / "termination").read_text().partition("\n")
    assert human.startswith(f"NOT durable: the home {home} cannot be written"), human
    assert json.loads(document)["durable"] is False
    assert "durable again" not in running.text()
    assert "All durable" not in running.text()
