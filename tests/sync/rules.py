"""A rule of the protocol and its story, which ends well, and ends badly where the rule is taken out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.sync.machine import LOGS, Life, World, world_in
from tests.sync.machine_scenes import SCENES, play

Story = Callable[[Path], None]
Removal = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Rule:
    """``ends_well`` is the story; ``without`` takes the rule out: the one decision is replaced by the naive
    one."""

    name: str
    ends_well: Story
    without: Removal


def both_ways(rules: Sequence[Rule]) -> tuple[Callable[..., None], Callable[..., None]]:
    """The two tests of each of `rules`: its story with it, and without it."""
    each_rule = pytest.mark.parametrize("rule", rules, ids=lambda rule: rule.name)

    @each_rule
    def with_the_rule(rule: Rule, tmp_path: Path) -> None:
        rule.ends_well(tmp_path)

    @each_rule
    def without_the_rule(rule: Rule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rule.without(monkeypatch)
        with pytest.raises(AssertionError) as told:
            rule.ends_well(tmp_path)
        print(rule.name, "->", str(told.value).split("\n")[0][:200])

    return with_the_rule, without_the_rule


# -- what stories are made of


def in_a_world(story: Callable[[World, Life, Life], None], **options: Any) -> Story:
    def told(place: Path) -> None:
        with world_in(place, **options) as world:
            story(world, *world.pods)
            world.assert_unbroken()
            world.settle()

    return told


def in_the_middle(scene: str, point: str, what: str, *, tiny_blocks: bool = False) -> Story:
    """A scene with `what` happening where its operation comes to `point`."""
    return lambda place: play(SCENES[scene], place, point, what, LOGS[0], tiny_blocks=tiny_blocks)


def object_of(world: World, path: str) -> bytes:
    return world.bucket.objects[world.keys.object(path)].body
