"""Many callers, few runs."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.api.flights import Flights, Turns
from sidecar.api.refusals import Busy


class Work:
    """Something slow that counts, and that ends when `gate` opens."""

    def __init__(self) -> None:
        self.started = 0
        self.gate = asyncio.Event()

    async def __call__(self, key: str) -> int:
        self.started += 1
        mine = self.started
        await self.gate.wait()
        return mine


async def test_who_comes_while_a_flight_is_under_way_gets_its_outcome() -> None:
    work = Work()
    flights = Flights(work)
    callers = [asyncio.create_task(flights.join("ada")) for _ in range(10)]
    await asyncio.sleep(0)
    callers += [asyncio.create_task(flights.join("ada")) for _ in range(10)]
    await asyncio.sleep(0)
    work.gate.set()
    assert await asyncio.gather(*callers) == [1] * 20
    assert await flights.join("ada") == 2


async def test_who_comes_while_a_turn_is_under_way_gets_the_next_one() -> None:
    work = Work()
    turns = Turns(work)
    first = [asyncio.create_task(turns.join("ada")) for _ in range(5)]
    while work.started == 0:
        await asyncio.sleep(0)
    late = [asyncio.create_task(turns.join("ada")) for _ in range(5)]
    await asyncio.sleep(0)
    work.gate.set()
    assert await asyncio.gather(*first) == [1] * 5
    assert await asyncio.gather(*late) == [2] * 5
    assert work.started == 2


async def test_a_turn_that_begins_after_the_last_one_ended_is_a_new_one() -> None:
    work = Work()
    work.gate.set()
    turns = Turns(work)
    assert [await turns.join("ada") for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("kind", [Flights, Turns])
async def test_a_caller_who_gives_up_ends_nobody_elses_run(kind: type) -> None:
    work = Work()
    runs = kind(work)
    hasty = asyncio.create_task(runs.join("ada"))
    patient = asyncio.create_task(runs.join("ada"))
    while work.started == 0:
        await asyncio.sleep(0)
    hasty.cancel()
    await asyncio.gather(hasty, return_exceptions=True)
    work.gate.set()
    assert await patient == 1


@pytest.mark.parametrize("kind", [Flights, Turns])
async def test_keys_do_not_wait_for_each_other(kind: type) -> None:
    work = Work()
    runs = kind(work)
    for user in ("ada", "ben", "cy"):
        runs.start(user)
    while work.started < 3:
        await asyncio.sleep(0)
    await runs.stop()


@pytest.mark.parametrize("kind", [Flights, Turns])
async def test_more_keys_than_the_bound_are_refused_and_known_ones_are_not(kind: type) -> None:
    work = Work()
    runs = kind(work, most=2)
    runs.start("ada")
    runs.start("ben")
    runs.start("ada")
    with pytest.raises(Busy):
        runs.start("cy")
    await runs.stop()


async def test_a_stop_leaves_nobody_waiting() -> None:
    work = Work()
    turns = Turns(work)
    waiting = [asyncio.create_task(turns.join("ada"))]
    while work.started == 0:
        await asyncio.sleep(0)
    waiting.append(asyncio.create_task(turns.join("ada")))
    await asyncio.sleep(0)
    await turns.stop()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 2
