"""Where credentials come from: each source is really used, by both engines, against a service of our own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sidecar.area.container import container_credentials
from sidecar.area.credentials import source_of
from sidecar.area.store import Store
from sidecar.errors import CredentialsMissing, CredentialsRefused, StoreUnreachable
from sidecar.settings import Settings
from tests import faults
from tests.certificates import Certificates, make_certificates
from tests.servers import FaultProxy, Server
from tests.wire import Response

NO_FILES = {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
NOTHING: dict[str, str | None] = {
    "AWS_ACCESS_KEY_ID": None,
    "AWS_SECRET_ACCESS_KEY": None,
    **NO_FILES,
}
STATIC = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
ROLE = {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/r", "AWS_WEB_IDENTITY_TOKEN_FILE": "/t"}
POD = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials"}

STS_ANSWER = b"""<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>
<AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>of-the-role</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""
END = datetime(2099, 1, 1, tzinfo=UTC).timestamp()
CONTAINER_ANSWER = json.dumps(
    {
        "AccessKeyId": "ASIAPOD",
        "SecretAccessKey": "secret",
        "Token": "of-the-pod",
        "Expiration": "2099-01-01T00:00:00Z",
    }
).encode()


@pytest.mark.parametrize(
    ("aws", "source"),
    [
        (STATIC, "static"),
        ({**STATIC, **ROLE, **POD}, "static"),
        (ROLE, "web identity"),
        ({**ROLE, **POD}, "web identity"),
        (POD, "container"),
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x"}, "container"),
        ({"AWS_PROFILE": "work", **POD}, "profile"),
        ({}, "metadata"),
    ],
)
def test_sources_are_looked_at_in_the_order_of_aws_tools(aws: dict[str, str], source: str) -> None:
    assert source_of({**NO_FILES, **aws}) == source


@pytest.mark.parametrize(
    ("aws", "names"),
    [
        ({"AWS_ACCESS_KEY_ID": "a"}, "AWS_SECRET_ACCESS_KEY is not set"),
        ({"AWS_SECRET_ACCESS_KEY": "b"}, "AWS_ACCESS_KEY_ID is not set"),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/t"}, "AWS_ROLE_ARN is not set"),
        ({"AWS_EC2_METADATA_DISABLED": "TRUE"}, "instance metadata is disabled"),
    ],
)
def test_half_a_source_is_named_and_nothing_is_asked(aws: dict[str, str], names: str) -> None:
    with pytest.raises(CredentialsMissing, match=names):
        source_of({**NO_FILES, **aws})


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def s3_proxy(moto_server: Server) -> Iterator[FaultProxy]:
    """In front of a server that checks no secret: what a request was signed with is looked at here."""
    with FaultProxy(moto_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def connect(
    s3_proxy: FaultProxy, moto_server: Server, settings_for: Callable[..., Settings]
) -> Callable[..., Store]:
    def make(lasting: bool = False, **aws: str | None) -> Store:
        settings = settings_for(
            "credentials", server=moto_server, endpoint=s3_proxy.endpoint, aws={**NOTHING, **aws}
        )
        return Store.connect(settings, outage_seconds=0, lasting=lasting)

    return make


@pytest.fixture(autouse=True)
def _bucket(moto_server: Server) -> Iterator[None]:
    from tests.servers import client

    outside = client(moto_server)
    outside.create_bucket(Bucket="credentials")
    outside.close()
    yield


def signed_by(proxy: FaultProxy) -> set[tuple[str, str]]:
    """The key and the token of each request."""
    found = set()
    for request in proxy.seen():
        credential = request.headers["authorization"].partition("Credential=")[2]
        found.add((credential.partition("/")[0], request.headers.get("x-amz-security-token", "")))
    return found


def both_engines(store: Store) -> None:
    store.list("p/")
    store.list("p/", exact=True)


def giving(body: bytes) -> faults.Fault:
    return lambda x: x.answer(Response(200, [("Content-Type", "application/json")], body))


@pytest.fixture
def token(tmp_path: Path) -> str:
    (tmp_path / "token").write_text("header.payload.signature")
    return str(tmp_path / "token")


@pytest.mark.parametrize("lasting", [True, False], ids=["lasting", "short-lived"])
@pytest.mark.parametrize("secure", [True, False])
def test_a_role_is_assumed_with_the_mounted_token(
    connect: Callable[..., Store],
    s3_proxy: FaultProxy,
    certificates: Certificates,
    token: str,
    secure: bool,
    lasting: bool,
) -> None:
    with FaultProxy(None, tls=certificates.context if secure else None) as sts:
        sts.on("POST", giving(STS_ANSWER), times=None)
        store = connect(
            lasting,
            AWS_ROLE_ARN=ROLE["AWS_ROLE_ARN"],
            AWS_WEB_IDENTITY_TOKEN_FILE=token,
            AWS_ENDPOINT_URL_STS=sts.endpoint,
            AWS_CA_BUNDLE=str(certificates.ca_file),
        )
        both_engines(store)
        asked = [request.target + request.body.decode() for request in sts.seen()]
    assert signed_by(s3_proxy) == {("ASIAROLE", "of-the-role")}
    assert len(asked) == 1 if lasting else 1 <= len(asked) <= 2
    assert store.credentials_end_at == (END if lasting or not secure else None)
    assert all("header.payload.signature" in text and "role%2Fr" in text for text in asked)


@pytest.mark.parametrize("lasting", [True, False], ids=["lasting", "short-lived"])
def test_a_pod_identity_is_asked_for_with_the_mounted_token(
    connect: Callable[..., Store],
    s3_proxy: FaultProxy,
    token: str,
    monkeypatch: pytest.MonkeyPatch,
    lasting: bool,
) -> None:
    with FaultProxy(None) as agent:
        agent.on("GET", giving(CONTAINER_ANSWER), times=None)
        aws = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{agent.endpoint}/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": token,
        }
        for name, value in aws.items():  # awscrt reads the process's own
            monkeypatch.setenv(name, value)
        store = connect(lasting, **aws)
        both_engines(store)
        assert {r.headers["authorization"] for r in agent.seen()} == {"header.payload.signature"}
        assert store.credentials_end_at == (END if lasting else None)
    assert signed_by(s3_proxy) == {("ASIAPOD", "of-the-pod")}


