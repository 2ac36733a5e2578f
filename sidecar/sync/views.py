"""A picture of all sides of one user: home, ledger, area, manifest and journal, taken without any lock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct, field

from sidecar.area import journal
from sidecar.area.journal import Entry
from sidecar.area.keys import AreaKeys
from sidecar.area.manifest import Manifest
from sidecar.area.objects import ObjectInfo
from sidecar.area.store import Store
from sidecar.errors import (
    AccessDenied,
    ConditionFailed,
    FormatError,
    ObjectArchived,
    ObjectDamaged,
    ObjectMissing,
)
from sidecar.home.beneath import Home
from sidecar.home.entries import Scan
from sidecar.home.rules import Rules
from sidecar.home.scan import scan as scan_home
from sidecar.names import path_problem
from sidecar.settings import Settings
from sidecar.sync import picture, unfold
from sidecar.sync.findings import Finding, Kind
from sidecar.sync.ledger_peek import is_held, peek
from sidecar.sync.marks import Mark
from sidecar.sync.unfold import Placed
from sidecar.sync.verification import Facts

_TRIES = 5


class View(Struct, frozen=True):
    """``objects`` by path. ``general``: what is to be said of no path in particular, and of foreign keys.

    ``shape``: the directories and links of the home when this pod last wrote the manifest.
    """

    scan: Scan
    objects: dict[str, ObjectInfo]
    marks: Mapping[str, Mark]
    manifest: Manifest | None
    placed: dict[str, Placed]
    left_out: dict[str, str]
    refused: dict[str, str]
    ledger: str
    general: tuple[Finding, ...] = ()
    shape: frozenset[str] = frozenset()

    def paths(self) -> set[str]:
        """Everything that any side knows, the ledger excepted: what it alone knows is nowhere."""
        known = self.manifest.files if self.manifest else {}
        return {*self.scan.files, *self.objects, *known, *self.placed, *self.refused}

    def readable_objects(self) -> Iterator[str]:
        """The paths whose objects a comparison may read."""
        for path in self.objects:
            if path not in self.left_out and (path in self.scan.files or not self._refusal(path)):
                yield path

    def size_of(self, path: str) -> int:
        """The larger of both sides, in bytes."""
        stat, info = self.scan.files.get(path), self.objects.get(path)
        return max(stat.size if stat else 0, info.size if info else 0)

    def facts_of(self, path: str) -> Facts:
        """What is known of `path` without reading it; the sides are filled in by whoever reads."""
        return Facts(
            path,
            mark=self.marks.get(path),
            entry=self.manifest.files.get(path) if self.manifest else None,
            has_manifest=self.manifest is not None,
            left_out=self.left_out.get(path, ""),
            refused="" if path in self.scan.files else self._refusal(path),
            in_journal=path in self.placed,
        )

    def _refusal(self, path: str) -> str:
        instead = self.standing_at(path)
        return f"{instead} stands at this name in the home" if instead else self.refused_at(path)

    def standing_at(self, path: str) -> str:
        """What the scan found at `path`, in words; empty where that is nothing."""
        if path in self.scan.links:
            return "a symbolic link"
        if path in self.scan.directories:
            return "a directory"
        return "a file" if path in self.scan.files else ""

    def refused_at(self, path: str) -> str:
        """Why the home's `path`, or a directory above it, cannot be taken; empty where nothing says so."""
        above = path
        while above:
            if above in self.refused:
                return self.refused[above]
            above = above.rpartition("/")[0]
        return ""

    def journal_holds(self, path: str, sha256: str | None) -> bool:
        """Whether the journal has this very version of a whole file."""
        placed = self.placed.get(path)
        wholes = placed.wholes.values() if placed else ()
        return any(whole.sha256 == sha256 for writers in wholes for whole in writers)


