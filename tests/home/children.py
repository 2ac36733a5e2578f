"""Child processes: under another user, another kernel, another limit, or racing beside the test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]

# What is imported late is imported here: after the change of user the interpreter may be out of reach.
_BEGIN = """
import ctypes, hashlib, json, os, pathlib, sys, unicodedata
import orjson
from sidecar.errors import *
from sidecar.home import appends, batches, linux, reads, structure, writes
from sidecar.home.beneath import Home
from sidecar.home.rules import Rules
from sidecar.home.scan import scan
linux._libc()
def become(uid):
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
def told(action):
    try:
        value = action()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return ["done", repr(value)]
"""


def run_child(source: str, *arguments: object, prefix: tuple[str, ...] = ()) -> Any:
    """What `source` prints as its last line, as JSON; `prefix` is a command that starts the interpreter."""
    command = [*prefix, sys.executable, "-c", _BEGIN + source, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
