"""Work beside the caller's own: its value or its error, and all the same where no thread is to be had."""

import threading

import pytest

from sidecar.beside import Beside


def fails() -> int:
    raise KeyError("no")


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("threads", [False, True])
def test_what_the_work_returned_or_raised_is_had_wherever_it_was_done(
    one_by_one: bool, threads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not threads:
        monkeypatch.setattr(threading.Thread, "start", refuse)
    beside = Beside(threading.get_ident, one_by_one=one_by_one)
    assert (beside.result() == threading.get_ident()) is (one_by_one or not threads)
    failed = Beside(fails, one_by_one=one_by_one)
    for _ in range(2):
        with pytest.raises(KeyError):
            failed.result()