class Sides(Struct, frozen=True):
    """Where everything of one user is; `view` looks at it now."""

    settings: Settings
    store: Store
    keys: AreaKeys
    home: Home
    rules: Rules = field(default_factory=Rules)

    def view(self) -> View:
        """Look: the ledger first, the journal before the objects (a checkpoint moves from one to the other).

        Raises
        ------
        StoreError, HomeError, LedgerError, FormatError: that cannot be told.
        """
        ledger, marks, shape = self._ledger()
        general: list[Finding] = []
        placed = self._journal(general)
        listing = self.store.list(self.keys.objects)
        manifest = self._manifest(general)
        scan = scan_home(self.home, self.rules, max_file_bytes=self._max_file_bytes())
        objects = {self.keys.path(key): info for key, info in listing.objects.items()}
        general += [
            Finding(self.keys.path(skipped.key), Kind.PASSED_OVER, skipped.reason)
            for skipped in listing.skipped
        ]
        return View(
            scan,
            objects,
            marks,
            manifest,
            placed,
            {path: reason for path, info in objects.items() if (reason := self._left_out(path, info))},
            {entry.path: entry.reason for entry in scan.refused},
            ledger,
            tuple(general),
            shape,
        )

    def named(self, key: str) -> str:
        """What a finding calls `key`, which is no file's: its name in the area."""
        return key[len(self.keys.root) :]

    def _max_file_bytes(self) -> int:
        return self.settings.max_file_mib * 1024 * 1024

    def _left_out(self, path: str, info: ObjectInfo) -> str:
        problem = path_problem(path)
        if problem:
            return problem
        verdict = self.rules.decide(path, False)
        if not verdict.taken:
            return verdict.reason
        if info.size > self._max_file_bytes():
            return f"larger than {self.settings.max_file_mib} MiB (CLAUDE_SIDECAR_MAX_FILE_MIB)"
        return ""

    def _ledger(self) -> tuple[str, Mapping[str, Mark], frozenset[str]]:
        state_dir, user_id = self.settings.state_dir, self.keys.user_id
        known = peek(state_dir, user_id)
        if known is None:
            return "there is no ledger here, so no reason says who changed what", {}, frozenset()
        header, marks = known
        if header.area != f"s3://{self.store.bucket}/{self.keys.root}":
            return "the ledger here is of another area and was left aside", {}, frozenset()
        if tuple(header.home) != self.home.identity:
            return "the ledger here is of another directory and was left aside", {}, frozenset()
        beside = " beside the process that works on it" if is_held(state_dir, user_id) else ""
        return f"the ledger was read{beside}", marks, frozenset((*header.directories, *header.links))

    def _manifest(self, general: list[Finding]) -> Manifest | None:
        where = self.named(self.keys.manifest)
        problem = ""
        for _ in range(_TRIES):
            try:
                found = picture.read(self.store, self.keys)
            except ConditionFailed as error:  # the connection broke, and it is another one by now
                problem = error.message
                continue
            except (FormatError, AccessDenied) as error:
                problem = error.message
                break
            if found.problem:
                reason = f"{found.problem.message}: restores read each object until it is replaced"
                general.append(Finding(where, Kind.MANIFEST_DAMAGED, reason))
            elif found.etag:
                return found.manifest
            else:
                general.append(Finding(where, Kind.PASSED_OVER, "there is no manifest: restores take longer"))
            return None
        general.append(Finding(where, Kind.COULD_NOT_TELL, problem))
        return None

    def _journal(self, general: list[Finding]) -> dict[str, Placed]:
        entries: list[Entry] = []
        try:
            keys = sorted(self.store.list(self.keys.journal).objects)
        except AccessDenied:
            return {}  # a policy that knows only .claude/: there is no journal
        for key in keys:
            if journal.parsed(key[len(self.keys.journal) :]) is None:
                continue
            try:
                with self.store.open(key) as download:
                    entries.append(journal.decoded(download.read(), key))
            except ObjectMissing:
                continue  # folded meanwhile: the objects, listed after this, hold it
            except (ObjectDamaged, ObjectArchived, FormatError) as error:
                general.append(Finding(self.named(key), Kind.COULD_NOT_TELL, error.message))
        return unfold.by_path(entries)
