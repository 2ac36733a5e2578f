"""What is done around s5cmd: which version came, whose it is, what its words mean, what it may know."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar import errors
from sidecar.area.failures import Where, failure
from sidecar.area.objects import IfAbsent, IfMatch
from sidecar.area.s5cmd import batch, credentials
from sidecar.area.s5cmd.answers import of_s5cmd
from sidecar.area.s5cmd.batch import Batch
from sidecar.area.s5cmd.staging import Staging
from sidecar.area.store import Store
from sidecar.area.target import target_of
from sidecar.settings import Settings
from tests import faults
from tests.area.test_credentials import NOTHING, ROLE, STS_ANSWER, giving, signed_by
from tests.fault_proxy import Response
from tests.servers import FaultProxy, Server, client

KEY = "user_data/ada/.claude/plans/a.md"
WHERE = Where("reading s3://b/k", "b", "http://127.0.0.1:1", "us-east-1")

# Lines that s5cmd 2.3.0 printed, against SeaweedFS, moto, AWS's documented codes, and nobody.
SAID = [
    (
        "NoSuchKey: The specified key does not exist. status code: 404, request id: 18, host id:",
        "object_missing",
    ),
    (
        "NoSuchBucket: The specified bucket does not exist status code: 404, request id: 1, host id:",
        "bucket_missing",
    ),
    ("AccessDenied: Access Denied status code: 403, request id: 1, host id:", "denied"),
    ("Forbidden: Forbidden status code: 403, request id: 1, host id:", "denied"),
    ("InvalidAccessKeyId: The access key is unknown. status code: 403, request id: 1", "credentials"),
    ("SignatureDoesNotMatch: It does not match. status code: 403, request id: 1", "credentials"),
    ("ExpiredToken: The provided token has expired. status code: 400, request id: 1", "credentials"),
    ("InvalidObjectState: The operation is not valid. status code: 403, request id: 1", "archived"),
    ("SlowDown: Please reduce your request rate. status code: 503, request id: 1", "throttled"),
    ("InternalError: made up status code: 500, request id: 1", "unreachable"),
    (
        "MultipartUpload: upload multipart failed upload id: a caused by: SlowDown: slower status code: 503, "
        "request id: 1",
        "throttled",
    ),
    (
        'RequestError: send request failed caused by: Get "http://127.0.0.1:1/b/k": dial tcp 127.0.0.1:1: '
        "connect: connection refused",
        "unreachable",
    ),
    (
        'RequestError: send request failed caused by: Get "http://x/": dial tcp: lookup x: no such host',
        "unreachable",
    ),
    (
        'RequestError: send request failed caused by: Get "https://h/": x509: certificate signed by unknown '
        "authority",
        "tls",
    ),
    ("RequestError: send request failed caused by: EOF", "unreachable"),
    (batch.ENDED, "unreachable"),
    (batch.SILENT, "unreachable"),
]


@pytest.fixture(autouse=True)
def _on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.fixture
def store(bucket: str, settings_for: Callable[..., Settings]) -> Store:
    return Store.connect(settings_for(bucket, engine="s5cmd"), outage_seconds=5)


@pytest.mark.parametrize(("said", "kind"), SAID)
def test_what_s5cmd_says_is_an_error_of_ours(said: str, kind: str) -> None:
    error = failure(of_s5cmd(said), WHERE).error
    assert error.kind == kind
    assert error.message.startswith(("reading s3://b/k", "no credentials"))


@pytest.mark.parametrize(
    "said", ["InternalError: x status code: 500", "RequestError: caused by: EOF", batch.ENDED]
)
def test_a_write_that_failed_in_the_middle_may_have_been_done(said: str) -> None:
    assert of_s5cmd(said).maybe_done
    assert not of_s5cmd("connection refused").maybe_done


def test_only_what_needs_no_condition_is_carried(store: Store, s3: Any, bucket: str) -> None:
    etag = store.put(KEY, b"one", condition=IfAbsent(), metadata={})
    store.put(KEY, b"two", condition=IfMatch(etag), metadata={})
    own = KEY.replace(".claude/", ".claude-sidecar/journal/")
    store.put(own, b"three", condition=IfAbsent(), metadata={})
    with store.open(own) as download, store.open(KEY, if_match=s3_etag(s3, bucket)) as exact:
        assert (download.read(), exact.read()) == (b"three", b"two")
    assert store.carried == {"up": 1}
    with store.open(KEY) as download:
        assert download.read() == b"two"
    assert store.carried == {"up": 1, "down": 1}


def s3_etag(s3: Any, bucket: str) -> str:
    etag: str = s3.head_object(Bucket=bucket, Key=KEY)["ETag"]
    return etag


def test_an_object_that_is_there_is_never_written_over(store: Store, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key=KEY, Body=b"theirs")
    with pytest.raises(errors.ConditionFailed):
        store.put(KEY, b"ours", condition=IfAbsent(), metadata={})
    assert s3.get_object(Bucket=bucket, Key=KEY)["Body"].read() == b"theirs"


def test_one_who_overwrites_us_at_once_is_noticed(
    bucket: str, settings_for: Callable[..., Settings], s3: Any, fault_proxy: FaultProxy
) -> None:
    settings = settings_for(bucket, engine="s5cmd", endpoint=fault_proxy.endpoint)

    def then_theirs(exchange: Any) -> None:
        answer = exchange.ask_server()
        s3.put_object(Bucket=bucket, Key=KEY, Body=b"theirs")
        exchange.answer(answer)

    fault_proxy.on("PUT", then_theirs, part=KEY)
    with pytest.raises(errors.ConditionFailed):
        Store.connect(settings, outage_seconds=5).put(KEY, b"ours", condition=IfAbsent(), metadata={})


@pytest.mark.parametrize("size", [0, 1, 5 * 1024 * 1024])
def test_an_object_comes_with_its_metadata_and_its_version(
    size: int, store: Store, s3: Any, bucket: str
) -> None:
    body = os.urandom(size)
    s3.put_object(Bucket=bucket, Key=KEY, Body=body, Metadata={"mtime": "1.5", "mode": "0640"})
    with store.open(KEY) as download:
        assert b"".join(download.chunks(1000)) == body == download.read()
        assert download.metadata == {"mtime": "1.5", "mode": "0640"}
        assert (download.info.etag, download.info.size) == (s3_etag(s3, bucket), size)
    assert store.carried == {"down": 1}


def test_a_missing_object_is_missing(store: Store) -> None:
    with pytest.raises(errors.ObjectMissing, match="there is no such object"):
        store.open(KEY)


def test_bytes_of_two_versions_are_not_taken_for_either(
    bucket: str, settings_for: Callable[..., Settings], s3: Any, fault_proxy: FaultProxy
) -> None:
    """s5cmd fetches in ranges and on no condition: another version in the middle is a mixture."""
    settings = settings_for(bucket, engine="s5cmd", endpoint=fault_proxy.endpoint)
    s3.put_object(Bucket=bucket, Key=KEY, Body=b"a" * 1000)

    def mixed(exchange: Any) -> None:
        answer = exchange.ask_server()
        s3.put_object(Bucket=bucket, Key=KEY, Body=b"b" * 1000)
        exchange.answer(Response(answer.status, answer.headers, answer.body[:500] + b"b" * 500))

    fault_proxy.on("GET", faults.pass_on(), part="nothing-", times=None)  # whether this is S3 at all
    fault_proxy.on("GET", mixed, part=KEY)
    with pytest.raises(errors.ConditionFailed, match="another version now"):
        Store.connect(settings, outage_seconds=5).open(KEY)
    assert not list(settings.state_dir.glob("tmp/staging-*/*"))


def test_a_throttled_s5cmd_is_asked_again(
    bucket: str, settings_for: Callable[..., Settings], fault_proxy: FaultProxy
) -> None:
    settings = settings_for(bucket, engine="s5cmd", endpoint=fault_proxy.endpoint)
    store = Store.connect(settings, outage_seconds=20)
    fault_proxy.on("PUT", faults.throttle(), part=KEY, times=2)
    store.put(KEY, b"body", condition=IfAbsent(), metadata={})
    assert len(fault_proxy.seen("PUT", KEY)) == 3


def test_what_is_counted_is_what_was_sent(
    bucket: str, settings_for: Callable[..., Settings], fault_proxy: FaultProxy
) -> None:
    settings = settings_for(bucket, engine="s5cmd", endpoint=fault_proxy.endpoint)
    store = Store.connect(settings)
    store.put(KEY, b"body", condition=IfAbsent(), metadata={})
    with store.open(KEY):
        pass
    for method in ("PUT", "GET", "HEAD"):
        flow = store.requests.get(method.lower())
        assert flow and flow.requests == len(fault_proxy.seen(method)), method


def test_encryption_that_was_asked_for_is_asked_of_s5cmd_too(
    bucket: str, settings_for: Callable[..., Settings], fault_proxy: FaultProxy
) -> None:
    options = {"sse": "aws:kms", "sse_kms_key_id": "arn:aws:kms:us-east-1:1:key/k"}
    settings = settings_for(bucket, engine="s5cmd", endpoint=fault_proxy.endpoint, **options)
    fault_proxy.on("PUT", faults.answer(400, "InvalidArgument"), part=KEY)
    with pytest.raises(errors.StoreError):
        Store.connect(settings).put(KEY, b"body", condition=IfAbsent(), metadata={})
    headers = fault_proxy.seen("PUT", KEY)[0].headers
    assert headers["x-amz-server-side-encryption"] == "aws:kms"
    assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == options["sse_kms_key_id"]


def test_s5cmd_is_lent_what_we_found_and_sees_nothing_else_of_ours(
    settings_for: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "somebody")
    monkeypatch.setenv("CLAUDE_SIDECAR_JWT_SECRET_FILE", "/secret")
    settings = settings_for("bucket")
    target = target_of(settings)
    lent = credentials.lent(credentials.lease(settings.aws, target), WHERE)
    environ = credentials.environ(lent, target, settings.aws, tmp_path)
    assert environ["S3_ENDPOINT_URL"] == target.endpoint
    assert environ["AWS_SECRET_ACCESS_KEY"] == settings.aws["AWS_SECRET_ACCESS_KEY"]
    assert environ["AWS_CONFIG_FILE"] == environ["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull
    assert not {"AWS_PROFILE", "CLAUDE_SIDECAR_JWT_SECRET_FILE"} & set(environ)
    assert settings.aws["AWS_SECRET_ACCESS_KEY"] not in repr(lent)


@pytest.fixture
def credentials_proxy(moto_server: Server) -> Iterator[FaultProxy]:
    """In front of a server that checks no secret: what a request was signed with is looked at here."""
    outside = client(moto_server)
    outside.create_bucket(Bucket="lent")
    outside.close()
    with FaultProxy(moto_server.endpoint) as proxy:
        yield proxy


def test_a_role_is_assumed_by_us_and_its_credentials_are_lent(
    settings_for: Callable[..., Settings],
    moto_server: Server,
    credentials_proxy: FaultProxy,
    tmp_path: Path,
) -> None:
    (tmp_path / "token").write_text("header.payload.signature")
    with FaultProxy(None) as sts:
        sts.on("POST", giving(STS_ANSWER), times=None)
        aws = {
            **NOTHING,
            "AWS_ROLE_ARN": ROLE["AWS_ROLE_ARN"],
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
            "AWS_ENDPOINT_URL_STS": sts.endpoint,
        }
        endpoint = credentials_proxy.endpoint
        settings = settings_for("lent", server=moto_server, endpoint=endpoint, aws=aws, engine="s5cmd")
        Store.connect(settings, outage_seconds=0).put(KEY, b"body", condition=IfAbsent(), metadata={})
    assert credentials_proxy.seen("PUT", KEY)
    assert signed_by(credentials_proxy) == {("ASIAROLE", "of-the-role")}


def test_credentials_that_were_refused_are_asked_for_again(
    settings_for: Callable[..., Settings], moto_server: Server, credentials_proxy: FaultProxy
) -> None:
    endpoint = credentials_proxy.endpoint
    settings = settings_for("lent", server=moto_server, endpoint=endpoint, engine="s5cmd")
    store = Store.connect(settings, outage_seconds=0)
    credentials_proxy.on("PUT", faults.answer(400, "ExpiredToken"), part="a.md")
    key = KEY.replace("ada", "bob")
    with pytest.raises(errors.CredentialsRefused, match="expired"):
        store.put(key, b"body", condition=IfAbsent(), metadata={})
    store.put(key, b"body", condition=IfAbsent(), metadata={})
    assert store.carried == {"up": 1}


# -- the process itself, with a program that does as it is told


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Callable[..., Batch]]:
    made: list[Batch] = []

    def make(script: str, idle_seconds: float = 60.0) -> Batch:
        program = tmp_path / "s5cmd"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(stat.S_IRWXU)
        made.append(Batch(str(program), {"PATH": os.environ["PATH"]}, 4, tmp_path, idle_seconds))
        return made[-1]

    yield make
    for one in made:
        one.end(at_once=True)


def test_many_threads_each_get_their_own_answer(told: Callable[..., Batch], tmp_path: Path) -> None:
    running = told(
        'while read -r word path; do case "$path" in *[13579]) echo '
        '"{\\"operation\\":\\"cp\\",\\"command\\":\\"cp $path s3://b/k\\",\\"error\\":\\"odd\\"}";; *) echo '
        '"{\\"operation\\":\\"cp\\",\\"success\\":true,\\"source\\":\\"$path\\",\\"destination\\":\\"s3://b/k\\"}";;'
        " esac; done"
    )
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        answers[number] = running.run(["cp", str(tmp_path / str(number))], str(number), 30)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: "odd" if number % 2 else "" for number in range(40)}


def test_one_that_dies_leaves_nobody_waiting(told: Callable[..., Batch], tmp_path: Path) -> None:
    running = told("read -r line; echo a word to people; exit 3")
    assert running.run(["cp", str(tmp_path / "1")], "1", 30) == batch.ENDED
    assert running.run(["cp", str(tmp_path / "2")], "2", 30) == batch.NOT_TAKEN


def test_one_that_says_nothing_is_given_up(told: Callable[..., Batch], tmp_path: Path) -> None:
    running = told("exec sleep 600")
    assert running.run(["cp", str(tmp_path / "1")], "1", 0.2) == batch.SILENT
    assert not running.open


def test_one_that_has_nothing_to_do_ends(told: Callable[..., Batch]) -> None:
    running = told("cat", idle_seconds=0.05)
    running._process.wait(30)
    assert not running.open


def test_what_a_killed_process_staged_is_swept_and_what_a_living_one_stages_is_not(tmp_path: Path) -> None:
    left = tmp_path / "tmp" / "staging-0123"
    left.mkdir(parents=True)
    (left / "1").write_text("left")
    living = Staging(tmp_path)
    another = Staging(tmp_path)
    assert not left.exists()
    assert living.path.is_dir() and another.path.is_dir()
    assert stat.S_IMODE(living.path.stat().st_mode) == 0o700
    for one in (living, another):
        one.close()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_state_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.LedgerError, match="cannot be used"):
        Staging(tmp_path / "file")
