"""What changes in the home, known while it happens.

One thread waits for the kernel's notices (`notices`), or, where there are none, goes round and looks
(`rounds`). It costs nothing while nothing happens.

Promised: a file that the rules take, and that a process of this machine writes by way of the home, is among
the paths of a later `take`, or that says everything. Not promised: what happens elsewhere (on another
machine, through a second name outside the home), a write through a mapping before its file is closed, the end
of a file that lived for a moment only, and that a path was changed because it is told. So the interval's full
scan stays. Directories as such are not told.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.errors import HomeError
from sidecar.home.beneath import Home
from sidecar.home.rules import Rules
from sidecar.logs import log

if TYPE_CHECKING:
    from sidecar.home.notices import Notices

PATHS_KEPT = 20_000
"""More changed paths than this are told as "everything": a scan is then cheaper, and memory has a bound."""

CHECK_SECONDS = 5.0
"""How often a quiet watch asks whether the home is still where it was."""

# Notices that come in this time are read together; also the longest that one waits.
_TOGETHER_SECONDS = 0.01
# A block of notices at least this long: more are waiting, and the kernel's queue is finite.
_MANY_BYTES = 32 * 1024
# A round, or a repair after an overflow, may use a twentieth of one processor.
_REST_PER_WORK = 19
_STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed since the last `take`.

    ``paths`` are relative paths of files: written, made, renamed to or from, deleted, or with other
    attributes. ``everything``: only a scan can tell, and ``paths`` is empty. ``first_at_ns`` is when the
    first of it was noticed (``time.monotonic_ns``), None if nothing was.
    """

    paths: frozenset[str] = frozenset()
    everything: bool = False
    first_at_ns: int | None = None


class Watch:
    """A watch over one home, from `start` to `stop`; both before the home is closed.

    Its first change is "everything": what came before the watch is for a scan to find.
    """

    def __init__(self, home: Home, rules: Rules, on_change: Callable[[], None], poll_seconds: float) -> None:
        from sidecar.home.notices import Notices
        from sidecar.home.rounds import Rounds

        self._home = home
        self._notices = Notices(home, rules, self._is_stopping)
        self._rounds = Rounds(home, rules, self._is_stopping)
        self._on_change = on_change
        self._poll_seconds = poll_seconds
        self._lock = threading.Lock()
        self._paths: set[str] = set()
        self._everything = False
        self._first_at_ns: int | None = None
        self._armed = threading.Event()
        self._fallback = ""
        self._stopping = False
        self._wake = os.eventfd(0)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    @classmethod
    def start(
        cls, home: Home, rules: Rules, on_change: Callable[[], None], *, poll_seconds: float = 2.0
    ) -> Watch:
        """Begin to watch `home`; returns at once.

        Parameters
        ----------
        on_change: called from the watch's thread when there is something to `take`, at most about a hundred
            times a second. It must be cheap: notices wait meanwhile.
        poll_seconds: seconds between two rounds, should there be no notices. Rounds that take long are
            further apart.
        """
        watch = cls(home, rules, on_change, poll_seconds)
        watch._thread.start()
        return watch

    def take(self) -> Changes:
        """What has gathered since the last call, which is then forgotten here."""
        with self._lock:
            taken = Changes(frozenset(self._paths), self._everything, self._first_at_ns)
            self._paths = set()
            self._everything = False
            self._first_at_ns = None
        return taken

    @property
    def armed(self) -> bool:
        """True once nothing escapes: every directory is watched, or the first round is done."""
        return self._armed.is_set()

    def wait_until_armed(self, timeout_seconds: float | None = None) -> bool:
        """Wait for `armed`; False if it did not come in time."""
        return self._armed.wait(timeout_seconds)

    @property
    def fallback(self) -> str:
        """Why the home is looked at in rounds, as a sentence; empty while the kernel gives notices."""
        return self._fallback

    @property
    def alive(self) -> bool:
        """False once the watch has ended, by `stop` or by a fault of its own."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the watch. Stopping twice is fine; what has gathered can still be taken."""
        self._stopping = True
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)
        if self._thread is not threading.current_thread():
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        try:
            try:
                with self._notices as notices:
                    self._follow_notices(notices)
            except (HomeError, OSError) as error:
                self._fallback = str(error)
                every = f"every {self._poll_seconds:g} s"
                log.warning("Changes in the home are looked for %s: %s", every, error)
                self._follow_rounds()
        except Exception:
            log.exception("The watch over the home has failed: changes wait for the next scan")
        finally:
            with self._lock:
                os.close(self._wake)
                self._wake = -1

    def _follow_notices(self, notices: Notices) -> None:
        self._gather(notices.arm())
        self._begin()
        missing = ""
        while self._sleep(CHECK_SECONDS, notices.fileno()):
            block = notices.read()
            if not block:
                missing = self._check(missing)
                continue
            if self._gather(notices.changes(block)):
                self._tell()
            if notices.lost:
                self._repair(notices.arm())
            elif len(block) < _MANY_BYTES:
                self._sleep(_TOGETHER_SECONDS)

    def _check(self, known: str) -> str:
        """Why the home is not where it was, told once: no notice says that a directory above it was moved."""
        try:
            self._home.check()
        except HomeError as error:
            if str(error) != known:
                self._gather((None,))
                self._tell()
            return str(error)
        return ""

    def _repair(self, arming: Iterable[str | None]) -> None:
        """Look for directories whose notices were lost: a flood must not keep a processor busy with it."""
        began = time.monotonic()
        self._gather(arming)
        self._gather((None,))
        self._tell()
        self._sleep(min(1.0, _REST_PER_WORK * (time.monotonic() - began)))

    def _follow_rounds(self) -> None:
        begun, problem, seconds = False, "", 0.0
        while self._sleep(seconds):
            began = time.monotonic()
            try:
                found = self._gather(self._rounds.changes())
                problem = ""
            except HomeError as error:
                # Once: the scan that follows says to everybody what is wrong.
                found = str(error) != problem and self._gather((None,))
                problem = str(error)
            if not problem and not begun:
                self._begin()
                begun = True
            elif found:
                self._tell()
            seconds = max(self._poll_seconds, _REST_PER_WORK * (time.monotonic() - began))

    def _begin(self) -> None:
        if not self._stopping:
            self._gather((None,))
            self._armed.set()
            self._tell()

    def _gather(self, changes: Iterable[str | None]) -> bool:
        """Keep `changes` (None: everything) for the next `take`; False if there are none."""
        found = False
        for path in changes:
            found = True
            with self._lock:
                if self._first_at_ns is None:
                    self._first_at_ns = time.monotonic_ns()
                if path is None or len(self._paths) >= PATHS_KEPT:
                    self._everything = True
                    self._paths = set()
                elif not self._everything:
                    self._paths.add(path)
            if self._stopping:
                break
        return found

    def _tell(self) -> None:
        try:
            self._on_change()
        except Exception:
            log.exception("Nobody could be told of a change in the home; it waits for the next scan")

    def _is_stopping(self) -> bool:
        return self._stopping

    def _sleep(self, seconds: float | None, *descriptors: int) -> bool:
        """Wait for input on a descriptor or for the time to pass; False if the watch is to end."""
        poll = select.poll()
        for descriptor in (self._wake, *descriptors):
            poll.register(descriptor, select.POLLIN)
        poll.poll(None if seconds is None else seconds * 1000)
        return not self._stopping
