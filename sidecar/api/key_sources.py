"""Where keys come from, and how they stay fresh: a file that is read again when it changes, or a URL.

A source never gives up keys that it has because it cannot read new ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from sidecar.api.keys import Key, KeysUnusable, of_jwks
from sidecar.api.refusals import IdentityUnavailable
from sidecar.errors import SettingsError
from sidecar.logs import log

MOST_BYTES = 512 * 1024
"""Of a key file or a key set. Large providers publish a few KiB."""
FETCH_SECONDS = 5.0
MAX_AGE_SECONDS = 600.0
"""After this a key set is fetched again in the background: a key that was withdrawn ends here."""
FLOOR_SECONDS = 10.0
"""Between two fetches for the sake of an unknown key id: forged ids must not become requests."""
RETRY_SECONDS = 1.0
"""Between two fetches after one that failed."""


class KeysWanted(Exception):
    """The keys at hand do not answer; ask `KeySource.refresh`, then again."""


class KeySource(Protocol):
    """Gives the keys that may have signed a token."""

    def candidates(self, kid: str | None) -> tuple[Key, ...]:
        """The keys of that id; those without any id where none has it; all where a token names none.

        Raises
        ------
        KeysWanted: a fetch may find more.
        IdentityUnavailable: nothing could be read yet, or nothing that would settle it.
        """

    async def refresh(self) -> None:
        """Fetch, once however many wait; a failure is logged and shows in the next `candidates`."""

    async def close(self) -> None:
        """End what runs in the background."""


def matching(keys: tuple[Key, ...], kid: str | None) -> tuple[Key, ...]:
    """Those of `keys` that a token with `kid` may have been signed with."""
    if kid is None:
        return keys
    return tuple(k for k in keys if k.kid == kid) or tuple(k for k in keys if k.kid is None)


class FileKeys:
    """Keys in a file, read again when it is another one: Kubernetes swaps a link when a Secret changes.

    Raises
    ------
    SettingsError: at first, a file that cannot be read or holds no usable key.
    """

    def __init__(self, variable: str, path: str, parse: Callable[[bytes], tuple[Key, ...]]) -> None:
        self._path = Path(path)
        self._parse = parse
        try:
            self._stamp = self._stamp_now()
            self._keys = parse(self._read())
        except OSError as problem:
            reason = problem.strerror or type(problem).__name__
            raise SettingsError(f"{variable} ({path}) cannot be read: {reason}", "correct the path") from None
        except KeysUnusable as problem:
            raise SettingsError(f"{variable} ({path}): {problem}", "give another file") from None

    def demand(self, algorithms: frozenset[str]) -> None:
        """Refuse a file in which no key has one of `algorithms`.

        Raises
        ------
        SettingsError: that is so.
        """
        if not any(key.algorithms & algorithms for key in self._keys):
            possible = frozenset[str]().union(*(key.algorithms for key in self._keys))
            raise SettingsError(
                f"CLAUDE_SIDECAR_JWT_ALGORITHMS allows none of what the keys in {self._path} can have",
                f"give some of {', '.join(sorted(possible))}, or unset it",
            )

    def candidates(self, kid: str | None) -> tuple[Key, ...]:
        self._read_again_if_changed()
        return matching(self._keys, kid)

    async def refresh(self) -> None:
        """Nothing: each look reads a changed file."""

    async def close(self) -> None:
        """Nothing runs."""

    def _read_again_if_changed(self) -> None:
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = self._parse(self._read())
        except (OSError, KeysUnusable) as problem:
            log.warning("The keys in %s cannot be read again, the old ones stay: %s", self._path, problem)

    def _stamp_now(self) -> tuple[int, int, int] | None:
        """What changes with the file: its content, its mode, or which file it is. None: it is not there."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ctime_ns, status.st_size, status.st_ino

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise KeysUnusable(f"it is larger than {MOST_BYTES} bytes")
        return data


class RemoteKeys:
    """A key set at a URL, fetched at the first token and kept; `clock` counts seconds and never goes back."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._failure = ""
        self._task: asyncio.Task[None] | None = None

    def candidates(self, kid: str | None) -> tuple[Key, ...]:
        now = self._clock()
        since_last_try = now - self._tried_at
        keys = matching(self._keys, kid)
        if keys:
            if now - self._fetched_at > MAX_AGE_SECONDS and since_last_try > FLOOR_SECONDS:
                self._start()
            return keys
        if since_last_try >= (RETRY_SECONDS if self._failure else FLOOR_SECONDS) or self._task:
            raise KeysWanted
        if self._failure:
            raise IdentityUnavailable(self._failure)
        return ()

    async def refresh(self) -> None:
        await asyncio.shield(self._start())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _start(self) -> asyncio.Task[None]:
        if self._task is None:
            self._task = asyncio.create_task(self._refresh(), name="key set")
        return self._task

    async def _refresh(self) -> None:
        try:
            self._keys = of_jwks(await fetched(self._url))
            self._failure, self._fetched_at = "", self._clock()
        except (OSError, KeysUnusable) as problem:
            # Said once for each outage: the requests that it fails say the rest.
            if not self._failure:
                kept = "the old one stays" if self._keys else "there is none yet"
                log.warning("The key set could not be fetched, %s: %s", kept, problem)
            self._failure = str(problem) or type(problem).__name__
        finally:
            self._tried_at = self._clock()
            self._task = None


async def fetched(url: str) -> bytes:
    """The document at `url`: no redirects, bounded in bytes and time.

    Raises
    ------
    OSError: it could not be had; aiohttp's own errors are turned into it.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.get(url, allow_redirects=False, headers={"Accept": "application/json"}) as response,
        ):
            if response.status != 200:
                raise OSError(f"it answered {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise OSError(f"it is larger than {MOST_BYTES} bytes")
            return bytes(body)
    except TimeoutError:
        raise OSError(f"no answer within {FETCH_SECONDS:g} s") from None
    except aiohttp.ClientError as problem:
        raise OSError(str(problem) or type(problem).__name__) from problem
