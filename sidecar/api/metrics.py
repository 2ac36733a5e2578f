"""What Prometheus sees of the sidecar. Every name begins with ``claude_sidecar_``; no label names a user.

Two feeds: events are told to `Metrics` by plain calls, from any thread; states (`states.GAUGES`) are asked of
the manager's statistics at each scrape.
Label values come from fixed sets; a value outside its set counts as ``other``.
"""

from __future__ import annotations

import platform
import time
from collections import Counter as Counts
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sidecar import __version__, errors
from sidecar.api.manager import Manager
from sidecar.api.states import PREFIX, States
from sidecar.sync.results import BackupResult, SyncResult

OPERATIONS = frozenset({"list", "get", "head", "put", "delete", "copy", "compose", "probe", "versions"})
RESULTS = frozenset({"ok", "partial", "failed"})
CONFLICTS = frozenset({"united", "remote_kept", "local_kept", "rewritten", "deletion"})
FALLBACKS = frozenset({"limit", "overflow", "unsupported"})
ROUTE_OTHER = "other"
STORE_KINDS = frozenset({errors.StoreError.kind, *(e.kind for e in errors.StoreError.__subclasses__())})

# The reasons of `Unsynced` are half sentences: each is counted under the first word here that it contains.
_REFUSAL_WORDS = (
    ("too_large", ("larger", "cap", "too large", "MiB")),
    ("unreadable", ("permission", "unreadable", "cannot be read", "may not read", "denied")),
    ("name", ("name", "key longer")),
    ("special_file", ("link", "fifo", "socket", "device", "special", "regular file")),
    ("no_space", ("space", "quota")),
    ("archived", ("archived",)),
)
REFUSALS = frozenset(word for word, _ in _REFUSAL_WORDS)


