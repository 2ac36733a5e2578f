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
    "idle": ("### Idle for 0.05 minutes", "| CPU |", "| memory (RSS) |", "| requests |"),
    "memory": ("| claude-sidecar | backup |", "| claude-sidecar | restore |"),
    "sidecars": ("### Sidecars on one server", "\n| 1 |", "\n| 2 |"),
    "growth": ("### 100 small files", "### A transcript of 1 MiB", "| 4 KiB appended, flush |"),
    "costs": (
        "### Once",
        "| typical (4 turns, 2 pods), journal, 2 s |",
        "| 100,000 |",
        "S3's limit for one prefix",
    ),
    "fleet": ("### 10 sidecars after 2 s, 50 requests/s", "Durable: 10 of 10"),
}
# The other rows and tools differ in what is in the trees, not in what is run.
ONLY = ("restore-small", "append", "empty")
OPTIONS = {
    "speed": ("--peers=claude-sidecar,s5cmd", "--round-trips=0", *(f"--only={row}" for row in ONLY)),
    "growth": ("--peers=claude-sidecar",),
}


@pytest.mark.parametrize("name", sorted(HEADINGS))
def test_a_benchmark_runs_to_its_end_and_prints_every_table(name: str, tmp_path: Path) -> None:
    environ = {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
    where = (f"--directory={tmp_path}",) if name in ("speed", "memory", "growth") else ()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--quick", *OPTIONS.get(name, ()), *where],
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
