"""What Prometheus sees."""

from __future__ import annotations

import re
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parsed

from sidecar.api.metrics import CONFLICTS, FALLBACKS, REFUSALS, RESULTS, STORE_KINDS, Metrics, refusal_word
from sidecar.settings import Settings
from sidecar.sync.results import BackupResult, SyncResult, Unsynced
from tests.api.memory_manager import MemoryManager
from tests.api.serving import Api
from tests.api.signing import Signer

Serve = Callable[..., Awaitable[Api]]
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8, text/plain;version=0.0.4;q=0.5"


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """The value that a scrape would show; None where it shows none."""
    text, _ = metrics.exposed("")
    for family in parsed(text.decode()):
        for sample in family.samples:
            if sample.name == f"claude_sidecar_{name}" and sample.labels == labels:
                return sample.value
    return None


def fed() -> Metrics:
    """Metrics of which every one has a sample."""
    metrics = Metrics(clock=lambda: 1000.0)
    manager = MemoryManager()
    manager._users.append("ada")
    manager.more_stats = {
        "draining": "preStop",
        "credentials_end_at": 2000.0,
        "conditions_honoured": True,
        "journal_enabled": True,
        "watching": True,
    }
    manager.user_stats = {
        "unsynced_files": 1,
        "unreadable_files": 2,
        "not_restored_files": 0,
        "journal_entries": 3,
        "journal_bytes": 300,
        "last_durable_time": 990.0,
        "oldest_unsynced_at": 988.0,
    }
    metrics.watch(manager)
    refused = (Unsynced("x", "larger than the cap of 1024 MiB"),)
    metrics.flushed(BackupResult("ada", durable=True, bytes=10, seconds=0.2))
    metrics.checkpointed(BackupResult("ada", durable=False, error="x", seconds=3.0, refused=refused))
    metrics.restored(
        SyncResult("ada", synced=True, action="restored", files=3, packed=2, bytes=30, seconds=1.0)
    )
    metrics.s3_request("get", True, 0.02, received_bytes=30)
    metrics.s3_error("throttled")
    metrics.conflict("united")
    metrics.watch_missed(2)
    metrics.watch_fallback("limit")
    metrics.http_request("/livez", 200)
    metrics.token_refused("expired")
    metrics.identity_unavailable()
    return metrics


def test_names_keep_to_the_conventions() -> None:
    text, _ = fed().exposed("")
    for family in parsed(text.decode()):
        name = family.name
        assert re.fullmatch(r"claude_sidecar_[a-z0-9_]+", name), name
        assert family.documentation, name
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples), name
        else:
            assert not name.endswith("_total"), name
        assert not re.search(r"milliseconds|minutes|kib|mib|percent", name), name
        if re.search(r"duration|age|timestamp", name):
            assert name.endswith("_seconds"), name


