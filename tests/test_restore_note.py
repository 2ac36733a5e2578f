"""The init hook's restore, in the metrics of the sidecar that runs after it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from sidecar.sync.restore_note import leave, taken
from sidecar.sync.results import SyncResult
from tests.processes import Sidecar, command, environ_of
from tests.running import metrics
from tests.sync.pods import MakeSettings


def test_the_hooks_restore_is_counted_once_by_the_sidecar(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    for name in ("CLAUDE.md", "settings.json"):
        s3.put_object(Bucket=bucket, Key=f"user_data/ada/.claude/{name}", Body=b"{}")
    settings = settings_for(bucket, user_id="ada")
    assert command(environ_of(settings), "restore").returncode == 0
    counted = []
    for _ in range(2):
        with Sidecar(environ_of(settings), tmp_path / "log") as running:
            running.wait_for("/readyz")
            found = metrics(running)
            names = ('restores_total{result="ok"}', 'restored_files_total{how="object"}')
            counted.append([found.get(name, 0.0) for name in (*names, "restored_bytes_total")])
            assert found["restore_duration_seconds_count"] == counted[-1][0]
            assert running.end(signal.SIGTERM) == 0
    assert counted == [[1, 2, 4], [0, 0, 0]], "a restarted container did not restore again"


def test_a_failed_hook_is_counted_too(bucket: str, settings_for: MakeSettings, tmp_path: Path) -> None:
    settings = settings_for(bucket, user_id="ada")
    away = environ_of(
        settings, AWS_ENDPOINT_URL="http://127.0.0.1:9", CLAUDE_SIDECAR_RESTORE_TIMEOUT_SECONDS="1"
    )
    settings.state_dir.mkdir()
    assert command(away, "restore").returncode == 0
    with Sidecar(environ_of(settings), tmp_path / "log") as running:
        running.wait_for("/readyz")
        assert metrics(running)['restores_total{result="failed"}'] == 1


def test_what_was_left_is_taken_once(tmp_path: Path) -> None:
    leave(tmp_path, SyncResult("ada", synced=True, action="restored", files=3, bytes=9, packed=1))
    found = taken(tmp_path)
    assert found is not None
    assert (found[0].files, found[0].bytes, found[0].packed, found[1]) == (3, 9, 1, False)
    assert taken(tmp_path) is None


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'"x"', b'{"not_restored": 1}'])
def test_a_damaged_note_is_as_good_as_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "restore.json").write_bytes(text)
    assert taken(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_a_state_directory_that_cannot_be_written_fails_no_restore(tmp_path: Path) -> None:
    leave(tmp_path / "missing", SyncResult("ada", synced=True, action="fresh"))
