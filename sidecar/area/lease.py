"""Credentials that end: kept, and asked for anew before they do.

Whoever needs them asks `Lease.current`; a process that lives long also renews them while nobody asks, so that
the first request after a quiet night does not find a token service that is away. While old ones are still
good, a failed renewal is nobody's failure.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from awscrt.auth import AwsCredentialsProvider  # type: ignore[import-untyped]
    from obstore.store import S3Credential

# A token service that is away for minutes is nothing unusual; of short credentials, a third of their life.
_MARGIN = timedelta(minutes=10)
_PART = 3
_TRY_AGAIN = timedelta(seconds=30)
# Keys without an end are asked for again now and then: a file that was rotated is noticed.
_LOOK_AGAIN = timedelta(minutes=15)


class Credentials(Struct, frozen=True):
    """``ends_at``: None where they do not end."""

    key_id: str
    secret: str
    token: str | None
    ends_at: datetime | None

    def __repr__(self) -> str:
        return f"Credentials({self.key_id!r}, ends_at={self.ends_at!r})"  # never the secrets


def _now() -> datetime:
    return datetime.now(UTC)


class _Held(Struct, frozen=True):
    credentials: Credentials
    asked_at: datetime

    @property
    def end(self) -> datetime:
        return self.credentials.ends_at or self.asked_at + _LOOK_AGAIN

    @property
    def due_at(self) -> datetime:
        return self.end - min(_MARGIN, (self.end - self.asked_at) / _PART)


class Lease:
    """The credentials that `ask` gives, thread-safe; what it raises comes through where none are good."""

    def __init__(self, ask: Callable[[], Credentials], clock: Callable[[], datetime] = _now) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._tried_at = datetime.min.replace(tzinfo=UTC)
        self._lent: tuple[Credentials, AwsCredentialsProvider] | None = None

    @property
    def ends_at(self) -> datetime | None:
        """When the credentials at hand end; None where they do not, or where nobody has asked yet."""
        return self._held.credentials.ends_at if self._held else None

    def current(self) -> Credentials:
        """Credentials that are good now."""
        held, now = self._held, self._clock()
        if held is None or now >= held.end:
            with self._lock:
                if self._held is held:  # else somebody else has asked meanwhile
                    self._renew(now)
                assert self._held is not None
                return self._held.credentials
        if now >= held.due_at and now - self._tried_at >= _TRY_AGAIN and self._lock.acquire(blocking=False):
            try:
                # A failure is told by `renew`, and by this call when these have ended.
                with contextlib.suppress(Exception):
                    self._renew(now)
            finally:
                self._lock.release()
        return (self._held or held).credentials

    def renew(self, *, at_once: bool = False) -> bool:
        """Ask anew if it is time, or `at_once`; True if that was done. Raises what asking raises."""
        with self._lock:
            now = self._clock()
            if self._held is None or not (at_once or now >= self._held.due_at):
                return False
            self._renew(now)
            return True

    def for_obstore(self) -> S3Credential:
        """As obstore wants them; it asks again shortly before they end."""
        got = self.current()
        return {
            "access_key_id": got.key_id,
            "secret_access_key": got.secret,
            "token": got.token,
            "expires_at": got.ends_at or self._clock() + _LOOK_AGAIN,
        }

    def for_awscrt(self) -> AwsCredentialsProvider:
        """As awscrt wants them, for one request."""
        from awscrt.auth import AwsCredentials, AwsCredentialsProvider

        got = self.current()
        if self._lent is None or self._lent[0] is not got:
            credentials = AwsCredentials(got.key_id, got.secret, got.token, got.ends_at)
            self._lent = got, AwsCredentialsProvider.new_delegate(lambda: credentials)
        return self._lent[1]

    def _renew(self, now: datetime) -> None:
        self._tried_at = now
        self._held = _Held(self._ask(), now)
