"""The bucket's settings of docs/costs.md: S3 takes them, both forms are the same, nothing current expires."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Server, client

K8S = Path(__file__).resolve().parents[2] / "k8s"
BUCKET = "lifecycle-of-areas"


@pytest.fixture
def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((K8S / "bucket-lifecycle.json").read_text())["Rules"]
    return found


@pytest.fixture
def outside(moto_server: Server) -> Iterator[Any]:
    made = client(moto_server)
    yield made
    made.close()


def test_s3_takes_the_lifecycle_as_it_is(outside: Any, rules: list[dict[str, Any]]) -> None:
    outside.create_bucket(Bucket=BUCKET)
    outside.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": rules})
    kept = outside.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert {rule["ID"]: rule["Status"] for rule in kept} == {rule["ID"]: "Enabled" for rule in rules}
    by_id = {rule["ID"]: rule for rule in kept}
    for rule in rules:
        for name in ("AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration", "Transitions"):
            assert by_id[rule["ID"]].get(name) == rule.get(name)


def test_no_rule_removes_or_archives_what_is_current(rules: list[dict[str, Any]]) -> None:
    """An expired transcript is lost, an expired journal entry loses lines, an archived object is away."""
    for rule in rules:
        assert not set(rule.get("Expiration", {})) - {"ExpiredObjectDeleteMarker"}, rule["ID"]
        for transition in rule.get("Transitions", []):
            assert transition["StorageClass"] == "INTELLIGENT_TIERING"
        prefix = rule["Filter"].get("Prefix") or rule["Filter"]["And"]["Prefix"]
        assert prefix == "user_data/", "it touches what is not ours"


def test_terraform_says_the_same(rules: list[dict[str, Any]]) -> None:
    written = [_as_json(block) for block in _blocks((K8S / "bucket.tf").read_text(), "rule")]
    assert written == rules


def test_the_document_shows_the_very_file() -> None:
    shown = re.search(r"```json\n(.*?)```", (K8S.parent / "docs/costs.md").read_text(), re.DOTALL)
    assert shown and shown.group(1) == (K8S / "bucket-lifecycle.json").read_text()


def _as_json(rule: str) -> dict[str, Any]:
    """A rule of our Terraform file as S3 has it."""

    def value(name: str) -> str:
        found = re.search(rf'^\s*{name}\s*=\s*"?([^"\n]+)"?$', rule, re.MULTILINE)
        return found.group(1) if found else ""

    prefix = value("prefix").replace("${var.prefix}", "user_data")
    larger = value("object_size_greater_than")
    made: dict[str, Any] = {
        "ID": value("id"),
        "Status": value("status"),
        "Filter": {"And": {"Prefix": prefix, "ObjectSizeGreaterThan": int(larger)}}
        if larger
        else {"Prefix": prefix},
    }
    if days := value("days_after_initiation"):
        made["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": int(days)}
    if days := value("noncurrent_days"):
        made["NoncurrentVersionExpiration"] = {"NoncurrentDays": int(days)}
    if value("expired_object_delete_marker"):
        made["Expiration"] = {"ExpiredObjectDeleteMarker": value("expired_object_delete_marker") == "true"}
    if storage_class := value("storage_class"):
        made["Transitions"] = [{"Days": int(value("days")), "StorageClass": storage_class}]
    return made


def _blocks(text: str, name: str) -> Iterator[str]:
    """The bodies of the blocks called `name`; fails where braces do not match."""
    assert text.count("{") == text.count("}")
    for begin in re.finditer(rf"^\s*{name} {{$", text, re.MULTILINE):
        depth, at = 1, begin.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        yield text[begin.end() : at - 1]
