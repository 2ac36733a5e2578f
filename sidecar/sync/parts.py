"""The parts of the manifest, kept beside the ledger: they never change, so each is fetched once.

What lies there is checked by its name, which is its digest; a damaged or missing file costs a request.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from sidecar.area.manifest import Changes
from sidecar.area.manifest_format import PART_SUFFIX, decoded_part
from sidecar.area.store import Store
from sidecar.errors import ObjectDamaged


class Parts:
    """Reads parts from below `prefix` of `store`; with a `directory`, keeps them there."""

    def __init__(self, store: Store, prefix: str, directory: Path | None = None) -> None:
        self._store = store
        self._prefix = prefix
        self._directory = directory

    def read(self, name: str) -> Changes:
        """The part `name`. Raises ObjectMissing, ObjectDamaged, FormatError or another StoreError."""
        kept = self._kept(name)
        if kept is not None:
            return kept
        with self._store.open(self._prefix + name) as download:
            data = download.read()
        changes = decoded_part(data, name)
        self.keep(name, data)
        return changes

    def keep(self, name: str, data: bytes) -> None:
        """Have the part `name` here. A disk that does not take it costs a request later."""
        if self._directory is None:
            return
        with suppress(OSError):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = self._directory / f"{name}.tmp"
            temporary.write_bytes(data)
            temporary.replace(self._directory / name)

    def forget_others(self, names: Collection[str]) -> None:
        """Remove what is kept here and not among `names`."""
        if self._directory is None:
            return
        with suppress(OSError):
            for kept in self._directory.iterdir():
                if kept.name not in names and PART_SUFFIX in kept.name:
                    kept.unlink()

    def _kept(self, name: str) -> Changes | None:
        if self._directory is None or "/" in name:
            return None
        try:
            return decoded_part((self._directory / name).read_bytes(), name)
        except (OSError, ObjectDamaged):
            return None
