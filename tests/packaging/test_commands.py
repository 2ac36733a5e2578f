"""The daily commands: what `make` offers, what continuous integration runs, which Python they take."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
LOCKS = ("develop", "image", "injector", "demo")


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "MAKEFLAGS": "", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def pins_of(lock: str) -> dict[str, set[str]]:
    """The locked versions of each package: more than one where Python versions need different ones."""
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(
        r"^([\w.-]+)==([^\s;]+)", (ROOT / f"requirements/{lock}.txt").read_text("utf-8"), re.MULTILINE
    ):
        pins.setdefault(name, set()).add(version)
    return pins


def declared() -> dict[str, str]:
    """Every package that pyproject.toml pins, by the name that a lock gives it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    found = {}
    for text in (text for texts in lists for text in texts):
        match = re.match(r"([\w.-]+)(?:\[[\w,-]+\])?==([^\s;]+)", text)
        if match:
            found[re.sub(r"[._-]+", "-", match[1]).lower()] = match[2]
    return found


def test_make_alone_lists_every_command_with_what_it_does():
    listed = dict(re.findall(r"^make (\S+)\s+(\S.*)$", run("make").stdout, re.MULTILINE))
    phony = re.findall(r"^\.PHONY: (\S+)$", MAKEFILE, re.MULTILINE)
    assert sorted(listed) == sorted(phony)
    assert {"demo", "test", "lint", "format", "check", "bench", "image", "clean"} <= set(listed)


def test_every_script_that_a_command_calls_is_there_and_may_be_run():
    called = set(re.findall(r"scripts/[\w-]+", MAKEFILE + (ROOT / ".ci/run").read_text("utf-8")))
    assert called
    assert [name for name in called if not os.access(ROOT / name, os.X_OK)] == []


def test_a_python_that_is_not_there_is_refused_with_what_to_do():
    answer = run("scripts/find-python", PYTHON="/no/such/python3")
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert "Python 3.11 or newer" in answer.stderr and "make PYTHON=" in answer.stderr


def test_an_old_python_is_passed_over_for_a_newer_one(tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    new = tmp_path / "python3.12"
    new.write_text("#!/bin/sh\nexit 0\n")
    new.chmod(0o755)
    answer = run("scripts/find-python", PYTHON="", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() != str(old)


def test_a_python_under_a_path_with_a_space_is_taken(tmp_path):
    python = tmp_path / "my python"
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    assert run("scripts/find-python", PYTHON=str(python)).stdout.strip() == str(python)


def test_continuous_integration_lints_first_and_ends_with_the_tests():
    commands = [
        line for line in (ROOT / ".ci/run").read_text("utf-8").splitlines() if line and line[0] not in "#"
    ]
    order = [index for index, line in enumerate(commands) if "lint" in line or "scripts/test" in line]
    assert ["lint" in commands[index] for index in order] == [True, False]
    assert commands[-1] == 'exit "$status"' and order[-1] == len(commands) - 2
    assert any("AWS_EC2_METADATA_DISABLED=true" in line for line in commands)


@pytest.mark.parametrize(
    ("lint", "tests", "expected"), [(0, 0, 0), (1, 0, 1), (0, 1, 1)], ids=["green", "lint red", "tests red"]
)
def test_continuous_integration_fails_when_a_part_fails_and_prints_nothing_after_the_tests(
    tmp_path, lint, tests, expected
):
    (tmp_path / ".ci").mkdir()
    (tmp_path / "scripts").mkdir()
    (tmp_path / ".ci/run").write_bytes((ROOT / ".ci/run").read_bytes())
    (tmp_path / "Makefile").write_text(f"lint:\n\t@echo linted; exit {lint}\nsetup:\n")
    script = tmp_path / "scripts/test"
    script.write_text(f"#!/bin/sh\ncat\necho the last line\nexit {tests}\n")
    script.chmod(0o755)
    answer = subprocess.run(
        ["bash", ".ci/run"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert bool(answer.returncode) == bool(expected)
    lines = answer.stdout.splitlines()
    assert lines[0] == "linted" and lines[-1] == "the last line"


def test_the_locks_hold_the_versions_that_pyproject_names():
    locked = pins_of("develop")
    wrong = {name: version for name, version in declared().items() if locked.get(name) != {version}}
    assert wrong == {}, "run `make lock`"


def test_what_the_image_installs_is_what_the_tests_run_with():
    developed = pins_of("develop")
    for lock in ("image", "injector", "demo"):
        assert {name: v for name, v in pins_of(lock).items() if developed.get(name) != v} == {}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_digests_and_no_place_to_download_from(lock):
    text = (ROOT / f"requirements/{lock}.txt").read_text("utf-8")
    assert "://" not in text and "--index" not in text
    entries = re.split(r"\n(?=\S)", text.split("\n", 1)[1].strip())
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
