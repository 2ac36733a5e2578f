"""The store that all users of a process share: connected when the first one needs it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sidecar.area.keys import AreaKeys
from sidecar.area.store import Store
from sidecar.area.traffic import Listener
from sidecar.errors import AccessDenied, SidecarError
from sidecar.logs import log
from sidecar.settings import Settings
from sidecar.sync.guard import WEAK_GUARD
from sidecar.sync.threads import in_thread


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
        self._renewal_failed = False

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

    async def renew_credentials(self, *, at_once: bool) -> None:
        """Renew the credentials if they end soon, or `at_once`; the old ones stay where that fails."""
        store = self.store
        if store is None:
            return
        try:
            await in_thread(lambda: store.renew_credentials(at_once=at_once), "renew-credentials")
            self._renewal_failed = False
        except SidecarError as error:
            level = logging.DEBUG if self._renewal_failed else logging.WARNING
            self._renewal_failed = True
            log.log(level, "The credentials were not renewed, the old ones stay until they end: %s", error)

    def _connect_and_probe(self, user_id: str) -> Store:
        store = self._connect(self._settings)
        store.listen(self._listener)
        try:
            if not store.probe_conditions(AreaKeys(self._settings.prefix, user_id).own):
                log.warning("%s", WEAK_GUARD)
        except AccessDenied as error:
            log.info("Whether the store honours conditions could not be tried: %s", error.message)
        return store
