"""The credentials of a sidecar that runs: their end is a metric, and the notice of the end renews them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.fault_proxy import FaultProxy
from tests.processes import Sidecar, environ_of
from tests.running import append, eventually, metrics
from tests.servers import Server, client
from tests.sync.pods import MakeSettings
from tests.wire import Response


class TokenService:
    """Gives ASIA1, ASIA2, …, each good for an hour."""

    def __init__(self) -> None:
        self.end = datetime.now(UTC) + timedelta(hours=1)
        self.given = 0

    def __call__(self, exchange: Any) -> None:
        self.given += 1
        fields = {
            "AccessKeyId": f"ASIA{self.given}",
            "SecretAccessKey": "the-secret-of-the-role",
            "SessionToken": "the-session-token",
            "Expiration": self.end.isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
        body = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
        exchange.answer(Response(200, [], f"<Credentials>{body}</Credentials>".encode()))


def keys(proxy: FaultProxy) -> list[str]:
    found = [request.headers.get("authorization", "") for request in proxy.seen()]
    return [text.partition("Credential=")[2].partition("/")[0] for text in found]


def test_their_end_is_a_metric_and_prestop_renews_them(
    moto_server: Server, settings_for: MakeSettings, tmp_path: Path
) -> None:
    outside = client(moto_server)
    outside.create_bucket(Bucket="a-pods-credentials")
    outside.close()
    (tmp_path / "token").write_text("header.payload.signature")
    service = TokenService()
    with FaultProxy(moto_server.endpoint) as s3_proxy, FaultProxy(None) as sts:
        sts.on("POST", service, times=None)
        aws = {
            "AWS_ACCESS_KEY_ID": None,
            "AWS_SECRET_ACCESS_KEY": None,
            "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/r",
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
            "AWS_ENDPOINT_URL_STS": sts.endpoint,
        }
        settings = settings_for(
            "a-pods-credentials", server=moto_server, endpoint=s3_proxy.endpoint, aws=aws, user_id="ada"
        )
        with Sidecar(environ_of(settings), tmp_path / "log") as running:
            running.wait_for("/readyz")
            assert service.given == 1, "one question serves both engines"
            expiry = metrics(running)["credentials_expiry_timestamp_seconds"]
            assert expiry == int(service.end.timestamp())
            assert running.call("GET", "/prestop", port=running.health_port)[0] == 200
            eventually(lambda: service.given == 2, running)
            append(settings, "projects/-w/s.jsonl", "{}\n")
            eventually(lambda: keys(s3_proxy)[-1] == "ASIA2", running)
            for secret in ("the-secret-of-the-role", "the-session-token", "header.payload.signature"):
                assert secret not in running.text()


def test_static_keys_have_no_such_metric(bucket: str, settings_for: MakeSettings, tmp_path: Path) -> None:
    settings = settings_for(bucket, user_id="ada")
    with Sidecar(environ_of(settings), tmp_path / "log") as running:
        running.wait_for("/readyz")
        assert "credentials_expiry_timestamp_seconds" not in metrics(running)
