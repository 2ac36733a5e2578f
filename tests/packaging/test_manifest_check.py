"""The check that `make lint` runs over the YAML files."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/check_manifests.py"


def check(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(directory)], capture_output=True, text=True, check=False
    )


def test_files_that_parse_pass(tmp_path):
    (tmp_path / "one.yaml").write_text("a: 1\n---\nb: [1, 2]\n")
    answer = check(tmp_path)
    assert (answer.returncode, answer.stdout) == (0, "1 YAML files, 0 with a mistake\n")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: [1\n", "expected"),
        ("spec:\n  a: 1\n  a: 2\n", "'a' is there twice"),
        ("", "empty document"),
        ("a: 1\n---\n", "empty document"),
    ],
)
def test_a_mistake_is_named_with_its_file(tmp_path, text, named):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/wrong.yml").write_text(text)
    answer = check(tmp_path)
    assert answer.returncode == 1
    assert "wrong.yml" in answer.stderr and named in answer.stderr