class Metrics:
    """All metrics of one process, in a registry of its own. `watch` tells it whose states to show."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._make_counters()
        self._make_histograms()
        self._begin_at_zero()
        self._refused: dict[str, tuple[str, ...]] = {}
        build = Gauge(f"{PREFIX}_build_info", "The build", ["version", "python"], registry=self.registry)
        build.labels(__version__, platform.python_version()).set(1)
        self._states = States(self._refused_now, clock)
        self.registry.register(self._states)
        ProcessCollector(namespace=PREFIX, registry=self.registry)

    def _make_counters(self) -> None:
        self._http = self._counter("http_requests", "HTTP requests answered", "route", "status")
        self._tokens = self._counter("tokens_refused", "Tokens that did not hold", "reason")
        self._identity = self._counter("identity_unavailable", "Requests whose token could not be checked")
        self._flushes = self._counter("flushes", "Flushes", "result")
        self._flushed_bytes = self._counter("flushed_bytes", "Bytes made durable by flushes")
        self._checkpoints = self._counter("checkpoints", "Checkpoints", "result")
        self._checkpoint_bytes = self._counter("checkpoint_bytes", "Bytes uploaded by checkpoints")
        self._restores = self._counter("restores", "Restores and initial syncs", "result")
        self._restored_files = self._counter("restored_files", "Files restored", "how")
        self._restored_bytes = self._counter("restored_bytes", "Bytes restored")
        self._s3_requests = self._counter("s3_requests", "Requests to the store", "operation", "result")
        self._s3_sent = self._counter("s3_sent_bytes", "Bytes of bodies sent to the store", "operation")
        self._s3_received = self._counter("s3_received_bytes", "Bytes of bodies received", "operation")
        self._s3_errors = self._counter("s3_errors", "Failed requests to the store", "kind")
        self._conflicts = self._counter("conflicts", "Paths that both sides had changed", "kind")
        self._fallbacks = self._counter("watch_fallbacks", "Times the watch gave way to scans", "reason")
        self._missed = self._counter(
            "watch_missed", "Files that a checkpoint found and the watch had not told"
        )

    def _make_histograms(self) -> None:
        # Around what each must reach: a flush 3 s, a checkpoint an interval, a restore a minute.
        self._flush_seconds = self._histogram(
            "flush_duration_seconds", "Duration of flushes", (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30)
        )
        self._checkpoint_seconds = self._histogram(
            "checkpoint_duration_seconds", "Duration of checkpoints", (0.1, 0.5, 1, 2, 5, 15, 60, 300)
        )
        self._restore_seconds = self._histogram(
            "restore_duration_seconds", "Duration of restores", (0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300)
        )
        self._s3_seconds = self._histogram(
            "s3_request_duration_seconds",
            "Duration of requests to the store",
            (0.01, 0.05, 0.1, 0.5, 1, 5, 30),
            "operation",
        )

    def _begin_at_zero(self) -> None:
        """Series that alerts are made of exist from the start: a first failure is then an increase."""
        for counter in (self._flushes, self._checkpoints, self._restores):
            for result in sorted(RESULTS):
                counter.labels(result)
        for kind in sorted(STORE_KINDS):
            self._s3_errors.labels(kind)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", meaning, labels, buckets=buckets, registry=self.registry)

    def watch(self, manager: Manager) -> None:
        """Show the states of `manager`, asked for at each scrape."""
        self._states.manager = manager

    def flushed(self, result: BackupResult) -> None:
        """A flush ended."""
        self._flushes.labels(_outcome(result)).inc()
        self._flushed_bytes.inc(max(result.bytes, 0))
        self._flush_seconds.observe(result.seconds)

    def checkpointed(self, result: BackupResult) -> None:
        """A checkpoint ended. It looked at every file: its refusals are those in force."""
        self._checkpoints.labels(_outcome(result)).inc()
        self._checkpoint_bytes.inc(max(result.bytes, 0))
        self._checkpoint_seconds.observe(result.seconds)
        for kind, count in result.conflict_kinds.items():
            self._conflicts.labels(_one_of(CONFLICTS, kind)).inc(count)
        self._refused[result.user_id] = tuple(refusal_word(refused.reason) for refused in result.refused)

    def restored(self, result: SyncResult, *, partly: bool = False) -> None:
        """A restore or an initial sync ended; one that found all done already, or no bucket, is none."""
        if result.action in ("already_synced", "started", "disabled"):
            return
        well = "partial" if partly or result.not_restored else "ok"
        self._restores.labels(well if result.synced else "failed").inc()
        self._restore_seconds.observe(result.seconds)
        if result.action == "restored":
            self._restored_files.labels("pack").inc(result.packed)
            self._restored_files.labels("object").inc(result.files - result.packed)
            self._restored_bytes.inc(result.bytes)

    def s3_request(
        self, operation: str, ok: bool, seconds: float, sent_bytes: int = 0, received_bytes: int = 0
    ) -> None:
        """One request to the store was answered or failed."""
        word = _one_of(OPERATIONS, operation)
        self._s3_requests.labels(word, "ok" if ok else "failed").inc()
        self._s3_seconds.labels(word).observe(seconds)
        self._s3_sent.labels(word).inc(sent_bytes)
        self._s3_received.labels(word).inc(received_bytes)

    def s3_answered(self, operation: str, seconds: float, kind: str) -> None:
        """One request to the store was answered (`kind` empty) or failed with an error of that kind."""
        self.s3_request(operation, not kind, seconds)
        if kind:
            self.s3_error(kind)

    def s3_moved(self, operation: str, sent_bytes: int, received_bytes: int) -> None:
        """Bytes of bodies went to the store or came from it."""
        word = _one_of(OPERATIONS, operation)
        self._s3_sent.labels(word).inc(sent_bytes)
        self._s3_received.labels(word).inc(received_bytes)

    def s3_error(self, kind: str) -> None:
        """A request failed for good; `kind` is the error's."""
        self._s3_errors.labels(_one_of(STORE_KINDS, kind)).inc()

    def conflict(self, kind: str) -> None:
        """Both sides had changed a path; `kind` is one of CONFLICTS."""
        self._conflicts.labels(_one_of(CONFLICTS, kind)).inc()

    def watch_fallback(self, reason: str) -> None:
        """The watch gave way to scans; `reason` is one of FALLBACKS."""
        self._fallbacks.labels(_one_of(FALLBACKS, reason)).inc()

    def watch_missed(self, count: int) -> None:
        """A full scan found so many files that the watch had not told."""
        self._missed.inc(count)

    def http_request(self, route: str, status: int) -> None:
        """A request was answered; `route` is a path of the table, or ROUTE_OTHER."""
        self._http.labels(route, str(status)).inc()

    def token_refused(self, reason: str) -> None:
        """A token did not hold; `reason` is a `TokenRefused`'s."""
        self._tokens.labels(reason).inc()

    def identity_unavailable(self) -> None:
        """A token could not be checked."""
        self._identity.inc()

    def exposed(self, accept: str) -> tuple[bytes, str]:
        """The text for a scrape and its content type, as `accept` (the header) wishes."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is none, which it compares with one
            encode, content_type = choose_encoder("")
        return encode(_WithoutCreated(self.registry)), content_type

    def _refused_now(self) -> dict[str, int]:
        """How many files are refused, by word, over all users."""
        return Counts(word for words in list(self._refused.values()) for word in words)


class _WithoutCreated(Collector):
    """A registry without the ``_created`` series, which double the text and answer no question of ours."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for family in self._registry.collect():
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            yield family


def _outcome(result: BackupResult) -> str:
    if result.durable:
        return "ok"
    return "failed" if result.error else "partial"


def refusal_word(reason: str) -> str:
    """The label for the half sentence `reason`."""
    for word, signs in _REFUSAL_WORDS:
        if reason == word or any(sign in reason for sign in signs):
            return word
    return "other"


def _one_of(words: frozenset[str], word: str) -> str:
    return word if word in words else "other"
