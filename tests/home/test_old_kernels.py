"""Kernels and sandboxes without openat2 and renameat2: a seccomp filter really forbids the calls."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from tests.home.children import REPOSITORY

# Of <linux/audit.h>, <linux/seccomp.h>, <linux/filter.h> and the system call tables.
_RENAMEAT2 = {"x86_64": 316, "aarch64": 276}

_FILTERED = """
import ctypes, os, struct, sys
number, answer = int(sys.argv[1]), int(sys.argv[2])
LOAD, EQUAL, RETURN, ALLOW, ERRNO = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000
program = b"".join(struct.pack("HBBI", *line) for line in (
    (LOAD, 0, 0, 0), (EQUAL, 2, 0, 437), (EQUAL, 1, 0, number),
    (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ERRNO | answer)))
lines = ctypes.create_string_buffer(program, len(program))
filter = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(lines))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, filter, 0, 0) == 0, ctypes.get_errno()
assert libc.syscall(437, -1, 0, 0, 0) == -1 and ctypes.get_errno() == answer
assert libc.syscall(number, -1, 0, -1, 0, 0) == -1 and ctypes.get_errno() == answer
os.execv(sys.executable, [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *sys.argv[3:]])
"""


@pytest.mark.skipif(
    platform.machine() not in _RENAMEAT2,
    reason="needs an x86-64 or arm64 machine: only their system call numbers are known",
)
@pytest.mark.parametrize(
    ("answer", "rooms"),
    [("ENOSYS", "beneath scan reads writes appends structure"), ("EPERM", "beneath structure")],
)
def test_everything_holds_without_the_calls_of_today(answer: str, rooms: str) -> None:
    import errno

    arguments = [_RENAMEAT2[platform.machine()], getattr(errno, answer)]
    files = [f"tests/home/test_{room}.py" for room in rooms.split()]
    command = [sys.executable, "-c", _FILTERED, *map(str, arguments), *files]
    environment = os.environ | {"SIDECAR_TEST_OLD_KERNEL": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert " passed" in done.stdout
