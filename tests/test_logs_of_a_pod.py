"""The log of a real pod's life: short, traceable, and without a secret."""

from __future__ import annotations

import http.client
import json
import signal
import time
from pathlib import Path
from typing import Any

import jwt

from tests.processes import Sidecar, command, environ_of
from tests.running import append
from tests.sync.pods import MakeSettings

LOG = "projects/-w/s.jsonl"
SECRET = "a shared secret of at least thirty-two bytes"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_pods_whole_life_at_info_fits_on_a_screen(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    for number in range(20):
        s3.put_object(Bucket=bucket, Key=f"user_data/ada/.claude/skills/{number}.md", Body=b"skill")
    settings = settings_for(bucket, user_id="ada")
    environ = environ_of(settings)
    hook = command(environ, "restore")
    with Sidecar(environ, tmp_path / "log") as running:
        running.wait_for("/readyz")
        for _ in range(5):
            append(settings, LOG, '{"said": "a line of the agent"}\n')
            assert running.call("POST", "/v1/sync?wait=durable")[0] == 200
        running.call("GET", "/prestop", port=running.health_port)
        assert running.end(signal.SIGTERM) == 0
    lines = hook.stderr.splitlines() + running.text().splitlines()
    assert len(lines) <= 25, "\n".join(lines)
    assert all(line.startswith("INFO: ") for line in lines), "\n".join(lines)


def test_the_ids_of_a_request_stand_in_the_lines_of_what_it_started_and_no_token_ever(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    s3.put_object(Bucket=bucket, Key="user_data/ada/.claude/CLAUDE.md", Body=b"the content of a file")
    (tmp_path / "secret").write_text(SECRET)
    settings = settings_for(bucket)
    environ = environ_of(
        settings,
        CLAUDE_SIDECAR_JWT_SECRET_FILE=str(tmp_path / "secret"),
        CLAUDE_SIDECAR_LOG_FORMAT="json",
        CLAUDE_SIDECAR_LOG_LEVEL="DEBUG",
    )
    token = jwt.encode({"sub": "ada", "exp": int(time.time()) + 60}, SECRET, algorithm="HS256")
    forged = token[:-4] + "AAAA"
    with Sidecar(environ, tmp_path / "log") as running:
        running.wait_for("/startupz")
        for given in (forged, token):
            connection = http.client.HTTPConnection("127.0.0.1", running.api_port, timeout=30)
            headers = {"Authorization": f"Bearer {given}", "traceparent": f"00-{TRACE}-{SPAN}-01"}
            connection.request("POST", "/invocations", headers=headers)
            connection.getresponse().read()
            connection.close()
        append(settings, LOG, '{"said": "a line of the agent"}\n')
        connection = http.client.HTTPConnection("127.0.0.1", running.api_port, timeout=30)
        connection.request("POST", "/v1/sync?wait=checkpoint", headers={"Authorization": f"Bearer {token}"})
        assert json.loads(connection.getresponse().read())["durable"] is True
        connection.close()
        running.end(signal.SIGTERM)
    lines = [json.loads(line) for line in running.text().splitlines()]
    traced = [line["message"] for line in lines if line.get("trace_id") == TRACE and line["span_id"] == SPAN]
    for beginning in (
        "A token was refused",
        "Checking if .claude",
        "Syncing .claude",
        ".claude sync completed",
    ):
        assert any(message.startswith(beginning) for message in traced), (beginning, running.text())
    assert not any("Initializing" in message for message in traced)
    text = running.text()
    for secret in (
        token,
        token.rpartition(".")[2],
        forged[-20:],
        SECRET,
        settings.aws["AWS_SECRET_ACCESS_KEY"],
    ):
        assert secret not in text
    for content in ("the content of a file", "a line of the agent"):
        assert content not in text
