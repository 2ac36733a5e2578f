"""The manifest and the packs, on their way while the journal is read and the objects are listed.

Nothing of them is put in place before a listing made after the journal's confirms it (rule 16), so they may
come at any time. What is held in memory ahead of that is bounded; the other packs are read when they are
needed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from msgspec import Struct, field

from sidecar.area.manifest import Manifest
from sidecar.errors import ObjectDamaged
from sidecar.sync import picture
from sidecar.sync.workspace import Workspace

AHEAD_BYTES = 32 * 1024 * 1024
_LANES = 8


class _Coming(Struct):
    """One thing that a thread fetches."""

    arrived: threading.Event = field(default_factory=threading.Event)
    data: bytes = b""
    error: BaseException | None = None


class Prefetch:
    """What a restore reads of an area beside its objects.

    With one worker nothing runs beside anything: all is read when it is asked for. Packs come ahead where
    `packs` says so and the home is not restored yet; afterwards most of what they hold is here.

    ``doubted``: the packs that turned out not to be what the manifest says of them.
    """

    def __init__(self, workspace: Workspace, *, packs: bool = True) -> None:
        self._takes_packs = packs and not workspace.ledger.header.restored
        self.doubted: set[str] = set()
        self._workspace = workspace
        self._manifest: Manifest | None = None
        self._error: BaseException | None = None
        self._packs: dict[str, _Coming] = {}
        self._known = threading.Event()
        self._is_beside = workspace.settings.concurrency > 1
        if self._is_beside:
            threading.Thread(target=self._run, name="prefetch", daemon=True).start()

    def manifest(self) -> Manifest:
        """The manifest, or an empty one. Raises StoreError where the store is away."""
        if self._is_beside:
            self._known.wait()
        elif self._manifest is None:
            self._read()
        if self._error:
            raise self._error
        return self._manifest or Manifest()

    @property
    def found_none(self) -> bool:
        """Whether it is known by now that there is no manifest, so that the area is likely to be empty."""
        return self._known.is_set() and self._manifest is picture.NOTHING

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of the pack `name`, once. Raises ObjectMissing and other StoreErrors."""
        coming = self._packs.pop(name, None)
        if coming is None:
            with self._workspace.store.open(self._workspace.keys.packs + name) as download:
                yield from download.chunks()
            return
        coming.arrived.wait()
        if coming.error:
            raise coming.error
        yield coming.data

    def _run(self) -> None:
        try:
            self._read()
            waiting = deque(self._chosen())
        finally:
            self._known.set()
        for _ in range(min(_LANES, self._workspace.settings.concurrency, len(waiting)) - 1):
            with suppress(RuntimeError):  # no more threads here: one brings them as well
                threading.Thread(target=self._fetch, args=(waiting,), name="prefetch", daemon=True).start()
        self._fetch(waiting)

    def _read(self) -> None:
        try:
            self._manifest = picture.read_if_any(self._workspace)
        except BaseException as error:
            self._error = error

    def _chosen(self) -> Iterator[tuple[str, int, _Coming]]:
        """The packs that come ahead: name, size, and where it is awaited."""
        free = AHEAD_BYTES if self._takes_packs else 0
        for name, pack in self._manifest.packs.items() if self._manifest else ():
            if pack.size <= free:
                free -= pack.size
                self._packs[name] = _Coming()
                yield name, pack.size, self._packs[name]

    def _fetch(self, waiting: deque[tuple[str, int, _Coming]]) -> None:
        while True:
            try:
                name, size, coming = waiting.popleft()
            except IndexError:
                return
            try:
                coming.data = self._whole(name, size)
            except BaseException as error:
                coming.error = error
            coming.arrived.set()

    def _whole(self, name: str, size: int) -> bytes:
        with self._workspace.store.open(self._workspace.keys.packs + name) as download:
            if download.info.size != size:  # it would be held in memory, however large it is
                raise ObjectDamaged(f"the pack {name} has another size than the manifest says")
            return download.read()
