"""Pods for tests: each has a disk of its own (home and state) and shares the bucket with the others."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.area.store import Store
from sidecar.settings import Settings
from sidecar.sync.initial import backup_home, initial_sync, restore_area
from sidecar.sync.results import BackupResult, SyncResult
from sidecar.sync.workspace import Workspace

MakeSettings = Callable[..., Settings]
T0 = 1_700_000_000_000_000_000


@dataclass
class Pod:
    """One pod of one user. Every call opens and closes the workspace, as a restarted container does."""

    settings: Settings
    user: str = "ada"
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        self.store = Store.connect(self.settings)

    @property
    def home(self) -> Path:
        return self.settings.home_of(self.user)

    def open(self, *, live: bool = True) -> Workspace:
        return Workspace.open(self.settings, self.store, self.user, live=live)

    def start(self, **options: Any) -> SyncResult:
        """The init hook."""
        with self.open(live=False) as workspace:
            return initial_sync(workspace, **options)

    def backup(self, **options: Any) -> BackupResult:
        with self.open() as workspace:
            return backup_home(workspace, **options)

    def merge(self) -> SyncResult:
        """A restore into the live home."""
        with self.open() as workspace:
            return restore_area(workspace)

    def requests(self) -> int:
        """Requests sent to the store so far."""
        return sum(flow.requests for flow in self.store.requests.values())

    def write(self, path: str, data: bytes | str, *, mode: int = 0o600, mtime_ns: int | None = None) -> Path:
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data.encode() if isinstance(data, str) else data)
        file.chmod(mode)
        if mtime_ns is not None:
            os.utime(file, ns=(mtime_ns, mtime_ns))
        return file

    def append(self, path: str, data: bytes | str) -> None:
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as opened:
            opened.write(data.encode() if isinstance(data, str) else data)

    def read(self, path: str) -> bytes:
        return (self.home / path).read_bytes()

    def tree(self) -> dict[str, tuple[str, int, int, bytes]]:
        """(kind, mode, mtime_ns, content) of every path in the home."""
        seen: dict[str, tuple[str, int, int, bytes]] = {}
        for path in sorted(self.home.rglob("*")):
            name, found = str(path.relative_to(self.home)), path.lstat()
            if path.is_symlink():
                seen[name] = ("link", 0, found.st_mtime_ns, os.fsencode(path.readlink()))
            elif path.is_dir():
                seen[name] = ("directory", found.st_mode & 0o777, found.st_mtime_ns, b"")
            else:
                seen[name] = ("file", found.st_mode & 0o777, found.st_mtime_ns, path.read_bytes())
        return seen


def pods(make: MakeSettings, bucket: str, place: Path, count: int, **overrides: Any) -> list[Pod]:
    """`count` pods of one user on `bucket`."""
    return [
        Pod(
            make(
                bucket,
                home=str(place / f"pod-{number}" / ".claude"),
                state_dir=place / f"state-{number}",
                **overrides,
            )
        )
        for number in range(1, count + 1)
    ]


def objects(s3: Any, bucket: str, prefix: str = "user_data/ada/.claude/") -> dict[str, bytes]:
    """What an outside reader finds: path to content."""
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return {
        entry["Key"][len(prefix) :]: s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
        for entry in listed
    }


def conflicts(s3: Any, bucket: str) -> dict[str, bytes]:
    """What was displaced: relative path with its digest to content."""
    kept = objects(s3, bucket, "user_data/ada/.claude-sidecar/conflicts/")
    return {key.split("/", 2)[2]: data for key, data in kept.items()}
