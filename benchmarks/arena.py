"""Where tools are compared: one server, one tree, a bucket for each tool; every run is checked.

A run that did not do its work is a `Defect`, never a figure.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks import workloads
from benchmarks.peers import Command, Restic, Site, Tool
from benchmarks.workloads import Workload
from sidecar.embedded import EmbeddedS3
from tests.servers import client

MEMORY = Path("/dev/shm")
LIMIT_SECONDS = 900
PIECE_BYTES = 4 * 1024 * 1024


class Defect(Exception):
    """A tool failed, or did not do what it was asked to."""


@dataclass(frozen=True)
class Sample:
    """One run of one client process."""

    wall_seconds: float
    cpu_seconds: float
    peak_kib: int
    anonymous_kib: int = 0  # where it was looked for


class Arena:
    """``with Arena(workload) as arena:`` is a server in memory and `arena.home`, the tree."""

    def __init__(
        self, workload: Workload, directory: Path = MEMORY, shrink: int = 1, look_seconds: float = 0
    ) -> None:
        self.workload, self._shrink, self._look_seconds = workload, shrink, look_seconds
        self._within = directory if directory.is_dir() else None
        self._numbers = itertools.count()
        self._sites: dict[str, Site] = {}

    def __enter__(self) -> Arena:
        self._stack = contextlib.ExitStack()
        name = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-", dir=self._within))
        self.directory = Path(name)
        self.home = self.fresh_directory("home")
        self.workload.make(self.home, self._shrink)
        self.server = self._stack.enter_context(EmbeddedS3(self.directory / "weed"))
        self._s3: Any = client(self.server)
        self._stack.callback(self._s3.close)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    # -- the work

    def backup(self, tool: Tool, endpoint: str) -> Sample:
        """The first backup, into a bucket that holds nothing; it is kept for what comes after."""
        site = self.empty_site(tool)
        sample = self.run(tool.backup(self.home, site.at(endpoint), first=True))
        self._check_stored(tool, site)
        if before := self._sites.pop(tool.name, None):
            self.drop(before)
        self._sites[tool.name] = site
        return sample

    def backup_again(self, tool: Tool, endpoint: str) -> Sample:
        """What a tool does that did the first backup."""
        site = self.filled(tool)
        sample = self.run(tool.backup(self.home, site.at(endpoint), first=False))
        self._check_stored(tool, site)
        return sample

    def restore(self, tool: Tool, endpoint: str) -> Sample:
        """Into an empty directory, by a tool that remembers nothing, as in a new pod."""
        site = self.filled(tool)
        with self._brief("restored") as into, self._brief("state") as state:
            sample = self.run(tool.restore(site.at(endpoint, state), into))
            check_equal(self.home, into)
        return sample

    def restore_nothing(self, tool: Tool, endpoint: str) -> Sample:
        """From a bucket that holds nothing."""
        if tool.name not in self._sites:
            self._sites[tool.name] = self.empty_site(tool)
        with self._brief("restored") as into, self._brief("state") as state:
            return self.run(tool.restore(self._sites[tool.name].at(endpoint, state), into), excusing=True)

    def append(self, number: int) -> None:
        workloads.append(self.home, number)

    # -- what it needs

    def run(self, command: Command, *, excusing: bool = False) -> Sample:
        """Run `command` to its end; see `benchmarks.stopwatch`."""
        output = self.directory / "output"
        stopwatch = (sys.executable, "-I", "-S", str(Path(__file__).parent / "stopwatch.py"))
        done = subprocess.run(
            [*stopwatch, str(LIMIT_SECONDS), str(self._look_seconds), str(output), *command.argv],
            env={"PATH": os.environ["PATH"], "HOME": str(self.directory), **command.environ},
            cwd=command.cwd or self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        said = output.read_text(errors="replace").strip() if output.exists() else ""
        code, *figures = done.stdout.split() or ["none"]
        if code != "0" and not (excusing and command.excused and command.excused in said.lower()):
            raise Defect(f"exit {code}: {(said or done.stderr)[-500:]}")
        return Sample(float(figures[0]), float(figures[1]), int(figures[2]), int(figures[3]))

    def empty_site(self, tool: Tool) -> Site:
        number = next(self._numbers)
        site = Site(f"bucket-{number}", self.fresh_directory(f"state-{number}"), self.server.environ())
        self.server.create_bucket(site.bucket)
        for command in tool.prepare(site):
            self.run(command)
        return site

    def drop(self, site: Site) -> None:
        self._s3.delete_bucket(Bucket=site.bucket)
        shutil.rmtree(site.state)

    def fresh_directory(self, name: str) -> Path:
        directory = self.directory / name
        directory.mkdir(mode=0o700)
        return directory

    def filled(self, tool: Tool) -> Site:
        """What `tool` backed up last; the first backup where it has not yet."""
        if tool.name not in self._sites:
            self.backup(tool, self.server.endpoint)
        return self._sites[tool.name]

    @contextlib.contextmanager
    def _brief(self, name: str) -> Iterator[Path]:
        directory = self.fresh_directory(f"{name}-{next(self._numbers)}")
        try:
            yield directory
        finally:
            shutil.rmtree(directory)

    def _check_stored(self, tool: Tool, site: Site) -> None:
        wanted = {path: file.stat().st_size for path, file in files_of(self.home).items()}
        if isinstance(tool, Restic):
            self.run(tool.contents(site))
            said = orjson.loads((self.directory / "output").read_bytes().splitlines()[-1])
            found = (said["total_size"], said["total_file_count"])
            if found[0] != sum(wanted.values()):
                raise Defect(f"the snapshot holds {found[0]:,} bytes, not {sum(wanted.values()):,}")
            return
        prefix = tool.prefix() or ""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=site.bucket, Prefix=prefix)
        objects = [one for page in pages for one in page.get("Contents", ())]
        sizes = {one["Key"].removeprefix(prefix): one["Size"] for one in objects}
        if sizes != wanted:
            different = [path for path in wanted.keys() | sizes.keys() if wanted.get(path) != sizes.get(path)]
            raise Defect(f"{len(different)} of {len(wanted)} objects are not as the files, as {different[0]}")


def files_of(directory: Path) -> dict[str, Path]:
    return {str(f.relative_to(directory)): f for f in directory.rglob("*") if f.is_file()}


def check_equal(one: Path, other: Path) -> None:
    """Both trees hold the same files with the same bytes.

    Raises
    ------
    Defect: they do not.
    """
    wanted, found = files_of(one), files_of(other)
    if wanted.keys() != found.keys():
        different = sorted(wanted.keys() ^ found.keys())
        raise Defect(f"{len(different)} files are on one side only, as {different[0]}")
    for path, file in wanted.items():
        if not _same(file, found[path]):
            raise Defect(f"{path} was restored with other bytes")


def _same(one: Path, other: Path) -> bool:
    with one.open("rb", buffering=0) as here, other.open("rb", buffering=0) as there:
        while (piece := here.read(PIECE_BYTES)) == there.read(PIECE_BYTES):
            if not piece:
                return True
    return False