def test_a_pod_identity_is_asked_in_the_clear_where_the_store_speaks_https(
    moto_server: Server, settings_for: Callable[..., Settings], certificates: Certificates, token: str
) -> None:
    with FaultProxy(None) as agent, FaultProxy(moto_server.endpoint, tls=certificates.context) as secure:
        agent.on("GET", giving(CONTAINER_ANSWER), times=None)
        aws = {
            **NOTHING,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{agent.endpoint}/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": token,
            "AWS_CA_BUNDLE": str(certificates.ca_file),
        }
        settings = settings_for("credentials", server=moto_server, endpoint=secure.endpoint, aws=aws)
        Store.connect(settings, outage_seconds=0).list("p/")
        assert signed_by(secure) == {("ASIAPOD", "of-the-pod")}


def test_a_container_with_a_plain_token_is_served_too(
    connect: Callable[..., Store], s3_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultProxy(None) as agent:
        agent.on("GET", giving(CONTAINER_ANSWER), times=None)
        aws = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{agent.endpoint}/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "plain",
        }
        for name, value in aws.items():
            monkeypatch.setenv(name, value)
        both_engines(connect(**aws))
        assert {r.headers["authorization"] for r in agent.seen()} == {"plain"}
    assert signed_by(s3_proxy) == {("ASIAPOD", "of-the-pod")}


def test_the_instances_own_role_is_found_by_its_metadata(
    connect: Callable[..., Store], s3_proxy: FaultProxy
) -> None:
    metadata = json.loads(CONTAINER_ANSWER) | {"Code": "Success", "Type": "AWS-HMAC"}
    metadata["LastUpdated"] = "2026-01-01T00:00:00Z"

    def answer(x: Any) -> None:
        body = b"role-name" if x.request.target.endswith("/") else json.dumps(metadata).encode()
        x.answer(Response(200, [], b"session" if x.request.method == "PUT" else body))

    with FaultProxy(None) as service:
        service.on("*", answer, times=None)
        store = connect(AWS_EC2_METADATA_DISABLED=None, AWS_EC2_METADATA_SERVICE_ENDPOINT=service.endpoint)
        store.list("p/")
    assert signed_by(s3_proxy) == {("ASIAPOD", "of-the-pod")}


