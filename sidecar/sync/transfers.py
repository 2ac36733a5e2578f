"""A pool of daemon threads that bounds what is in flight by bytes and by requests.

Daemon threads: a store that hangs must not hold up the end of the process. The caller's thread only waits, in
short steps, so that signals are handled on time (a blocking call into the S3 library would delay them).
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from sidecar.errors import (
    BucketMissing,
    CredentialsMissing,
    CredentialsRefused,
    LedgerError,
    RegionWrong,
    SidecarError,
    StoreError,
    TlsRefused,
)

T = TypeVar("T")

# What a restore or checkpoint may hold in memory at once; with the interpreter it stays under 150 MiB.
BYTES_IN_FLIGHT = 64 * 1024 * 1024
_WAIT_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """`work` to be done for `name` (a path), holding about `weight_bytes` in memory."""

    name: str
    weight_bytes: int
    work: Callable[[], T]


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """A job's end: ``value``, or the ``error`` that stopped it; ``started`` is False if it never ran."""

    job: Job[T]
    value: T | None
    error: BaseException | None = None
    started: bool = True


def concerns_all(error: BaseException) -> bool:
    """True where no other job can fare better: the store is away, or will not have us."""
    if isinstance(error, StoreError):
        lasting = (BucketMissing, CredentialsMissing, CredentialsRefused, RegionWrong, TlsRefused)
        return error.outage or isinstance(error, lasting)
    return isinstance(error, LedgerError) or not isinstance(error, SidecarError)


class _Gate:
    """Admits jobs while their bytes fit; a job larger than the whole budget runs alone."""

    def __init__(self, budget_bytes: int) -> None:
        self._free = self._budget = budget_bytes
        self._changed = threading.Condition()

    def enter(self, weight_bytes: int) -> int:
        weight = min(weight_bytes, self._budget)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= weight)
            self._free -= weight
        return weight

    def leave(self, weight: int) -> None:
        with self._changed:
            self._free += weight
            self._changed.notify_all()


def run_jobs(
    jobs: Iterable[Job[T]],
    *,
    workers: int,
    bytes_in_flight: int = BYTES_IN_FLIGHT,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Done[T]]:
    """Run `jobs` in their order of start on up to `workers` threads; yield each end as it comes.

    After an error that concerns all jobs, and as soon as `stop()` is true, no further job starts: the rest is
    yielded with ``started=False``. Work already begun is waited for, unless the caller leaves the loop.
    """
    waiting: deque[Job[T]] = deque(jobs)
    total = len(waiting)
    ends: queue.SimpleQueue[Done[T]] = queue.SimpleQueue()
    halted = threading.Event()
    gate = _Gate(bytes_in_flight)

    def work() -> None:
        while True:
            try:
                job = waiting.popleft()
            except IndexError:
                return
            if halted.is_set() or stop():
                ends.put(Done(job, None, started=False))
            else:
                ends.put(_run(job, gate, halted))

    for number in range(min(workers, total)):
        threading.Thread(target=work, name=f"transfer-{number}", daemon=True).start()
    try:
        for _ in range(total):
            yield _next(ends)
    finally:
        halted.set()


def _run(job: Job[T], gate: _Gate, halted: threading.Event) -> Done[T]:
    weight = gate.enter(job.weight_bytes)
    try:
        return Done(job, job.work())
    except BaseException as error:
        if concerns_all(error):
            halted.set()
        return Done(job, None, error)
    finally:
        gate.leave(weight)


def _next(ends: queue.SimpleQueue[Done[T]]) -> Done[T]:
    while True:
        try:
            return ends.get(timeout=_WAIT_SECONDS)
        except queue.Empty:
            continue
