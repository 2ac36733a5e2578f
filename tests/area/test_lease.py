"""Credentials that end, on a clock of the test's own."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from sidecar.area.lease import Credentials, Lease

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Service:
    """Gives a new key each time, good for `life` (None: for ever), unless it is away."""

    def __init__(self, life: timedelta | None = HOUR) -> None:
        self.life = life
        self.now = START
        self.asked = 0
        self.is_away = False

    def ask(self) -> Credentials:
        self.asked += 1
        if self.is_away:
            raise ConnectionError("away")
        return Credentials(f"key-{self.asked}", "s", None, self.now + self.life if self.life else None)

    def lease(self) -> Lease:
        return Lease(self.ask, lambda: self.now)


def test_they_are_asked_for_once_and_kept() -> None:
    service = Service()
    lease = service.lease()
    assert lease.ends_at is None
    assert {lease.current().key_id for _ in range(10)} == {"key-1"}
    assert lease.ends_at == START + HOUR


def test_they_are_renewed_ten_minutes_before_their_end() -> None:
    service = Service()
    lease = service.lease()
    lease.current()
    service.now = START + timedelta(minutes=49)
    assert lease.current().key_id == "key-1"
    assert lease.renew() is False
    service.now = START + timedelta(minutes=51)
    assert lease.current().key_id == "key-2"
    assert lease.ends_at == START + timedelta(minutes=111)


def test_short_ones_are_kept_for_two_thirds_of_their_life() -> None:
    service = Service(timedelta(minutes=15))
    lease = service.lease()
    lease.current()
    service.now = START + timedelta(minutes=9)
    assert lease.current().key_id == "key-1"
    service.now = START + timedelta(minutes=11)
    assert lease.current().key_id == "key-2"


def test_while_the_old_ones_are_good_a_service_that_is_away_fails_nobody() -> None:
    service = Service()
    lease = service.lease()
    lease.current()
    service.is_away = True
    service.now = START + timedelta(minutes=55)
    assert {lease.current().key_id for _ in range(100)} == {"key-1"}
    assert service.asked == 2, "each request asked a service that is away"
    with pytest.raises(ConnectionError):
        lease.renew()
    service.now = START + HOUR
    with pytest.raises(ConnectionError):
        lease.current()
    service.is_away = False
    assert lease.current().key_id == "key-4" or lease.current().key_id == "key-5"


def test_they_are_renewed_at_once_when_the_pod_ends() -> None:
    service = Service()
    lease = service.lease()
    assert lease.renew(at_once=True) is False, "nobody has needed any yet"
    lease.current()
    assert lease.renew(at_once=True) is True
    assert lease.current().key_id == "key-2"


def test_keys_without_an_end_are_looked_at_again_and_tell_none() -> None:
    service = Service(None)
    lease = service.lease()
    lease.current()
    assert lease.ends_at is None
    assert lease.for_obstore()["expires_at"] == START + timedelta(minutes=15)
    service.now = START + timedelta(minutes=16)
    assert lease.current().key_id == "key-2"


def test_threads_that_need_them_at_once_ask_once() -> None:
    service = Service()
    lease = service.lease()
    begin = threading.Barrier(8)
    found = []

    def work() -> None:
        begin.wait()
        found.append(lease.current().key_id)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["key-1"] * 8
    assert service.asked == 1


def test_no_secret_is_shown() -> None:
    shown = repr(Credentials("AKIA", "very-secret", "also-secret", None))
    assert "AKIA" in shown and "secret" not in shown
