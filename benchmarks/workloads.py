"""What is backed up and restored: trees as `.claude` has them, the same bytes on every machine.

Everything comes from one seed. The text is made of words with the frequencies of a natural language, so that
it compresses about as transcripts do (zstd: to a third); no two files share a block that a deduplicating tool
could find by luck. `shrink` divides what a tree holds, for a smoke test.
"""

from __future__ import annotations

import itertools
import os
import random
import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

KIB, MIB = 1024, 1024 * 1024
SEED = 20250917
# Long ago, so that no tool takes a file for one that is being written.
FIRST_MTIME = 1_758_000_000
APPENDED = "projects/-workspace/session.jsonl"


@dataclass(frozen=True)
class Workload:
    """``make(directory, shrink)`` fills an empty directory."""

    name: str
    title: str
    make: Callable[[Path, int], None]


class Text:
    """Words without end, from `seed`."""

    def __init__(self, seed: object, pool_bytes: int) -> None:
        self.random = random.Random(f"{SEED} {seed}")
        letters = string.ascii_lowercase
        words = ["".join(self.random.choices(letters, k=self.random.randint(2, 10))) for _ in range(4000)]
        weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))
        count = pool_bytes // 6 + 1000
        self._pool = " ".join(self.random.choices(words, cum_weights=weights, k=count))

    def words(self, size_bytes: int) -> str:
        """`size_bytes` of text from a random place."""
        start = self.random.randrange(max(1, len(self._pool) - size_bytes))
        piece = self._pool[start : start + size_bytes]
        while len(piece) < size_bytes:
            piece += self._pool[: size_bytes - len(piece)]
        return piece

    def identity(self) -> str:
        return f"{self.random.getrandbits(128):032x}"

    def line(self, size_bytes: int) -> bytes:
        """One line of a transcript, of exactly `size_bytes` (at least 200)."""
        head = f'{{"type":"assistant","uuid":"{self.identity()}","parent":"{self.identity()}","text":"'
        return f'{head}{self.words(max(0, size_bytes - len(head) - 3))}"}}\n'.encode()

    def lines(self, size_bytes: int) -> Iterator[bytes]:
        """A transcript of exactly `size_bytes`, most lines short, a few of them long."""
        left = size_bytes
        while left > 0:
            size = min(60 * KIB, max(300, int(self.random.lognormvariate(7.0, 1.2))))
            size = left if left < size + 400 else size
            yield self.line(size)
            left -= size

    def sizes(self, count: int, total_bytes: int, spread: float) -> list[int]:
        """`count` sizes of log-normal `spread`, none under 300, that make `total_bytes`."""
        drawn = [self.random.lognormvariate(0, spread) for _ in range(count)]
        scale = (total_bytes - 300 * count) / sum(drawn)
        sizes = [300 + int(one * scale) for one in drawn]
        sizes[0] += total_bytes - sum(sizes)
        return sizes


def small(directory: Path, shrink: int = 1, count: int = 5000) -> None:
    """Notes, todos, memories and parts of skills, 1.5 KiB each in the mean."""
    count //= shrink
    text = Text(f"small {count}", 2 * MIB)
    for number, size in enumerate(text.sizes(count, count * 1536, 0.8)):
        write(directory / _small_name(text, number), [text.words(size).encode()], number)


def mixed(directory: Path, shrink: int = 1) -> None:
    """One file in twenty is a transcript; together these hold five sixths of the bytes."""
    count, total_bytes = 800 // shrink, 60 * MIB // shrink
    text = Text("mixed", 8 * MIB)
    transcripts = count // 20
    for number, size in enumerate(text.sizes(transcripts, total_bytes * 5 // 6, 1.0)):
        write(directory / f"projects/-w-{number % 8}/{text.identity()}.jsonl", text.lines(size), number)
    sizes = text.sizes(count - transcripts, total_bytes - total_bytes * 5 // 6, 1.0)
    for number, size in enumerate(sizes, start=transcripts):
        write(directory / _small_name(text, number), [text.words(size).encode()], number)


def transcripts(directory: Path, shrink: int = 1) -> None:
    """24 files of 3 to 70 MiB."""
    text = Text("transcripts", 32 * MIB // shrink)
    for number, size in enumerate(text.sizes(24, 600 * MIB // shrink, 0.7)):
        write(directory / f"projects/-w-{number % 6}/{text.identity()}.jsonl", text.lines(size), number)


def one_transcript(directory: Path, shrink: int = 1, size_bytes: int = 40 * MIB) -> None:
    """Grown by `append`, and by nothing else."""
    size_bytes //= shrink
    text = Text("one transcript", min(size_bytes, 32 * MIB))
    write(directory / APPENDED, text.lines(size_bytes), 0)


def append(directory: Path, round_number: int, size_bytes: int = 4 * KIB) -> None:
    """One more line to what `one_transcript` made."""
    line = Text(f"append {round_number}", 8 * KIB).line(size_bytes)
    with (directory / APPENDED).open("ab") as opened:
        opened.write(line)


def nothing(directory: Path, shrink: int = 1) -> None:
    """An area that holds nothing."""


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("small", "5,000 small files", small),
        Workload("mixed", "800 mixed files, 60 MiB", mixed),
        Workload("transcripts", "600 MiB of transcripts", transcripts),
        Workload("append", "a transcript of 40 MiB", one_transcript),
        Workload("empty", "an empty area", nothing),
    )
}


def _small_name(text: Text, number: int) -> str:
    place = number % 100
    names = (
        f"projects/-w-{place % 20}/memory/{number}.md",
        f"todos/{text.identity()}.json",
        f"skills/skill-{place}/reference/{number}.md",
        f"plugins/marketplaces/m/plugins/p-{place}/part-{number}.md",
        f"projects/-w-{place % 20}/session-{place}/tool-results/{number}.txt",
    )
    return names[number % len(names)]


def write(file: Path, pieces: Iterable[bytes], number: int) -> None:
    """`pieces` as the file, and its `number` as its age."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        opened.writelines(pieces)
    os.utime(file, (FIRST_MTIME + number, FIRST_MTIME + number))
