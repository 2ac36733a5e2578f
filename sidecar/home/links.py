"""Symbolic links: which ones stay inside the home, and the form in which they are kept.

Nobody here follows one. A link is judged by its text alone: ``..`` may stand only in front, where it climbs
from the real directory that holds the link, and must not climb above the home. Every name after that leads
downwards, so a chain of kept links cannot leave the home either. A ``..`` behind a name is refused: that
name may be a link, and then the kernel climbs from where it leads.
"""

from __future__ import annotations

from sidecar.home.beneath import Home
from sidecar.names import MAX_KEY_BYTES


def kept_target(home: Home, path: str, target: str) -> str:
    """`target` of the link at `path` as it is kept: an absolute one that leads into the home made relative.

    One that leads elsewhere comes back as it is; `link_problem` refuses it.
    """
    if not target.startswith("/"):
        return target
    for root in (str(home.root), str(home.given)):
        if target == root or target.startswith(root + "/"):
            below = target[len(root) :].strip("/")
            return "/".join([".."] * path.count("/") + ([below] if below else [])) or "."
    return target


def link_problem(path: str, target: str) -> str:
    """Why a link at `path` with this (relative) `target` is not kept, as half a sentence; empty if it is."""
    if any(0xD800 <= ord(c) <= 0xDFFF for c in target):
        return "it is a link whose target is not valid UTF-8"
    if not target or any(ord(c) < 32 or ord(c) == 127 for c in target):
        return "it is a link whose target holds a control character"
    if len(target.encode()) > MAX_KEY_BYTES:
        return f"it is a link whose target is longer than {MAX_KEY_BYTES} bytes"
    if target.startswith("/"):
        return "it is a link that leaves the home"
    return _climb_problem(path.count("/"), target)


def _climb_problem(depth: int, target: str) -> str:
    named = False
    for part in target.split("/"):
        if part == "..":
            if named:
                return "it is a link with '..' behind a name in its target"
            depth -= 1
            if depth < 0:
                return "it is a link that leaves the home"
        elif part not in ("", "."):
            named = True
    return ""
