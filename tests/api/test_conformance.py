"""The running API, measured by its own OpenAPI document."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from sidecar.api.openapi import document
from tests.api.serving import Api, closed, opened, settings

schemathesis = pytest.importorskip(
    "schemathesis", reason="install the extra named test: schemathesis is in it"
)

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
def test_the_api_keeps_to_its_document(case: Any, served: Api) -> None:
    # 502 and 504 are answers of this API; a 500 is in no operation's document.
    excluded = [schemathesis.checks.not_a_server_error]
    if case.path == "/invocations":
        # It takes any method, those too that OpenAPI 3.1 has no word for.
        excluded.append(schemathesis.specs.openapi.checks.unsupported_method)
    case.call_and_validate(base_url=served.url(""), timeout=20, excluded_checks=excluded)
