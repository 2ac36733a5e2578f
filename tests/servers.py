"""Real S3 servers in child processes, all on loopback, each ended with the test run however it ends.

SeaweedFS is the reference (`sidecar.embedded`). moto is the second opinion: it keeps keys as they are, knows
storage classes and versions, and checks no secret. rclone's server ignores every condition.
"""

from __future__ import annotations

import contextlib
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sidecar.embedded import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, EmbeddedS3
from tests.fault_proxy import FaultProxy

__all__ = [
    "Buckets",
    "EmbeddedS3",
    "FaultProxy",
    "Server",
    "ServerProcess",
    "client",
    "run_moto",
    "run_rclone",
]


class Server(Protocol):
    """What every server here has: an endpoint, and the ``AWS_*`` variables that reach it."""

    @property
    def endpoint(self) -> str: ...

    def environ(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class ServerProcess:
    """A server that is up. ``directory`` holds the buckets, where they are directories."""

    endpoint: str
    directory: Path | None = None

    def environ(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextlib.contextmanager
def run_moto(log: Path) -> Iterator[ServerProcess]:
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, port, log):
        yield ServerProcess(f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def run_rclone(directory: Path, log: Path) -> Iterator[ServerProcess]:
    """Buckets are the directories in `directory`."""
    port = free_port()
    program = shutil.which("rclone", path=str(Path(sys.executable).parent)) or "rclone"
    command = [program, "--config", "/dev/null", "serve", "s3", str(directory)]
    command += ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{ACCESS_KEY_ID},{SECRET_ACCESS_KEY}"]
    with _running(command, port, log):
        yield ServerProcess(f"http://127.0.0.1:{port}", directory)


def client(server: Server | Mapping[str, str]) -> Any:
    """A boto3 client: the outside writer. Close it."""
    import boto3
    from botocore.config import Config

    environ = server if isinstance(server, Mapping) else server.environ()
    return boto3.client(
        "s3",
        endpoint_url=environ["AWS_ENDPOINT_URL"],
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
        region_name=environ["AWS_REGION"],
        config=Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}, max_pool_connections=32),
    )


class Buckets:
    """Fresh buckets, their first write (0.2 s on SeaweedFS) behind them, made ahead."""

    def __init__(self, server: Server, ahead: int = 3) -> None:
        self._client = client(server)
        self._ready: queue.Queue[str | Exception] = queue.Queue(maxsize=ahead)
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._make, daemon=True) for _ in range(ahead)]
        for thread in self._threads:
            thread.start()

    def take(self) -> str:
        made = self._ready.get(timeout=60)
        if isinstance(made, Exception):
            raise made
        return made

    def close(self) -> None:
        self._stopping.set()
        while any(thread.is_alive() for thread in self._threads):
            with contextlib.suppress(queue.Empty):
                self._ready.get(timeout=0.05)
        self._client.close()

    def _make(self) -> None:
        while not self._stopping.is_set():
            try:
                self._ready.put(self._one())
            except Exception as problem:
                self._ready.put(problem)

    def _one(self) -> str:
        name = f"test-{uuid.uuid4().hex[:12]}"
        self._client.create_bucket(Bucket=name)
        self._client.put_object(Bucket=name, Key="first", Body=b"write")
        self._client.delete_object(Bucket=name, Key="first")
        return name


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


# The child dies when our end of its standard input closes, which it does even when we are killed.
_TIED = 'exec 3<&0; "$@" 3<&- </dev/null & s=$!; { cat <&3 >/dev/null; kill -9 $s; } 2>/dev/null & wait $s'


@contextlib.contextmanager
def _running(command: list[str], port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _TIED, "server", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    assert process.stdin is not None
    try:
        _wait_for_port(process, port, log)
        yield
    finally:
        process.stdin.close()
        process.wait()


def _wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}") from None
            time.sleep(0.05)
