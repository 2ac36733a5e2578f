"""Bodies that break on the way: resumed from where they broke, of the same version, whole or an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.area.store import Store
from sidecar.errors import ConditionFailed, StoreError, StoreUnreachable
from sidecar.settings import Settings
from tests import faults
from tests.servers import FaultProxy

MIB = 1024 * 1024
BODY = bytes(range(256)) * (3 * MIB // 256)


@pytest.fixture
def store(bucket: str, s3: Any, fault_proxy: FaultProxy, settings_for: Callable[..., Settings]) -> Store:
    s3.put_object(Bucket=bucket, Key="p/a", Body=BODY)
    store = Store.connect(settings_for(bucket, endpoint=fault_proxy.endpoint), outage_seconds=5)
    store.list("p/")  # proves once that this is an S3 server
    fault_proxy.clear()
    return store


@pytest.mark.parametrize(
    "fault", [faults.cut_body(2 * MIB), faults.half_close(2 * MIB)], ids=["reset", "end"]
)
def test_a_broken_body_is_resumed_where_it_broke(store: Store, fault_proxy: FaultProxy, fault: Any) -> None:
    fault_proxy.on("GET", fault)
    fault_proxy.on("GET", faults.cut_body(100_000))
    with store.open("p/a") as download:
        assert b"".join(download.chunks(256 * 1024)) == BODY
    _, second, third = fault_proxy.seen("GET")
    assert int(second.headers["range"].removeprefix("bytes=").rstrip("-")) >= MIB
    assert second.headers["if-match"] == third.headers["if-match"] == download.info.etag


@pytest.mark.parametrize("after", [0, 10, MIB])
def test_a_small_object_is_whole_or_read_again(store: Store, fault_proxy: FaultProxy, after: int) -> None:
    fault_proxy.on("GET", faults.cut_body(after), times=2)
    with store.open("p/a") as download:
        assert download.read() == BODY


def test_what_changed_while_it_was_read_is_not_put_together(
    store: Store, bucket: str, s3: Any, fault_proxy: FaultProxy
) -> None:
    fault_proxy.on("GET", faults.cut_body(MIB))
    with store.open("p/a") as download:
        s3.put_object(Bucket=bucket, Key="p/a", Body=BODY[::-1])
        with pytest.raises(ConditionFailed, match="another version now"):
            b"".join(download.chunks())


def test_a_stalled_body_is_given_up_and_resumed(
    store: Store, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.area.connection.SILENCE_SECONDS", 1)
    fault_proxy.on("GET", faults.stall(MIB, 30))
    with store.open("p/a") as download:
        assert b"".join(download.chunks(64 * 1024)) == BODY


def test_a_trickle_is_given_up(
    store: Store, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.area.connection.WHOLE_SECONDS", 1)
    monkeypatch.setattr("sidecar.area.connection.SILENCE_SECONDS", 1)
    fault_proxy.on("GET", faults.trickle(100), times=None)
    with store.within(0.5).open("p/a") as download, pytest.raises(StoreUnreachable):
        download.read()


def test_a_download_that_never_goes_on_ends_as_an_outage(store: Store, fault_proxy: FaultProxy) -> None:
    fault_proxy.on("GET", faults.cut_body(MIB))
    with store.within(0.3).open("p/a") as download:
        fault_proxy.down()
        with pytest.raises(StoreUnreachable):
            download.read()


def whole(response: faults.Response) -> None:
    response.status = 200


def from_the_start(response: faults.Response) -> None:
    response.set_header("Content-Range", f"bytes 0-{len(response.body) - 1}/{len(BODY)}")


@pytest.mark.parametrize("change", [whole, from_the_start])
def test_an_answer_with_another_range_is_not_spliced_in(
    store: Store, fault_proxy: FaultProxy, change: Callable[[faults.Response], None]
) -> None:
    fault_proxy.on("GET", faults.cut_body(2 * MIB))
    fault_proxy.on("GET", faults.rewrite(change), times=None)
    with store.within(0.3).open("p/a") as download, pytest.raises(StoreError):
        b"".join(download.chunks())


def test_a_body_can_be_left_unread(store: Store, fault_proxy: FaultProxy) -> None:
    with store.open("p/a") as download:
        next(iter(download.chunks(64 * 1024)))
    with store.open("p/a") as download:
        pass
    assert store.head("p/a") is not None


def test_bytes_are_counted_by_operation(store: Store) -> None:
    with store.open("p/a") as download:
        download.read()
    assert store.requests["get"].requests == 1
    assert store.requests["get"].bytes_received == len(BODY)
