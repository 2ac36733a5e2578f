"""The kubelet's questions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sidecar.api.health import DRAIN_FLOOR_SECONDS, Health
from tests.api.memory_manager import MemoryManager
from tests.api.serving import Api


@pytest.mark.parametrize("health", [True, False])
@pytest.mark.parametrize(
    ("path", "state"), [("/livez", "live"), ("/readyz", "ready"), ("/startupz", "begun")]
)
async def test_a_probe_tells_the_managers_answer_and_its_reason(
    api: Api, path: str, state: str, health: bool
) -> None:
    answer = await api.get(path, health=health)
    assert (answer.status, answer.body["ok"]) == (200, True)
    setattr(api.manager, state, (False, {"reason": "the restore has not begun"}))
    answer = await api.get(path, health=health)
    assert (answer.status, answer.body) == (503, {"ok": False, "reason": "the restore has not begun"})
    assert (await api.call("HEAD", path, health=health)).status == 503


async def test_a_probe_that_breaks_is_a_no_with_a_reason(
    api: Api, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    def fail() -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(api.manager, "liveness", fail)
    answer = await api.get("/livez", health=True)
    assert (answer.status, answer.body["ok"]) == (503, False)
    assert any(line.startswith("ERROR") for line in said())


@pytest.mark.parametrize("health", [True, False])
async def test_prestop_drains_and_is_answered_at_once(api: Api, health: bool) -> None:
    api.manager.gate.clear()
    answer = await api.get("/prestop", health=health)
    assert (answer.status, answer.body) == (200, {"draining": True})
    assert api.manager.told_drained == ["preStop"]


async def test_prestop_again_and_again_costs_nothing() -> None:
    now = [100.0]
    manager = MemoryManager()
    health = Health(manager, clock=lambda: now[0])
    for _ in range(1000):
        await health.prestop(None, b"")  # type: ignore[arg-type]
    assert manager.told_drained == ["preStop"]
    now[0] += DRAIN_FLOOR_SECONDS
    await health.prestop(None, b"")  # type: ignore[arg-type]
    assert manager.told_drained == ["preStop"] * 2


@pytest.mark.parametrize("method", ["HEAD", "POST", "DELETE"])
async def test_only_a_get_drains(api: Api, method: str) -> None:
    answer = await api.call(method, "/prestop", health=True)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")
    assert api.manager.told_drained == []


@pytest.mark.parametrize("path", ["/invocations", "/v1/sync", "/v1/stats", "/hooks/claude", "/openapi.json"])
async def test_the_health_listener_does_nothing_else(api: Api, path: str) -> None:
    answer = await api.post(path, health=True)
    assert (answer.status, answer.body["kind"]) == (404, "not_found")
    assert not api.manager.runs
