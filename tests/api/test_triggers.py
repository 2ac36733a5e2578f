"""``/v1/sync``, ``/v1/restore`` and ``/v1/stats``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sidecar.settings import Settings
from sidecar.sync.results import Unsynced
from tests.api.memory_manager import MemoryManager
from tests.api.serving import Answer, Api, settings, until
from tests.api.signing import Signer

Serve = Callable[..., Awaitable[Api]]

FIELDS = {
    "durable",
    "generation",
    "files",
    "bytes",
    "unsynced_bytes",
    "refused",
    "refused_count",
    "error",
    "kind",
    "hint",
}


@pytest.fixture
async def connected(api: Api) -> Api:
    """An API whose fixed user has had their initial sync."""
    await api.post("/invocations")
    return api


@pytest.mark.parametrize(("wait", "operation"), [("durable", "flush"), ("checkpoint", "checkpoint")])
async def test_a_wait_ends_when_everything_is_durable(connected: Api, wait: str, operation: str) -> None:
    connected.manager.write("ada", 7)
    answer = await connected.post(f"/v1/sync?wait={wait}&timeout=5")
    assert answer.status == 200
    assert set(answer.body) == FIELDS
    assert (answer.body["durable"], answer.body["bytes"], answer.body["unsynced_bytes"]) == (True, 7, 0)
    assert connected.manager.runs[operation, "ada"] == 1


async def test_the_parameters_may_come_as_a_json_body(connected: Api) -> None:
    answer = await connected.post("/v1/sync", json={"wait": "checkpoint", "timeout": 5})
    assert answer.status == 200
    assert connected.manager.runs["checkpoint", "ada"] == 1


async def test_without_wait_the_flush_is_begun_and_the_answer_is_202(connected: Api) -> None:
    connected.manager.gate.clear()
    connected.manager.write("ada", 7)
    answer = await connected.post("/v1/sync")
    assert (answer.status, answer.body["durable"], answer.body["unsynced_bytes"]) == (202, False, 7)
    assert set(answer.body) == FIELDS
    await until(lambda: connected.manager.waiting_at_the_gate)
    connected.manager.gate.set()
    await until(lambda: connected.manager.durable["ada"] == 7)


async def test_a_flush_under_way_is_not_enough_for_who_asks_later(connected: Api) -> None:
    manager = connected.manager
    manager.gate.clear()
    manager.write("ada", 1)
    early = asyncio.create_task(connected.post("/v1/sync?wait=durable"))
    await until(lambda: manager.waiting_at_the_gate)
    manager.write("ada", 10)  # after that flush looked, before the next caller asks
    late = [asyncio.create_task(connected.post("/v1/sync?wait=durable")) for _ in range(20)]
    await until(lambda: len(connected.listeners._triggers._flushes._next) == 1)
    assert not any(task.done() for task in late)
    manager.gate.set()
    assert (await early).body["bytes"] == 1
    answers = await asyncio.gather(*late)
    assert all(answer.body["durable"] and answer.body["unsynced_bytes"] == 0 for answer in answers)
    assert manager.durable["ada"] == 11
    assert manager.runs["flush", "ada"] <= 3


async def test_when_time_is_up_the_answer_is_504_with_the_same_fields_and_the_flush_goes_on(
    connected: Api,
) -> None:
    connected.manager.gate.clear()
    connected.manager.write("ada", 7)
    answer = await connected.post("/v1/sync?wait=durable&timeout=0.05")
    assert answer.status == 504
    assert set(answer.body) == FIELDS
    assert (answer.body["durable"], answer.body["unsynced_bytes"]) == (False, 7)
    assert answer.body["kind"] == "timeout"
    connected.manager.gate.set()
    await until(lambda: connected.manager.durable["ada"] == 7)
    assert connected.manager.runs["flush", "ada"] == 1


async def test_an_outage_is_waited_out_while_there_is_time(connected: Api) -> None:
    connected.manager.failures = 2
    connected.manager.write("ada")
    answer = await connected.post("/v1/sync?wait=durable&timeout=20")
    assert (answer.status, answer.body["durable"]) == (200, True)
    assert connected.manager.runs["flush", "ada"] == 3


async def test_an_outage_that_lasts_is_a_504_that_says_what_it_was(connected: Api) -> None:
    connected.manager.failures = 1000
    connected.manager.write("ada")
    answer = await connected.post("/v1/sync?wait=durable&timeout=0.3")
    assert (answer.status, answer.body["kind"]) == (504, "unreachable")
    assert answer.body["error"]


async def test_what_waiting_cannot_mend_is_a_502_at_once(connected: Api) -> None:
    connected.manager.failures = 1
    connected.manager.failure_kind = "denied"
    answer = await connected.post("/v1/sync?wait=durable&timeout=600")
    assert (answer.status, answer.body["kind"], answer.body["durable"]) == (502, "denied", False)
    assert connected.manager.runs["flush", "ada"] == 1


async def test_a_fault_of_ours_is_a_502_with_a_sentence(connected: Api) -> None:
    connected.manager.raises = RuntimeError("a fault")
    answer = await connected.post("/v1/sync?wait=durable")
    assert (answer.status, answer.body["kind"]) == (502, "internal")
    assert "a fault" not in str(answer.body)


async def test_nothing_is_flushed_before_the_initial_sync(api: Api) -> None:
    api.manager.failures = 1
    api.manager.failure_kind = "denied"
    answer = await api.post("/v1/sync?wait=durable")
    assert (answer.status, answer.body["durable"]) == (502, False)
    assert api.manager.runs["flush", "ada"] == 0
    assert (await api.post("/v1/sync?wait=durable")).body["durable"] is True
    assert api.manager.runs["initial", "ada"] == 2


async def test_no_bucket_is_answered_and_not_called_durable(serve: Serve) -> None:
    api = await serve(settings(bucket=None), manager=MemoryManager(disabled=True))
    answer = await api.post("/v1/sync?wait=durable")
    assert (answer.status, answer.body["durable"], answer.body["kind"]) == (200, False, "disabled")


async def test_refused_files_are_listed_apart_and_do_not_stand_against_durable(connected: Api) -> None:
    connected.manager.refused = tuple(Unsynced(f"f{n}", "larger than the cap") for n in range(300))
    answer = await connected.post("/v1/sync?wait=durable")
    assert answer.body["durable"] is True
    assert answer.body["refused"][0] == {"path": "f0", "reason": "larger than the cap"}
    assert (len(answer.body["refused"]), answer.body["refused_count"]) == (100, 300)


@pytest.mark.parametrize(
    "query",
    ["wait=maybe", "timeout=0", "timeout=-1", "timeout=601", "timeout=nan", "timeout=inf", "timeout=x"],
)
async def test_parameters_that_cannot_be_meant_are_refused(connected: Api, query: str) -> None:
    answer = await connected.post(f"/v1/sync?{query}")
    assert (answer.status, answer.body["kind"]) == (400, "bad_request")
    assert answer.body["hint"]
    assert connected.manager.runs["flush", "ada"] == 0


NO_OBJECTS = [b"{", b"[]", b'"durable"', b"\xff"]
NO_PARAMETERS = [b'{"timeout": true}', b'{"timeout": "25"}', b'{"wait": ["durable"]}']


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/sync", body) for body in NO_OBJECTS + NO_PARAMETERS]
    + [("/v1/restore", body) for body in NO_OBJECTS],
)
async def test_a_body_that_cannot_be_meant_is_refused(connected: Api, path: str, body: bytes) -> None:
    answer = await connected.post(path, data=body)
    assert (answer.status, answer.body["kind"]) == (400, "bad_request")


# -- of several users


async def test_a_token_flushes_its_user_and_no_token_all(
    serve: Serve, many: Settings, signer: Signer
) -> None:
    api = await serve(many)
    for user in ("ada", "ben"):
        await api.post("/invocations", token=signer.token(user))
        api.manager.write(user, 5)
    own = await api.post("/v1/sync?wait=durable", token=signer.token("ada"))
    assert (own.body["bytes"], api.manager.durable) == (5, {"ada": 5})
    everybody = await api.post("/v1/sync?wait=durable")
    assert (everybody.body["bytes"], api.manager.durable) == (5, {"ada": 5, "ben": 5})


async def test_all_is_durable_only_if_everybody_is(serve: Serve, many: Settings, signer: Signer) -> None:
    api = await serve(many)
    for user in ("ada", "ben", "cy"):
        await api.post("/invocations", token=signer.token(user))
    api.manager.failures = 1
    api.manager.failure_kind = "denied"
    answer = await api.post("/v1/sync?wait=durable")
    assert (answer.status, answer.body["durable"], answer.body["kind"]) == (502, False, "denied")


async def test_a_bad_token_flushes_nobody(serve: Serve, many: Settings, signer: Signer) -> None:
    api = await serve(many)
    await api.post("/invocations", token=signer.token("ada"))
    answer = await api.post("/v1/sync?wait=durable", token=signer.token("ada", exp=1))
    assert (answer.status, answer.body["kind"]) == (401, "token_refused")
    assert api.manager.runs["flush", "ada"] == 0


async def test_where_each_has_a_home_and_nobody_came_all_is_durable(serve: Serve, many: Settings) -> None:
    api = await serve(many)
    answer = await api.post("/v1/sync?wait=durable")
    assert (answer.status, answer.body["durable"]) == (200, True)


async def test_a_home_whose_user_nobody_named_is_not_durable(
    serve: Serve, many: Settings, signer: Signer
) -> None:
    one_home = settings(user_id=None, jwt_public_key_file=many.jwt_public_key_file)
    api = await serve(one_home)
    answer = await api.post("/v1/sync?wait=durable")
    assert (answer.status, answer.body["kind"]) == (502, "no_user")
    await api.post("/invocations", token=signer.token("ada"))
    for path in ("/v1/sync?wait=durable", "/v1/restore"):
        second = await api.post(path, token=signer.token("ben"))
        assert (second.status, second.body["kind"]) == (409, "second_user")


# -- restore and stats


async def test_a_restore_answers_as_invocations_do(connected: Api) -> None:
    answer = await connected.post("/v1/restore")
    assert (answer.status, answer.body["action"], answer.body["files"]) == (200, "restored", 2)
    assert set(answer.body) == {"user_id", "synced", "action", "files", "bytes", "error", "kind", "hint"}


async def test_a_restore_that_fails_is_a_502(connected: Api) -> None:
    connected.manager.failures = 1
    answer = await connected.post("/v1/restore")
    assert (answer.status, answer.body["action"], answer.body["kind"]) == (502, "failed", "unreachable")
    connected.manager.raises = RuntimeError("a fault")
    assert (await connected.post("/v1/restore")).body["kind"] == "internal"


async def test_a_restore_needs_to_know_whose(serve: Serve, many: Settings) -> None:
    api = await serve(many)
    answer = await api.post("/v1/restore")
    assert (answer.status, answer.body["kind"]) == (401, "token_missing")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_stats_hold_what_callers_were_promised(connected: Api) -> None:
    answer = await connected.get("/v1/stats")
    assert answer.status == 200
    promised = {
        "synced_user_count",
        "backup_running",
        "backup_interval_minutes",
        "bucket_name",
        "s3_prefix",
        "users",
    }
    assert promised <= set(answer.body)
    assert answer.body["users"]["ada"]["unsynced_bytes"] == 0
    assert (answer.body["ready"], answer.body["version"]) == (True, "0.1.0")


async def test_stats_of_any_kind_become_json(connected: Api) -> None:
    from pathlib import Path

    odd: dict[str, Any] = {"path": Path("/x"), "nan": float("nan"), "set": {1}, 3: "number"}
    connected.manager.more_stats = odd
    answer: Answer = await connected.get("/v1/stats")
    assert (answer.status, answer.body["path"], answer.body["nan"]) == (200, "/x", None)