def test_metadata_that_gives_nothing_means_that_nobody_gave_credentials(
    connect: Callable[..., Store], s3_proxy: FaultProxy
) -> None:
    store = connect(AWS_EC2_METADATA_DISABLED=None, AWS_EC2_METADATA_SERVICE_ENDPOINT="http://127.0.0.1:9")
    with pytest.raises(CredentialsMissing, match="instance metadata gives none"):
        store.list("p/")
    assert not s3_proxy.seen()


def profile(tmp_path: Path, config: str, credentials: str = "") -> dict[str, str]:
    (tmp_path / "config").write_text(config)
    (tmp_path / "credentials").write_text(credentials)
    return {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }


def test_keys_come_from_the_profile_that_is_named(
    connect: Callable[..., Store], s3_proxy: FaultProxy, tmp_path: Path
) -> None:
    files = profile(
        tmp_path,
        "[profile work]\nregion = eu-central-1\n",
        "[default]\naws_access_key_id = NO\naws_secret_access_key = no\n"
        "[work]\naws_access_key_id = AKIAWORK\naws_secret_access_key = s\naws_session_token = t\n",
    )
    store = connect(**files, AWS_PROFILE="work", AWS_REGION=None)
    both_engines(store)
    assert signed_by(s3_proxy) == {("AKIAWORK", "t")}
    assert "/eu-central-1/s3/" in s3_proxy.seen()[0].headers["authorization"]


