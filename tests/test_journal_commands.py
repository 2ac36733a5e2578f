"""The journal for people: listed, shown without its content, folded for a whole bucket."""

import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.sync.flusher import Flusher
from tests.processes import Sidecar, command, environ_of
from tests.servers import ServerProcess as Server
from tests.servers import client
from tests.sync.pods import MakeSettings, Pod, objects, pods

LOG = "projects/-w/s.jsonl"


def flush_and_die(pod: Pod, text: str) -> None:
    """What a pod leaves that was killed before any checkpoint."""
    pod.start()
    pod.append(LOG, text)
    pod.write("CLAUDE.md", f"memory of {pod.user}")
    with pod.open() as workspace:
        assert Flusher(workspace).flush().durable


def test_entries_are_listed_and_shown_without_their_content(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1, user_id="ada")
    flush_and_die(pod, '{"secret": "word"}\n')
    environ = environ_of(pod.settings)
    listed = command(environ, "journal", "ls", "--json")
    assert listed.returncode == 0, listed.stderr
    (row,) = json.loads(listed.stdout)
    assert (row["records"], row["files"]) == (2, 2)
    shown = command(environ, "journal", "show", row["entry"])
    assert shown.returncode == 0, shown.stderr
    assert LOG in shown.stdout
    assert "word" not in shown.stdout
    assert command(environ, "journal", "show").returncode == 2
    assert command(environ, "journal", "show", "nobody/1.zst").returncode == 1


def test_a_damaged_entry_is_named_and_the_exit_code_says_partly(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1, user_id="ada")
    key = "user_data/ada/.claude-sidecar/journal/pod-1/000000000001.zst"
    s3.put_object(Bucket=bucket, Key=key, Body=b"damaged")
    listed = command(environ_of(pod.settings), "journal", "ls")
    assert listed.returncode == 3
    assert "damaged" in listed.stdout
    shown = command(environ_of(pod.settings), "journal", "show", "pod-1/000000000001.zst", "--json")
    assert (shown.returncode, json.loads(shown.stdout)["kind"]) == (1, "corrupt")


def test_every_journal_of_a_bucket_is_folded_and_a_second_run_finds_nothing(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = pods(settings_for, bucket, tmp_path, 3)
    for pod, user in zip(made, ("ada", "bob", "cy"), strict=True):
        pod.user = user
        flush_and_die(pod, f'{{"of": "{user}"}}\n')
    from sidecar.commands.journal import checkpoint_all_users

    assert checkpoint_all_users(made[0].settings) == 3  # the writers are younger than a minute
    monkeypatch.setattr("sidecar.sync.journal_reader.ALIVE_SECONDS", -1.0)
    assert checkpoint_all_users(made[0].settings) == 0
    for user in ("ada", "bob", "cy"):
        area = objects(s3, bucket, f"user_data/{user}/.claude/")
        assert area == {LOG: f'{{"of": "{user}"}}\n'.encode(), "CLAUDE.md": f"memory of {user}".encode()}
        assert not objects(s3, bucket, f"user_data/{user}/.claude-sidecar/journal/")
    assert checkpoint_all_users(made[0].settings) == 0


def test_folding_by_hand_asks_a_store_that_ignores_conditions_too(
    rclone_server: Server,
    settings_for: MakeSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from sidecar.commands.journal import checkpoint_all_users

    client(rclone_server).create_bucket(Bucket="weak-journal")
    (pod,) = pods(settings_for, "weak-journal", tmp_path, 1, endpoint=rclone_server.endpoint)
    flush_and_die(pod, '{"n": 1}\n')
    monkeypatch.setattr("sidecar.sync.journal_reader.ALIVE_SECONDS", -1.0)
    assert checkpoint_all_users(pod.settings) == 0
    assert "The store ignores conditional writes" in caplog.text


def test_drain_reaches_the_sidecar_of_this_pod(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    settings = settings_for(bucket, user_id="ada")
    with Sidecar(environ_of(settings), tmp_path / "log") as running:
        running.wait_for("/readyz")
        environ = environ_of(settings, CLAUDE_SIDECAR_API_PORT=str(running.api_port))
        assert command(environ, "drain").returncode == 0
        assert "Draining" in running.text()
        running.end(9)
        alone = command(environ, "drain")
    assert alone.returncode == 1
    assert "CLAUDE_SIDECAR_API_PORT" in alone.stderr


def test_hooks_are_printed_and_installed_once(settings_for: MakeSettings, tmp_path: Path) -> None:
    environ = environ_of(settings_for(None))
    printed = command(environ, "hooks")
    assert printed.returncode == 0
    assert "http://127.0.0.1:8377/hooks/claude" in printed.stdout
    file = tmp_path / "settings.json"
    file.write_text('{"theme": "dark"}')
    assert command(environ, "hooks", "--install", str(file)).returncode == 0
    once = file.read_text()
    assert json.loads(once)["theme"] == "dark"
    assert command(environ, "hooks", "--install", str(file)).returncode == 0
    assert file.read_text() == once
