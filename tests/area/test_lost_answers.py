"""Writes whose outcome is unknown at first: each is carried to a known end, and done once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.area.objects import IfAbsent, IfMatch
from sidecar.area.store import Store
from sidecar.errors import ConditionFailed, StoreThrottled, StoreUnreachable
from sidecar.settings import Settings
from tests import faults
from tests.area.conftest import FileSource
from tests.servers import FaultProxy

MIB = 1024 * 1024
SIZE = 12 * MIB


@pytest.fixture
def store(bucket: str, fault_proxy: FaultProxy, settings_for: Callable[..., Settings]) -> Store:
    return Store.connect(settings_for(bucket, endpoint=fault_proxy.endpoint), outage_seconds=5)


UNKNOWN = {
    "lost answer": faults.lose_answer(),
    "500 after it was done": faults.fail_after(500, "InternalError"),
    "503 after it was done": faults.fail_after(503, "SlowDown"),
    "409 after it was done": faults.fail_after(409, "ConditionalRequestConflict"),
    "412 for our own": faults.fail_after(412, "PreconditionFailed"),
}
NOT_DONE = {
    "reset": faults.reset_before(),
    "500": faults.answer(500, "InternalError"),
    "throttled": faults.throttle(),
    "409": faults.answer(409, "ConditionalRequestConflict"),
    "time-out of the store": faults.answer(400, "RequestTimeout"),
}


@pytest.mark.parametrize("fault", [*UNKNOWN.values(), *NOT_DONE.values()], ids=[*UNKNOWN, *NOT_DONE])
def test_a_write_is_done_once_whatever_became_of_its_first_answer(
    store: Store, bucket: str, s3: Any, fault_proxy: FaultProxy, fault: Any
) -> None:
    first = store.put("p/a", b"one", condition=IfAbsent(), metadata={})
    for condition, body, key in ((IfAbsent(), b"new", "p/new"), (IfMatch(first), b"two", "p/a")):
        fault_proxy.on("PUT", fault)
        etag = store.put(key, body, condition=condition, metadata={})
        got = s3.get_object(Bucket=bucket, Key=key)
        assert (got["Body"].read(), got["ETag"]) == (body, etag)


@pytest.mark.parametrize("fault", UNKNOWN.values(), ids=UNKNOWN)
def test_a_write_that_was_done_is_not_sent_again(store: Store, fault_proxy: FaultProxy, fault: Any) -> None:
    fault_proxy.on("PUT", fault)
    store.put("p/a", b"x", condition=IfAbsent(), metadata={})
    assert len(fault_proxy.seen("PUT")) == 1


@pytest.mark.parametrize("fault", NOT_DONE.values(), ids=NOT_DONE)
def test_somebody_elses_write_is_not_taken_for_ours(
    store: Store, bucket: str, s3: Any, fault_proxy: FaultProxy, fault: Any
) -> None:
    def meanwhile(exchange: Any) -> None:
        s3.put_object(Bucket=bucket, Key="p/a", Body=b"theirs")
        fault(exchange)

    fault_proxy.on("PUT", meanwhile)
    with pytest.raises(ConditionFailed):
        store.put("p/a", b"ours", condition=IfAbsent(), metadata={})
    assert s3.get_object(Bucket=bucket, Key="p/a")["Body"].read() == b"theirs"


def test_equal_bytes_by_somebody_else_are_not_taken_for_our_write(store: Store, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="p/a", Body=b"same")
    with pytest.raises(ConditionFailed):
        store.put("p/a", b"same", condition=IfAbsent(), metadata={})


def test_a_write_that_arrives_late_changes_nothing_after_its_repetition(
    store: Store, bucket: str, s3: Any, fault_proxy: FaultProxy
) -> None:
    released = threading.Event()
    fault_proxy.on("PUT", faults.deliver_late(released))
    etag = store.put("p/a", b"first", condition=IfAbsent(), metadata={})
    second = store.put("p/a", b"second", condition=IfMatch(etag), metadata={})
    released.set()
    fault_proxy.settle()
    got = s3.get_object(Bucket=bucket, Key="p/a")
    assert (got["Body"].read(), got["ETag"]) == (b"second", second)


def test_a_lost_look_after_a_lost_answer_is_repeated(store: Store, fault_proxy: FaultProxy) -> None:
    fault_proxy.on("PUT", faults.lose_answer())
    fault_proxy.on("HEAD", faults.reset_before(), times=2)
    store.put("p/a", b"x", condition=IfAbsent(), metadata={})
    assert len(fault_proxy.seen("PUT")) == 1


def test_a_deletion_whose_answer_was_lost_is_done(
    store: Store, bucket: str, s3: Any, fault_proxy: FaultProxy
) -> None:
    for if_match in (None, store.put("p/b", b"x", condition=IfAbsent(), metadata={})):
        key = "p/a" if if_match is None else "p/b"
        if if_match is None:
            store.put(key, b"x", condition=IfAbsent(), metadata={})
        fault_proxy.on("DELETE", faults.lose_answer())
        store.delete(key, if_match=if_match)
        assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix=key)


def test_an_outage_ends_a_write_in_time_and_is_called_so(store: Store, fault_proxy: FaultProxy) -> None:
    fault_proxy.down()
    with pytest.raises(StoreUnreachable, match="cannot be reached"):
        store.within(0.3).put("p/a", b"x", condition=IfAbsent(), metadata={})


def test_a_store_that_goes_on_throttling_is_called_so(store: Store, fault_proxy: FaultProxy) -> None:
    fault_proxy.on("*", faults.throttle(), times=None)
    with pytest.raises(StoreThrottled):
        store.within(0.3).put("p/a", b"x", condition=IfAbsent(), metadata={})
    with pytest.raises(StoreThrottled):
        store.within(0.3).list("p/")
    with pytest.raises(StoreThrottled):
        store.within(0.3).list("p/", exact=True)


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileSource:
    """A body that goes in parts: the limits are lowered, so that less is moved."""
    monkeypatch.setattr("sidecar.area.write.SINGLE_PUT_BYTES", 5 * MIB)
    monkeypatch.setattr("sidecar.area.multipart.PART_BYTES", 5 * MIB)
    (tmp_path / "large").write_bytes(b"0123456789abcdef" * (SIZE // 16))
    return FileSource(tmp_path / "large", SIZE)


@pytest.mark.parametrize(
    ("method", "part", "fault"),
    [
        ("POST", "uploads", faults.reset_before()),
        ("POST", "uploads", faults.throttle()),
        ("PUT", "partNumber=2", faults.reset_before()),
        ("PUT", "partNumber=2", faults.lose_answer()),
        ("PUT", "partNumber=3", faults.answer(500, "InternalError")),
        ("POST", "uploadId", faults.lose_answer()),
        ("POST", "uploadId", faults.fail_after(500, "InternalError")),
        ("POST", "uploadId", faults.reset_before()),
        ("POST", "uploadId", faults.with_body(lambda _: b"<Error><Code>InternalError</Code></Error>")),
    ],
    ids=[
        "no beginning",
        "throttled beginning",
        "part reset",
        "part's answer lost",
        "part refused",
        "end's answer lost",
        "end done and refused",
        "no end",
        "end done, 200 with an error",
    ],
)
def test_a_large_write_survives_what_a_small_one_survives(
    store: Store, bucket: str, s3: Any, fault_proxy: FaultProxy, large: FileSource,
    method: str, part: str, fault: Any,
) -> None:  # fmt: skip
    fault_proxy.on(method, fault, part=part)
    etag = store.put("p/large", large, condition=IfAbsent(), metadata={})
    head = s3.head_object(Bucket=bucket, Key="p/large")
    assert (head["ContentLength"], head["ETag"]) == (SIZE, etag)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_a_large_write_is_refused_where_somebody_wrote_while_it_went_up(
    store: Store, bucket: str, s3: Any, fault_proxy: FaultProxy, large: FileSource
) -> None:
    def meanwhile(exchange: Any) -> None:
        s3.put_object(Bucket=bucket, Key="p/large", Body=b"theirs")
        exchange.answer(exchange.ask_server())

    fault_proxy.on("POST", meanwhile, part="uploadId")  # after our last look
    with pytest.raises(ConditionFailed):
        store.put("p/large", large, condition=IfAbsent(), metadata={})
    assert s3.get_object(Bucket=bucket, Key="p/large")["Body"].read() == b"theirs"
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
