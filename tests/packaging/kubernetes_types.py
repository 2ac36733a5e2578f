"""What the Kubernetes API would not take of a manifest, by the types of the Kubernetes client.

The client's models are made from Kubernetes' own OpenAPI document: a field that no model knows, a value of
another type and a missing required field are found without a cluster.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest

models = pytest.importorskip(
    "kubernetes.client.models", reason="install the extra named injector: the Kubernetes client is in it"
)

KINDS = {
    ("v1", "Pod"): "V1Pod",
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("v1", "Secret"): "V1Secret",
    ("v1", "ServiceAccount"): "V1ServiceAccount",
    ("v1", "Service"): "V1Service",
    ("apps/v1", "Deployment"): "V1Deployment",
    ("apps/v1", "StatefulSet"): "V1StatefulSet",
    ("batch/v1", "Job"): "V1Job",
    ("networking.k8s.io/v1", "NetworkPolicy"): "V1NetworkPolicy",
}
PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float)}


def problems_of(manifest: dict[str, Any]) -> list[str]:
    """Sentences about what does not fit, each with the path in the manifest; empty when all fits."""
    kind = KINDS.get((manifest.get("apiVersion", ""), manifest.get("kind", "")))
    if kind is None:
        return [f"kind {manifest.get('kind')} of {manifest.get('apiVersion')} is unknown here"]
    return list(_check(manifest, kind, manifest["kind"]))


def _check(value: Any, wanted: str, where: str) -> Iterator[str]:
    if match := re.fullmatch(r"list\[(.*)\]", wanted):
        if not isinstance(value, list):
            yield f"{where} is not a list"
            return
        for index, item in enumerate(value):
            yield from _check(item, match[1], f"{where}[{index}]")
    elif match := re.fullmatch(r"dict\(str, (.*)\)", wanted):
        if not isinstance(value, dict):
            yield f"{where} is not a mapping"
            return
        for name, item in value.items():
            yield from _check(item, match[1], f"{where}.{name}")
    elif wanted in PLAIN:
        if not isinstance(value, PLAIN[wanted]) or (wanted != "bool" and isinstance(value, bool)):
            yield f"{where} is {value!r}, not {wanted}"
    elif hasattr(models, wanted):
        yield from _check_model(value, getattr(models, wanted), where)


def _check_model(value: Any, model: Any, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is not a mapping"
        return
    fields = {name: field for field, name in model.attribute_map.items()}
    for name, item in value.items():
        if name not in fields:
            yield f"{where}.{name} is no field of {model.__name__}"
        else:
            yield from _check(item, model.openapi_types[fields[name]], f"{where}.{name}")
    try:
        model(**{fields[name]: item for name, item in value.items() if name in fields})
    except ValueError as error:
        yield f"{where}: {error}"
