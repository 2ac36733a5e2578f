"""A pool of daemon threads that bounds what is in flight by bytes and by requests.

Daemon threads: a store that hangs must not hold up the end of the process. The caller's thread only waits, in
short steps, so that signals are handled on time (a blocking call into the S3 library would delay them).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Generic, TypeVar

from msgspec import Struct

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
# The caller looks at the ends this often: woken for each of them, it costs 5,000 small files a tenth of the
# client's time, because the threads then contend for the interpreter.
_LOOK_SECONDS = 0.03


class Job(Struct, Generic[T], frozen=True):
    """`work` to be done for `name` (a path), holding about `weight_bytes` in memory."""

    name: str
    weight_bytes: int
    work: Callable[[], T]


class Convoy(Struct, Generic[T], frozen=True):
    """Jobs that one thread does one after the other. `before` is called ahead of the first of them, while all
    are held in memory; what it raises is the end of each."""

    jobs: tuple[Job[T], ...]
    before: Callable[[], None]

    @property
    def weight_bytes(self) -> int:
        return sum(job.weight_bytes for job in self.jobs)


class Done(Struct, Generic[T], frozen=True):
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
            while self._free < weight:
                self._changed.wait()
            self._free -= weight
        return weight

    def leave(self, weight: int) -> None:
        with self._changed:
            self._free += weight
            self._changed.notify_all()


class _Pool(Generic[T]):
    """The threads of one run, and what they share: the jobs that wait and the ends that nobody took yet."""

    def __init__(
        self,
        jobs: Iterable[Job[T] | Convoy[T]],
        workers: int,
        bytes_in_flight: int,
        stop: Callable[[], bool],
    ) -> None:
        self._waiting = iter(jobs)
        self._gate = _Gate(bytes_in_flight)
        self._stop = stop
        self._halted = threading.Event()
        self._lock = threading.Lock()
        self.ends: deque[Done[T]] = deque()
        self.problem: BaseException | None = None
        self.over = threading.Event()
        first = list(islice(self._waiting, workers))
        self._waiting = chain(first, self._waiting)
        self._at_work = len(first)
        if not first:
            self.over.set()
        for number in range(len(first)):
            threading.Thread(target=self._work, name=f"transfer-{number}", daemon=True).start()

    def halt(self) -> None:
        """Let no further job start."""
        self._halted.set()

    def _work(self) -> None:
        try:
            while (work := self._next()) is not None:
                weight = self._gate.enter(work.weight_bytes)
                try:
                    self._do(work)
                finally:
                    self._gate.leave(weight)
        except BaseException as error:  # `jobs` itself failed
            self.problem = error
        finally:
            self._leave()

    def _next(self) -> Job[T] | Convoy[T] | None:
        with self._lock:  # made when it is due: thousands of jobs that wait would be memory
            return next(self._waiting, None)

    def _leave(self) -> None:
        with self._lock:
            self._at_work -= 1
            if not self._at_work:
                self.over.set()

    def _do(self, work: Job[T] | Convoy[T]) -> None:
        if isinstance(work, Job):
            self._tell(self._end_of(work))
            return
        problem: BaseException | None = None
        try:
            if not self._is_over():
                work.before()
        except BaseException as error:
            problem = error
        for job in work.jobs:
            self._tell(Done(job, None, problem) if problem else self._end_of(job))

    def _tell(self, end: Done[T]) -> None:
        self.ends.append(end)
        if end.error is not None and concerns_all(end.error):
            self.halt()  # now: the reason is told before what did not start because of it

    def _is_over(self) -> bool:
        return self._halted.is_set() or self._stop()

    def _end_of(self, job: Job[T]) -> Done[T]:
        try:
            if self._is_over():
                return Done(job, None, started=False)
            return Done(job, job.work())
        except BaseException as error:
            return Done(job, None, error)


def run_jobs(
    jobs: Iterable[Job[T] | Convoy[T]],
    *,
    workers: int,
    bytes_in_flight: int = BYTES_IN_FLIGHT,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Done[T]]:
    """Run `jobs` in their order of start on up to `workers` threads; yield the ends soon after they came.

    A job is taken from `jobs` when a worker is free, in that thread; what `jobs` raises is raised here.

    After an error that concerns all jobs, and as soon as `stop()` is true, no further job starts: the rest is
    yielded with ``started=False``. Work already begun is waited for, unless the caller leaves the loop.
    """
    pool = _Pool(jobs, workers, bytes_in_flight, stop)
    try:
        while not (pool.over.wait(_LOOK_SECONDS) and not pool.ends):
            while pool.ends:
                yield pool.ends.popleft()
        if pool.problem:
            raise pool.problem
    finally:
        pool.halt()
