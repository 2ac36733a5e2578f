"""Which way access fails: each has its own kind, sentence and hint, and none looks like an empty area."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.area.objects import IfAbsent
from sidecar.area.store import Store
from sidecar.errors import (
    AccessDenied,
    BucketMissing,
    CredentialsMissing,
    CredentialsRefused,
    RegionWrong,
    SettingsError,
    StoreError,
    StoreUnreachable,
    TlsRefused,
)
from sidecar.settings import Settings
from tests import faults
from tests.certificates import Certificates, make_certificates
from tests.servers import FaultProxy, Server
from tests.wire import Response

OPERATIONS: dict[str, Callable[[Store], Any]] = {
    "list": lambda store: store.list("p/"),
    "exact list": lambda store: store.list("p/", exact=True),
    "head": lambda store: store.head("p/a"),
    "open": lambda store: store.open("p/a"),
    "read_range": lambda store: store.read_range("p/a", 0, 1, if_match='"e"'),
    "put": lambda store: store.put("p/a", b"x", condition=IfAbsent(), metadata={}),
    "delete": lambda store: store.delete("p/a", if_match=None),
    "check_bucket": lambda store: store.check_bucket("p/"),
    "probe_conditions": lambda store: store.probe_conditions("p/own/"),
}


@pytest.fixture(params=OPERATIONS.values(), ids=OPERATIONS)
def operation(request: pytest.FixtureRequest) -> Callable[[Store], Any]:
    chosen: Callable[[Store], Any] = request.param
    return chosen


Connect = Callable[..., Store]


@pytest.fixture
def connect(settings_for: Callable[..., Settings]) -> Connect:
    def make(name: str = "some-bucket", **more: Any) -> Store:
        return Store.connect(settings_for(name, **more), outage_seconds=0)

    return make


def test_a_wrong_secret_is_refused_credentials(connect: Connect, operation: Callable[[Store], Any]) -> None:
    with pytest.raises(CredentialsRefused, match="AWS_SECRET_ACCESS_KEY"):
        operation(connect(aws={"AWS_SECRET_ACCESS_KEY": "wrong"}))


def test_an_unknown_key_is_refused_credentials(connect: Connect, operation: Callable[[Store], Any]) -> None:
    with pytest.raises(CredentialsRefused, match="does not know the access key"):
        operation(connect(aws={"AWS_ACCESS_KEY_ID": "unknown"}))


def test_an_unknown_token_is_refused_credentials(connect: Connect) -> None:
    with pytest.raises(CredentialsRefused):
        connect(aws={"AWS_SESSION_TOKEN": "stale"}).list("p/")


def test_a_missing_bucket_is_a_missing_bucket(
    connect: Connect, moto_server: Server, operation: Callable[[Store], Any]
) -> None:
    with pytest.raises(BucketMissing, match="no bucket nobody-made-this"):
        operation(connect("nobody-made-this", server=moto_server))


def test_nobody_listening_is_an_outage(connect: Connect, operation: Callable[[Store], Any]) -> None:
    with pytest.raises(StoreUnreachable, match="cannot be reached"):
        operation(connect(endpoint="http://127.0.0.1:9"))


ANSWERS = [
    (403, "AccessDenied", "Access Denied", AccessDenied, "s3:GetObject"),
    (403, "AccessDenied", "not authorized to perform: kms:Decrypt on x", AccessDenied, "bucket's KMS key"),
    (400, "KMS.DisabledException", "key is disabled", AccessDenied, "encryption key"),
    (400, "ExpiredToken", "The provided token has expired.", CredentialsRefused, "have expired"),
    (403, "RequestTimeTooSkewed", "too large", CredentialsRefused, "clock"),
    (403, "InvalidAccessKeyId", "unknown", CredentialsRefused, "access key"),
    (500, "InternalError", "again", StoreUnreachable, "answered 50"),
    (502, "", "", StoreUnreachable, "answered 50"),
    (501, "NotImplemented", "A header you provided", StoreError, "answered 501"),
]


@pytest.mark.parametrize(("status", "code", "message", "error", "says"), ANSWERS)
def test_each_answer_of_s3_has_its_own_error(
    connect: Connect,
    fault_proxy: FaultProxy,
    operation: Callable[[Store], Any],
    status: int,
    code: str,
    message: str,
    error: type[StoreError],
    says: str,
) -> None:
    fault_proxy.on("HEAD", lambda x: x.answer(Response(status, [], b"")), times=None)
    fault_proxy.on("*", faults.answer(status, code, message), times=None)
    with pytest.raises(error) as caught:
        operation(connect(endpoint=fault_proxy.endpoint))
    assert says in str(caught.value)
    assert caught.value.hint or status == 501
    assert "embedded-secret" not in str(caught.value)


def test_a_denied_read_names_both_possibilities(connect: Connect, fault_proxy: FaultProxy) -> None:
    fault_proxy.on("*", faults.answer(403, "AccessDenied", "Access Denied"), times=None)
    store = connect(endpoint=fault_proxy.endpoint)
    with pytest.raises(AccessDenied, match="it does not exist and may not be listed"):
        store.open("p/a")
    with pytest.raises(AccessDenied, match="s3:ListBucket"):
        store.list("p/")


MALFORMED = (
    "<Error><Code>AuthorizationHeaderMalformed</Code><Message>x</Message><Region>eu-west-1</Region></Error>"
)
REDIRECT = "<Error><Code>PermanentRedirect</Code><Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint></Error>"


def wrong_region(status: int, body: str) -> faults.Fault:
    """What a bucket in eu-west-1 says to whoever signs for another region."""

    def fault(x: Any) -> None:
        if "/eu-west-1/s3/" in x.request.headers.get("authorization", ""):
            x.answer(x.ask_server())
        else:
            headers = [("x-amz-bucket-region", "eu-west-1")]
            x.answer(Response(status, headers, b"" if x.request.method == "HEAD" else body.encode()))

    return fault


@pytest.mark.parametrize(("status", "body"), [(400, MALFORMED), (301, REDIRECT), (301, "")])
def test_the_buckets_own_region_is_found_once_where_nobody_chose_one(
    connect: Connect,
    fault_proxy: FaultProxy,
    s3: Any,
    bucket: str,
    operation: Callable[[Store], Any],
    status: int,
    body: str,
) -> None:
    etag = s3.put_object(Bucket=bucket, Key="p/a", Body=b"x")["ETag"]
    fault_proxy.on("*", wrong_region(status, body), times=None)
    store = connect(bucket, endpoint=fault_proxy.endpoint, aws={"AWS_REGION": None})
    if operation is OPERATIONS["put"]:
        s3.delete_object(Bucket=bucket, Key="p/a")
    if operation is OPERATIONS["read_range"]:
        assert store.read_range("p/a", 0, 1, if_match=etag) == b"x"
    else:
        operation(store)
    fault_proxy.clear()
    fault_proxy.on("*", wrong_region(status, body), times=None)
    store.list("p/")
    assert len(fault_proxy.seen("GET", "list-type=2")) <= 2, "the region is known by now"


@pytest.mark.parametrize(("status", "body"), [(400, MALFORMED), (301, REDIRECT), (301, "")])
def test_a_wrong_region_that_somebody_chose_is_an_error_that_names_the_right_one(
    connect: Connect, fault_proxy: FaultProxy, operation: Callable[[Store], Any], status: int, body: str
) -> None:
    fault_proxy.on("*", wrong_region(status, body), times=None)
    with pytest.raises(RegionWrong, match="set AWS_REGION=eu-west-1"):
        operation(connect(endpoint=fault_proxy.endpoint))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


# Without the exact listing: awscrt answers a bad certificate after 10 to 30 s, and obstore meets it first.
@pytest.mark.parametrize("operation", [OPERATIONS[name] for name in OPERATIONS if name != "exact list"])
def test_a_certificate_that_nobody_vouches_for_is_refused(
    connect: Connect, weed_server: Server, certificates: Certificates, operation: Callable[[Store], Any]
) -> None:
    with FaultProxy(weed_server.endpoint, tls=certificates.context) as proxy:
        with pytest.raises(TlsRefused, match="AWS_CA_BUNDLE") as caught:
            operation(connect(endpoint=proxy.endpoint))
        assert not caught.value.outage
        assert not proxy.seen()


@pytest.mark.parametrize("exact", [False, True])
def test_a_certificate_of_the_given_authority_is_trusted(
    connect: Connect, bucket: str, weed_server: Server, certificates: Certificates, exact: bool
) -> None:
    with FaultProxy(weed_server.endpoint, tls=certificates.context) as proxy:
        store = connect(bucket, endpoint=proxy.endpoint, aws={"AWS_CA_BUNDLE": str(certificates.ca_file)})
        assert not store.list("p/", exact=exact).objects


def test_https_to_a_server_that_speaks_http_is_refused(connect: Connect, weed_server: Server) -> None:
    with pytest.raises(TlsRefused, match="speaks https"):
        connect(endpoint=weed_server.endpoint.replace("http:", "https:")).list("p/")


@pytest.mark.parametrize("text", ["/nonexistent/ca.pem", __file__])
def test_a_certificate_file_that_cannot_be_used_is_a_wrong_setting(connect: Connect, text: str) -> None:
    with pytest.raises(SettingsError):
        connect(aws={"AWS_CA_BUNDLE": text}).list("p/")


@pytest.mark.parametrize(
    "endpoint",
    [
        "127.0.0.1:9",
        "s3://x",
        "http://",
        "http://user:pw@127.0.0.1:9",
        "http://127.0.0.1:99999",
        "http://[::1",
        "http://a b",
        'http://127.0.0.1:{"port": 9}',
        "http://127.0.0.1:9/a{b",
    ],
)
def test_an_endpoint_that_is_no_address_is_a_wrong_setting(connect: Connect, endpoint: str) -> None:
    with pytest.raises(SettingsError, match="AWS_ENDPOINT_URL") as caught:
        connect(endpoint=endpoint)
    assert "pw" not in str(caught.value)


def test_the_endpoint_for_s3_wins_over_the_general_one(
    connect: Connect, bucket: str, fault_proxy: FaultProxy
) -> None:
    store = connect(bucket, endpoint="http://127.0.0.1:9", aws={"AWS_ENDPOINT_URL_S3": fault_proxy.endpoint})
    assert not store.list("p/").objects
    assert fault_proxy.seen()


def test_without_any_credentials_nothing_is_asked_over_the_network(
    connect: Connect, fault_proxy: FaultProxy
) -> None:
    none = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None, "AWS_CONFIG_FILE": "/dev/null"}
    with pytest.raises(CredentialsMissing, match="instance metadata is disabled"):
        connect(endpoint=fault_proxy.endpoint, aws={**none, "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"})
    assert not fault_proxy.seen()


def test_no_bucket_is_a_wrong_setting(settings_for: Callable[..., Settings]) -> None:
    with pytest.raises(SettingsError, match="S3_WORKSPACE_BUCKET"):
        Store.connect(settings_for(None))
