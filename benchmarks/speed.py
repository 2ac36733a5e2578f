"""Beside the peers: restores and backups by claude-sidecar, s5cmd, rclone, aws s3 sync and restic.

Whole processes against a real S3 server in memory on loopback, in interleaved rounds. Requests and bytes are
counted in a round of their own, so that the timed rounds go straight to the server; a round-trip time comes
from a proxy (`benchmarks.wiretap`). Every run is checked: the objects, or the restored tree, byte by byte.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import os
import platform
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from benchmarks import publishing, report, results
from benchmarks.arena import MEMORY, Arena, Defect, Sample
from benchmarks.counting import Traffic, Wiretap
from benchmarks.flushes import Flush
from benchmarks.peers import TOOLS, USUAL, Tool
from benchmarks.report import OURS
from benchmarks.results import BASELINE, Comparison, Result
from benchmarks.rows import ROWS, Row
from benchmarks.workloads import SEED, WORKLOADS

SHRINK = 20
LEAST_ROUNDS = 3
Value = TypeVar("Value")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quick", action="store_true", help=f"a smoke test: one round, trees 1/{SHRINK} the size"
    )
    parser.add_argument("--only", choices=sorted(ROWS), action="append", help="this row; may be repeated")
    parser.add_argument(
        "--peers",
        type=lambda names: [name.strip() for name in names.split(",")],
        default=[tool.name for tool in USUAL],
        help=f"comma-separated, of {', '.join(TOOLS)}; s5cmd is what the others are measured by",
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each row (default 5)")
    parser.add_argument("--long-rounds", type=int, default=3, help="of the rows of 600 MiB (default 3)")
    parser.add_argument(
        "--delayed-rounds",
        type=int,
        default=3,
        help="with a round-trip time, at most (default 3; 600 MiB: 2)",
    )
    parser.add_argument("--round-trips", default="0,20", help="milliseconds, comma-separated (default 0,20)")
    parser.add_argument("--directory", type=Path, default=MEMORY, help=f"where all lies (default {MEMORY})")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--publish", action="store_true", help="write docs/speed.* and the README's section")


def run(options: argparse.Namespace) -> int:
    if unknown := set(options.peers) - TOOLS.keys():
        print(f"No tool is called {', '.join(sorted(unknown))}; there are {', '.join(TOOLS)}.")
        return 2
    if options.quick:
        options.rounds = options.long_rounds = 1
        print(f"A smoke test: the trees are a {SHRINK}th of what the rows say.\n")
    if lacking := _lacks_room(options):
        print(lacking)
        return 2
    began = time.monotonic()
    comparison = compare(options, [TOOLS[name] for name in options.peers])
    _say(f"All of it took {(time.monotonic() - began) / 60:.1f} minutes.")
    print(report.markdown(comparison))
    if options.json:
        results.save(comparison, options.json)
    if options.publish:
        publishing.publish(comparison)
    return 1 if comparison.defects() else 0


def compare(options: argparse.Namespace, asked: Sequence[Tool]) -> Comparison:
    """All rows, grouped by the tree that they need."""
    versions = {tool.name: tool.version() for tool in asked}
    began = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    comparison = Comparison(began, _machine(), versions)
    tools = [tool for tool in asked if versions[tool.name]]
    chosen = [row for row in ROWS.values() if not options.only or row.name in options.only]
    for workload in dict.fromkeys(row.workload for row in chosen):
        shrink = SHRINK if options.quick else 1
        with Arena(WORKLOADS[workload], options.directory, shrink) as arena:
            for row in (row for row in chosen if row.workload == workload):
                comparison.results += _Contest(arena, row, tools, options).results()
    return comparison


class _Contest:
    """One row: a counted round, then the timed ones."""

    def __init__(self, arena: Arena, row: Row, tools: Sequence[Tool], options: argparse.Namespace) -> None:
        self._arena, self._row = arena, row
        self._tools = [*tools]
        if row.appends and any(tool.name == "claude-sidecar" for tool in tools):
            self._tools.append(Flush())
        self._rounds = options.long_rounds if row.long else options.rounds
        self._delayed_rounds = min(self._rounds, options.delayed_rounds, 2 if row.long else self._rounds)
        self._round_trips = [int(one) for one in options.round_trips.split(",")]
        self._random = random.Random(f"{SEED} {row.name}")
        self._number = 0
        self._traffic: dict[str, Traffic] = {}
        self._defects: dict[str, str] = {}

    def results(self) -> list[Result]:
        with Wiretap(self._arena.server.endpoint) as tap:
            for tool in self._next_round():
                self._counted(tool, tap)
        return [result for milliseconds in self._round_trips for result in self._timed(milliseconds)]

    def _timed(self, milliseconds: int) -> list[Result]:
        found = {tool.name: Result(self._row.name, tool.name, milliseconds) for tool in self._tools}
        rounds = self._delayed_rounds if milliseconds else self._rounds
        with self._way(milliseconds) as endpoint:
            for number in range(rounds):
                for tool in self._next_round():
                    if number >= LEAST_ROUNDS and _is_slow(found, tool):
                        continue
                    if sample := self._tried(tool, endpoint):
                        _add(found[tool.name], sample)
                _say(f"{self._row.name}, {milliseconds} ms, round {number + 1} of {rounds}")
        for name, result in found.items():
            result.defect = self._defects.get(name, "")
            if traffic := self._traffic.get(name):
                result.requests = traffic.requests
                result.sent_bytes, result.received_bytes = traffic.sent_bytes, traffic.received_bytes
        return list(found.values())

    def _next_round(self) -> list[Tool]:
        """The tools in a new order."""
        if self._row.appends:
            self._number += 1
            for tool in self._tools:  # each has a backup of what was there before
                if not isinstance(tool, Flush):
                    self._guarded(tool, functools.partial(self._arena.filled, tool))
            self._arena.append(self._number)
        return self._random.sample(self._tools, len(self._tools))

    def _counted(self, tool: Tool, tap: Wiretap) -> None:
        """One round by the proxy; it warms up what is cold, too."""
        if isinstance(tool, Flush):
            measured = self._guarded(tool, lambda: tool.measure(self._arena, tap.endpoint, tap))
            traffic = measured[1] if measured else None
        else:
            tap.take()
            self._guarded(tool, lambda: self._row.work(self._arena, tool, tap.endpoint))
            traffic = tap.take()
        if traffic and tool.name not in self._defects:
            self._traffic[tool.name] = traffic

    def _tried(self, tool: Tool, endpoint: str) -> Sample | None:
        if isinstance(tool, Flush):
            return self._guarded(tool, lambda: tool.measure(self._arena, endpoint)[0])
        return self._guarded(tool, lambda: self._row.work(self._arena, tool, endpoint))

    def _guarded(self, tool: Tool, work: Callable[[], Value]) -> Value | None:
        """A tool that fails once is out of the row, and named."""
        if tool.name in self._defects:
            return None
        try:
            return work()
        except Defect as defect:
            self._defects[tool.name] = str(defect)
            _say(f"{self._row.name}: {tool.name}: {defect}")
            return None

    @contextlib.contextmanager
    def _way(self, milliseconds: int) -> Iterator[str]:
        if not milliseconds:
            yield self._arena.server.endpoint
            return
        with Wiretap(self._arena.server.endpoint, milliseconds / 1000) as tap:
            yield tap.endpoint


def _is_slow(found: dict[str, Result], tool: Tool) -> bool:
    """A peer that takes more than twice s5cmd's time: a few rounds are enough to see it."""
    peer, base = found[tool.name], found.get(BASELINE)
    if base is None or tool.name.startswith(OURS) or not (peer.wall_seconds and base.wall_seconds):
        return False
    return peer.median_seconds > 2 * base.median_seconds


def _add(result: Result, sample: Sample) -> None:
    result.wall_seconds.append(sample.wall_seconds)
    result.cpu_seconds.append(sample.cpu_seconds)
    result.peak_kib.append(sample.peak_kib)


def _lacks_room(options: argparse.Namespace) -> str:
    """A sentence where the trees, what every tool stores of them and what is restored do not fit."""
    names = {ROWS[name].workload for name in options.only or ROWS}
    needed = (6 if "transcripts" in names else 1) * 2**30 // (SHRINK if options.quick else 1)
    free = shutil.disk_usage(options.directory).free
    if free >= needed:
        return ""
    return (
        f"{options.directory} has {free / 2**30:.1f} GiB free and needs {needed / 2**30:.1f}; "
        "name another directory with --directory, best in memory."
    )


def _machine() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = names[0].partition(":")[2].strip() if names else platform.machine()
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]  # of others: nothing of ours has run yet
    cpus = f"{os.cpu_count()} CPUs ({model}), {gib:.0f} GiB"
    return f"{cpus}, Python {platform.python_version()}, load {load:.1f} before the start"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
