"""What the machine and a second reading found, each as the shortest story that brings it about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sync.machine import LOGS, SETTINGS, World, world_in
from tests.sync.machine_scenes import SCENES, cuts, play
from tests.sync.memory_store import Fate

LOG = LOGS[0]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_in(tmp_path) as made:
        yield made


def at_each_point(scene: str, what: str, path: str, place: Path) -> None:
    """Play `scene` once for each point of its operation, with `what` happening there."""
    for point in range(1, cuts(SCENES[scene], place / "whole") + 1):
        play(SCENES[scene], place / str(point), point, what, path)


def object_at(world: World, path: str) -> bytes:
    return world.bucket.objects[world.keys.object(path)].body


def test_a_tool_that_changes_bytes_and_keeps_the_metadata_is_not_overwritten_unseen(world: World) -> None:
    (a, _) = world.pods
    world.edit(a, SETTINGS)
    world.start(a)
    world.outside_in_place(SETTINGS)
    theirs = object_at(world, SETTINGS)
    world.wait(3600)
    mine = world.edit(a, SETTINGS)
    assert world.backup(a).conflicts == (SETTINGS,)
    assert object_at(world, SETTINGS) == mine
    assert world.truth.kept[SETTINGS] == {theirs}
    world.settle()


def test_kept_metadata_does_not_make_a_restore_believe_that_both_sides_are_equal(world: World) -> None:
    (a, _) = world.pods
    world.edit(a, SETTINGS)
    world.start(a)
    world.outside_in_place(SETTINGS)
    world.lose_ledger(a)
    world.start(a)
    assert a.content(SETTINGS) == object_at(world, SETTINGS)
    world.settle()


@pytest.mark.parametrize("answer", [404, 412])
def test_an_edit_of_a_file_whose_object_was_deleted_goes_up(tmp_path: Path, answer: int) -> None:
    with world_in(tmp_path, missing_answer=answer) as world:
        (a, _) = world.pods
        world.edit(a, SETTINGS)
        world.start(a)
        world.outside_delete(SETTINGS)
        mine = world.edit(a, SETTINGS)
        assert world.backup(a).durable
        assert object_at(world, SETTINGS) == mine


@pytest.mark.parametrize("what", ["edit", "delete"])
def test_what_the_agent_does_in_the_middle_of_a_restore_is_not_undone(tmp_path: Path, what: str) -> None:
    at_each_point("a restore into a live pod that is behind", what, SETTINGS, tmp_path)


def test_a_body_that_broke_because_another_version_came_is_read_again(world: World) -> None:
    (a, _) = world.pods
    world.append(a, LOG, 3)
    world.start(a)
    for point in range(1, 60):
        b = world.replace_pod(1)
        world.start(b, {point: [lambda b=b: (world.outside_put(LOG), world.trouble(b, [Fate.CLEARED]))]})
        assert b.content(LOG) is not None
    world.settle()
