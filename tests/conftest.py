"""The servers and values that every room's tests share.

``bucket`` is a fresh bucket on SeaweedFS; ``settings_for(bucket, …)`` makes the Settings that reach it;
``s3`` is an outside writer (boto3) on the same server; ``fault_proxy`` stands in front of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.embedded import EmbeddedS3
from sidecar.settings import Settings
from tests.servers import Buckets, FaultProxy, Server, client, run_moto, run_rclone

# Before any test imports an S3 client: nothing of the machine's own credentials or proxies may leak in.
for _name in [n for n in os.environ if n.startswith("AWS_") or n.lower().endswith("_proxy")]:
    del os.environ[_name]
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = "/dev/null"


@pytest.fixture(scope="session")
def weed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    """SeaweedFS: the reference server."""
    with EmbeddedS3(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """moto's server: keys as they are, storage classes, versions; no secret is checked."""
    with run_moto(tmp_path_factory.mktemp("moto") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """rclone's server: ignores every condition."""
    directory = tmp_path_factory.mktemp("rclone")
    (directory / "buckets").mkdir()
    with run_rclone(directory / "buckets", directory / "log") as server:
        yield server


@pytest.fixture(scope="session")
def _buckets(weed_server: EmbeddedS3) -> Iterator[Buckets]:
    buckets = Buckets(weed_server)
    yield buckets
    buckets.close()


@pytest.fixture
def bucket(_buckets: Buckets) -> str:
    """A bucket of this test's own on SeaweedFS, empty."""
    return _buckets.take()


@pytest.fixture(scope="session")
def s3(weed_server: EmbeddedS3) -> Iterator[Any]:
    """The outside writer: a boto3 client on SeaweedFS."""
    outside = client(weed_server)
    yield outside
    outside.close()


@pytest.fixture
def fault_proxy(weed_server: EmbeddedS3) -> Iterator[FaultProxy]:
    """A proxy in front of SeaweedFS that breaks what it is told to break."""
    with FaultProxy(weed_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def settings_for(weed_server: EmbeddedS3, tmp_path: Path) -> Callable[..., Settings]:
    """``settings_for(bucket, endpoint=proxy.endpoint, aws={…}, user_id="u", …) -> Settings``.

    The server is SeaweedFS unless ``server`` or ``endpoint`` says otherwise; ``aws`` is laid over its
    variables (None removes one). Home and state directory lie under ``tmp_path``; the rest are fields.
    """

    def make(
        bucket: str | None,
        *,
        server: Server | None = None,
        endpoint: str | None = None,
        aws: dict[str, str | None] | None = None,
        **overrides: Any,
    ) -> Settings:
        merged: dict[str, str | None] = {**(server or weed_server).environ(), **(aws or {})}
        if endpoint is not None:
            merged["AWS_ENDPOINT_URL"] = endpoint
        overrides.setdefault("home", str(tmp_path / "home"))
        overrides.setdefault("state_dir", tmp_path / "state")
        variables = {name: value for name, value in merged.items() if value is not None}
        return Settings(bucket=bucket, aws=variables, **overrides)

    return make
