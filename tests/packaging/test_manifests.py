"""The manifests under k8s/: a cluster takes them, the sidecar understands them, they say the same."""

import copy
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar import settings
from tests.packaging.pod_security import containers_of, violations

K8S = Path(__file__).resolve().parents[2] / "k8s"
OVERLAYS = ("minio", "irsa")
SIDECARS = ("claude-sidecar-restore", "claude-sidecar")
KNOWN = {option.variable for option in settings.OPTIONS} | {"CLAUDE_CONFIG_DIR"}


def documents(path: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((K8S / path).read_text("utf-8")))


@pytest.fixture
def pod() -> dict[str, Any]:
    return documents("pod.yaml")[0]


@pytest.fixture
def spec(pod: dict[str, Any]) -> dict[str, Any]:
    return pod["spec"]


@pytest.fixture(params=OVERLAYS)
def rendered(request: pytest.FixtureRequest, tmp_path: Path) -> list[dict[str, Any]]:
    """An overlay as `kubectl apply -k` would send it."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which renders the kustomize examples, is not installed")
    shutil.copytree(K8S / "kustomize", tmp_path / "kustomize")
    overlay = tmp_path / "kustomize/overlays" / request.param
    if (overlay / "aws.env.example").exists():
        shutil.copy(overlay / "aws.env.example", overlay / "aws.env")
    answer = subprocess.run(
        ["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return list(yaml.safe_load_all(answer.stdout))


def named(spec: dict[str, Any], name: str) -> dict[str, Any]:
    return next(container for container in containers_of(spec) if container["name"] == name)


def pod_specs(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [m["spec"]["template"]["spec"] for m in manifests if m["kind"] == "Deployment"]
    assert found
    return found


def environment_of(container: dict[str, Any]) -> dict[str, str]:
    """The variables of `container`; what the kubelet fills in is stood for by its field's name."""
    return {
        entry["name"]: entry["value"] if "value" in entry else entry["valueFrom"]["fieldRef"]["fieldPath"]
        for entry in container.get("env", [])
    }


def test_the_pod_passes_the_restricted_pod_security_standard(spec):
    assert violations(spec) == []


def test_the_kustomize_examples_pass_the_restricted_pod_security_standard(rendered):
    for spec in pod_specs(rendered):
        assert violations(spec) == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda spec: spec.update(hostNetwork=True), "hostNetwork"),
        (lambda spec: spec["securityContext"].update(runAsNonRoot=False), "runAsNonRoot"),
        (lambda spec: spec["securityContext"].update(runAsUser=0), "runAsUser"),
        (lambda spec: spec["securityContext"].pop("seccompProfile"), "seccompProfile"),
        (lambda spec: spec["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "hostPath"),
        (lambda spec: spec["initContainers"][1].pop("securityContext"), "allowPrivilegeEscalation"),
        (lambda spec: spec["containers"][0]["securityContext"].pop("capabilities"), "capabilities.drop"),
        (
            lambda spec: spec["initContainers"][1]["startupProbe"]["httpGet"].update(host="10.0.0.1"),
            "host in a probe",
        ),
    ],
)
def test_the_restricted_check_sees_each_breach(spec, broken, said):
    # The file's anchors make the containers share their parts; a change must reach one place only.
    changed = json.loads(json.dumps(spec))
    broken(changed)
    assert any(said in text for text in violations(changed))


def test_the_sidecar_writes_to_its_two_volumes_only(spec):
    for name in SIDECARS:
        container = named(spec, name)
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        environment = environment_of(container)
        assert mounts == {
            environment["CLAUDE_SIDECAR_HOME"]: "claude-home",
            environment["CLAUDE_SIDECAR_STATE_DIR"]: "claude-sidecar-state",
        }
        assert not any(mount.get("readOnly") for mount in container["volumeMounts"])


def test_the_agent_shares_the_home_and_not_the_state(spec):
    agent = named(spec, "agent")
    assert [mount["name"] for mount in agent["volumeMounts"]] == ["claude-home"]
    assert environment_of(agent)["CLAUDE_CONFIG_DIR"] == agent["volumeMounts"][0]["mountPath"]
    assert {volume["name"]: volume["emptyDir"] for volume in spec["volumes"]} == {
        "claude-home": {},
        "claude-sidecar-state": {},
    }


def test_agent_and_sidecar_are_one_numeric_user_and_do_not_see_each_others_processes(spec):
    assert isinstance(spec["securityContext"]["runAsUser"], int)
    assert not any("runAsUser" in c.get("securityContext", {}) for c in containers_of(spec))
    assert "shareProcessNamespace" not in spec


def test_the_restore_ends_before_the_sidecar_starts_and_both_before_the_agent(spec):
    restore, sidecar = spec["initContainers"]
    assert (restore["name"], restore["args"]) == ("claude-sidecar-restore", ["restore"])
    assert (sidecar["name"], sidecar["args"]) == ("claude-sidecar", ["run"])
    assert "restartPolicy" not in restore
    assert sidecar["restartPolicy"] == "Always"
    assert [container["name"] for container in spec["containers"]] == ["agent"]


