"""Memory while a large area is backed up and restored: 10 GiB on a disk, as in a pod that lived long."""

from __future__ import annotations

import argparse
import functools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.arena import Arena, Defect, Sample
from benchmarks.bed import table
from benchmarks.peers import TOOLS
from benchmarks.workloads import MIB, Text, Workload, write

LIMIT_RESTORE_MIB = 150
MEAN_FILE_MIB = 32
LOOK_SECONDS = 0.02
COLUMNS = ("tool", "work", "seconds", "CPU s", "peak MiB (RSS)", "of it anonymous")
MOST_FILE_MIB = 900


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a smoke test: 0.05 GiB")
    parser.add_argument("--gib", type=float, default=10.0, help="size of the area (default 10)")
    parser.add_argument("--peers", default="claude-sidecar", help=f"comma-separated, of {', '.join(TOOLS)}")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))


def run(options: argparse.Namespace) -> int:
    gib = 0.05 if options.quick else options.gib
    needed, free = int(gib * 3.1 * 2**30), shutil.disk_usage(options.directory).free
    if free < needed:
        print(f"{options.directory} has {free / 2**30:.0f} GiB free and needs {needed / 2**30:.0f}.")
        return 2
    workload = Workload("large", f"{gib:g} GiB of transcripts", functools.partial(_make, int(gib * 1024)))
    rows, failed = [], 0
    with Arena(workload, options.directory, look_seconds=LOOK_SECONDS) as arena:
        for name in options.peers.split(","):
            try:
                for word, work in (("backup", arena.backup), ("restore", arena.restore)):
                    rows.append(_row(name, word, work(TOOLS[name], arena.server.endpoint)))
            except Defect as defect:
                rows.append((name, "**failed**", str(defect).splitlines()[0], "", "", ""))
                failed = 1
    table(f"Memory: {workload.title}", COLUMNS, rows)
    print(
        f"A restore must stay under {LIMIT_RESTORE_MIB} MiB. RSS counts the pages of mapped files too, "
        "which the kernel takes back when memory is short; anonymous memory it cannot.\n"
    )
    return failed


def _row(name: str, word: str, sample: Sample) -> tuple[object, ...]:
    peak = f"{sample.peak_kib / 1024:.0f}"
    if name == "claude-sidecar" and word == "restore" and sample.peak_kib / 1024 > LIMIT_RESTORE_MIB:
        peak = f"**{peak}: missed**"
    return (
        name,
        word,
        f"{sample.wall_seconds:.1f}",
        f"{sample.cpu_seconds:.1f}",
        peak,
        f"{sample.anonymous_kib / 1024:.0f}",
    )


def _make(total_mib: int, directory: Path, shrink: int) -> None:
    """Files of 32 MiB in the mean, the largest under the cap for one file."""
    text = Text("large", 4 * MIB)
    block = b"".join(text.lines(16 * MIB))
    count = max(2, total_mib // MEAN_FILE_MIB)
    for number, drawn in enumerate(text.sizes(count, total_mib * MIB, 0.8)):
        file = directory / f"projects/-w-{number % 20}/{text.identity()}.jsonl"
        write(file, _repeated(block, min(drawn, MOST_FILE_MIB * MIB), number), number)


def _repeated(block: bytes, size_bytes: int, number: int) -> Iterator[bytes]:
    """`block` again and again behind a line of its own; what matters here is only how much there is."""
    head = f'{{"number": {number}}}\n'.encode()
    yield head
    left = size_bytes - len(head)
    while left > 0:
        yield block[: left - 1] + b"\n" if left < len(block) else block
        left -= len(block)
