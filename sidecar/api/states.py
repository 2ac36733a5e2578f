"""The gauges: states that are asked of the manager's statistics at each scrape.

A state that is not known is not exposed: absent is never zero. Of several users the sum is shown, of points
in time the worst; no label names a user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sidecar.api.manager import Manager

PREFIX = "claude_sidecar"


class StateGauge(Struct, frozen=True):
    """A state in the manager's statistics: its metric, its key there, and how users' values combine."""

    metric: str
    key: str
    meaning: str
    per_user: bool = False
    combine: Callable[[Iterable[float]], float] = sum
    flag: bool = False


GAUGES: tuple[StateGauge, ...] = (
    StateGauge("users", "synced_user_count", "Users whose initial sync is done"),
    StateGauge("backup_running", "backup_running", "1 while the backup loop runs"),
    StateGauge("draining", "draining", "1 since the pod began to end", flag=True),
    StateGauge(
        "credentials_expiry_timestamp_seconds",
        "credentials_end_at",
        "When the credentials for the bucket expire, in seconds since the epoch",
    ),
    StateGauge(
        "conditions_honoured",
        "conditions_honoured",
        "1 if the store honours conditional writes, 0 if the guard is weaker",
    ),
    StateGauge("journal_enabled", "journal_enabled", "1 if flushes go to the journal, 0 in interval mode"),
    StateGauge("watching", "watching", "1 if changes are seen as they happen, 0 if only by scans"),
    StateGauge("unsynced_bytes", "unsynced_bytes", "Eligible bytes not in the bucket", per_user=True),
    StateGauge("unsynced_files", "unsynced_files", "Eligible files not wholly in the bucket", per_user=True),
    StateGauge("unreadable_files", "unreadable_files", "Files that this UID may not read", per_user=True),
    StateGauge("not_restored_files", "not_restored_files", "Files that a restore left out", per_user=True),
    StateGauge("journal_entries", "journal_entries", "Journal entries not yet folded", per_user=True),
    StateGauge("journal_bytes", "journal_bytes", "Bytes of journal entries not yet folded", per_user=True),
    StateGauge(
        "last_durable_timestamp_seconds",
        "last_durable_time",
        "When all eligible files of every user were last durable, in seconds since the epoch",
        per_user=True,
        combine=min,
    ),
)


class States(Collector):
    """The gauges that are read from the manager at each scrape."""

    def __init__(self, refused: Callable[[], Mapping[str, int]], clock: Callable[[], float]) -> None:
        self.manager: Manager | None = None
        self._refused = refused
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            f"{PREFIX}_refused_files", "Files refused at the last checkpoint", labels=["reason"]
        )
        for reason, count in sorted(self._refused().items()):
            family.add_metric([reason], count)
        yield family
        if self.manager is None:
            return
        ready, _ = self.manager.readiness()
        yield _gauge("ready", "1 if the home is restored or known fresh", float(ready))
        known = self.manager.get_stats()
        users = [user for user in known.get("users", {}).values() if isinstance(user, Mapping)]
        yield _gauge("sync_enabled", "1 if a bucket is configured", float(bool(known.get("bucket_name"))))
        for state in GAUGES:
            values = _values(state, users if state.per_user else [known])
            if values:
                yield _gauge(state.metric, state.meaning, state.combine(values))
        # The oldest of all users, and 0 where everything is durable: an age, so that an alert needs no clock.
        if any("oldest_unsynced_at" in user for user in users):
            oldest = _numbers(user.get("oldest_unsynced_at") for user in users)
            age = max(0.0, self._clock() - min(oldest)) if oldest else 0.0
            yield _gauge("oldest_unsynced_age_seconds", "Age of the oldest byte that is not durable", age)


def _values(state: StateGauge, sources: Sequence[Mapping[str, Any]]) -> list[float]:
    if state.flag:
        return [float(bool(source[state.key])) for source in sources if state.key in source]
    return _numbers(source.get(state.key) for source in sources)


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", meaning, value=value)


def _numbers(values: Iterable[Any]) -> list[float]:
    return [float(value) for value in values if isinstance(value, int | float)]
