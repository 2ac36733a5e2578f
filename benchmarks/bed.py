"""What measurements lie in: a real S3 server on loopback, and pods whose sidecar is a real process."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.embedded import EmbeddedS3
from sidecar.settings import Settings
from tests.processes import Sidecar, environ_of

USER = "ada"
BUCKET = "bench"
DELAY_SECONDS = 2.0


@dataclass(frozen=True)
class Place:
    """One pod's disk and the settings that reach the server by way of `endpoint`."""

    directory: Path
    settings: Settings
    delay_seconds: float = DELAY_SECONDS

    @property
    def home(self) -> Path:
        return Path(self.settings.home)

    @property
    def user(self) -> str:
        return self.settings.user_id or ""

    @contextlib.contextmanager
    def running(self, **environ: str) -> Iterator[Sidecar]:
        """The sidecar, restored and watching."""
        environ = {"CLAUDE_SIDECAR_SYNC_DELAY_SECONDS": str(self.delay_seconds), **environ}
        with Sidecar(environ_of(self.settings, **environ), self.directory / "log") as sidecar:
            sidecar.wait_for("/readyz", seconds=60)
            sidecar.call("POST", "/v1/sync?wait=durable")
            yield sidecar


class Bed:
    """``with Bed() as bed:``; everything is gone after it."""

    def __init__(self, delay_seconds: float = DELAY_SECONDS) -> None:
        self.delay_seconds = delay_seconds

    def __enter__(self) -> Bed:
        self._stack = contextlib.ExitStack()
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        self.server = self._stack.enter_context(EmbeddedS3(self.directory / "weed"))
        self.server.create_bucket(BUCKET)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def place(self, user: str = "", endpoint: str = "") -> Place:
        """A new pod's disk; a new user's unless `user` is given."""
        name = uuid.uuid4().hex[:8]
        directory = self.directory / name
        directory.mkdir()
        aws = {**self.server.environ(), "AWS_ENDPOINT_URL": endpoint or self.server.endpoint}
        settings = Settings(
            bucket=BUCKET,
            user_id=user or f"{USER}-{name}",
            home=str(directory / ".claude"),
            state_dir=directory / "state",
            aws=aws,
        )
        Path(settings.home).mkdir()
        return Place(directory, settings, self.delay_seconds)


def table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    """A Markdown table."""
    print(f"\n### {title}\n")
    for row in (columns, ("---",) * len(columns), *rows):
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)


def seconds(values: list[float]) -> tuple[str, str, str]:
    """Median, 99th percentile, maximum."""
    ordered = sorted(values)
    picked = (
        ordered[len(ordered) // 2],
        ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
        ordered[-1],
    )
    return (f"{picked[0]:.2f}", f"{picked[1]:.2f}", f"{picked[2]:.2f}")
