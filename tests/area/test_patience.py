"""How long one operation goes on, with a clock that we turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from sidecar.area.answers import Answer
from sidecar.area.connection import silence_seconds
from sidecar.area.failures import Where, failure
from sidecar.area.patience import Patience
from sidecar.errors import AccessDenied, StoreError, StoreThrottled, StoreUnreachable

WHERE = Where("listing s3://b/p/", "b", "http://127.0.0.1:9", "us-east-1")
RESET = Answer(trouble="broken")
SLOW_DOWN = Answer(status=503, code="SlowDown")
DENIED = Answer(status=403, code="AccessDenied")
GARBLED = Answer(trouble="garbled")


@dataclass
class Clock:
    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def patience(self, outage_seconds: float) -> Patience:
        return Patience(outage_seconds, clock=lambda: self.now, sleep=self.sleep)


def failing(*answers: Answer | None) -> Callable[[], str]:
    """A request that fails with each of `answers` and ends with success at None."""
    left = iter(answers)

    def request() -> str:
        answer = next(left)
        if answer is None:
            return "done"
        raise failure(answer, WHERE)

    return request


def test_a_passing_failure_is_tried_again_with_growing_delays() -> None:
    clock = Clock()
    assert clock.patience(60).attempt(failing(*[RESET] * 6, None)) == "done"
    assert all(later > earlier * 0.9 for earlier, later in zip(clock.slept, clock.slept[1:], strict=False))
    assert 0.05 <= clock.slept[0] <= 0.1
    assert sum(clock.slept) < 7


def test_no_delay_is_longer_than_five_seconds() -> None:
    clock = Clock()
    clock.patience(600).attempt(failing(*[RESET] * 30, None))
    assert 2.5 <= max(clock.slept) <= 5


def test_an_outage_ends_when_its_time_is_up_and_not_before() -> None:
    clock = Clock()
    with pytest.raises(StoreUnreachable):
        clock.patience(30).attempt(failing(*[RESET] * 1000))
    assert clock.now == pytest.approx(1030)


def test_progress_starts_the_time_anew() -> None:
    clock = Clock()
    patience = clock.patience(30)
    clock.now += 29
    patience.progress()
    clock.now += 29
    assert patience.attempt(failing(RESET, None)) == "done"


def test_what_waiting_cannot_help_is_raised_at_once() -> None:
    clock = Clock()
    with pytest.raises(AccessDenied):
        clock.patience(60).attempt(failing(DENIED, None))
    assert not clock.slept


def test_a_throttled_request_waits_longer() -> None:
    clock = Clock()
    clock.patience(60).attempt(failing(SLOW_DOWN, None))
    assert 0.25 <= clock.slept[0] <= 0.5
    with pytest.raises(StoreThrottled):
        clock.patience(1).attempt(failing(*[SLOW_DOWN] * 100))


def test_what_is_not_s3s_answer_three_times_is_not_s3() -> None:
    clock = Clock()
    assert clock.patience(60).attempt(failing(GARBLED, GARBLED, None)) == "done"
    with pytest.raises(StoreError, match="AWS_ENDPOINT_URL"):
        clock.patience(60).attempt(failing(*[GARBLED] * 3, None))


def test_without_patience_there_is_one_attempt() -> None:
    clock = Clock()
    with pytest.raises(StoreUnreachable):
        clock.patience(0).attempt(failing(RESET, None))
    assert not clock.slept


@pytest.mark.parametrize(
    ("body_bytes", "factor", "seconds"),
    [(0, 1, 20), (1024 * 1024, 1, 20), (8 * 1024 * 1024, 1, 84), (32 * 1024 * 1024, 1, 276), (10, 16, 20)],
)
def test_silence_is_allowed_for_as_long_as_sending_may_take(
    body_bytes: int, factor: int, seconds: int
) -> None:
    assert silence_seconds(body_bytes, factor) == seconds
    assert silence_seconds(body_bytes, 2 * factor) >= seconds
