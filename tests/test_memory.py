"""What a command freed is back with the node: measured in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.processes import environ_of
from tests.sync.pods import MakeSettings

MIB = 1024 * 1024
_CHILD = """
from pathlib import Path
from sidecar.cli import main

assert main(["backup"]) == 0
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))
"""


def test_what_was_freed_is_given_back(bucket: str, settings_for: MakeSettings) -> None:
    settings = settings_for(bucket, user_id="ada")
    body, home = os.urandom(6 * MIB), Path(settings.home)
    home.mkdir(mode=0o700)
    for number in range(48):
        (home / f"{number}.bin").write_bytes(body)
    child = subprocess.run(
        [sys.executable, "-c", _CHILD], env=environ_of(settings), capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) * 1024 < 45 * MIB, "bodies of 6 MiB were freed and kept"