def test_no_manifest_replaces_the_images_entry_point(spec):
    assert [container["name"] for container in containers_of(spec) if "command" in container] == []


def test_the_probes_and_the_hook_reach_the_health_port_of_this_container(spec):
    sidecar = named(spec, "claude-sidecar")
    (port,) = sidecar["ports"]
    assert port["containerPort"] == settings.Settings().health_port
    actions = {
        "/startupz": sidecar["startupProbe"]["httpGet"],
        "/livez": sidecar["livenessProbe"]["httpGet"],
        "/prestop": sidecar["lifecycle"]["preStop"]["httpGet"],
    }
    assert actions == {path: {"path": path, "port": port["name"]} for path in actions}
    assert "readinessProbe" not in sidecar


def test_the_sidecar_knows_the_pods_grace_period(spec):
    for name in SIDECARS:
        seconds = environment_of(named(spec, name))["CLAUDE_SIDECAR_GRACE_SECONDS"]
        assert int(seconds) == spec["terminationGracePeriodSeconds"] >= 30


def test_the_annotations_name_the_pods_own_container_and_volumes(pod):
    annotations = pod["metadata"]["annotations"]
    assert annotations["kubectl.kubernetes.io/default-container"] == "agent"
    volumes = annotations["cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"].split(",")
    assert volumes == [volume["name"] for volume in pod["spec"]["volumes"]]


def test_every_container_says_what_it_needs(spec):
    for container in containers_of(spec):
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


def test_every_variable_of_the_pod_is_a_setting_with_a_value_that_is_taken(spec):
    for container in containers_of(spec):
        environment = environment_of(container)
        assert set(environment) <= KNOWN
        loaded = settings.load(environment)
        assert loaded.warnings == ()
    assert loaded.home == environment_of(named(spec, "agent"))["CLAUDE_CONFIG_DIR"]


def test_every_setting_of_the_kustomize_examples_is_taken(rendered):
    (config,) = (m["data"] for m in rendered if m["kind"] == "ConfigMap")
    for spec in pod_specs(rendered):
        for name in SIDECARS:
            environment = {**config, **environment_of(named(spec, name))}
            assert {variable for variable in environment if not variable.startswith("AWS_")} <= KNOWN
            loaded = settings.load(environment)
            assert (loaded.bucket, loaded.user_id) == ("my-bucket", "user123")


def test_the_kustomize_examples_add_what_the_pod_shows(spec, rendered):
    """Bucket and user come from a ConfigMap there; everything else is the same, to the last field."""
    (other,) = pod_specs(rendered)
    for name in SIDECARS:
        expected, found = copy.deepcopy(named(spec, name)), copy.deepcopy(named(other, name))
        environment = environment_of(expected)
        assert environment_of(found) == {
            variable: value
            for variable, value in environment.items()
            if variable not in ("S3_WORKSPACE_BUCKET", "CLAUDE_SIDECAR_USER_ID")
        }
        for container in (expected, found):
            del container["env"], container["envFrom"]
        assert found == expected
    for field in ("terminationGracePeriodSeconds", "enableServiceLinks", "volumes", "securityContext"):
        assert other[field] == spec[field]
    assert [container["name"] for container in other["initContainers"]] == list(SIDECARS)


def test_the_api_would_take_every_manifest(pod):
    from tests.packaging.kubernetes_types import problems_of

    plain = [pod, *documents("network-policy.yaml"), *documents("kustomize/base/agent.yaml")]
    assert [problem for manifest in plain for problem in problems_of(manifest)] == []


def test_the_api_would_take_the_kustomize_examples(rendered):
    from tests.packaging.kubernetes_types import problems_of

    assert [problem for manifest in rendered for problem in problems_of(manifest)] == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            lambda spec: spec.update(terminationGracePeriodSecond=30),
            "terminationGracePeriodSecond is no field",
        ),
        (lambda spec: spec["initContainers"][1].update(restartpolicy="Always"), "restartpolicy is no field"),
        (lambda spec: spec.update(terminationGracePeriodSeconds="30"), "not int"),
        (lambda spec: spec["containers"][0].pop("name"), "name"),
    ],
)
def test_the_check_against_the_api_sees_each_mistake(pod, broken, said):
    from tests.packaging.kubernetes_types import problems_of

    changed = json.loads(json.dumps(pod))
    broken(changed["spec"])
    assert any(said in problem for problem in problems_of(changed))


def test_the_network_policy_lets_nobody_in_but_to_the_health_port(pod):
    (policy,) = documents("network-policy.yaml")
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (rule,) = policy["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [settings.Settings().health_port]
    assert rule["from"]


def test_the_iam_policy_reaches_the_areas_and_nothing_else():
    policy = json.loads((K8S / "iam-policy.json").read_text("utf-8"))
    areas = f"my-bucket/{settings.Settings().prefix}/*"
    resources = [statement["Resource"] for statement in policy["Statement"]]
    assert resources == ["arn:aws:s3:::my-bucket", f"arn:aws:s3:::{areas}"]
    assert all(statement["Effect"] == "Allow" for statement in policy["Statement"])
    assert policy["Statement"][0]["Condition"] == {"StringLike": {"s3:prefix": "user_data/*"}}
