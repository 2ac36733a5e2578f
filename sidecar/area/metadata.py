"""The user metadata of an object: what S3 does not keep of a file, in the form that rclone writes too.

``mtime``: seconds since the epoch with a fraction (https://rclone.org/s3/#modified-time-and-hashes).
``mode``: permission bits in octal. ``writer``: who wrote this version. ``sha256``: of its content.
``base``: the SHA-256 of the version that it was made from, so that ancestry can be told without clocks.
``sequence``: the last journal entry of `writer` that was made before this version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

_MTIME = re.compile(r"(-?\d{1,12})(?:\.(\d{1,9})\d*)?")
_MODE = re.compile(r"0?[0-7]{3,6}")
_SEQUENCE = re.compile(r"[0-9]{1,18}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class FileMetadata(Struct, frozen=True):
    """What an object says of its file; None or empty where it says nothing that can be read."""

    mtime_ns: int | None = None
    mode: int | None = None
    writer: str = ""
    sha256: str = ""
    base: str = ""
    sequence: int = 0


def written(metadata: FileMetadata) -> dict[str, str]:
    """`metadata` as headers (without ``x-amz-meta-``)."""
    headers = {"writer": metadata.writer, "sha256": metadata.sha256, "base": metadata.base}
    if metadata.mtime_ns is not None:
        seconds, nanoseconds = divmod(metadata.mtime_ns, 1_000_000_000)
        headers["mtime"] = f"{seconds}.{nanoseconds:09d}"
    if metadata.mode is not None:
        headers["mode"] = f"{metadata.mode:04o}"
    if metadata.sequence:
        headers["sequence"] = str(metadata.sequence)
    return {name: value for name, value in headers.items() if value}


def read(headers: Mapping[str, str]) -> FileMetadata:
    """What `headers` say; whoever wrote them, what cannot be read counts as absent."""
    return FileMetadata(
        mtime_ns=_mtime_ns(headers.get("mtime", "")),
        mode=int(headers["mode"], 8) & 0o777 if _MODE.fullmatch(headers.get("mode", "")) else None,
        writer=headers.get("writer", ""),
        sha256=headers["sha256"] if _DIGEST.fullmatch(headers.get("sha256", "")) else "",
        base=headers["base"] if _DIGEST.fullmatch(headers.get("base", "")) else "",
        sequence=int(headers["sequence"]) if _SEQUENCE.fullmatch(headers.get("sequence", "")) else 0,
    )


def _mtime_ns(text: str) -> int | None:
    match = _MTIME.fullmatch(text)
    if not match:
        return None
    seconds, fraction = match.groups()
    return int(seconds) * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))
