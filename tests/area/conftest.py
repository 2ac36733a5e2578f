"""What the tests of the remote side share."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sidecar.area.store import Store
from sidecar.errors import FileChanged
from sidecar.settings import Settings
from tests.servers import Server, client


@dataclass(frozen=True)
class Remote:
    """A fresh bucket somewhere: the store under test, and an outside writer in the same bucket."""

    name: str
    bucket: str
    store: Store
    outside: Any
    server: Server

    def write(self, key: str, body: bytes = b"x", **more: Any) -> str:
        etag: str = self.outside.put_object(Bucket=self.bucket, Key=key, Body=body, **more)["ETag"]
        return etag

    def read(self, key: str) -> bytes:
        body: bytes = self.outside.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body


@pytest.fixture
def remote_on(
    request: pytest.FixtureRequest, settings_for: Callable[..., Settings]
) -> Iterator[Callable[[str], Remote]]:
    """``remote_on("weed" | "moto" | "rclone")``."""
    clients = []

    def make(name: str) -> Remote:
        server: Server = request.getfixturevalue(f"{name}_server")
        outside = client(server)
        clients.append(outside)
        if name == "weed":
            bucket: str = request.getfixturevalue("bucket")
        else:
            bucket = f"test-{uuid.uuid4().hex[:12]}"
            outside.create_bucket(Bucket=bucket)
        store = Store.connect(settings_for(bucket, server=server), outage_seconds=5)
        return Remote(name, bucket, store, outside, server)

    yield make
    for one in clients:
        one.close()


@dataclass
class FileSource:
    """A file as a body, as the home side gives it: it notices that the file is no longer what it was."""

    path: Path
    size: int

    def read(self, offset: int, length: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
        if len(data) != length:
            raise FileChanged(f"{self.path.name} became shorter")
        return data
