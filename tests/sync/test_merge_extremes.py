"""Uniting what no client should write, and more of it than fits: the same result at every block size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.sync import bodies, merge
from sidecar.sync.bodies import Bytes, Pieced

PIECE = st.sampled_from([b"a", b"b", b"\r\n", b"\n", b"\0" * 9, b"\xff", b"a\n", b"b\n", b"{}\n", b"\r"])
BODY = st.lists(PIECE, max_size=12).map(b"".join)
WHOLE_LINES = BODY.map(lambda body: body[: body.rfind(b"\n") + 1])


def joined(union: merge.Union, remote: bytes, local: bytes) -> bytes:
    body = Pieced(union.spans, Bytes(remote), Bytes(local))
    return body.read(0, body.size)


def all_of(remote: bytes, local: bytes) -> tuple[object, ...]:
    """Everything that `merge` makes of two versions."""
    r, end = Bytes(remote), len(local)
    return (
        joined(merge.unite(r, Bytes(local), end), remote, local),
        joined(merge.rewritten(r, Bytes(local), end, 0), remote, local),
        merge.common_prefix(r, Bytes(local), len(remote), end),
        tuple(merge.lines(r, 0, len(remote))),
        tuple(merge.line_start(r, offset) for offset in range(len(remote) + 1)),
    )


@settings(deadline=None)
@given(BODY, WHOLE_LINES, st.integers(1, 7))
def test_the_size_of_a_block_changes_nothing(remote: bytes, local: bytes, size: int) -> None:
    wanted = all_of(remote, local)
    with pytest.MonkeyPatch.context() as patch:
        for module in (merge, bodies):
            patch.setattr(module, "BLOCK_BYTES", size)
        assert all_of(remote, local) == wanted


@settings(deadline=None)
@given(BODY, WHOLE_LINES)
def test_any_bytes_at_all_are_in_the_union_and_it_ends_at_a_line_end(remote: bytes, local: bytes) -> None:
    united = all_of(remote, local)[0]
    assert isinstance(united, bytes)
    assert united.startswith(remote)
    assert not united or united.endswith(b"\n")
    assert set(local.split(b"\n")) <= set(united.split(b"\n"))
    assert all_of(united, local)[0] == united


PROGRAM = """
import resource, sys
from pathlib import Path
from sidecar.sync import merge
from sidecar.sync.bodies import Pieced, Spool, sha256

def spool(name):
    file = open(name, "rb")
    return Spool(iter(lambda: file.read(1 << 20), b""), Path(name).parent)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

remote, local = spool(sys.argv[1]), spool(sys.argv[2])
before = peak()
union = merge.unite(remote, local, local.size)
body = Pieced(union.spans, remote, local)
sha256(body)
print(body.size, peak() - before)
"""


def test_two_transcripts_that_parted_early_are_united_in_little_memory(tmp_path: Path) -> None:
    """Of each line a hash stays in memory, never its bytes: 24 MiB on each side, in lines of 1 KiB."""
    for name in ("remote", "local"):
        with (tmp_path / name).open("wb") as file:
            file.write(b'{"shared":1}\n')
            for number in range(24 * 1024):
                file.write(f'{{"w":"{name}","n":{number},"x":"'.encode() + b"x" * 1000 + b'"}\n')
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        PROGRAM,
        str(tmp_path / "remote"),
        str(tmp_path / "local"),
    ]
    ran = subprocess.run(command, check=True, capture_output=True, cwd=Path.cwd(), env=dict(os.environ))
    size, grown_kib = (int(number) for number in ran.stdout.split())
    assert size > 48 * 1024 * 1000
    assert grown_kib < 16 * 1024
