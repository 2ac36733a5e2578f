"""s5cmd at work for one bucket: which objects it carries, and what became of each."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sidecar.area.connection import Connection, silence_seconds
from sidecar.area.failures import Failure, failure
from sidecar.area.objects import Condition, IfAbsent
from sidecar.area.s5cmd.answers import EXISTS, is_of_staging, of_s5cmd
from sidecar.area.s5cmd.batch import IDLE_SECONDS, NOT_TAKEN, Batch
from sidecar.area.s5cmd.credentials import environ, lease, lent
from sidecar.area.s5cmd.program import demanded, weaker_guard
from sidecar.area.s5cmd.staging import Staging
from sidecar.errors import ConditionFailed, CredentialsRefused, StoreError
from sidecar.logs import log
from sidecar.settings import Settings

_PART_BYTES = 50 * 1024 * 1024  # s5cmd's default for both directions
# It says nothing while it moves one object.
_PATIENCE = 3


class StagingFull(Exception):
    """The state volume has no room for the object: it is to be moved natively."""


class _Running:
    """What has to be ended with the carrier, also at the end of the process."""

    def __init__(self) -> None:
        self.staging: Staging | None = None
        self.batch: Batch | None = None

    def end(self) -> None:
        if self.batch is not None:
            self.batch.end()
        if self.staging is not None:
            self.staging.close()
        self.batch = self.staging = None


class Carrier:
    """Moves objects by s5cmd; thread-safe. It is started with the first object, and ends when it idles.

    ``moved`` counts objects: ``down``, ``up``, and ``native: <reason>`` for those that it could not carry.

    Raises
    ------
    SettingsError: there is no s5cmd, or too old a one.
    """

    def __init__(
        self, connection: Connection, settings: Settings, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._program, self.version = demanded()
        self.guard = weaker_guard()
        self._connection = connection
        self._settings = settings
        self._idle_seconds = idle_seconds
        self._credentials = lease(settings.aws, connection.target)
        self._stands_for: tuple[object, ...] = ()
        self._lock = threading.Lock()
        self._running = _Running()
        self.moved: Counter[str] = Counter()
        weakref.finalize(self, self._running.end)

    def carries(self, key: str, condition: Condition | None = None) -> bool:
        """Whether the object at `key` is for s5cmd: to be read, or to be written on `condition`."""
        if "/.claude/" not in key or "/.claude-sidecar/" in key or not isinstance(condition, IfAbsent | None):
            return False
        if key.isprintable():
            return True
        self.went_natively("a name that cannot stand on a line", key)
        return False

    def went_natively(self, reason: str, key: str) -> None:
        """Count an object that s5cmd could not carry; the first of each kind is named."""
        if self._count(f"native: {reason}") == 1:
            log.info("Not by s5cmd but natively, as all its kind: %s (%s)", ascii(key), reason)

    @contextmanager
    def room(self, size_bytes: int) -> Iterator[Path]:
        """The path of a staged file, which is removed at the end; raises StagingFull."""
        with self._staging().room(size_bytes) as path:
            if path is None:
                raise StagingFull
            yield path

    def bring(self, key: str, path: Path, size_bytes: int) -> None:
        """The object at `key` to `path`, whichever version it is; raises Failure, StagingFull."""
        url = f"s3://{self._connection.target.bucket}/{key}"
        parts = max(1, -(-size_bytes // _PART_BYTES))
        self._connection.traffic.count("head")  # it looks how large the object is
        self._connection.traffic.count("get", requests=parts, received=size_bytes)
        self._carry(f"reading {url}", ["cp", "--raw", url, str(path)], path, size_bytes)
        self._count("down")

    def send(self, path: Path, key: str, metadata: Mapping[str, str], content_type: str) -> None:
        """The staged file at `path` to `key`, if s5cmd finds nothing there; raises Failure, StagingFull."""
        url = f"s3://{self._connection.target.bucket}/{key}"
        size_bytes = path.stat().st_size
        self._count_parts(size_bytes)
        words = ["cp", "--raw", "-n", "--content-type", content_type]
        for name, value in metadata.items():
            words += ["--metadata", f"{name}={value}"]
        if self._settings.sse:
            words += ["--sse", self._settings.sse]
        if self._settings.sse_kms_key_id:
            words += ["--sse-kms-key-id", self._settings.sse_kms_key_id]
        self._carry(f"writing {url}", [*words, str(path), url], path, size_bytes)
        self._count("up")

    def _count_parts(self, size_bytes: int) -> None:
        traffic, parts = self._connection.traffic, -(-size_bytes // _PART_BYTES)
        traffic.count("head")
        if parts > 1:
            traffic.count("part", requests=parts, sent=size_bytes)
            traffic.count("other", requests=2)
        else:
            traffic.count("put", sent=size_bytes)

    def _carry(self, what: str, words: list[str], path: Path, size_bytes: int) -> None:
        with self._connection.traffic.timed(what):
            seconds = _PATIENCE * silence_seconds(size_bytes, 1)
            said = self._batch(what).run(words, path.name, seconds)
            if said == NOT_TAKEN:  # it idled, and began to end just now
                said = self._batch(what).run(words, path.name, seconds)
            if said:
                raise self._problem(said, what)

    def _problem(self, said: str, what: str) -> Exception:
        if EXISTS in said:
            error = ConditionFailed(f"{what} met another version than expected", "it is read again")
            return Failure(of_s5cmd(said), error)
        if is_of_staging(said):
            return StagingFull(said)
        reads = what.startswith("reading")
        refused = failure(of_s5cmd(said), self._connection.where(what, reads_object=reads))
        if isinstance(refused.error, CredentialsRefused):
            self._credentials = lease(self._settings.aws, self._connection.target)  # ask anew
        return refused

    def _count(self, word: str) -> int:
        with self._lock:
            self.moved[word] += 1
            return self.moved[word]

    def _staging(self) -> Staging:
        with self._lock:
            if self._running.staging is None:
                self._running.staging = Staging(self._settings.state_dir)
            return self._running.staging

    def _batch(self, what: str) -> Batch:
        """The s5cmd that runs, or a new one: after its end, with other credentials, for another region."""
        target, directory = self._connection.target, self._staging().path
        credentials = lent(self._credentials, self._connection.where(what))
        with self._lock:
            batch = self._running.batch
            if batch is not None and batch.open and self._stands_for == (target, credentials):
                return batch
            if batch is not None:
                batch.retire()
            batch = self._started(environ(credentials, target, self._settings.aws, directory), directory)
            self._running.batch, self._stands_for = batch, (target, credentials)
            return batch

    def _started(self, known: dict[str, str], directory: Path) -> Batch:
        try:
            return Batch(self._program, known, self._settings.concurrency, directory, self._idle_seconds)
        except OSError as error:
            raise StoreError(
                f"{self._program} cannot be started: {error.strerror}",
                "mend it, or set CLAUDE_SIDECAR_ENGINE=native",
            ) from error
