"""One home serves one user, unless each user has a home of their own."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.api.refusals import SecondUser
from sidecar.settings import Settings


class Tenancy:
    """Who may use this pod's home. The first who is admitted keeps it, whatever becomes of their sync.

    ``users`` gives the manager's users: after a restart the home's owner is among them before anybody asks.
    """

    def __init__(self, settings: Settings, users: Callable[[], tuple[str, ...]]) -> None:
        self._many = settings.serves_many_users
        self._owner = settings.user_id
        self._users = users

    def admit(self, user_id: str) -> str:
        """`user_id`, if they may.

        Raises
        ------
        SecondUser: the home is another's.
        """
        if self._many:
            return user_id
        if self._owner is None:
            self._owner = next(iter(self._users()), user_id)
        if self._owner != user_id:
            raise SecondUser
        return user_id
