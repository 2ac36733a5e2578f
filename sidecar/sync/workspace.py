"""One user's home, area and ledger, open together: what restore and checkpoint work on."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from msgspec import Struct, field
from msgspec.structs import replace

from sidecar.area import metadata
from sidecar.area.keys import AreaKeys
from sidecar.area.objects import IfAbsent, ObjectHead
from sidecar.area.store import Store
from sidecar.errors import AccessDenied, ConditionFailed, HomeError, ObjectMissing, SettingsError, UserError
from sidecar.home.beneath import Home
from sidecar.home.rules import Rules
from sidecar.logs import log
from sidecar.names import path_problem
from sidecar.settings import Settings
from sidecar.sync.bodies import Spool, temporary_directory
from sidecar.sync.ledger import Ledger, owners_of
from sidecar.sync.merge import Readable
from sidecar.sync.parts import Parts


class Workspace(Struct):
    """``live``: an agent may be at work in the home: transcripts are appended to, never replaced.

    ``seen_folded``: the keys of other writers' journal entries that one checkpoint found in the objects.
    """

    settings: Settings
    keys: AreaKeys
    store: Store
    home: Home
    rules: Rules
    ledger: Ledger
    live: bool = True
    spool_directory: Path = Path()
    seen_folded: set[str] = field(default_factory=set)
    _named: set[tuple[str, str]] = field(default_factory=set)
    _announcement: Callable[[], None] | None = None
    _unasked: bool = False
    _asking: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(
        cls, settings: Settings, store: Store, user_id: str, *, live: bool, make_home: bool = True
    ) -> Workspace:
        """Open all three sides of `user_id`; with `make_home` the home is made, and must be writable.

        Raises
        ------
        UserError: the user id cannot be a prefix. HomeError: the home cannot be used. SettingsError: the
        state directory lies in the home.
        LedgerError: the state directory cannot be used, or another process holds it.
        """
        keys = AreaKeys(settings.prefix, user_id)
        owner = settings.owner.ids if settings.owner else None
        root, private = settings.home_of(user_id), settings.private_files
        home = Home.open(root, create=make_home, owner=owner, private=private)
        try:
            _demand_state_outside(settings.state_dir, home)
            if not settings.serves_many_users:
                _demand_own_home(settings.state_dir, home, user_id)
            area = f"s3://{settings.bucket}/{keys.root}"
            ledger = Ledger.open(
                settings.state_dir, user_id=user_id, area=area, home=home.identity, pod_uid=settings.pod_uid
            )
        except BaseException:
            home.close()
            raise
        rules = Rules(include=settings.include, exclude=settings.exclude)
        spool = temporary_directory(settings.state_dir)
        workspace = cls(settings, keys, store, home, rules, ledger, live, spool)
        workspace._match_ledger()
        return workspace

    def _match_ledger(self) -> None:
        """Rule 17: a ledger counts only with its home, else an emptied home reads as "everything deleted"."""
        header, known = self.ledger.header, self.ledger.known_paths()
        here = any(self.is_there(path) for path in known)
        if (known and not here) or (not known and header.home != self.home.identity):
            self.ledger.start_over(self.home.identity, self.settings.pod_uid)
        elif header.home != self.home.identity:
            self.ledger.set_header(replace(header, home=self.home.identity))

    @property
    def user_id(self) -> str:
        return self.keys.user_id

    @property
    def objects_url(self) -> str:
        """The area's objects as people write them: ``s3://bucket/prefix/user/.claude/``."""
        return f"s3://{self.settings.bucket}/{self.keys.objects}"

    @property
    def max_file_bytes(self) -> int:
        return self.settings.max_file_mib * 1024 * 1024

    def now_ns(self) -> int:
        return time.time_ns()

    def is_there(self, path: str) -> bool:
        """Whether anything stands at `path` in the home."""
        try:
            self.home.lstat(path)
        except (OSError, HomeError):
            return False
        return True

    def refusal(self, path: str, *, is_directory: bool = False) -> str:
        """Why what the area has at `path` does not belong into the home, as half a sentence; or empty."""
        problem = path_problem(path)
        if problem:
            return problem
        verdict = self.rules.decide(path, is_directory)
        return "" if verdict.taken else verdict.reason

    def parts(self) -> Parts:
        """The parts of the manifest, those that were read before from the state volume."""
        return Parts(self.store, self.keys.packs, self.ledger.directory / "manifest")

    def head(self, path: str) -> ObjectHead | None:
        """What the store says of the object at `path`; None if there is none."""
        return self.store.head(self.keys.object(path))

    def why_contested(self, path: str) -> str:
        """Why the object at `path` could not be written after some tries, as half a sentence."""
        if self.head(path) is None:  # a store that keeps objects as files
            return "the store takes no object at this name while it has others below it"
        return "another writer keeps changing its object"

    def spool(self, path: str, *, if_match: str | None = None) -> tuple[ObjectHead, Spool]:
        """The object at `path`, read whole; raises ObjectMissing or ConditionFailed."""
        with self.store.open(self.keys.object(path), if_match=if_match) as download:
            head = ObjectHead(download.info, download.metadata)
            return head, Spool(download.chunks(), self.spool_directory)

    def digest_of(self, path: str, head: ObjectHead) -> str:
        """The SHA-256 of exactly the version in `head`; raises ConditionFailed if it is gone."""
        known = metadata.read(head.metadata).sha256
        if known:
            return known
        try:
            _, spool = self.spool(path, if_match=head.info.etag)
        except ObjectMissing as error:
            raise ConditionFailed(f"{path} was deleted meanwhile") from error
        with spool:
            return spool.sha256

    def keep_aside(self, path: str, body: Readable, digest: str, mtime_ns: int) -> None:
        """Copy a version that is about to be displaced to ``conflicts/`` (rule 11: before, never after)."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        key = self.keys.conflict(stamp, self.ledger.writer, path, digest)
        described = metadata.FileMetadata(mtime_ns=mtime_ns, writer=self.ledger.writer, sha256=digest)
        try:
            self.store.put(key, body, condition=IfAbsent(), metadata=metadata.written(described))
        except ConditionFailed:
            if self.store.head(key) is None:
                raise  # nothing may be displaced for a copy that is not there
            # else the same bytes were kept within the same second already

    def announce_first_move(self, announcement: Callable[[], None] | None) -> None:
        """Have `announcement` called once, before the next object is written; None takes it back."""
        self._announcement = announcement

    def moving(self) -> None:
        """An object is about to be written."""
        announcement, self._announcement = self._announcement, None
        if announcement:
            announcement()
        if self._unasked:
            self._ask_conditions()

    def ask_conditions_first(self) -> None:
        """Have the store asked whether it honours conditions before the first object is written.

        For a process that did not ask when it began: one that only reads has no need to.
        """
        self._unasked = True

    def _ask_conditions(self) -> None:
        from sidecar.sync import guard

        with self._asking:  # who comes meanwhile waits for the answer
            if self._unasked:
                guard.ask(self)
                self._unasked = False

    def first_time(self, path: str, reason: str) -> bool:
        """True the first time that this is said of `path`: a warning each interval would hide the others."""
        known = (path, reason) in self._named
        self._named.add((path, reason))
        return not known

    def own_area_denied(self, what: str, error: AccessDenied) -> None:
        """Say once, whichever part met it first, that the bucket's policy knows only ``.claude/``."""
        level = logging.WARNING if self.first_time(self.keys.own, "denied") else logging.DEBUG
        log.log(level, "%s; going on in interval mode, without journal and manifest: %s", what, error)

    def close(self) -> None:
        self.ledger.close()
        self.home.close()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _demand_state_outside(state_dir: Path, home: Home) -> None:
    """The ledger is not the agent's to read or write. Links and mounts may hide that it lies in the home."""
    real = Path(os.path.realpath(state_dir))
    for place in (real, *real.parents):
        try:
            found = place.stat()
        except OSError:  # not there yet, or not ours to look at: what is above it tells
            continue
        if (found.st_dev, found.st_ino) == home.identity:
            raise SettingsError(
                f"CLAUDE_SIDECAR_STATE_DIR ({state_dir}) lies inside the home ({home.given})",
                "put it on a volume that the agent does not mount",
            )


def _demand_own_home(state_dir: Path, home: Home, user_id: str) -> None:
    """One home serves one user, also after a restart: the ledgers beside this one tell whose it is."""
    if owners_of(state_dir, home.identity, besides=user_id):
        raise UserError(
            f"the home {home.root} holds the files of another user",
            "put {user_id} into CLAUDE_SIDECAR_HOME to give each user a directory, "
            "or start with an empty home and an empty state directory",
        )
