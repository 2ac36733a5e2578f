"""Long transcripts on their way up: what the store holds already is not sent again, and never at a risk."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests import faults
from tests.fault_proxy import Exchange
from tests.servers import FaultProxy
from tests.sync.pods import MakeSettings, Pod, conflicts, objects, pods

MIB = 1024 * 1024
LOG = "projects/-w/s.jsonl"
KEY = f"user_data/ada/.claude/{LOG}"


def long_log(size: int) -> bytes:
    return b"".join(b'{"line":%08d}\n' % number for number in range(size // 16))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def proxied(bucket: str, settings_for: MakeSettings, place: Path, fault_proxy: FaultProxy) -> list[Pod]:
    return pods(settings_for, bucket, place, 2, endpoint=fault_proxy.endpoint)


def test_a_checkpoint_of_40_mib_and_4_kib_more_sends_under_64_kib(
    proxied: list[Pod], bucket: str, s3: Any, fault_proxy: FaultProxy
) -> None:
    pod, body = proxied[0], long_log(40 * MIB)
    pod.start()
    pod.append(LOG, body)
    pod.backup()
    for _ in range(2):  # the second does not ask the store again
        body += b"y" * 4095 + b"\n"
        pod.append(LOG, body[-4096:])
        fault_proxy.clear()
        result = pod.backup()
        assert result.durable
        assert result.bytes == 4096
        assert fault_proxy.bytes_to_server < 64 * 1024
        assert fault_proxy.bytes_to_client < 64 * 1024
    assert len(fault_proxy.seen()) < 12
    head = s3.head_object(Bucket=bucket, Key=KEY)
    assert head["Metadata"]["sha256"] == hashlib.sha256(body).hexdigest()
    assert objects(s3, bucket)[LOG] == body
    other = proxied[1]
    other.start()
    assert other.read(LOG) == body


def test_another_pod_that_writes_between_copy_and_end_is_united_with(
    proxied: list[Pod], bucket: str, s3: Any, fault_proxy: FaultProxy
) -> None:
    a, b = proxied
    a.start()
    a.append(LOG, long_log(20 * MIB))
    a.backup()
    b.start()
    a.append(LOG, b"a1\n")
    b.append(LOG, b"b1\n")

    def meanwhile(exchange: Exchange) -> None:
        assert b.backup().durable
        exchange.answer(exchange.ask_server())

    a.store.composes(20 * MIB, "user_data/ada/.claude-sidecar/")
    fault_proxy.on("POST", meanwhile, part="uploadId")
    assert a.backup().durable
    assert objects(s3, bucket)[LOG] == long_log(20 * MIB) + b"b1\na1\n"
    a.append(LOG, b"a2\n")
    fault_proxy.clear()
    assert a.backup().durable
    assert objects(s3, bucket)[LOG] == long_log(20 * MIB) + b"b1\na1\na2\n"
    assert fault_proxy.bytes_to_server < 64 * 1024, "what is united is read, and not sent again"
    assert not conflicts(s3, bucket)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_an_end_whose_answer_was_lost_is_found_by_the_next_checkpoint(
    proxied: list[Pod], bucket: str, s3: Any, fault_proxy: FaultProxy
) -> None:
    pod = proxied[0]
    pod.start()
    pod.append(LOG, long_log(20 * MIB))
    pod.backup()
    pod.append(LOG, b"a1\n")
    pod.store.composes(20 * MIB, "user_data/ada/.claude-sidecar/")
    pod.store = pod.store.within(0)
    fault_proxy.on("POST", faults.lose_answer(lambda: fault_proxy.on("*", faults.reset_before(), times=None)),
                   part="uploadId")  # fmt: skip
    assert not pod.backup().durable
    fault_proxy.clear()
    pod.append(LOG, b"a2\n")
    assert pod.backup().durable
    assert objects(s3, bucket)[LOG] == long_log(20 * MIB) + b"a1\na2\n"
    assert not conflicts(s3, bucket)


def test_a_rewritten_transcript_is_never_put_together(
    proxied: list[Pod], bucket: str, s3: Any, fault_proxy: FaultProxy
) -> None:
    pod, body = proxied[0], long_log(20 * MIB)
    pod.start()
    pod.append(LOG, body)
    pod.backup()
    pod.write(LOG, b"rewound\n" + body)
    fault_proxy.clear()
    assert pod.backup().durable
    assert objects(s3, bucket)[LOG] == b"rewound\n" + body
    assert not [seen for seen in fault_proxy.seen(part="s.jsonl") if "x-amz-copy-source" in seen.headers]
