"""When the kubelet should start the sidecar again. That an outage is none of these: test_outage.py."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.settings import Settings
from sidecar.sync import operations
from sidecar.sync.connected_user import ConnectedUser
from sidecar.sync.drain import Drain
from sidecar.sync.observers import Observers
from sidecar.sync.operations import HOPELESS_SECONDS, STUCK_SECONDS
from tests.processes import Sidecar, environ_of
from tests.running import append, eventually
from tests.sync.pods import MakeSettings

LOG = "projects/-w/s.jsonl"

# On SIGUSR1 the watch's thread is killed where it stands; on SIGUSR2 each flush from then on hangs in its
# thread, and that shows after a second.
SABOTAGE = """
import ctypes, signal, sys, threading, time
from sidecar import cli
from sidecar.sync import flusher, operations
def find_and_kill_it():
    while not (found := [t for t in threading.enumerate() if t.name == "watch" and t.ident]):
        time.sleep(0.05)  # it may be armed a little later than the probes pass
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(found[0].ident), ctypes.py_object(SystemExit))
def kill_the_watch(*_):
    threading.Thread(target=find_and_kill_it, daemon=True).start()
def hang_each_flush(*_):
    operations.STUCK_SECONDS = 1.0
    flusher.Flusher.flush = lambda *_: threading.Event().wait()
signal.signal(signal.SIGUSR1, kill_the_watch)
signal.signal(signal.SIGUSR2, hang_each_flush)
sys.exit(cli.main(sys.argv[1:]))
"""


def sabotaged(settings: Settings, tmp_path: Path) -> Sidecar:
    environ = environ_of(settings, CLAUDE_SIDECAR_SYNC_DELAY_SECONDS="0.1")
    return Sidecar(environ, tmp_path / "log", program=("-c", SABOTAGE))


def failing(running: Sidecar, wake: Callable[[], object] = lambda: None) -> dict[str, Any]:
    def asked() -> dict[str, Any]:
        wake()
        status, body = running.call("GET", "/livez", port=running.health_port)
        return body if status == 503 else {}

    return eventually(asked, running)


def send(running: Sidecar, number: int) -> None:
    assert running.process
    running.process.send_signal(number)


def test_a_watch_that_died_fails_the_probe(bucket: str, settings_for: MakeSettings, tmp_path: Path) -> None:
    settings = settings_for(bucket, user_id="ada")
    with sabotaged(settings, tmp_path) as running:
        running.wait_for("/readyz")
        running.wait_for("/livez")
        send(running, signal.SIGUSR1)
        wake = lambda: append(settings, LOG, "{}\n")  # noqa: E731 - it dies when it next does something
        assert failing(running, wake)["reason"] == "the watch over the home ended"
        assert running.end(signal.SIGTERM) == 0, "what the restart begins with: all of it is backed up"


def test_a_flush_that_hangs_fails_the_probe(bucket: str, settings_for: MakeSettings, tmp_path: Path) -> None:
    settings = settings_for(bucket, user_id="ada")
    with sabotaged(settings, tmp_path) as running:
        running.wait_for("/readyz")
        assert running.call("POST", "/v1/sync?wait=durable")[0] == 200
        send(running, signal.SIGUSR2)
        time.sleep(0.2)
        append(settings, LOG, "{}\n")
        assert "the flush does not end" in failing(running)["reason"]


@pytest.mark.parametrize(
    ("begun", "moved", "word"),
    [
        (10.0, STUCK_SECONDS + 9, ""),
        (STUCK_SECONDS + 9, 0.0, ""),
        (5.0, STUCK_SECONDS + 9.5, ""),
        (5.0, 5.0, "the checkpoint does not end"),
        (STUCK_SECONDS + 10 - HOPELESS_SECONDS - 1, STUCK_SECONDS + 9, "the checkpoint does not end"),
    ],
    ids=["requests go on", "young", "old and busy", "nothing moves", "hopeless though others move"],
)
def test_long_is_not_stuck_while_requests_are_answered(begun: float, moved: float, word: str) -> None:
    async def nobody(user_id: str) -> Any:
        raise AssertionError

    user = ConnectedUser("ada", Settings(), nobody, Observers(), lambda: None, Drain(30.0))
    assert user.ailment(STUCK_SECONDS + 10, moved) == ""
    user.operations._busy["checkpoint"] = begun
    assert word in user.ailment(STUCK_SECONDS + 10, moved)
    assert bool(word) == bool(user.ailment(STUCK_SECONDS + 10, moved))


def test_the_limit_is_longer_than_any_request_may_take() -> None:
    from sidecar.area import connection

    assert connection.WHOLE_SECONDS < operations.STUCK_SECONDS
