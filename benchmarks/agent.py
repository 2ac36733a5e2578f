"""Writes as an agent does: whole JSON lines appended in one write, small files, settings by rename."""

from __future__ import annotations

import json
import random
import time
import uuid
from pathlib import Path

# A vocabulary of the kind that transcripts have, so that they compress alike.
_TEXT = """the of and to in file function return value error test change read write line server request path
config module import class object string number list index result check build run commit branch user agent
session tool call output input start stop time data buffer cache retry timeout socket thread"""
WORDS = tuple(_TEXT.split())


class Agent:
    """One agent in `home`. What it writes compresses about as transcripts do; `seed` makes it repeatable."""

    def __init__(self, home: Path, seed: int = 1) -> None:
        self.home = home
        self._random = random.Random(seed)

    def line(self, size: int) -> bytes:
        """A transcript's line of about `size` bytes, as one JSON object."""
        head = {"type": "assistant", "uuid": str(uuid.UUID(int=self._random.getrandbits(128)))}
        overhead = len(json.dumps({**head, "text": ""})) + 1
        text = " ".join(self._random.choices(WORDS, k=max(1, (size - overhead) // 4)))
        return json.dumps({**head, "text": text[: max(0, size - overhead)]}).encode() + b"\n"

    def append(self, path: str, size: int) -> tuple[int, float]:
        """Append a line; returns where the file ends after it, and when that was (``time.monotonic()``)."""
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as opened:
            opened.write(self.line(size))
            end = opened.tell()
        return end, time.monotonic()

    def fill(self, path: str, size: int) -> int:
        """A transcript of about `size` bytes at once; returns its exact size."""
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        block = b"".join(self.line(1000) for _ in range(1000))
        with file.open("ab") as opened:
            while opened.tell() < size:
                opened.write(block)
            return opened.tell()

    def replace(self, path: str, size: int) -> None:
        """A settings file, written beside and renamed."""
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f"{file.name}.tmp.{self._random.getrandbits(32)}")
        beside.write_bytes(self.line(size))
        beside.rename(file)

    def turn(self, log: str, pause_seconds: float) -> None:
        """A question, some tool calls with a result file each, an answer, the client's own file."""
        self.append(log, 700)
        for _ in range(3):
            name = f"{log.removesuffix('.jsonl')}/tool-results/{self._random.getrandbits(40):x}.txt"
            self.append(name, 3000)
            self.append(log, 1500)
            time.sleep(pause_seconds)
            self.append(log, 2500)
        self.append(log, 1500)
        self.replace(".claude.json", 12_000)
