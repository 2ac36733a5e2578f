"""Objects put together on the server: only the tail is sent, and nobody else's version is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sidecar.area.composition import ranges
from sidecar.area.objects import IfAbsent, IfMatch
from sidecar.area.store import Store
from sidecar.errors import ConditionFailed, StoreThrottled
from sidecar.settings import Settings
from tests import faults
from tests.area.conftest import Remote
from tests.fault_proxy import Exchange
from tests.servers import FaultProxy
from tests.wire import Response

MIB = 1024 * 1024
OWN = "p/.claude-sidecar/"
KEY = "p/.claude/projects/-ö +%25/s.jsonl"
HELD = b"0123456789abcde\n" * (16 * MIB // 16)
TAIL = b'{"and":"more"}\n'


@pytest.fixture
def through(bucket: str, fault_proxy: FaultProxy, settings_for: Callable[..., Settings]) -> Store:
    return Store.connect(settings_for(bucket, endpoint=fault_proxy.endpoint), outage_seconds=5)


@pytest.fixture
def first(through: Store, fault_proxy: FaultProxy) -> Iterator[str]:
    """The ETag of what stands there; the store was asked."""
    etag = through.put(KEY, HELD, condition=IfAbsent(), metadata={})
    assert through.composes(len(HELD), OWN)
    fault_proxy.clear()
    yield etag


def grown(store: Store, etag: str, body: bytes = HELD + TAIL, **more: Any) -> str:
    return store.put(
        KEY, body, condition=IfMatch(etag), metadata={"mtime": "2.5"}, held_bytes=len(HELD), **more
    )


def read(s3: Any, bucket: str) -> tuple[bytes, str]:
    got = s3.get_object(Bucket=bucket, Key=KEY)
    return got["Body"].read(), got["ETag"]


def ignoring(success: bytes) -> Callable[[Exchange], None]:
    """A request that had to be refused is not: `success` is answered."""

    def fault(exchange: Exchange) -> None:
        response = exchange.ask_server()
        if response.status == 412:
            response = Response(200, [("Content-Type", "application/xml")], success)
        exchange.answer(response)

    return fault


def nothing_is_left(s3: Any, bucket: str) -> None:
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix=OWN)


def test_only_the_tail_is_sent(
    through: Store, first: str, bucket: str, s3: Any, fault_proxy: FaultProxy
) -> None:
    etag = grown(through, first)
    assert fault_proxy.bytes_to_server < 16 * 1024
    assert read(s3, bucket) == (HELD + TAIL, etag)
    head = s3.head_object(Bucket=bucket, Key=KEY)
    assert head["Metadata"]["mtime"] == "2.5"
    assert through.list("p/").objects[KEY].etag == etag
    nothing_is_left(s3, bucket)


def test_it_is_done_again_and_again_onto_what_was_composed(
    through: Store, first: str, bucket: str, s3: Any
) -> None:
    etag, body = first, HELD
    for number in range(20):
        held = len(body)
        body += f'{{"line":{number}}}\n'.encode()
        etag = through.put(KEY, body, condition=IfMatch(etag), metadata={}, held_bytes=held)
    assert read(s3, bucket) == (body, etag)


def test_a_tail_of_many_parts_follows(through: Store, first: str, bucket: str, s3: Any) -> None:
    body = HELD + bytes(range(256)) * (20 * MIB // 256)
    etag = grown(through, first, body)
    assert read(s3, bucket) == (body, etag)
    assert through.requests["part"].requests == 3


def test_what_does_not_pay_is_not_even_asked_for(through: Store) -> None:
    assert not through.composes(16 * MIB - 1, OWN)
    assert not through.requests


def test_the_store_is_asked_once(through: Store, first: str) -> None:
    before = through.requests
    assert through.within(1).composes(len(HELD), OWN)
    assert through.requests == before


@pytest.mark.parametrize("name", ["moto", "rclone"])
def test_a_store_that_ignores_the_conditions_gets_the_whole(
    name: str, remote_on: Callable[[str], Remote]
) -> None:
    remote = remote_on(name)
    etag = remote.store.put("p/a", HELD, condition=IfAbsent(), metadata={})
    assert not remote.store.composes(len(HELD), OWN)
    sent = remote.store.requests["put"].bytes_sent
    remote.store.put("p/a", HELD + TAIL, condition=IfMatch(etag), metadata={}, held_bytes=len(HELD))
    assert remote.store.requests["put"].bytes_sent == sent + len(HELD + TAIL)
    assert remote.read("p/a") == HELD + TAIL
    assert [info["Key"] for info in remote.outside.list_objects_v2(Bucket=remote.bucket)["Contents"]] == [
        "p/a"
    ]


@pytest.mark.parametrize(
    ("method", "part", "fault"),
    [
        ("PUT", "partNumber=1", ignoring(b"<CopyPartResult><ETag>x</ETag></CopyPartResult>")),
        ("POST", "uploadId", ignoring(b"<CompleteMultipartUploadResult><ETag>x</ETag>")),
        ("PUT", "partNumber=1", faults.answer(403, "AccessDenied")),
        ("PUT", "partNumber=1", faults.answer(501, "NotImplemented")),
        ("POST", "uploads", faults.answer(501, "NotImplemented")),
    ],
    ids=["the copy's ignored", "the end's ignored", "denied", "no such thing", "no uploads in parts"],
)
def test_one_that_ignores_one_condition_or_cannot_do_it_is_not_asked_to(
    through: Store, bucket: str, s3: Any, fault_proxy: FaultProxy, method: str, part: str, fault: Any
) -> None:
    fault_proxy.on(method, fault, part=part, times=None)
    assert not through.composes(len(HELD), OWN)
    fault_proxy.clear()
    assert not through.composes(len(HELD), OWN)
    assert not fault_proxy.seen()
    nothing_is_left(s3, bucket)


@pytest.mark.parametrize(
    "fault",
    [faults.reset_before(), faults.throttle(), faults.answer(403, "ExpiredToken")],
    ids=["reset", "throttled", "expired"],
)
def test_what_may_pass_is_no_answer_when_it_is_asked(
    through: Store, fault_proxy: FaultProxy, fault: Any
) -> None:
    fault_proxy.on("*", fault, times=None)
    assert not through.composes(len(HELD), OWN)
    fault_proxy.clear()
    assert through.composes(len(HELD), OWN)


@pytest.mark.parametrize(
    ("method", "part", "fault"),
    [
        ("POST", "uploads", faults.throttle()),
        ("PUT", "partNumber=1", faults.reset_before()),
        ("PUT", "partNumber=1", faults.lose_answer()),
        ("PUT", "partNumber=1", faults.throttle()),
        ("PUT", "partNumber=2", faults.lose_answer()),
        ("PUT", "partNumber=2", faults.throttle()),
        ("POST", "uploadId", faults.reset_before()),
        ("POST", "uploadId", faults.lose_answer()),
        ("POST", "uploadId", faults.throttle()),
        ("POST", "uploadId", faults.fail_after(500, "InternalError")),
        ("POST", "uploadId", faults.fail_after(412, "PreconditionFailed")),
        ("POST", "uploadId", faults.with_body(lambda _: b"<Error><Code>InternalError</Code></Error>")),
    ],
    ids=[
        "throttled beginning", "copy reset", "copy's answer lost", "copy throttled", "tail's answer lost",
        "tail throttled", "no end", "end's answer lost", "end throttled", "end done and refused",
        "412 for our own", "end done, 200 with an error",
    ],
)  # fmt: skip
def test_it_survives_what_every_write_survives_and_still_sends_only_the_tail(
    through: Store, first: str, bucket: str, s3: Any, fault_proxy: FaultProxy,
    method: str, part: str, fault: Any,
) -> None:  # fmt: skip
    fault_proxy.on(method, fault, part=part)
    etag = grown(through, first)
    assert read(s3, bucket) == (HELD + TAIL, etag)
    assert fault_proxy.bytes_to_server < 16 * 1024
    nothing_is_left(s3, bucket)


@pytest.mark.parametrize(
    ("method", "part", "fault"),
    [
        ("POST", "uploads", faults.answer(501, "NotImplemented")),
        ("PUT", "partNumber=1", faults.answer(403, "AccessDenied")),
        ("PUT", "partNumber=1", faults.answer(403, "InvalidObjectState")),
        ("PUT", "partNumber=1", faults.answer(400, "InvalidRequest")),
        ("PUT", "partNumber=1", faults.answer(412, "PreconditionFailed")),
        ("PUT", "partNumber=1", faults.reset_before()),
        ("PUT", "partNumber=1", faults.with_body(lambda _: b"<Error><Code>InternalError</Code></Error>")),
        ("POST", "uploadId", faults.answer(400, "EntityTooSmall")),
    ],
    ids=["no upload", "denied", "archived", "refused", "412 for what is there", "never answered",
         "200 with an error", "end refused"],
)  # fmt: skip
def test_what_the_store_will_not_put_together_is_sent_whole(
    through: Store, first: str, bucket: str, s3: Any, fault_proxy: FaultProxy,
    method: str, part: str, fault: Any,
) -> None:  # fmt: skip
    fault_proxy.on(method, fault, part=part, times=None)
    etag = grown(through, first)
    assert read(s3, bucket) == (HELD + TAIL, etag)
    nothing_is_left(s3, bucket)


@pytest.mark.parametrize(
    ("method", "part"),
    [("PUT", "partNumber=1"), ("PUT", "partNumber=2"), ("POST", "uploadId")],
    ids=["before the copy", "before the tail", "before the end"],
)
def test_another_writer_on_the_way_is_not_displaced(
    through: Store, first: str, bucket: str, s3: Any, fault_proxy: FaultProxy, method: str, part: str
) -> None:
    def meanwhile(exchange: Any) -> None:
        s3.put_object(Bucket=bucket, Key=KEY, Body=b"theirs")
        exchange.answer(exchange.ask_server())

    fault_proxy.on(method, meanwhile, part=part)
    with pytest.raises(ConditionFailed):
        grown(through, first)
    assert read(s3, bucket)[0] == b"theirs"
    nothing_is_left(s3, bucket)


def test_an_object_that_was_removed_on_the_way_is_not_made_anew(
    through: Store, first: str, bucket: str, s3: Any, fault_proxy: FaultProxy
) -> None:
    def meanwhile(exchange: Any) -> None:
        s3.delete_object(Bucket=bucket, Key=KEY)
        exchange.answer(exchange.ask_server())

    fault_proxy.on("PUT", meanwhile, part="partNumber=1")
    with pytest.raises(ConditionFailed):
        grown(through, first)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix="p/")
    nothing_is_left(s3, bucket)


def test_a_store_that_goes_on_throttling_is_called_so(
    through: Store, first: str, fault_proxy: FaultProxy
) -> None:
    fault_proxy.on("*", faults.throttle(), times=None)
    with pytest.raises(StoreThrottled):
        grown(through.within(0.3), first)


def test_what_came_out_in_another_length_is_mended_at_once(
    remote_on: Callable[[str], Remote], settings_for: Callable[..., Settings]
) -> None:
    remote = remote_on("moto")  # which checks no signature

    def shorter(exchange: Exchange) -> None:
        exchange.request.raw = exchange.request.raw.replace(b"bytes=0-16777215", b"bytes=0-16777199")
        exchange.answer(exchange.ask_server())

    with FaultProxy(remote.server.endpoint) as proxy:
        settings = settings_for(remote.bucket, server=remote.server, endpoint=proxy.endpoint)
        store = Store.connect(settings, outage_seconds=5)
        store._connection.composes = True
        etag = store.put(KEY, HELD, condition=IfAbsent(), metadata={})
        proxy.on("PUT", shorter, part="partNumber=1")
        assert grown(store, etag) == remote.outside.head_object(Bucket=remote.bucket, Key=KEY)["ETag"]
        assert remote.read(KEY) == HELD + TAIL
        assert not store.composes(len(HELD), OWN)


def test_encryption_is_asked_for_again(
    remote_on: Callable[[str], Remote], settings_for: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = remote_on("moto")  # which ignores conditions, and says how an object is encrypted
    settings = settings_for(remote.bucket, server=remote.server, sse="aws:kms", sse_kms_key_id="a-key")
    store = Store.connect(settings, outage_seconds=0)
    store._connection.composes = True
    etag = store.put(KEY, HELD, condition=IfAbsent(), metadata={})
    grown(store, etag)
    head = remote.outside.head_object(Bucket=remote.bucket, Key=KEY)
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "a-key")
    assert remote.read(KEY) == HELD + TAIL
    assert store.requests["put"].requests == 1


@pytest.mark.parametrize("size", [16 * MIB, 512 * MIB, 512 * MIB + 1, 3000 * MIB + 7])
def test_what_is_copied_is_all_of_it_in_pieces_that_s3_takes(size: int) -> None:
    pieces = ranges(size)
    assert [start for start, _ in pieces[1:]] == [end for _, end in pieces[:-1]]
    assert (pieces[0][0], pieces[-1][1]) == (0, size)
    assert all(5 * MIB <= end - start <= 512 * MIB for start, end in pieces)
