"""The notice that the pod ends, which anybody can give."""

from pathlib import Path
from typing import Any

from sidecar.sync.drain import Drain
from tests.running import LOG, append, eventually, journalled, metrics, sidecar
from tests.sync.pods import MakeSettings


def test_a_notice_lapses_after_twice_the_grace_period_and_repeating_it_does_not_put_that_off() -> None:
    now = 1000.0
    drain = Drain(30.0, lambda: now)
    assert (drain.active, drain.noticed_at, drain.reason) == (False, 0.0, "")
    assert drain.notice("preStop")
    now = 1059.0
    assert (drain.active, drain.noticed_at, drain.reason) == (True, 1000.0, "preStop")
    assert not drain.notice("preStop")
    now = 1061.0
    assert (drain.active, drain.noticed_at, drain.reason) == (False, 0.0, "")
    assert drain.notice("preStop"), "the next one is news"
    assert drain.noticed_at == 1061.0


def test_a_notice_without_an_end_lapses_in_the_flush_loop_and_in_what_is_told(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    slow = {"CLAUDE_SIDECAR_SYNC_DELAY_SECONDS": "600", "CLAUDE_SIDECAR_GRACE_SECONDS": "2"}
    with sidecar(settings, tmp_path, **slow) as running:
        running.wait_for("/readyz")
        assert running.call("GET", "/prestop", port=running.health_port)[0] == 200
        assert metrics(running)["draining"] == 1
        append(settings, LOG, '{"n": 1}\n')
        eventually(lambda: journalled(s3, bucket).get(LOG), running)
        eventually(lambda: not metrics(running)["draining"], running)
        assert running.call("GET", "/v1/stats")[1]["draining"] is None
        append(settings, LOG, '{"n": 2}\n')
        # While the notice was in force a change waited for a twentieth of a second.
        eventually(lambda: metrics(running)["oldest_unsynced_age_seconds"] > 1, running)
        assert journalled(s3, bucket)[LOG] == b'{"n": 1}\n'
        assert running.call("GET", "/prestop", port=running.health_port)[0] == 200
        eventually(lambda: journalled(s3, bucket)[LOG] == b'{"n": 1}\n{"n": 2}\n', running)
