"""kill -9 at random moments, agent and sidecar at once, as a lost node does it: what is lost, how old."""

from __future__ import annotations

import argparse
import logging
import random
import signal
import time

from benchmarks.bed import Bed, Place, seconds, table
from sidecar.area.store import Store
from sidecar.logs import log
from sidecar.sync import initial
from sidecar.sync.workspace import Workspace

LOG = "projects/-w/session.jsonl"
EACH_SECONDS = 0.02


def kills(bed: Bed, options: argparse.Namespace) -> None:
    initial.WAIT_FOR_OTHERS_SECONDS = 0.0  # the killed one is known dead here
    log.setLevel(logging.ERROR)
    lost, ages = [], []
    user = bed.place().user
    kept: set[str] = set()
    for number in range(options.kills):
        place = bed.place(user=user)
        written = _until_killed(place, number, random.uniform(0.2, 3 * bed.delay_seconds))
        here = _restored(bed.place(user=user))
        if gone := kept - here:
            raise RuntimeError(f"{len(gone)} lines that were durable before are gone: {sorted(gone)[:3]}")
        missing = [at for line, at in written if line not in here]
        killed_at = written[-1][1]
        lost.append(float(len(missing)))
        ages += [killed_at - at for at in missing]
        kept = here
    worst, middle = max(ages, default=0.0), sorted(lost)[len(lost) // 2]
    columns = ("kills", "lines lost, median", "lines lost, most", "oldest lost line, s", "durable lines lost")
    table(
        f"kill -9 at a random moment; a line each {EACH_SECONDS * 1000:.0f} ms",
        columns,
        [(len(lost), f"{middle:.0f}", f"{max(lost):.0f}", f"{worst:.2f}", 0)],
    )
    print(f"Ages of lost lines: median, p99, max {', '.join(seconds(ages or [0.0]))} s before the kill.\n")


def _until_killed(place: Place, number: int, after_seconds: float) -> list[tuple[str, float]]:
    """Write lines until the kill; returns each line and when it was written."""
    file = place.home / LOG
    written: list[tuple[str, float]] = []
    with place.running() as sidecar:
        file.parent.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + after_seconds
        while time.monotonic() < until:
            line = f'{{"kill": {number}, "n": {len(written)}}}\n'
            with file.open("a") as opened:
                opened.write(line)
            written.append((line, time.monotonic()))
            time.sleep(EACH_SECONDS)
        sidecar.end(signal.SIGKILL)
    return written


def _restored(place: Place) -> set[str]:
    """The lines that a fresh pod of the same user finds."""
    store = Store.connect(place.settings)
    with Workspace.open(place.settings, store, place.user, live=False) as workspace:
        result = initial.initial_sync(workspace)
    if not result.synced:
        raise RuntimeError(str(result.error))
    file = place.home / LOG
    return set(file.read_text().splitlines(keepends=True)) if file.exists() else set()
