"""One ``s5cmd run``: lines go in by its standard input, each answer is waited for by the thread that asked.

It is started once for many objects, so its start costs nothing that counts. It ends with us, also where we
are killed. Nothing secret is on its command line; what it may know of us is in its environment.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field

IDLE_SECONDS = 10.0
_END_SECONDS = 1.0
_READ_BYTES = 65536
# Has the kernel kill it when the thread that started it ends: https://man7.org/linux/man-pages/man2/prctl.2.html
_TIED_TO_US = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
ENDED = "s5cmd ended before it had answered"
NOT_TAKEN = "s5cmd had ended"
SILENT = "s5cmd did not answer in time"


class _Ticket(Struct):
    """``error``: what s5cmd said, empty where it succeeded."""

    error: str = ENDED
    answered: threading.Event = field(default_factory=threading.Event)


class Batch:
    """``program run`` with `environ`, working in `directory`; thread-safe.

    Parameters
    ----------
    workers: commands in flight at most.
    directory: holds the local side of each command, as a file that `name` names; nobody else writes there.
    """

    def __init__(
        self, program: str, environ: Mapping[str, str], workers: int, directory: Path, idle_seconds: float
    ) -> None:
        self._directory = directory
        self._idle_seconds = idle_seconds
        self._tickets: dict[str, _Ticket] = {}
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._closed = False
        self._process = self._started(program, environ, workers)

    @property
    def open(self) -> bool:
        """True while it takes more commands."""
        with self._lock:
            return not self._closed

    def run(self, words: Sequence[str], name: str, seconds: float) -> str:
        """Have one command carried out; returns what went wrong, empty if nothing did.

        ``NOT_TAKEN`` means that it was not even begun, ``ENDED`` and ``SILENT`` that nobody knows.

        Parameters
        ----------
        words: the command, with the path of `name` in the directory among them.
        seconds: after this time without an answer it is given up, with all that is in flight.
        """
        line = shlex.join(words).encode() + b"\n"
        ticket = _Ticket()
        with self._lock:
            if self._closed:
                return NOT_TAKEN
            self._tickets[name] = ticket
        try:
            with self._writing:
                self._write(line)
        except OSError:
            return self._taken_back(name, ENDED)
        if not ticket.answered.wait(seconds):
            self.end(at_once=True)
            return self._taken_back(name, SILENT)
        return ticket.error

    def retire(self) -> None:
        """Take no more commands; what is in flight is carried to its end."""
        with self._lock:
            self._closed = True
        with contextlib.suppress(OSError), self._writing:
            assert self._process.stdin is not None
            self._process.stdin.close()

    def end(self, *, at_once: bool = False) -> None:
        """Stop it; with `at_once` whatever it is doing."""
        with self._lock:
            self._closed = True
        if at_once or self._tickets:
            self._kill()
        self.retire()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._process.stdin.write(rest) :]
        except ValueError as closed:  # retired meanwhile
            raise BrokenPipeError from closed

    def _taken_back(self, name: str, error: str) -> str:
        with self._lock:
            self._tickets.pop(name, None)
        return error

    def _started(self, program: str, environ: Mapping[str, str], workers: int) -> subprocess.Popen[bytes]:
        """The process, as a child of the thread that listens to it until its end."""
        # No retries of its own: it would send a write again over another's without a look.
        arguments = ["--json", "--log", "debug", "--numworkers", str(workers), "--retry-count", "0", "run"]
        begun: queue.SimpleQueue[subprocess.Popen[bytes] | OSError] = queue.SimpleQueue()

        def start_and_listen() -> None:
            try:
                # A group of its own: what ends us by the keyboard must not end the last backup's carrier.
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _TIED_TO_US, str(os.getpid()), program, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=dict(environ),
                    cwd=self._directory,
                    process_group=0,
                    bufsize=0,
                )
            except OSError as error:
                begun.put(error)
                return
            begun.put(process)
            self._listen(process)

        threading.Thread(target=start_and_listen, name="s5cmd", daemon=True).start()
        got = begun.get()
        if isinstance(got, OSError):
            raise got
        return got

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN | select.POLLHUP)
        rest = b""
        while True:
            if not poll.poll(self._idle_seconds * 1000):
                self._retire_if_idle()
                continue
            data = os.read(process.stdout.fileno(), _READ_BYTES)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._answer(line)
        self._over(process)

    def _retire_if_idle(self) -> None:
        with self._lock:
            if self._tickets:
                return
            self._closed = True
        self.retire()

    def _answer(self, line: bytes) -> None:
        import orjson

        try:
            said = orjson.loads(line)
        except orjson.JSONDecodeError:
            return  # a word to people: whoever waits for an answer is told by the process's end
        name = self._named(said)
        with self._lock:
            ticket = self._tickets.pop(name, None)
        if ticket is not None:
            ticket.error = (
                "" if said.get("success") is True else str(said.get("error") or "it said no reason")
            )
            ticket.answered.set()

    def _named(self, said: Mapping[str, object]) -> str:
        """Which file an answer is about. The directory's name is random, so that no key can contain it."""
        place = f"{self._directory}/"
        for part in ("source", "destination", "command", "job"):
            text = str(said.get(part, ""))
            if place in text:
                return text.rpartition(place)[2].split(" ", 1)[0].rstrip("'\"")
        return ""

    def _over(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._closed = True
            left, self._tickets = self._tickets, {}
        for ticket in left.values():
            ticket.answered.set()
        assert process.stdout is not None and process.stdin is not None
        process.stdout.close()
        with contextlib.suppress(OSError), self._writing:
            process.stdin.close()
        process.wait()
