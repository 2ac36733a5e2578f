"""A stranger who scrapes without a pause costs no more than ten texts a second."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.api import scrapes
from sidecar.api.metrics import Metrics
from sidecar.api.scrapes import BURST, TEXTS_PER_SECOND, Scrapes
from tests.api.serving import Api


class Counting(Metrics):
    """Metrics that count their texts."""

    made = 0

    def exposed(self, accept: str) -> tuple[bytes, str]:
        self.made += 1
        return f"{accept} {self.made}".encode(), accept


def test_a_flood_gets_the_last_text_again() -> None:
    now = 0.0
    metrics = Counting()
    texts = Scrapes(metrics, lambda: now)
    assert {texts.text("plain")[0] for _ in range(1000)} == {
        f"plain {n + 1}".encode() for n in range(int(BURST))
    }
    now = 1.0
    for _ in range(1000):
        texts.text("plain")
    assert metrics.made == BURST + TEXTS_PER_SECOND


def test_a_scrape_each_second_is_always_fresh() -> None:
    now = 0.0
    metrics = Counting()
    texts = Scrapes(metrics, lambda: now)
    for number in range(100):
        now += 1.0
        assert texts.text("plain")[0] == f"plain {number + 1}".encode()


def test_each_format_has_its_own_text_and_strange_ones_do_not_pile_up() -> None:
    texts = Scrapes(Counting(), lambda: 0.0)
    assert (texts.text("a")[1], texts.text("b")[1]) == ("a", "b")
    for number in range(1000):
        texts.text(f"accept-{number}")
    assert len(texts._texts) <= 8
    assert texts.text("never seen")[0]


async def test_the_listeners_keep_to_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    exposed = Metrics.exposed

    def counted(self: Metrics, accept: str) -> tuple[bytes, str]:
        nonlocal made
        made += 1
        return exposed(self, accept)

    monkeypatch.setattr(Metrics, "exposed", counted)
    monkeypatch.setattr(scrapes, "TEXTS_PER_SECOND", 0.0)
    answers = await asyncio.gather(*(api.get("/metrics", health=number % 2 == 0) for number in range(200)))
    assert {answer.status for answer in answers} == {200}
    assert made == BURST
