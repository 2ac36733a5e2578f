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
from typing import TYPE_CHECKING

from sidecar.errors import HomeError
from sidecar.home.beneath import Home
from sidecar.home.changes import Changes, Gathered
from sidecar.home.rules import Rules
from sidecar.home.telling import Telling
from sidecar.logs import log

if TYPE_CHECKING:
    from sidecar.home.notices import Notices

__all__ = ["Changes", "Watch"]

CHECK_SECONDS = 5.0
"""How often a quiet watch asks whether the home is still where it was."""

# Notices that come in this time are read together; also the longest that one waits.
_TOGETHER_SECONDS = 0.01
# A block of notices at least this long: more are waiting, and the kernel's queue is finite.
_MANY_BYTES = 32 * 1024
# A round, or a repair after an overflow, may use a twentieth of one processor.
_REST_PER_WORK = 19
_STOP_SECONDS = 5.0


class Watch:
    """A watch over one home, from `start` to `stop`; both before the home is closed.

    Its first change is "everything": what came before the watch is for a scan to find.
    """

    def __init__(self, home: Home, rules: Rules, on_change: Callable[[], None], poll_seconds: float) -> None:
        from sidecar.home.rounds import Rounds

        self._home = home
        self._rules = rules
        self._rounds = Rounds(home, rules, self._is_stopping)
        self._notices: Notices | None = None
        self._on_change = on_change
        self._poll_seconds = poll_seconds
        self._gathered = Gathered()
        self.telling = Telling()
        self._longest_seconds = 0.0
        self._armed = threading.Event()
        self._fallback = self._fallback_reason = ""
        self._stopping = False
        self._wake = os.eventfd(0)
        self._wake_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    @classmethod
    def start(
        cls, home: Home, rules: Rules, on_change: Callable[[], None], *, poll_seconds: float = 2.0
    ) -> Watch:
        """Begin to watch `home`; returns at once. Whether there are notices at all is known by then.

        Parameters
        ----------
        on_change: called from the watch's thread when there is something to `take`: about a hundred times a
            second at most, in a flood some hundred times. It must be cheap, for notices wait meanwhile.
        poll_seconds: seconds between two rounds, should there be no notices. Rounds that take long are
            further apart.
        """
        watch = cls(home, rules, on_change, poll_seconds)
        watch._open_notices()
        watch._thread.start()
        return watch

    def take(self) -> Changes:
        """What has gathered since the last call, which is then forgotten here."""
        return self._gathered.take()

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
    def fallback_reason(self) -> str:
        """``limit``: a limit of the node, the process or the watch is reached; ``unsupported``; or empty."""
        return self._fallback_reason

    @property
    def longest_seconds(self) -> float:
        """How long a change may stay untold, by the last round; 0 while the kernel gives notices."""
        return self._longest_seconds

    @property
    def alive(self) -> bool:
        """False once the watch has ended, by `stop` or by a fault of its own."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the watch. Stopping twice is fine; what has gathered can still be taken."""
        self._stopping = True
        with self._wake_lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)
        if self._thread is not threading.current_thread():
            self._thread.join(_STOP_SECONDS)

    def _open_notices(self) -> None:
        from sidecar.home.notices import Notices

        try:
            self._notices = Notices(self._home, self._rules, self._is_stopping)
        except HomeError as error:
            self._fall_back(error)

    def _fall_back(self, error: Exception) -> None:
        self._fallback_reason = getattr(error, "reason", "unsupported")
        self._fallback = str(error)
        every = f"every {self._poll_seconds:g} s"
        log.warning("Changes in the home are looked for %s: %s", every, error)

    def _run(self) -> None:
        try:
            if self._notices is not None:
                self._follow_notices(self._notices)
            if self._fallback:
                self._follow_rounds()
        except Exception:
            log.exception("The watch over the home has failed: changes wait for the next scan")
        finally:
            with self._wake_lock:
                os.close(self._wake)
                self._wake = -1

    def _follow_notices(self, notices: Notices) -> None:
        try:
            with notices:
                self._gather(notices.arm())
                self._begin()
                self._wait_for(notices)
        except (HomeError, OSError) as error:
            if not self._stopping:
                self._fall_back(error)

    def _wait_for(self, notices: Notices) -> None:
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
            worked = time.monotonic() - began
            seconds = max(self._poll_seconds, _REST_PER_WORK * worked)
            self._longest_seconds = 2 * (seconds + worked)

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
            self._gathered.add(path)
            self.telling.add(path)
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
