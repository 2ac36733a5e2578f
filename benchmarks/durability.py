"""Seconds, not minutes: how long after its last write an agent's bytes are in the bucket, and what it costs.

Real ``claude-sidecar run`` processes against a real S3 server on loopback. Durable means: an outside reader
saw it, in the journal or in the object.
"""

from __future__ import annotations

import argparse
import random
import signal
import time
from collections.abc import Callable

from benchmarks import kills, traffic
from benchmarks.agent import Agent
from benchmarks.bed import DELAY_SECONDS, Bed, Place, seconds, table
from benchmarks.reader import Reader

MIB = 1024 * 1024
LOG = "projects/-w/session.jsonl"
COLUMNS = ("work", "writes", "median s", "p99 s", "max s")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a smoke test: everything as short as can be")
    parser.add_argument("--writes", type=int, default=40, help="single writes at rest (default 40)")
    parser.add_argument("--session-seconds", type=float, default=90.0, help="steady session (default 90)")
    parser.add_argument("--flood", type=int, default=10_000, help="small files at once (default 10,000)")
    parser.add_argument("--ends", type=int, default=5, help="SIGTERMs with 40 MiB (default 5)")
    parser.add_argument("--kills", type=int, default=10, help="kill -9 at a random moment (default 10)")
    parser.add_argument(
        "--minutes", type=float, default=11.0, help="realistic session (default 11: two checkpoints)"
    )
    parser.add_argument("--only", choices=sorted(PARTS), action="append", help="this part; may be repeated")


def run(options: argparse.Namespace) -> int:
    if options.quick:
        options.writes, options.session_seconds, options.flood, options.ends = 1, 2.0, 200, 1
        options.kills, options.minutes = 1, 0.02
    delay_seconds = 0.2 if options.quick else DELAY_SECONDS
    random.seed(1)
    print(f"## Durability\n\nSync delay {delay_seconds:g} s; SeaweedFS on loopback; real processes.")
    with Bed(delay_seconds) as bed:
        for name in options.only or PARTS:
            PARTS[name](bed, options)
    return 0


# -- the last write of the agent to durable


def latency(bed: Bed, options: argparse.Namespace) -> None:
    rows = []
    for work, measure in (("at rest", _at_rest), ("steady session", _session), ("flood", _flood)):
        waits = measure(bed.place(), options)
        rows.append((work, len(waits), *seconds(waits)))
    table("Last write to durable", COLUMNS, rows)
    print(
        "At rest: one write of 4 KiB, all else quiet. Steady session: 4 KiB appended each 0.5 s. "
        f"Flood: {options.flood:,} small files written at once, counted from each one's own write.\n"
    )


def _at_rest(place: Place, options: argparse.Namespace) -> list[float]:
    agent, waits = Agent(place.home), []
    with place.running(), Reader(place) as reader:
        for _ in range(options.writes):
            end, written_at = agent.append(LOG, 4096)
            waits.append(reader.wait_for(LOG, end) - written_at)
            time.sleep(random.uniform(0, 0.5))
    return waits


def _session(place: Place, options: argparse.Namespace) -> list[float]:
    agent, written = Agent(place.home), []
    with place.running(), Reader(place) as reader:
        for _ in range(int(options.session_seconds / 0.5)):
            written.append(agent.append(LOG, 4096))
            time.sleep(0.5)
        return [reader.wait_for(LOG, end) - at for end, at in written]


def _flood(place: Place, options: argparse.Namespace) -> list[float]:
    agent = Agent(place.home)
    with place.running(), Reader(place) as reader:
        paths = [f"plans/{number % 100}/{number}.md" for number in range(options.flood)]
        written = {path: agent.append(path, 600) for path in paths}
        return [reader.wait_for(path, end) - at for path, (end, at) in written.items()]


# -- the end


def end(bed: Bed, options: argparse.Namespace) -> None:
    rows, large_mib = [], 4 if options.quick else 40
    for flushed_before in (True, False):
        durable, exits = [], []
        for _ in range(options.ends):
            until_durable, until_exit = _end_once(bed.place(), large_mib * MIB, flushed_before)
            durable.append(until_durable)
            exits.append(until_exit)
        state = "flushed before" if flushed_before else "not yet flushed by this process"
        rows.append((f"SIGTERM to durable, {state}", len(durable), *seconds(durable)))
        rows.append((f"SIGTERM to exit 0, {state}", len(exits), *seconds(exits)))
    table(f"The end, one dirty transcript of {large_mib} MiB, 4 KiB of it new", COLUMNS, rows)


def _end_once(place: Place, size_bytes: int, flushed_before: bool) -> tuple[float, float]:
    agent = Agent(place.home)
    agent.fill(LOG, size_bytes)
    with Reader(place) as reader, place.running() as sidecar:
        if flushed_before:  # else the flush reads all of the transcript once, to know where it stands
            reader.wait_for(LOG, agent.append(LOG, 4096)[0])
        size, _ = agent.append(LOG, 4096)
        at = time.monotonic()
        code = sidecar.end(signal.SIGTERM)
        ended_at = time.monotonic()
        if code:
            raise RuntimeError(f"exit {code}: {sidecar.text()}")
        return reader.wait_for(LOG, size) - at, ended_at - at


Part = Callable[[Bed, argparse.Namespace], None]
PARTS: dict[str, Part] = {
    "latency": latency,
    "end": end,
    "small": traffic.small,
    "large": traffic.large,
    "hour": traffic.hour,
    "kills": kills.kills,
}
