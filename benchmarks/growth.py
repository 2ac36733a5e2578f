"""How each cost grows: with the number of files (1k, 10k, 100k) and with the length of one transcript."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.arena import MEMORY, Arena, Defect, Sample
from benchmarks.bed import table
from benchmarks.counting import Traffic, Wiretap
from benchmarks.flushes import Flush
from benchmarks.peers import TOOLS, Tool
from benchmarks.report import amount
from benchmarks.workloads import MIB, Workload, one_transcript, small

COLUMNS = ("work", "tool", "seconds", "CPU s", "peak MiB", "requests", "sent", "received")
Row = tuple[object, ...]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a smoke test: 100 files, 1 MiB")
    parser.add_argument("--files", default="1000,10000,100000", help="numbers of files, comma-separated")
    parser.add_argument("--mib", default="1,10,100,1000", help="lengths of the transcript, comma-separated")
    parser.add_argument("--peers", default="claude-sidecar,s5cmd", help=f"of {', '.join(TOOLS)}")
    parser.add_argument("--directory", type=Path, default=MEMORY, help=f"where all lies (default {MEMORY})")


def run(options: argparse.Namespace) -> int:
    if options.quick:
        options.files, options.mib = "100", "1"
    tools = [TOOLS[name] for name in options.peers.split(",")]
    for count in (int(one) for one in options.files.split(",") if one):
        make = functools.partial(small, count=count)
        _print(Workload("files", f"{count:,} small files", make), tools, options.directory, _files)
    for mib in (int(one) for one in options.mib.split(",") if one):
        make = functools.partial(one_transcript, size_bytes=mib * MIB)
        _print(Workload("length", f"A transcript of {mib:,} MiB", make), tools, options.directory, _length)
    print("One run each, by way of the counting proxy.\n")
    return 0


Work = Callable[[Arena, Tool, Wiretap], Iterator[Row]]


def _print(workload: Workload, tools: list[Tool], directory: Path, work: Work) -> None:
    with Arena(workload, directory) as arena, Wiretap(arena.server.endpoint) as tap:
        rows = [row for tool in tools for row in _guarded(work, arena, tool, tap)]
    table(workload.title, COLUMNS, rows)


def _guarded(work: Work, arena: Arena, tool: Tool, tap: Wiretap) -> Iterator[Row]:
    try:
        yield from work(arena, tool, tap)
    except Defect as defect:
        yield ("**failed**", tool.name, str(defect).splitlines()[0])


def _files(arena: Arena, tool: Tool, tap: Wiretap) -> Iterator[Row]:
    yield _row("first backup", tool, arena.backup(tool, tap.endpoint), tap.take())
    yield _row("nothing changed", tool, arena.backup_again(tool, tap.endpoint), tap.take())
    next(iter(arena.home.rglob("*.md"))).write_text("changed\n")
    yield _row("one file changed", tool, arena.backup_again(tool, tap.endpoint), tap.take())
    yield _row("restore", tool, arena.restore(tool, tap.endpoint), tap.take())


def _length(arena: Arena, tool: Tool, tap: Wiretap) -> Iterator[Row]:
    yield _row("first backup", tool, arena.backup(tool, tap.endpoint), tap.take())
    arena.append(1)
    yield _row("4 KiB appended, backup", tool, arena.backup_again(tool, tap.endpoint), tap.take())
    yield _row("restore", tool, arena.restore(tool, tap.endpoint), tap.take())
    if tool.name == "claude-sidecar":
        sample, traffic = Flush().measure(arena, tap.endpoint, tap)
        assert traffic
        yield _row("4 KiB appended, flush", Flush(), sample, traffic)


def _row(work: str, tool: Tool, sample: Sample, traffic: Traffic) -> Row:
    kinds = " ".join(f"{kind} {count}" for kind, count in sorted(traffic.requests.items()))
    return (
        work,
        tool.name,
        f"{sample.wall_seconds:.2f}",
        f"{sample.cpu_seconds:.2f}",
        f"{sample.peak_kib / 1024:.0f}",
        kinds or "none",
        amount(traffic.sent_bytes),
        amount(traffic.received_bytes),
    )
