"""Jobs on threads: each end is told once, what is in flight is bounded, and a stop leaves nothing untold."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from sidecar.errors import HomeError, StoreUnreachable
from sidecar.sync import transfers
from sidecar.sync.transfers import Convoy, Job, run_jobs


def _jobs(count: int, work: Callable[[int], int], weight_bytes: int = 1) -> list[Job[int]]:
    return [Job(str(number), weight_bytes, partial(work, number)) for number in range(count)]


def test_each_job_has_one_end_with_its_value() -> None:
    ends = list(run_jobs(_jobs(500, lambda number: number * 2), workers=8))
    assert sorted((int(done.job.name), done.value) for done in ends) == [(n, n * 2) for n in range(500)]


def test_no_job_means_no_end_and_no_wait() -> None:
    assert list(run_jobs([], workers=8)) == []


def test_one_files_error_stops_only_that_file() -> None:
    def work(number: int) -> int:
        if number == 3:
            raise HomeError("it is a link")
        return number

    ends = {done.job.name: done for done in run_jobs(_jobs(10, work), workers=2)}
    assert isinstance(ends["3"].error, HomeError)
    assert all(done.started for done in ends.values())
    assert sum(done.value is not None for done in ends.values()) == 9


def test_after_an_error_that_concerns_all_no_further_job_starts() -> None:
    def work(number: int) -> int:
        raise StoreUnreachable("nobody answers")

    ends = list(run_jobs(_jobs(100, work), workers=1))
    assert [done.started for done in ends] == [True] + [False] * 99


def test_the_error_that_ended_it_is_told_before_what_did_not_start_because_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leave = transfers._Gate.leave

    def slowly(gate: transfers._Gate, weight: int) -> None:
        leave(gate, weight)
        if weight == 2:
            time.sleep(0.2)  # the thread that met it has to wait for the interpreter

    def away() -> int:
        raise StoreUnreachable("nobody answers")

    monkeypatch.setattr(transfers._Gate, "leave", slowly)
    jobs = _jobs(500, lambda number: time.sleep(0.001) or number)
    ends = run_jobs([Job("away", 2, away), *jobs], workers=8)
    failed = next(done for done in ends if done.value is None)
    assert isinstance(failed.error, StoreUnreachable)


@pytest.mark.parametrize("raised", [False, True])
def test_a_stop_leaves_the_rest_untouched_and_tells_each_end(raised: bool) -> None:
    begun: list[int] = []

    def stop() -> bool:
        if raised and len(begun) >= 5:
            raise IndexError("a question that breaks")
        return len(begun) >= 5

    def work(number: int) -> int:
        begun.append(number)
        return number

    ends = list(run_jobs(_jobs(50, work), workers=1, stop=stop))
    assert len(ends) == 50
    assert begun == [0, 1, 2, 3, 4]


def test_the_bytes_in_flight_stay_within_their_bound_and_what_is_larger_runs_alone() -> None:
    lock, running, most = threading.Lock(), set[int](), 0

    def work(number: int) -> int:
        nonlocal most
        with lock:
            running.add(number)
            most = max(most, len(running))
            if number == 7:
                assert running == {7}
        threading.Event().wait(0.002)
        with lock:
            running.remove(number)
        return number

    jobs = _jobs(20, work, weight_bytes=40)
    jobs[7] = Job("7", 1_000, jobs[7].work)
    ends = list(run_jobs(jobs, workers=8, bytes_in_flight=100))
    assert [done.error for done in ends] == [None] * 20
    assert most == 2


def test_a_job_is_made_when_a_worker_is_free_for_it() -> None:
    alive, most = 0, 0
    lock = threading.Lock()

    def made() -> Iterator[Job[int]]:
        nonlocal alive, most
        for number in range(200):
            with lock:
                alive += 1
                most = max(most, alive)
            yield Job(str(number), 0, finish)

    def finish() -> int:
        nonlocal alive
        with lock:
            alive -= 1
        return 1

    assert len(list(run_jobs(made(), workers=4))) == 200
    assert most <= 4 + 4, "made ahead of its time"


def test_a_convoy_is_prepared_once_and_each_of_its_jobs_has_an_end_in_their_order() -> None:
    done_in_order: list[str] = []

    def noted(name: str) -> str:
        done_in_order.append(name)
        return name

    def convoy(first: int) -> Convoy[str]:
        jobs = tuple(Job(f"{first}.{number}", 1, partial(noted, f"{first}.{number}")) for number in range(3))
        return Convoy(jobs, lambda: done_in_order.append(f"before {first}"))

    ends = list(run_jobs([convoy(1), Job("alone", 1, partial(noted, "alone")), convoy(2)], workers=1))
    assert [done.value for done in ends] == ["1.0", "1.1", "1.2", "alone", "2.0", "2.1", "2.2"]
    assert done_in_order == ["before 1", "1.0", "1.1", "1.2", "alone", "before 2", "2.0", "2.1", "2.2"]


def test_what_ends_a_job_of_a_convoy_leaves_the_others_untouched_unless_it_concerns_all() -> None:
    def refused() -> int:
        raise HomeError("it is a link")

    def away() -> int:
        raise StoreUnreachable("nobody answers")

    for work, started in ((refused, [True, True, True]), (away, [True, False, False])):
        jobs = (Job("first", 1, work), Job("second", 1, lambda: 2), Job("third", 1, lambda: 3))
        ends = list(run_jobs([Convoy(jobs, lambda: None)], workers=2))
        assert [done.job.name for done in ends] == ["first", "second", "third"]
        assert [done.started for done in ends] == started


def test_a_convoy_that_cannot_be_prepared_ends_each_of_its_jobs_and_a_stop_prepares_none() -> None:
    def broken() -> None:
        raise HomeError("no such directory")

    convoy = Convoy(tuple(_jobs(3, lambda number: number)), broken)
    assert [str(done.error) for done in run_jobs([convoy], workers=1)] == ["no such directory"] * 3
    assert [done.started for done in run_jobs([convoy], workers=1, stop=lambda: True)] == [False] * 3


def test_what_the_jobs_themselves_raise_is_not_taken_for_their_end() -> None:
    def made() -> Iterator[Job[int]]:
        yield from _jobs(3, lambda number: number)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        list(run_jobs(made(), workers=2))
