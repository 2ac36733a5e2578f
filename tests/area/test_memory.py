"""Memory stays flat, however large an object is: measured in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from sidecar.settings import Settings

MIB = 1024 * 1024
_CHILD = """
import sys
from pathlib import Path
from sidecar.area.objects import IfAbsent
from sidecar.area.store import Store
from sidecar.settings import load
import os

SIZE = int(sys.argv[1])

class Body:
    size = SIZE
    def read(self, offset, length):
        return b"x" * length  # not zeros: those would take no memory

store = Store.connect(load(os.environ))
store.put("p/large", Body(), condition=IfAbsent(), metadata={})
with store.open("p/large") as download:
    assert sum(len(chunk) for chunk in download.chunks()) == SIZE
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def test_a_large_object_goes_both_ways_in_bounded_memory(
    bucket: str, settings_for: Callable[..., Settings], tmp_path: Path
) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "S3_WORKSPACE_BUCKET": bucket}
    environ |= settings_for(bucket).aws
    size = 256 * MIB
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(size)], env=environ, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) * 1024 < size * 2 // 3, "the body was held in memory"