def test_keys_come_from_the_process_that_a_profile_names(
    connect: Callable[..., Store],
    s3_proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = {"Version": 1, "AccessKeyId": "AKIAPROCESS", "SecretAccessKey": "s", "SessionToken": "t"}
    (tmp_path / "answer").write_text(json.dumps(answer))
    files = profile(tmp_path, f"[profile work]\ncredential_process = cat {tmp_path}/answer\n")
    for name, value in files.items():
        monkeypatch.setenv(name, value)
    both_engines(connect(**files, AWS_PROFILE="work"))
    assert signed_by(s3_proxy) == {("AKIAPROCESS", "t")}


@pytest.mark.parametrize(
    ("config", "files_exist"),
    [("[profile other]\nregion = x\n", True), ("not a file of profiles", True), ("", False)],
)
def test_a_profile_without_credentials_is_missing_credentials(
    connect: Callable[..., Store], s3_proxy: FaultProxy, tmp_path: Path, config: str, files_exist: bool
) -> None:
    files = profile(tmp_path, config) if files_exist else {}
    with pytest.raises(CredentialsMissing):
        both_engines(connect(**files, AWS_PROFILE="work"))
    assert not s3_proxy.seen()


def test_a_role_that_may_not_be_assumed_is_refused_credentials(
    connect: Callable[..., Store], certificates: Certificates, token: str
) -> None:
    for secure in (True, False):
        with FaultProxy(None, tls=certificates.context if secure else None) as sts:
            sts.on("POST", faults.answer(403, "AccessDenied", "not authorized"), times=None)
            store = connect(
                AWS_ROLE_ARN=ROLE["AWS_ROLE_ARN"],
                AWS_WEB_IDENTITY_TOKEN_FILE=token,
                AWS_ENDPOINT_URL_STS=sts.endpoint,
                AWS_CA_BUNDLE=str(certificates.ca_file),
            )
            with pytest.raises(CredentialsRefused, match="trust policy"):
                store.list("p/")
            with pytest.raises((CredentialsRefused, CredentialsMissing)):
                store.list("p/", exact=True)


def test_a_token_that_is_not_mounted_is_missing_credentials(
    connect: Callable[..., Store], certificates: Certificates
) -> None:
    store = connect(
        AWS_ROLE_ARN=ROLE["AWS_ROLE_ARN"],
        AWS_WEB_IDENTITY_TOKEN_FILE="/nonexistent/token",
        AWS_ENDPOINT_URL_STS="https://127.0.0.1:9",
    )
    for exact in (False, True):
        with pytest.raises(CredentialsMissing):
            store.list("p/", exact=exact)


def test_a_token_service_that_is_away_is_an_outage(connect: Callable[..., Store], token: str) -> None:
    for endpoint in ("https://127.0.0.1:9", "http://127.0.0.1:9"):
        store = connect(
            AWS_ROLE_ARN=ROLE["AWS_ROLE_ARN"],
            AWS_WEB_IDENTITY_TOKEN_FILE=token,
            AWS_ENDPOINT_URL_STS=endpoint,
        )
        for exact in (False, True):
            with pytest.raises(StoreUnreachable):
                store.list("p/", exact=exact)


def test_static_keys_have_no_end(connect: Callable[..., Store]) -> None:
    store = connect(lasting=True, **STATIC)
    both_engines(store)
    store.renew_credentials(at_once=True)
    assert store.credentials_end_at is None


def test_the_end_of_what_a_process_gives_is_known(
    connect: Callable[..., Store], s3_proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"Version": 1, "AccessKeyId": "AKIAPROCESS", "SecretAccessKey": "s", "SessionToken": "t"}
    (tmp_path / "answer").write_text(json.dumps({**answer, "Expiration": "2099-01-01T00:00:00Z"}))
    files = profile(tmp_path, f"[profile work]\ncredential_process = cat {tmp_path}/answer\n")
    for name, value in files.items():
        monkeypatch.setenv(name, value)
    store = connect(lasting=True, **files, AWS_PROFILE="work")
    store.list("p/")
    assert store.credentials_end_at == END


def test_renewed_credentials_sign_the_next_request(
    connect: Callable[..., Store], s3_proxy: FaultProxy, token: str
) -> None:
    with FaultProxy(None) as sts:
        sts.on("POST", giving(STS_ANSWER), times=1)
        sts.on("POST", giving(STS_ANSWER.replace(b"ASIAROLE", b"ASIANEXT")), times=1)
        store = connect(
            lasting=True,
            AWS_ROLE_ARN=ROLE["AWS_ROLE_ARN"],
            AWS_WEB_IDENTITY_TOKEN_FILE=token,
            AWS_ENDPOINT_URL_STS=sts.endpoint,
        )
        both_engines(store)
        store.renew_credentials()  # they are good for years
        assert signed_by(s3_proxy) == {("ASIAROLE", "of-the-role")}
        store.renew_credentials(at_once=True)
        begun = len(s3_proxy.seen())
        both_engines(store)
        keys = {r.headers["authorization"].partition("Credential=")[2][:8] for r in s3_proxy.seen()[begun:]}
        assert keys == {"ASIANEXT"}
        sts.on("POST", faults.answer(403, "AccessDenied", "no more"), times=None)
        with pytest.raises(CredentialsRefused, match="trust policy"):
            store.renew_credentials(at_once=True)
        both_engines(store)  # the old ones stay


def test_no_proxy_is_asked_for_a_service_of_the_node(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with FaultProxy(None) as agent:
        agent.on("GET", giving(CONTAINER_ANSWER), times=None)
        aws = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{agent.endpoint}/v1/credentials"}
        assert container_credentials(aws, None).key_id == "ASIAPOD"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (faults.answer(403, "AccessDenied", "no"), CredentialsRefused),
        (faults.answer(500, "Oops", "no"), StoreUnreachable),
        (giving(b"not json"), StoreUnreachable),
        (giving(b"{}"), StoreUnreachable),
        (giving(b"[]"), StoreUnreachable),
    ],
    ids=["refused", "broken", "no JSON", "nothing in it", "a list"],
)
def test_what_a_pod_identity_answers_instead_of_credentials(
    connect: Callable[..., Store], token: str, answer: faults.Fault, error: type[Exception]
) -> None:
    with FaultProxy(None) as agent:
        agent.on("GET", answer, times=None)
        store = connect(
            lasting=True,
            AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{agent.endpoint}/v1/credentials",
            AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=token,
        )
        for exact in (False, True):
            with pytest.raises(error, match="no credentials for the bucket"):
                store.list("p/", exact=exact)
