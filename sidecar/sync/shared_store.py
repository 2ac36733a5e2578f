"""The store that all users of a process share: connected when the first one needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.area.keys import AreaKeys
from sidecar.area.store import Store
from sidecar.area.traffic import Listener
from sidecar.errors import AccessDenied
from sidecar.logs import log
from sidecar.settings import Settings
from sidecar.sync.threads import in_thread

WEAK_GUARD = (
    "The store ignores conditional writes: we read before we write, "
    "and whoever writes in between is overwritten"
)


class SharedStore:
    """``store`` is None until a connection succeeded.

    Parameters
    ----------
    connect: gives the store, once, in a worker thread.
    listener: hears of every request.
    """

    def __init__(self, settings: Settings, connect: Callable[[Settings], Store], listener: Listener) -> None:
        self.store: Store | None = None
        self._settings = settings
        self._connect = connect
        self._listener = listener
        self._lock = asyncio.Lock()

    async def connected(self, user_id: str) -> Store:
        """The store; `user_id`'s area is where it is asked whether it honours conditions.

        Raises
        ------
        StoreError: not this time.
        """
        async with self._lock:
            if self.store is None:
                self.store = await in_thread(lambda: self._connect_and_probe(user_id), "connect")
            return self.store

    @property
    def weak_guard(self) -> str:
        """Which writes are not held to what was read, as a sentence; empty if all are, or none is known."""
        if self.store is None:
            return ""
        return self.store.weaker_guard if self.store.guarded else WEAK_GUARD

    def _connect_and_probe(self, user_id: str) -> Store:
        store = self._connect(self._settings)
        store.listen(self._listener)
        try:
            if not store.probe_conditions(AreaKeys(self._settings.prefix, user_id).own):
                log.warning("%s", WEAK_GUARD)
        except AccessDenied as error:
            log.info("Whether the store honours conditions could not be tried: %s", error.message)
        return store
