"""What a command freed is back with the node: measured in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from sidecar.settings import Settings
from tests.processes import environ_of
from tests.sync.pods import MakeSettings

MIB = 1024 * 1024
_CHILD = """
import sys
from pathlib import Path
from sidecar.cli import main

assert main([sys.argv[2]]) == 0
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith(sys.argv[1])))
"""


def kib_of_a_backup(settings: Settings, what: str) -> int:
    return kib_of("backup", settings, what)


def kib_of(command: str, settings: Settings, what: str) -> int:
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, what, command],
        env=environ_of(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return int(child.stdout)


def test_what_was_freed_is_given_back(bucket: str, settings_for: MakeSettings) -> None:
    settings = settings_for(bucket, user_id="ada")
    body, home = os.urandom(6 * MIB), Path(settings.home)
    home.mkdir(mode=0o700)
    for number in range(48):
        (home / f"{number}.bin").write_bytes(body)
    assert kib_of_a_backup(settings, "RssAnon") * 1024 < 45 * MIB, "bodies of 6 MiB were freed and kept"


def test_long_transcripts_that_go_up_in_one_request_each_are_never_in_memory_beside_each_other(
    bucket: str, settings_for: MakeSettings, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    line, project = os.urandom(MIB // 2).hex().encode()[:-1] + b"\n", Path(settings.home) / "projects/-w"
    project.mkdir(parents=True, mode=0o700)
    for number in range(6):
        (project / f"{number}.jsonl").write_bytes(line * (40 + number))
    assert kib_of_a_backup(settings, "VmHWM") * 1024 < 150 * MIB
    found = s3.list_objects_v2(Bucket=bucket, Prefix="user_data/ada/.claude/")["Contents"]
    assert [entry["Size"] for entry in found] == [(40 + number) * MIB for number in range(6)]
    assert not [entry for entry in found if "-" in entry["ETag"]], "in parts"


def test_a_checkpoint_of_a_long_transcript_that_grew_holds_no_more_than_what_is_new(
    bucket: str, settings_for: MakeSettings
) -> None:
    settings = settings_for(bucket, user_id="ada")
    line, transcript = (
        os.urandom(MIB // 2).hex().encode()[:-1] + b"\n",
        Path(settings.home) / "projects/-w/s.jsonl",
    )
    transcript.parent.mkdir(parents=True, mode=0o700)
    transcript.write_bytes(line * 60)
    kib_of_a_backup(settings, "VmHWM")
    with transcript.open("ab") as more:
        more.write(line)
    assert kib_of_a_backup(settings, "VmHWM") * 1024 < 60 * MIB


def test_a_restore_beside_long_transcripts_holds_none_of_them(
    bucket: str, settings_for: MakeSettings
) -> None:
    settings = settings_for(bucket, user_id="ada")
    line, project = os.urandom(MIB // 2).hex().encode()[:-1] + b"\n", Path(settings.home) / "projects/-w"
    project.mkdir(parents=True, mode=0o700)
    for number in range(6):
        (project / f"{number}.jsonl").write_bytes(line * 40)
    kib_of_a_backup(settings, "VmHWM")
    shutil.rmtree(settings.state_dir)  # the volume of the ledger is lost, the home is not
    for path in project.iterdir():
        os.truncate(path, 39 * len(line))
    assert kib_of("restore", settings, "VmHWM") * 1024 < 150 * MIB
    assert {path.stat().st_size for path in project.iterdir()} == {40 * len(line)}
