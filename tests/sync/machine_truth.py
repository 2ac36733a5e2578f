"""What must hold, whatever happens: the promises, told apart from the code that keeps them.

`Truth` watches every write that reaches the bucket and is told everything that agents and outside writers
make. What it finds broken is collected in ``broken`` as sentences.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable

from sidecar.area.keys import AreaKeys
from sidecar.sync.compare import is_transcript
from tests.sync.machine_journal import Account, lines_of
from tests.sync.memory_store import OUTSIDE, Change, Version

_NUMBERED = re.compile(rb'{"w":"([^"]+)","n":(\d+)}')


def whole_lines(body: bytes) -> bytes:
    return body[: body.rfind(b"\n") + 1]


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def holds(bodies: Iterable[bytes], lines: Counter[bytes]) -> bool:
    """Whether one of `bodies` has every one of `lines`."""
    return any(not lines - Counter(lines_of(body)) for body in bodies)


class Truth:
    """The bucket's history and the promises about it."""

    def __init__(self, keys: AreaKeys, *, mirrors: bool = False) -> None:
        self.keys = keys
        self.mirrors = mirrors
        self.broken: list[str] = []
        self.ever: dict[str, list[Version]] = {}
        self.kept: dict[str, set[bytes]] = {}
        self.made: dict[str, Counter[bytes]] = {}
        self.disordered: set[str] = set()
        self.behind: dict[tuple[str, bytes], set[bytes]] = {}
        self.authors: dict[str, set[str]] = {}
        self.changes = 0
        self.account = Account(keys, self.broken, mirrors=mirrors)
        self.order: dict[str, list[bytes]] = {}
        self.durable: dict[str, int] = {}
        self.told: dict[str, Counter[bytes]] = {}
        self.robbed: set[str] = set()

    # -- what agents and outside writers make

    def make(self, path: str, *contents: bytes) -> None:
        """Somebody writes these lines (of a transcript) or this version (of another file)."""
        self.made.setdefault(path, Counter()).update(contents)
        self.order.setdefault(path, []).extend(contents)

    def go_on(self, path: str, before: bytes, *lines: bytes) -> None:
        """Somebody writes `lines` behind `before`: whoever wrote that, it comes first everywhere."""
        known = {line for line in lines_of(whole_lines(before)) if _NUMBERED.fullmatch(line)}
        for line in lines:
            self.behind.setdefault((path, line), known)

    def by(self, path: str, author: str) -> None:
        """Who had a hand in `path`: with one alone, what it has last is what the bucket must have."""
        self.authors.setdefault(path, set()).add(author)

    # -- what reaches the bucket

    def watch(self, change: Change) -> None:
        """Judge one write."""
        self.changes += 1
        ours = change.by != OUTSIDE
        if ours and not change.key.startswith(self.keys.root):
            self.broken.append(f"{change.by} wrote outside the user's prefix: {change.key}")
        if change.key.startswith(self.keys.conflicts) and change.new:
            self._keep(change.key, change.new)
        if not change.key.startswith(self.keys.objects):
            return
        path = self.keys.path(change.key)
        if ours:
            self._judge(path, change)
        else:
            self.by(path, OUTSIDE)
            old, new = (lines_of(version.body) if version else [] for version in (change.old, change.new))
            if Counter(old) - Counter(new):
                self.robbed.add(path)
        if change.new:
            self.ever.setdefault(path, []).append(change.new)

    def _keep(self, key: str, new: Version) -> None:
        path = key[len(self.keys.conflicts) :].split("/", 2)[2][:-9]
        self._check_content(path, new.body, "a conflict copy")
        self.kept.setdefault(path, set()).add(new.body)

    def _judge(self, path: str, change: Change) -> None:
        if change.new is None:
            if not self.mirrors:
                self.broken.append(f"{change.by} deleted {path}")
            return
        if "/tool-results/" in path:
            return
        self._check_content(path, change.new.body, f"the object by {change.by}")
        if is_transcript(path) and change.new.body and not change.new.body.endswith(b"\n"):
            self.broken.append(f"{path} ends inside a line: {change.new.body!r}")
        if change.old:
            self._check_displaced(path, change.old, change.new)

    def _check_displaced(self, path: str, old: Version, new: Version) -> None:
        if old.body == new.body or old.body in self.kept.get(path, ()):
            return
        if is_transcript(path):
            lost = Counter(lines_of(old.body)) - Counter(lines_of(new.body))
            kept_whole = holds(self.kept.get(path, ()), Counter(lines_of(old.body)))
            if lost and not kept_whole and not new.body.startswith(old.body):
                self.broken.append(f"{path}: lines are in no object and no conflict copy: {dict(lost)}")
        elif new.metadata.get("base") != sha256(old.body) and not self._same_writer(old, new):
            self.broken.append(f"{path}: {old.body!r} was displaced by {new.body!r} and kept nowhere")

    def _same_writer(self, old: Version, new: Version) -> bool:
        said = old.metadata.get("sha256") == sha256(old.body)
        return said and old.metadata.get("writer") == new.metadata.get("writer")

    def _check_content(self, path: str, body: bytes, where: str) -> None:
        if is_transcript(path):
            self.check_lines(path, body, where)
        elif body not in self.made.get(path, ()):
            self.broken.append(f"{where}: {path} is no version that anybody made: {body!r}")

    # -- what a home holds

    def check_lines(self, path: str, body: bytes, where: str) -> None:
        """Whole lines that somebody wrote, none more often than it was written, each writer's in order."""
        lines, made = lines_of(body), self.made.get(path, Counter())
        strange = [line for line in lines if line not in made]
        if strange:
            self.broken.append(f"{where}: {path} has lines that nobody wrote: {strange}")
        more = Counter(lines) - made
        if more and not strange:
            self.broken.append(f"{where}: {path} has lines more often than they were written: {dict(more)}")
        if path not in self.disordered and where != "a conflict copy":
            self._check_order(path, lines, where)

    def _check_order(self, path: str, lines: list[bytes], where: str) -> None:
        last: dict[bytes, int] = {}
        left = set(lines)
        for line in lines:
            match = _NUMBERED.fullmatch(line)
            if not match or line not in left:
                continue
            left.remove(line)
            if late := left & self.behind.get((path, line), set()):
                self.broken.append(f"{where}: {path} has {line!r} in front of {late}, which it goes on from")
            if int(match[2]) <= last.get(match[1], -1):
                self.broken.append(f"{where}: {path} has the lines of {match[1]!r} out of order: {lines}")
            last[match[1]] = int(match[2])

    # -- what was promised to be durable

    def is_durable(self, path: str, content: bytes) -> bool:
        """Whether `content` was in the bucket at some time: objects lose nothing by ours after that."""
        bodies = [version.body for version in self.ever.get(path, ())] + list(self.kept.get(path, ()))
        if is_transcript(path):
            held = holds(bodies, Counter(lines_of(whole_lines(content)))) or not whole_lines(content)
        else:
            held = content in bodies
        return held or self.account.is_durable(path, content)

    def said_durable(self, author: str, path: str, content: bytes) -> None:
        """`author` was told that this version of a whole file is durable."""
        if self.authors.get(path) == {author}:
            at = _last(self.order[path], content)
            self.durable[path] = max(at, self.durable.get(path, -1))

    def said_lines_durable(self, path: str, content: bytes) -> None:
        """Somebody was told that the lines of this transcript are durable."""
        self.told[path] = self.told.get(path, Counter()) | Counter(lines_of(whole_lines(content)))

    def lines_to_come(self, path: str) -> Counter[bytes]:
        """The lines that were said to be durable, and that nobody took out of the transcript since."""
        gone = path in self.disordered or path in self.robbed
        return Counter() if gone else self.told.get(path, Counter())

    def is_older_than_durable(self, path: str, content: bytes) -> bool:
        """Whether the one author of `path` went on from `content`, and what came after is durable."""
        return len(self.authors.get(path, ())) == 1 and _last(self.order[path], content) < self.durable.get(
            path, -1
        )


def _last(versions: list[bytes], content: bytes) -> int:
    return len(versions) - 1 - versions[::-1].index(content)