def test_both_formats_can_be_read() -> None:
    metrics = fed()
    text, plain = metrics.exposed("")
    assert plain.startswith("text/plain; version=0.0.4")
    assert b"_created" not in text
    open_text, open_type = metrics.exposed(OPENMETRICS)
    assert open_type.startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in parsed(text.decode())}
    assert names == {family.name for family in parsed_openmetrics(open_text.decode())}


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=x", "*/*", ";;;,,,", "x" * 5000])
async def test_an_accept_that_nobody_understands_is_answered_all_the_same(api: Api, accept: str) -> None:
    answer = await api.get("/metrics", health=True, headers={"Accept": accept})
    assert answer.status == 200


async def test_both_listeners_show_them_in_the_format_that_was_asked_for(api: Api) -> None:
    for health in (True, False):
        answer = await api.get("/metrics", health=health)
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert "claude_sidecar_build_info{" in answer.body
        answer = await api.get("/metrics", health=health, headers={"Accept": OPENMETRICS})
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert answer.body.endswith("# EOF\n")


def test_no_metric_of_the_process_wide_registry_is_touched() -> None:
    before = {family.name for family in REGISTRY.collect()}
    fed()
    assert {family.name for family in REGISTRY.collect()} == before


def test_events_are_counted() -> None:
    metrics = fed()
    assert value(metrics, "flushes_total", result="ok") == 1
    assert value(metrics, "flushed_bytes_total") == 10
    assert value(metrics, "checkpoints_total", result="failed") == 1
    assert value(metrics, "refused_files", reason="too_large") == 1
    assert value(metrics, "restored_files_total", how="pack") == 2
    assert value(metrics, "restored_files_total", how="object") == 1
    assert value(metrics, "s3_received_bytes_total", operation="get") == 30
    assert value(metrics, "s3_errors_total", kind="throttled") == 1
    assert value(metrics, "flush_duration_seconds_bucket", le="0.25") == 1
    assert value(metrics, "flush_duration_seconds_bucket", le="0.1") == 0


def test_series_that_alerts_are_made_of_begin_at_zero() -> None:
    metrics = Metrics()
    for name in ("flushes_total", "checkpoints_total", "restores_total"):
        for result in ("ok", "partial", "failed"):
            assert value(metrics, name, result=result) == 0
    assert value(metrics, "s3_errors_total", kind="denied") == 0


def test_a_checkpoint_says_what_is_refused_now_not_what_ever_was() -> None:
    metrics = Metrics()
    many = tuple(Unsynced(f"f{n}", "permission denied") for n in range(5))
    metrics.checkpointed(BackupResult("ada", durable=True, refused=many))
    metrics.checkpointed(BackupResult("ben", durable=True, refused=many[:2]))
    assert value(metrics, "refused_files", reason="unreadable") == 7
    metrics.checkpointed(BackupResult("ada", durable=True))
    assert value(metrics, "refused_files", reason="unreadable") == 2


def test_what_is_not_known_is_absent_and_not_zero() -> None:
    metrics = Metrics()
    metrics.watch(MemoryManager())
    for name in ("unsynced_bytes", "conditions_honoured", "credentials_expiry_timestamp_seconds"):
        assert value(metrics, name) is None
    assert value(metrics, "oldest_unsynced_age_seconds") is None
    assert value(metrics, "ready") == 1


def test_states_are_those_of_the_manager() -> None:
    metrics = fed()
    assert value(metrics, "oldest_unsynced_age_seconds") == 12
    assert value(metrics, "last_durable_timestamp_seconds") == 990
    assert value(metrics, "journal_bytes") == 300
    assert value(metrics, "conditions_honoured") == 1
    assert value(metrics, "draining") == 1


def test_of_several_users_sums_are_shown_and_of_times_the_worst() -> None:
    metrics = Metrics(clock=lambda: 100.0)
    manager = MemoryManager()
    manager.more_stats = {
        "users": {
            "ada": {"unsynced_bytes": 3, "last_durable_time": 50.0, "oldest_unsynced_at": 90.0},
            "ben": {"unsynced_bytes": 4, "last_durable_time": 40.0, "oldest_unsynced_at": None},
        }
    }
    metrics.watch(manager)
    assert value(metrics, "unsynced_bytes") == 7
    assert value(metrics, "last_durable_timestamp_seconds") == 40
    assert value(metrics, "oldest_unsynced_age_seconds") == 10


def test_labels_are_bounded_and_none_is_a_user() -> None:
    metrics = Metrics()
    manager = MemoryManager()
    for n in range(50):
        user = f"user-{n}"
        manager._users.append(user)
        metrics.flushed(BackupResult(user, durable=True))
        metrics.checkpointed(
            BackupResult(user, durable=True, refused=(Unsynced(f"file-{n}", f"reason {n}"),))
        )
        metrics.s3_request(f"operation-{n}", True, 0.1)
        metrics.s3_error(f"kind-{n}")
        metrics.conflict(f"kind-{n}")
        metrics.watch_fallback(f"reason-{n}")
    metrics.watch(manager)
    text = metrics.exposed("")[0].decode()
    assert "user-" not in text and "file-" not in text
    assert len(text.splitlines()) < 300
    assert value(metrics, "refused_files", reason="other") == 50
    assert value(metrics, "s3_errors_total", kind="other") == 50


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("larger than 1024 MiB", "too_large"),
        ("a backslash in the name", "name"),
        ("a key longer than 1024 bytes", "name"),
        ("permission denied", "unreadable"),
        ("a symbolic link", "special_file"),
        ("something new", "other"),
    ],
)
def test_reasons_become_words(reason: str, word: str) -> None:
    assert refusal_word(reason) == word


async def test_requests_are_counted_by_route_and_status_and_strangers_together(api: Api) -> None:
    await api.get("/v1/stats")
    await api.get("/v1/sync")
    for n in range(20):
        await api.get(f"/wp-admin/{n}.php")
    assert value(api.metrics, "http_requests_total", route="/v1/stats", status="200") == 1
    assert value(api.metrics, "http_requests_total", route="/v1/sync", status="405") == 1
    assert value(api.metrics, "http_requests_total", route="other", status="404") == 20


async def test_refused_tokens_are_counted_by_reason(serve: Serve, many: Settings, signer: Signer) -> None:
    api = await serve(many)
    for _ in range(3):
        await api.post("/invocations", token=signer.token("ada", exp=1))
    assert value(api.metrics, "tokens_refused_total", reason="expired") == 3


async def test_tokens_that_cannot_be_checked_are_counted_where_the_answer_hides_them(
    serve: Serve, signer: Signer
) -> None:
    from tests.api.serving import settings

    api = await serve(settings(user_id=None, jwt_jwks_url="http://127.0.0.1:1/keys"))
    await api.post("/invocations", token=signer.token("ada"))
    assert value(api.metrics, "identity_unavailable_total") == 1


def test_events_may_come_from_any_thread() -> None:
    metrics = Metrics()
    threads = [
        threading.Thread(target=lambda: [metrics.s3_request("put", True, 0.01, 5) for _ in range(500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(metrics, "s3_requests_total", operation="put", result="ok") == 2000
    assert value(metrics, "s3_sent_bytes_total", operation="put") == 10_000


def test_every_metric_that_the_operations_guide_names_exists() -> None:
    guide = Path(__file__).parents[2] / "docs" / "operations.md"
    named = set(re.findall(r"claude_sidecar_[a-z0-9_]+", guide.read_text()))
    text = fed().exposed("")[0].decode()
    exposed = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exposed}
    assert named <= exposed | families
    # Those of the process are documented by their prefix alone.
    ours = {name for name in families if not name.startswith("claude_sidecar_process_")}
    assert ours <= named


def alerts() -> list[tuple[str, str]]:
    """Name and expression of each row of the guide's table of alerts."""
    guide = (Path(__file__).parents[2] / "docs" / "operations.md").read_text().replace("\\|", "/")
    rows = re.findall(r"^\| (Claude\w+) \| `([^`]+)` \|", guide, re.MULTILINE)
    assert len(rows) > 20
    return [(name, expression.replace("/", "|")) for name, expression in rows]


VALUES = {"kind": STORE_KINDS | CONFLICTS, "result": RESULTS, "reason": FALLBACKS | REFUSALS}


@pytest.mark.parametrize(("name", "expression"), alerts(), ids=[name for name, _ in alerts()])
def test_every_alert_asks_for_samples_and_labels_that_exist(name: str, expression: str) -> None:
    """An alert on a name that no sample has (a counter without ``_total``) never fires: nobody is told."""
    labels: dict[str, set[str]] = {}
    for family in parsed(fed().exposed("")[0].decode()):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    asked = re.findall(r"(claude_sidecar_\w+)(?:\{([^}]*)\})?", expression)
    assert asked or "up{" in expression
    for metric, matchers in asked:
        assert metric in labels
        for label, value in re.findall(r'(\w+)[!=]=?~?"([^"]*)"', matchers):
            assert label in labels[metric]
            assert set(value.split("|")) <= VALUES[label]
    for words in re.findall(r"by \(([^)]*)\)", expression):
        own = set(words.replace(" ", "").split(",")) - {"namespace", "pod"}
        assert own <= set().union(*(labels[metric] for metric, _ in asked))
