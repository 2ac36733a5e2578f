"""Which names are ours to carry: user ids and paths that are safe on a disk and in a bucket alike.

Both sides apply the same rule, so that what one refuses the other never produces.
"""

from __future__ import annotations

import re

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
MAX_KEY_BYTES = 1024
# Nearly every path: printable ASCII, and no part that is empty, ".", ".." or too long.
_PLAIN_PART = r"(?!\.{1,2}(?:/|\Z))[ -.0-\[\]-~]{1,255}"
_PLAIN_PATH = re.compile(f"{_PLAIN_PART}(?:/{_PLAIN_PART})*")


def user_id_problem(user_id: str) -> str:
    """Why `user_id` cannot name a prefix in the bucket, as half a sentence; empty if it can.

    The rule is the layout's: 1 to 256 bytes of printable text, no ``/``, no ``\\``, no control character,
    not ``.`` or ``..``. Anything else is refused, never repaired: a repaired name could be another user's.
    """
    if not user_id:
        return "it is empty"
    if any(0xD800 <= ord(c) <= 0xDFFF for c in user_id):
        return "it is not valid UTF-8"
    if len(user_id.encode()) > 256:
        return "it is longer than 256 bytes"
    if user_id in (".", ".."):
        return "it is a relative path"
    if "/" in user_id or "\\" in user_id:
        return "it contains a slash or a backslash"
    if not user_id.isprintable():
        return "it contains a control or unprintable character"
    return ""


def path_problem(path: str, key_prefix_bytes: int = 0) -> str:
    """Why `path` cannot be both a file in a home and a key in a bucket; empty if it can.

    Applied in both directions, so that what one side refuses the other never produces.
    """
    if key_prefix_bytes + len(path) <= MAX_KEY_BYTES and _PLAIN_PATH.fullmatch(path):
        return ""
    if not path:
        return "an empty name"
    if any(0xD800 <= ord(c) <= 0xDFFF for c in path):
        return "a name that is not valid UTF-8"
    if any(ord(c) < 32 or ord(c) == 127 for c in path):
        return "a control character in the name"
    if "\\" in path:
        return "a backslash in the name"
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "an empty part, '.' or '..' in the name"
    if any(len(part.encode()) > 255 for part in parts):
        return "a part of the name longer than 255 bytes"
    if key_prefix_bytes + len(path.encode()) > MAX_KEY_BYTES:
        return f"a key longer than {MAX_KEY_BYTES} bytes"
    return ""
