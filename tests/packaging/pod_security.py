"""The "restricted" Pod Security Standard as a function over a pod's spec.

Written from https://kubernetes.io/docs/concepts/security/pod-security-standards/ (baseline and restricted,
Linux pods); each sentence names the field that breaks it.
"""

from collections.abc import Iterator
from typing import Any

ALLOWED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def violations(spec: dict[str, Any]) -> list[str]:
    """What the restricted standard has against a pod with this spec; empty when it passes."""
    return [*_of_the_pod(spec), *(text for c in containers_of(spec) for text in _of_a_container(spec, c))]


def containers_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Every container of a pod, init containers and sidecars first."""
    return [
        *spec.get("initContainers", []),
        *spec.get("containers", []),
        *spec.get("ephemeralContainers", []),
    ]


def _of_the_pod(spec: dict[str, Any]) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    for volume in spec.get("volumes", []):
        if kinds := set(volume) - {"name"} - ALLOWED_VOLUMES:
            yield f"volume {volume['name']}: {kinds.pop()}"
    context = spec.get("securityContext", {})
    for name in ("sysctls", "seLinuxOptions", "windowsOptions"):
        if context.get(name):
            yield f"pod: {name}"


def _of_a_container(spec: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    merged = {**spec.get("securityContext", {}), **own}
    capabilities = own.get("capabilities", {})
    broken = {
        "privileged": bool(own.get("privileged")),
        "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is not False,
        "capabilities.drop": "ALL" not in capabilities.get("drop", []),
        "capabilities.add": bool(set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}),
        "runAsNonRoot": merged.get("runAsNonRoot") is not True,
        "runAsUser": merged.get("runAsUser") == 0,
        "seccompProfile": merged.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"),
        "procMount": own.get("procMount", "Default") != "Default",
        "seLinuxOptions": bool(own.get("seLinuxOptions")),
        "hostPort": any("hostPort" in port for port in container.get("ports", [])),
        "host in a probe or hook": any("host" in action for action in _http_actions(container)),
    }
    yield from (f"{container['name']}: {name}" for name, wrong in broken.items() if wrong)


def _http_actions(container: dict[str, Any]) -> list[dict[str, Any]]:
    holders = [container.get(name, {}) for name in PROBES] + list(container.get("lifecycle", {}).values())
    return [
        holder[kind]
        for holder in holders
        for kind in ("httpGet", "tcpSocket")
        if isinstance(holder.get(kind), dict)
    ]
