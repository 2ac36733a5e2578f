"""``/invocations``: what the first request of a user does, and what the others find."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sidecar.errors import UserError
from sidecar.settings import Settings
from tests.api.memory_manager import MemoryManager
from tests.api.serving import Api, settings, until
from tests.api.signing import Signer

Serve = Callable[..., Awaitable[Api]]


async def test_the_answer_has_the_fields_of_the_contract(api: Api) -> None:
    answer = await api.post("/invocations")
    assert answer.status == 200
    assert answer.body == {
        "user_id": "ada",
        "synced": True,
        "action": "restored",
        "files": 3,
        "bytes": 100,
        "error": None,
        "kind": None,
        "hint": None,
    }


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
async def test_any_method_brings_the_sync(api: Api, method: str) -> None:
    answer = await api.call(method, "/invocations")
    assert answer.status == 200
    assert api.manager.runs["initial", "ada"] == 1


async def test_requests_that_arrive_together_share_one_sync(api: Api) -> None:
    api.manager.gate.clear()
    requests = [asyncio.create_task(api.post("/invocations")) for _ in range(50)]
    await until(lambda: api.manager.waiting_at_the_gate)
    api.manager.gate.set()
    answers = await asyncio.gather(*requests)
    assert {a.body["action"] for a in answers} <= {"restored", "already_synced"}
    assert api.manager.runs["initial", "ada"] == 1


async def test_later_requests_ask_nobody(api: Api) -> None:
    await api.post("/invocations")
    api.manager.gate.clear()
    answer = await api.post("/invocations")
    assert answer.body["action"] == "already_synced"
    assert answer.body["synced"] is True


async def test_a_failed_sync_is_still_200_and_the_next_request_tries_again(api: Api) -> None:
    api.manager.failures = 1
    first = await api.post("/invocations")
    assert (first.status, first.body["action"], first.body["synced"]) == (200, "failed", False)
    assert first.body["kind"] == "unreachable"
    second = await api.post("/invocations")
    assert second.body["action"] == "restored"


@pytest.mark.parametrize("problem", [RuntimeError("a fault"), UserError("not this one", "another")])
async def test_a_manager_that_raises_does_not_fail_the_callers_request(api: Api, problem: Exception) -> None:
    api.manager.raises = problem
    answer = await api.post("/invocations")
    assert (answer.status, answer.body["action"]) == (200, "failed")
    assert answer.body["error"] and answer.body["hint"]
    api.manager.raises = None
    assert (await api.post("/invocations")).body["action"] == "restored"


async def test_without_waiting_the_sync_is_started_and_runs_on(api: Api) -> None:
    api.manager.gate.clear()
    answer = await api.post("/invocations?wait=false")
    assert (answer.body["action"], answer.body["synced"]) == ("started", False)
    api.manager.gate.set()
    await until(lambda: api.manager.get_stats()["synced_user_count"])
    assert (await api.post("/invocations?wait=false")).body["action"] == "already_synced"


async def test_a_wait_that_cannot_be_meant_is_refused(api: Api) -> None:
    answer = await api.post("/invocations?wait=maybe")
    assert (answer.status, answer.body["kind"]) == (400, "bad_request")


async def test_a_caller_who_goes_away_does_not_end_the_sync(api: Api) -> None:
    api.manager.gate.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    await until(lambda: api.manager.waiting_at_the_gate)
    writer.close()
    await writer.wait_closed()
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert api.manager.waiting_at_the_gate == 1
    api.manager.gate.set()
    await until(lambda: api.manager.get_stats()["synced_user_count"])
    assert api.manager.runs["initial", "ada"] == 1


async def test_no_bucket_means_disabled_and_still_an_answer(serve: Serve) -> None:
    api = await serve(settings(bucket=None), manager=MemoryManager(disabled=True))
    answer = await api.post("/invocations")
    assert (answer.status, answer.body["action"], answer.body["synced"]) == (200, "disabled", False)


async def test_a_second_user_on_a_home_that_serves_one_is_refused_whatever_became_of_the_first(
    serve: Serve, signer: Signer, tmp_path: Path
) -> None:
    given = settings(user_id=None, jwt_public_key_file=signer.public_pem_file(tmp_path))
    api = await serve(given)
    api.manager.failures = 1
    assert (await api.post("/invocations", token=signer.token("ada"))).body["action"] == "failed"
    second = await api.post("/invocations", token=signer.token("ben"))
    assert (second.status, second.body["kind"]) == (409, "second_user")
    assert "{user_id}" in second.body["hint"]
    assert (await api.post("/invocations", token=signer.token("ada"))).body["action"] == "restored"
    assert api.manager.runs["initial", "ben"] == 0


async def test_the_owner_that_the_manager_knows_from_before_keeps_the_home(
    serve: Serve, signer: Signer, tmp_path: Path
) -> None:
    manager = MemoryManager()
    await manager.ensure_initial_sync("ada")
    given = settings(user_id=None, jwt_public_key_file=signer.public_pem_file(tmp_path))
    api = await serve(given, manager=manager)
    assert (await api.post("/invocations", token=signer.token("ben"))).status == 409


async def test_a_hundred_users_at_once_are_never_mixed(serve: Serve, signer: Signer, many: Settings) -> None:
    api = await serve(many)
    api.manager.gate.clear()
    users = [f"user-{'x' * n}" for n in range(100)]
    tokens = {user: signer.token(user) for user in users}

    async def ask(user: str) -> None:
        answer = await api.post("/invocations", token=tokens[user])
        assert answer.body["user_id"] == user
        if answer.body["action"] == "restored":
            assert answer.body["files"] == len(user)
        synced = await api.post("/v1/sync?wait=durable", token=tokens[user])
        assert synced.body["durable"] is True

    requests = [asyncio.create_task(ask(user)) for user in users for _ in range(3)]
    await until(lambda: api.manager.waiting_at_the_gate == 100)
    api.manager.gate.set()
    await asyncio.gather(*requests)
    assert all(api.manager.runs["initial", user] == 1 for user in users)
    assert set(api.manager.users()) == set(users)
