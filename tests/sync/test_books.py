"""What is said of bytes that are not durable, and how often."""

import logging
from collections.abc import Iterator

import pytest

from sidecar.logs import log
from sidecar.sync.books import SAY_AFTER_SECONDS, Books
from sidecar.sync.results import BackupResult, Unsynced

HOUR = 3600.0


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def books(clock: Clock) -> Books:
    return Books("ada", clock)


@pytest.fixture(autouse=True)
def _propagated() -> Iterator[None]:
    before, log.propagate = log.propagate, True
    yield
    log.propagate = before


def failed(size: int = 100) -> BackupResult:
    pending = (Unsynced("projects/-w/s.jsonl", "the bucket is away", size),)
    return BackupResult(
        "ada", durable=False, pending=pending, unsynced_bytes=size, error="the bucket is away"
    )


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_an_outage_of_a_night_is_said_at_once_and_once_an_hour_and_its_end(
    books: Books, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    books.wrote()
    began = clock.now
    while clock.now < began + 8 * HOUR + 300:  # an attempt each half minute, and a look at the clock
        books.note(failed(), clock.now, dirty=True)
        books.look_at_the_clock()
        clock.now += 30
    told = warnings(caplog)
    assert len(told) == 9, told
    assert told[0] == "100 bytes of user ada are not durable since 0 s: the bucket is away"
    assert told[8].startswith(f"100 bytes of user ada are not durable since {8 * 3600 + 8 * 30} s")
    assert books.stats()["oldest_unsynced_at"] == began
    assert (books.stats()["unsynced_bytes"], books.stats()["unsynced_files"]) == (100, 1)
    with caplog.at_level(logging.INFO):
        books.note(BackupResult("ada", durable=True), clock.now, dirty=False)
    assert "everything of user ada is durable again" in caplog.messages[-1]
    assert (books.unsynced_bytes, books.unsynced_since, books.durable_at) == (0, 0.0, clock.now)
    books.note(failed(), clock.now, dirty=True)
    assert len(warnings(caplog)) == 10, "the next outage is news"


def test_bytes_that_wait_too_long_are_said_though_nothing_failed(
    books: Books, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    books.wrote()
    books.found(3, 4096)
    clock.now += SAY_AFTER_SECONDS - 1
    books.look_at_the_clock()
    assert not warnings(caplog)
    clock.now += 2
    books.look_at_the_clock()
    books.look_at_the_clock()
    expected = "4096 bytes of user ada are not durable since 61 s: the bucket has not taken them yet"
    assert warnings(caplog) == [expected]


def test_what_was_written_during_a_durable_flush_is_as_old_as_the_flush_at_most(
    books: Books, clock: Clock
) -> None:
    books.wrote()
    clock.now += 10
    begun_at = clock.now
    clock.now += 1
    books.note(BackupResult("ada", durable=True), begun_at, dirty=True)
    assert books.unsynced_since == begun_at


def test_what_the_watch_missed_is_a_warning_once_and_counted_always(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    for count in (2, 0, 3):
        books.missed(count, "plans/a.md")
    assert len(warnings(caplog)) == 1
    assert "had not told of 2 files of user ada" in warnings(caplog)[0]
    assert "plans/a.md" in warnings(caplog)[0]
    assert books.stats()["watch_missed"] == 5
