"""The OpenAPI document, and the running API measured by it."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi.checks import unsupported_method

from sidecar.api.openapi import document
from sidecar.api.routes import ROUTES
from tests.api.serving import Api, closed, opened, settings

EXAMPLES = 8
"""Of each operation and phase: enough for every parameter's bounds, few enough for every run."""


@pytest.fixture(scope="module")
def served() -> Iterator[Api]:
    """An API in a thread of its own: schemathesis asks it from this one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    api = run(opened(settings()))
    yield api
    run(closed(api))
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


schema = schemathesis.openapi.from_dict(document("Authorization"))


@schema.parametrize()
@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_the_api_keeps_to_its_document(case: schemathesis.Case, served: Api) -> None:
    # 502 and 504 are answers of this API; a 500 is in no operation's document.
    excluded = [schemathesis.checks.not_a_server_error]
    if case.path == "/invocations":
        # It takes any method, those too that OpenAPI 3.1 has no word for.
        excluded.append(unsupported_method)
    case.call_and_validate(base_url=served.url(""), timeout=20, excluded_checks=excluded)


async def test_the_document_is_served(api: Api) -> None:
    answer = await api.get("/openapi.json")
    assert (answer.status, answer.body) == (200, document("Authorization"))


def test_the_document_is_openapi_3_1_and_names_every_route() -> None:
    from openapi_schema_validator import OAS31Validator

    made = document("Authorization")
    assert made["openapi"] == "3.1.0"
    assert set(made["paths"]) == {route.path for route in ROUTES}
    for name, part in made["components"]["schemas"].items():
        OAS31Validator.check_schema(part)
        assert part, name
    ids = [operation["operationId"] for path in made["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))


def test_a_token_in_a_header_of_its_own_is_documented_as_such() -> None:
    scheme = document("X-User-Token")["components"]["securitySchemes"]["token"]
    assert scheme == {"type": "apiKey", "in": "header", "name": "X-User-Token"}


def test_the_guide_names_every_call_and_no_other() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    named = set(re.findall(r"^#+ .*`(?:[A-Z]+ )?(/[a-z0-9/.]+)`", guide, re.MULTILINE))
    assert named == {route.path for route in ROUTES}
