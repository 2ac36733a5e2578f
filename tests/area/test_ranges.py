"""A large object over several connections: every byte once, in order, of one version, in bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.area import download, ranges
from sidecar.area.store import Store
from sidecar.errors import ConditionFailed, StoreUnreachable
from sidecar.settings import Settings
from tests import faults
from tests.servers import FaultProxy

KIB = 1024
BODY = bytes(range(251)) * (3 * KIB * KIB // 251)


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (download, ranges):
        monkeypatch.setattr(module, "RANGE_BYTES", 256 * KIB)
    monkeypatch.setattr(download, "RANGED_FROM_BYTES", 1024 * KIB)


@pytest.fixture
def store(bucket: str, s3: Any, fault_proxy: FaultProxy, settings_for: Callable[..., Settings]) -> Store:
    s3.put_object(Bucket=bucket, Key="p/a", Body=BODY, Metadata={"mode": "0640"})
    store = Store.connect(settings_for(bucket, endpoint=fault_proxy.endpoint), outage_seconds=5)
    store.list("p/")  # proves once that this is an S3 server
    fault_proxy.clear()
    return store


def read(store: Store, expected_bytes: int = len(BODY)) -> bytes:
    with store.open("p/a", expected_bytes=expected_bytes) as opened:
        assert opened.info.size == len(BODY)
        assert opened.metadata["mode"] == "0640"
        return b"".join(opened.chunks())


def test_all_of_it_comes_in_order(store: Store, fault_proxy: FaultProxy) -> None:
    fault_proxy.on("GET", faults.delay(0.3), part="p/a")  # the first one is the last to arrive
    assert read(store) == BODY
    asked = [request.headers["range"] for request in fault_proxy.seen("GET")]
    assert len(asked) == len(set(asked)) == 12
    assert all("if-match" in request.headers for request in fault_proxy.seen("GET")[1:])


def test_a_small_object_is_one_request(store: Store, fault_proxy: FaultProxy) -> None:
    assert read(store, expected_bytes=1000) == BODY
    assert len(fault_proxy.seen("GET")) == 1


@pytest.mark.parametrize("which", [1, 2, 7])
def test_a_range_that_breaks_is_asked_for_again_and_no_other(
    which: int, store: Store, fault_proxy: FaultProxy
) -> None:
    for number in range(1, 9):
        fault_proxy.on("GET", faults.cut_body(1000) if number == which else faults.pass_on(), part="p/a")
    assert read(store) == BODY
    assert len(fault_proxy.seen("GET")) == 13


def test_ranges_of_two_versions_are_never_put_together(
    store: Store, bucket: str, s3: Any, fault_proxy: FaultProxy
) -> None:
    with store.open("p/a", expected_bytes=len(BODY)) as opened:
        chunks = opened.chunks()
        next(chunks)
        s3.put_object(Bucket=bucket, Key="p/a", Body=BODY[::-1])
        with pytest.raises(ConditionFailed, match="another version now"):
            b"".join(chunks)


def test_an_object_that_shrank_since_the_listing_is_read_as_it_is(store: Store, bucket: str, s3: Any) -> None:
    for body in (b"little", b""):
        s3.put_object(Bucket=bucket, Key="p/a", Body=body)
        with store.open("p/a", expected_bytes=len(BODY)) as opened:
            assert b"".join(opened.chunks()) == body


def test_a_store_that_goes_away_in_the_middle_is_an_error_not_a_short_file(
    store: Store, fault_proxy: FaultProxy
) -> None:
    fault_proxy.on("GET", faults.pass_on(), part="p/a", times=3)
    fault_proxy.on("GET", faults.reset_before(), part="p/a", times=None)
    with pytest.raises(StoreUnreachable):
        read(store.within(0.5))


def test_what_waits_is_bounded_for_all_objects_together() -> None:
    ahead = threading.BoundedSemaphore(2)
    begun, go = threading.Semaphore(0), threading.Event()
    under_way: list[int] = []

    def slow(offset: int, length: int) -> bytes:
        under_way.append(offset)
        begun.release()
        assert go.wait(30)
        return BODY[offset : offset + length]

    bodies: dict[int, bytes] = {}

    def whole(number: int) -> None:
        bodies[number] = b"".join(ranges.in_order(slow, 0, len(BODY), ahead))

    threads = [threading.Thread(target=whole, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):  # each object's next range, and two ahead
        assert begun.acquire(timeout=30)
    assert not begun.acquire(timeout=0.2)
    go.set()
    for thread in threads:
        thread.join()
    assert bodies == dict.fromkeys(range(3), BODY)
    assert ahead.acquire(blocking=False)
    assert ahead.acquire(blocking=False), "each place was given back"


def test_leaving_in_the_middle_gives_the_places_back() -> None:
    ahead = threading.BoundedSemaphore(3)
    reading = ranges.in_order(lambda offset, length: BODY[offset : offset + length], 0, len(BODY), ahead)
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert all(ahead.acquire(blocking=False) for _ in range(3))
