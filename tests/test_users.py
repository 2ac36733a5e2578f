"""Users by token, end to end: each in a directory and a prefix of their own, also after a restart."""

import http.client
import json
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt

from tests.processes import Sidecar, environ_of
from tests.running import metrics
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


def test_a_hundred_users_at_once_are_never_mixed_and_each_is_restored_once(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, home=str(tmp_path / "homes" / "{user_id}" / ".claude"))
    users = [f"user-{number:03}" for number in range(100)]
    known = users[::2]

    def remember(user: str) -> None:
        key = f"user_data/{user}/.claude/CLAUDE.md"
        s3.put_object(Bucket=bucket, Key=key, Body=f"memory of {user}".encode())

    def invoke(user: str) -> None:
        status, answer = call(running, "POST", "/invocations", user)
        assert (status, answer["user_id"], answer["synced"]) == (200, user, True), answer

    def work(user: str) -> None:
        own = tmp_path / "homes" / user / ".claude"
        (own / "own.md").write_text(f"written by {user}")
        status, answer = call(running, "POST", "/v1/sync?wait=durable", user)
        assert (status, answer["durable"]) == (200, True), answer

    with sidecar(settings, tmp_path) as running, ThreadPoolExecutor(100) as pool:
        list(pool.map(remember, known))
        running.wait_for("/startupz")
        list(pool.map(invoke, random.Random(7).sample(users * 4, 400)))
        assert metrics(running)['restores_total{result="ok"}'] == 100, "somebody was synced more than once"
        list(pool.map(work, users))
        assert running.end(signal.SIGTERM) == 0
        assert running.text().count("Restored files") == 0, "once for each user is noise"
    for user in users:
        mine = {"own.md": f"written by {user}"}
        if user in known:
            mine["CLAUDE.md"] = f"memory of {user}"
        home = tmp_path / "homes" / user / ".claude"
        assert {path.name: path.read_text() for path in home.rglob("*") if path.is_file()} == mine
        area = objects(s3, bucket, f"user_data/{user}/.claude/")
        assert {name: body.decode() for name, body in area.items()} == mine


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
