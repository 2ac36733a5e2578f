"""The OpenAPI document."""

from __future__ import annotations

import json
import re
from pathlib import Path

from sidecar.api.openapi import document
from sidecar.api.routes import ROUTES
from tests.api.serving import Api


async def test_the_document_is_served(api: Api) -> None:
    answer = await api.get("/openapi.json")
    assert (answer.status, answer.body) == (200, document("Authorization"))


def test_the_document_is_openapi_3_1_and_names_every_route() -> None:
    made = document("Authorization")
    assert made["openapi"] == "3.1.0"
    assert set(made["paths"]) == {route.path for route in ROUTES}
    referred = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(made)))
    assert referred == set(made["components"]["schemas"])
    ids = [operation["operationId"] for path in made["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))


def test_a_token_in_a_header_of_its_own_is_documented_as_such() -> None:
    scheme = document("X-User-Token")["components"]["securitySchemes"]["token"]
    assert scheme == {"type": "apiKey", "in": "header", "name": "X-User-Token"}


def test_the_guide_names_every_call_and_no_other() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    named = set(re.findall(r"^#+ .*`(?:[A-Z]+ )?(/[a-z0-9/.]+)`", guide, re.MULTILINE))
    assert named == {route.path for route in ROUTES}
