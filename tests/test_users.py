"""Users by token, end to end: each in a directory and a prefix of their own, also after a restart."""

import http.client
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt

from tests.processes import Sidecar, environ_of
from tests.sync.pods import MakeSettings, objects

SECRET = "a shared secret of at least thirty-two bytes"


def token(user: str) -> str:
    return jwt.encode({"sub": user, "exp": int(time.time()) + 600}, SECRET, algorithm="HS256")


def call(running: Sidecar, method: str, path: str, user: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", running.api_port, timeout=60)
    try:
        connection.request(method, path, headers={"Authorization": f"Bearer {token(user)}"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def sidecar(settings: Any, tmp_path: Path) -> Sidecar:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    return Sidecar(environ_of(settings, CLAUDE_SIDECAR_JWT_SECRET_FILE=str(secret)), tmp_path / "log")


def test_many_users_at_once_are_restored_and_backed_up_each_to_their_own(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, home=str(tmp_path / "homes" / "{user_id}" / ".claude"))
    users = [f"user-{number}" for number in range(20)]
    for user in users[:10]:
        key = f"user_data/{user}/.claude/CLAUDE.md"
        s3.put_object(Bucket=bucket, Key=key, Body=f"memory of {user}".encode())
    with sidecar(settings, tmp_path) as running, ThreadPoolExecutor(20) as pool:
        running.wait_for("/startupz")
        answers = list(pool.map(lambda user: call(running, "POST", "/invocations", user), users))
        for user, (status, answer) in zip(users, answers, strict=True):
            assert (status, answer["user_id"]) == (200, user)
            assert answer["action"] == ("restored" if user in users[:10] else "fresh"), answer
            home = tmp_path / "homes" / user / ".claude"
            if user in users[:10]:
                assert (home / "CLAUDE.md").read_text() == f"memory of {user}"
            (home / "own.md").write_text(f"written by {user}")
        synced = list(pool.map(lambda user: call(running, "POST", "/v1/sync?wait=checkpoint", user), users))
        assert all(status == 200 and answer["durable"] for status, answer in synced), synced
        assert running.end(signal.SIGTERM) == 0
    for user in users:
        area = objects(s3, bucket, f"user_data/{user}/.claude/")
        assert area.pop("own.md") == f"written by {user}".encode()
        assert set(area.values()) <= {f"memory of {user}".encode()}


def test_one_home_refuses_a_second_user_also_after_a_restart(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket)
    with sidecar(settings, tmp_path) as running:
        running.wait_for("/startupz")
        assert call(running, "POST", "/invocations", "ada")[1]["synced"] is True
        (Path(settings.home) / "CLAUDE.md").write_text("ada's own")
        assert call(running, "POST", "/v1/sync?wait=durable", "ada")[1]["durable"] is True
        status, answer = call(running, "POST", "/invocations", "mallory")
        assert status == 409
        assert "{user_id}" in answer["hint"]
        running.end(signal.SIGKILL)
    with sidecar(settings, tmp_path) as running:
        running.wait_for("/startupz")
        status, answer = call(running, "POST", "/invocations", "mallory")
        assert status == 409, answer
        assert "{user_id}" in answer["hint"]
        assert call(running, "POST", "/invocations", "ada")[1]["synced"] is True
        running.end(signal.SIGKILL)
    assert not objects(s3, bucket, "user_data/mallory/")
