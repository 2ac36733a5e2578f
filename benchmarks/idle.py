"""A sidecar whose agent does nothing: CPU, memory and requests over ten minutes with two checkpoints."""

from __future__ import annotations

import argparse
import functools
import time

from benchmarks import gauges
from benchmarks.arena import Arena
from benchmarks.bed import table
from benchmarks.counting import Wiretap
from benchmarks.flushes import Flush
from benchmarks.workloads import Workload, small

LIMIT_RSS_MIB, LIMIT_CPU_PERCENT = 45, 0.1
EVERY_SECONDS = 5.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a smoke test: a few seconds")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--files", type=int, default=5000, help="small files in the home (default 5000)")
    parser.add_argument(
        "--hooked", action="store_true", help="the init hook made the first backup, as in a pod"
    )


def run(options: argparse.Namespace) -> int:
    minutes = 0.05 if options.quick else options.minutes
    make = functools.partial(small, count=options.files)
    workload = Workload("idle", f"{options.files:,} small files", make)
    with (
        Arena(workload, shrink=20 if options.quick else 1) as arena,
        Wiretap(arena.server.endpoint) as tap,
        Flush().running(arena, tap.endpoint, hooked=options.hooked) as (sidecar, _),
    ):
        sidecar.call("POST", "/v1/sync?wait=checkpoint&timeout=60")
        tap.take()
        assert sidecar.process
        rows = _watched(sidecar.process.pid, minutes * 60)
        traffic = tap.take()
    kinds = " ".join(f"{kind} {count}" for kind, count in sorted(traffic.requests.items()))
    rows.append(("requests", f"{traffic.count} {kinds}", "", ""))
    hooked = ", the first backup by the init hook" if options.hooked else ""
    table(f"Idle for {minutes:g} minutes: {workload.title}{hooked}", ("what", "is", "must be", ""), rows)
    return 0


def _watched(pid: int, lasting_seconds: float) -> list[tuple[str, str, str, str]]:
    cpu_before, began, most = gauges.cpu_seconds(pid), time.monotonic(), 0
    while (elapsed := time.monotonic() - began) < lasting_seconds:
        most = max(most, gauges.rss_kib(pid))
        time.sleep(min(EVERY_SECONDS, max(0.1, lasting_seconds - elapsed)))
    percent = (gauges.cpu_seconds(pid) - cpu_before) / (time.monotonic() - began) * 100
    mib = most / 1024
    return [
        ("CPU", f"{percent:.3f} %", f"{LIMIT_CPU_PERCENT} %", _verdict(percent <= LIMIT_CPU_PERCENT)),
        ("memory (RSS)", f"{mib:.1f} MiB", f"{LIMIT_RSS_MIB} MiB", _verdict(mib <= LIMIT_RSS_MIB)),
        ("of it anonymous", f"{gauges.anonymous_kib(pid) / 1024:.1f} MiB", "", ""),
        ("peak, the start included", f"{gauges.peak_kib(pid) / 1024:.1f} MiB", "", ""),
    ]


def _verdict(good: bool) -> str:
    return "yes" if good else "**missed**"
