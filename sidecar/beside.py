"""Blocking work beside the caller's own, in a daemon thread: it does not hold up the end of the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Beside(Generic[T]):
    """`work`, begun at once. With `one_by_one` it is done before this returns, in the caller's thread; so it
    is where the pod may have no more threads."""

    def __init__(self, work: Callable[[], T], *, one_by_one: bool = False) -> None:
        self._work = work
        self._value: T
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="beside", daemon=True)
        if one_by_one or not self._is_begun():
            self._run()

    def result(self) -> T:
        """What the work returned or raised; waits for its end."""
        if self._thread.ident:
            self._thread.join()
        if self._error:
            raise self._error
        return self._value

    def _is_begun(self) -> bool:
        try:
            self._thread.start()
        except RuntimeError:
            return False
        return True

    def _run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error
