"""The test servers themselves: that each fault is real."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from sidecar.embedded import EmbeddedS3
from tests import faults
from tests.servers import FaultProxy, Server, client


@pytest.fixture
def through(fault_proxy: FaultProxy, weed_server: EmbeddedS3) -> Iterator[Any]:
    outside = client({**weed_server.environ(), "AWS_ENDPOINT_URL": fault_proxy.endpoint})
    yield outside
    outside.close()


@pytest.mark.parametrize("name", ["weed_server", "moto_server", "rclone_server"])
def test_each_server_keeps_what_it_was_given(name: str, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(name)
    outside = client(server)
    outside.create_bucket(Bucket="kept")
    outside.put_object(Bucket="kept", Key="a/b", Body=b"text", Metadata={"mtime": "1.5"})
    got = outside.get_object(Bucket="kept", Key="a/b")
    assert got["Body"].read() == b"text"
    assert got["Metadata"].get("mtime") == ("1.5" if name != "rclone_server" else None)
    outside.close()


def test_a_proxy_without_rules_changes_nothing_and_counts(
    bucket: str, through: Any, fault_proxy: FaultProxy
) -> None:
    through.put_object(Bucket=bucket, Key="k", Body=b"x" * 1000)
    assert through.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x" * 1000
    assert through.head_object(Bucket=bucket, Key="k")["ContentLength"] == 1000
    assert [r.method for r in fault_proxy.seen(part="/k")] == ["PUT", "GET", "HEAD"]
    assert fault_proxy.seen("PUT")[0].sent_bytes > 1000
    assert fault_proxy.seen("GET")[0].received_bytes > 1000


def test_a_lost_answer_was_a_delivered_request(
    bucket: str, s3: Any, through: Any, fault_proxy: FaultProxy
) -> None:
    fault_proxy.on("PUT", faults.lose_answer())
    with pytest.raises(BotoCoreError):
        through.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_a_late_request_is_delivered_when_it_is_released(
    bucket: str, s3: Any, through: Any, fault_proxy: FaultProxy
) -> None:
    released = threading.Event()
    fault_proxy.on("PUT", faults.deliver_late(released))
    with pytest.raises(BotoCoreError):
        through.put_object(Bucket=bucket, Key="k", Body=b"late")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    released.set()
    fault_proxy.settle()
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"late"


@pytest.mark.parametrize("fault", [faults.cut_body(10), faults.half_close(10)])
def test_a_body_that_is_cut_is_short(bucket: str, through: Any, fault_proxy: FaultProxy, fault: Any) -> None:
    through.put_object(Bucket=bucket, Key="k", Body=b"x" * 1000)
    fault_proxy.on("GET", fault)
    with pytest.raises(BotoCoreError):
        through.get_object(Bucket=bucket, Key="k")["Body"].read()


def test_a_listing_can_lie(bucket: str, through: Any, fault_proxy: FaultProxy) -> None:
    for key in ("a", "b"):
        through.put_object(Bucket=bucket, Key=key, Body=b"x")
    fault_proxy.on("GET", faults.without_listed("a"))
    fault_proxy.on("GET", faults.with_listed_twice())
    listed = [[o["Key"] for o in through.list_objects_v2(Bucket=bucket)["Contents"]] for _ in range(3)]
    assert listed == [["b"], ["a", "a", "b", "b"], ["a", "b"]]


def test_an_outage_ends(bucket: str, through: Any, fault_proxy: FaultProxy) -> None:
    fault_proxy.down()
    with pytest.raises(BotoCoreError):
        through.list_objects_v2(Bucket=bucket)
    fault_proxy.up()
    assert through.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_throttled_request_says_so(bucket: str, through: Any, fault_proxy: FaultProxy) -> None:
    fault_proxy.on("*", faults.throttle())
    with pytest.raises(ClientError, match="SlowDown"):
        through.list_objects_v2(Bucket=bucket)
