"""The bucket is away for a while: nobody is held up, the home is the queue, all is caught up after it."""

from pathlib import Path
from typing import Any

from tests.fault_proxy import FaultProxy
from tests.processes import Sidecar
from tests.running import append, eventually, journalled, metrics, sidecar
from tests.sync.pods import MakeSettings

FILES, ROUNDS, LINE = 20, 100, "x" * 10_239 + "\n"
MIB = 1024 * 1024


def rss_bytes(running: Sidecar) -> int:
    assert running.process
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def last_flush(running: Sidecar) -> dict[str, Any]:
    answer = running.call("GET", "/v1/stats")[1]["users"]["ada"]["last_flush"]
    assert isinstance(answer, dict)
    return answer


def test_an_outage_is_told_and_survived_and_then_caught_up_without_a_trigger(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, fault_proxy: FaultProxy
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    paths = [f"projects/-w/{number}.jsonl" for number in range(FILES)]
    with sidecar(settings, tmp_path, CLAUDE_SIDECAR_SYNC_DELAY_SECONDS="0.2") as running:
        running.wait_for("/readyz")
        for path in paths:
            append(settings, path, "first\n")
        eventually(lambda: len(journalled(s3, bucket)) == FILES, running)
        eventually(lambda: not metrics(running)["oldest_unsynced_age_seconds"], running)
        calm, before = metrics(running), rss_bytes(running)
        assert (calm["unsynced_bytes"], calm["unsynced_files"]) == (0, 0)

        fault_proxy.down()
        for _ in range(ROUNDS):
            for path in paths:
                append(settings, path, LINE)
            assert running.call("GET", "/livez")[0] == 200
        eventually(lambda: metrics(running)["unsynced_bytes"] > 0, running)  # known before anything failed
        eventually(lambda: last_flush(running)["kind"] == "unreachable", running)
        away = metrics(running)
        assert away["oldest_unsynced_age_seconds"] > 0
        assert away["last_durable_timestamp_seconds"] == calm["last_durable_timestamp_seconds"]
        assert away["unsynced_files"] == FILES
        assert running.call("GET", "/livez")[0] == 200
        assert rss_bytes(running) - before < 40 * MIB, "the home is the queue, not the memory"
        assert len(journalled(s3, bucket)["projects/-w/0.jsonl"]) == len("first\n")

        fault_proxy.up()
        content = ("first\n" + LINE * ROUNDS).encode()
        eventually(lambda: all(journalled(s3, bucket)[path] == content for path in paths), running, 60)
        eventually(lambda: not metrics(running)["oldest_unsynced_age_seconds"], running)
        assert metrics(running)["unsynced_bytes"] == 0
        warnings = [line for line in running.text().splitlines() if line.startswith("WARNING")]
        assert len(warnings) == 1, warnings
        assert "are not durable since" in warnings[0]
        assert "The bucket is back" in running.text()
