"""The journal over a home: what is not laid on alone."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from tests.sync.machine import LOGS, world_in

LOG = LOGS[0]


def test_of_a_transcript_that_is_too_large_for_a_pod_the_journal_does_not_come_alone(tmp_path: Path) -> None:
    """It would be a session that begins in the middle."""
    with world_in(tmp_path) as world:
        a, b = world.pods
        world.append_lines(a, LOG, [b"x" * 1024 * 1024])
        world.run(a)
        world.backup(a)
        world.append(a, LOG)
        world.flush(a)
        b.settings = replace(b.settings, max_file_mib=1)
        result = world.run(b)
        assert b.content(LOG) is None
        assert [entry.path for entry in result.skipped] == [LOG]
        assert result.not_restored == ()
