"""``POST /hooks/claude``: the agent is told nothing and never held."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable

import pytest

from sidecar.api import hooks
from sidecar.api.connections import Limits
from sidecar.settings import Settings
from tests.api.serving import Api, until
from tests.api.signing import Signer

Serve = Callable[..., Awaitable[Api]]

BODY = {
    "session_id": "7f1c",
    "transcript_path": "/home/agent/.claude/projects/-w/7f1c.jsonl",
    "cwd": "/w",
}
WRITING = ["Stop", "SubagentStop", "SessionEnd", "PreCompact", "PostToolUse"]
QUIET = ["PreToolUse", "PermissionRequest", "Notification", "SessionStart"]


@pytest.mark.parametrize("event", WRITING)
async def test_an_event_after_which_something_is_written_marks_a_change(api: Api, event: str) -> None:
    answer = await api.post("/hooks/claude", json={**BODY, "hook_event_name": event})
    assert (answer.status, answer.body) == (200, {})
    await until(lambda: api.manager.told_changed)
    assert api.manager.told_changed == ["ada"]


@pytest.mark.parametrize("event", QUIET)
async def test_an_event_before_anything_is_written_does_not(api: Api, event: str) -> None:
    answer = await api.post("/hooks/claude", json={**BODY, "hook_event_name": event})
    assert (answer.status, answer.body) == (200, {})
    await api.listeners.stop()
    assert api.manager.told_changed == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"hook_event_name": 7}',
        b'{"hook_event_name": "AnEventOfNextYear", "x": {}}',
        b'{"hook_event_name": "../../etc/passwd\\u0000"}',
    ],
    ids=lambda body: body[:16].decode(errors="replace"),
)
async def test_whatever_comes_is_answered_with_nothing_and_counts_as_a_change(api: Api, body: bytes) -> None:
    answer = await api.post("/hooks/claude", data=body, headers={"Content-Type": "application/json"})
    assert (answer.status, answer.body) == (200, {})
    await until(lambda: api.manager.told_changed == ["ada"])


async def test_a_body_too_large_to_read_is_a_change_and_not_an_error(api: Api) -> None:
    big = json.dumps({**BODY, "hook_event_name": "PostToolUse", "tool_response": "x" * 3_000_000}).encode()
    answer = await api.post("/hooks/claude", data=io.BytesIO(big))
    assert (answer.status, answer.body) == (200, {})
    await until(lambda: api.manager.told_changed == ["ada"])


async def test_a_body_that_never_comes_is_answered_all_the_same(serve: Serve) -> None:
    api = await serve(limits=Limits(hook_body_seconds=0.05, stop_seconds=0.05))
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(b"POST /hooks/claude HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"{}")
    writer.close()
    await writer.wait_closed()
    await until(lambda: api.manager.told_changed == ["ada"])


async def test_a_burst_is_one_change(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "COALESCE_SECONDS", 3600.0)
    event = {**BODY, "hook_event_name": "PostToolUse"}
    await asyncio.gather(*(api.post("/hooks/claude", json=event) for _ in range(50)))
    assert api.manager.told_changed == []
    await api.listeners.stop()
    assert api.manager.told_changed == ["ada"]


async def test_the_last_change_is_passed_on_when_the_listeners_stop(api: Api) -> None:
    await api.post("/hooks/claude", json={**BODY, "hook_event_name": "SessionEnd"})
    await api.listeners.stop()
    assert api.manager.told_changed == ["ada"]


async def test_a_busy_manager_does_not_hold_a_hook(api: Api) -> None:
    await api.post("/invocations")
    api.manager.gate.clear()
    flush = asyncio.create_task(api.post("/v1/sync?wait=durable"))
    await until(lambda: api.manager.waiting_at_the_gate)
    answer = await api.post("/hooks/claude", json={**BODY, "hook_event_name": "Stop"})
    assert (answer.status, answer.body) == (200, {})
    api.manager.gate.set()
    await flush


async def test_a_manager_that_fails_does_not_fail_a_hook(
    api: Api, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(user_id: str | None) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(api.manager, "changed", fail)
    answer = await api.post("/hooks/claude", json={**BODY, "hook_event_name": "Stop"})
    assert (answer.status, answer.body) == (200, {})
    await until(lambda: any("could not be passed on" in line for line in said()))


async def test_a_token_names_the_user_and_without_one_all_may_have_changed(
    serve: Serve, many: Settings, signer: Signer
) -> None:
    event = {**BODY, "hook_event_name": "Stop"}
    for token, told in ((signer.token("ben"), ["ben"]), (None, [None]), ("forged.token.here", [None])):
        api = await serve(many)
        answer = await api.post("/hooks/claude", json=event, token=token)
        assert (answer.status, answer.body) == (200, {})
        await until(lambda api=api: api.manager.told_changed)
        assert api.manager.told_changed == told


async def test_a_hook_is_a_post(api: Api) -> None:
    answer = await api.get("/hooks/claude")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
