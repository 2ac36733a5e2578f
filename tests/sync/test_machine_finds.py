"""What the machine and a second reading found, each as the shortest story that brings it about."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.errors import LedgerError
from sidecar.sync.bodies import SPOOL_BYTES, Spool
from tests.sync.machine import LOGS, SECOND_NS, SETTINGS, Life, World, world_in
from tests.sync.machine_points import Events
from tests.sync.machine_scenes import SCENES, play
from tests.sync.machine_truth import lines_of
from tests.sync.memory_store import Crash, Fate, Lie

LOG = LOGS[0]
MEMORY = "CLAUDE.md"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_in(tmp_path) as made:
        yield made


OF_LOG = f"user_data/ada/.claude/{LOG}"


def entry_of(pod: Life, number: int) -> str:
    """The key of an entry of the sidecar that runs."""
    assert pod.session
    return f"user_data/ada/.claude-sidecar/journal/{pod.session.workspace.ledger.writer}/{number:012d}.zst"


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
    play(SCENES["a restore into a live pod that is behind"], tmp_path, "before replace", what, SETTINGS)


def test_a_body_that_broke_because_another_version_came_is_read_again(world: World) -> None:
    (a, _) = world.pods
    world.append(a, LOG, 3)
    world.start(a)
    b = world.replace_pod(1)

    def another_version() -> None:
        world.outside_put(LOG)
        world.trouble(b, [Fate.CLEARED])

    world.start(b, {f"a chunk of {OF_LOG}": [another_version]})
    assert b.content(LOG) == object_at(world, LOG)
    world.settle()


def test_a_file_compared_while_it_may_still_change_is_read_again(world: World) -> None:
    a, b = world.pods
    body = world.edit(a, SETTINGS)
    world.start(a)
    world.bucket.put(world.keys.object(SETTINGS), body, metadata={}, parts=1)  # no MD5 to tell it by
    world.outside_manifest(0)
    b.skew_ns = SECOND_NS
    world.put_in(b, SETTINGS, body)  # at the very moment of the restore
    b.skew_ns = 0

    def later(what: str) -> None:
        if what.startswith("before get") and what.endswith(SETTINGS):
            world.wait(1)

    b.store._pass_point = later
    world.start(b)
    with b.open() as workspace:
        mark = workspace.ledger.mark(SETTINGS)
    assert mark is not None
    assert mark.stat is None


def test_an_unfinished_line_in_the_home_does_not_keep_the_object_from_being_healed(world: World) -> None:
    (a, _) = world.pods
    world.append(a, LOG, 2)
    world.start(a)
    world.append(a, LOG, torn=True)
    world.outside_cut(LOG)
    world.settle()


def test_a_restore_writes_the_version_that_it_compared(world: World) -> None:
    """Somebody empties the object between the comparison and the writing."""
    a, b = world.pods
    world.append(a, LOG)
    world.start(a)
    world.start(b)
    world.append(b, LOG)
    world.backup(b)
    world.replace_pod(1)
    world.lose_ledger(a)
    world.start(a, {f"a chunk of {OF_LOG}": [lambda: world.bucket.put(OF_LOG, b"")]})
    world.settle()


def test_lines_that_came_while_a_file_was_rewritten_do_not_make_the_rewrite_count_as_sent(
    tmp_path: Path,
) -> None:
    scene = SCENES["a restore into a live pod that is behind"]
    play(scene, tmp_path, "before _append_at_once", "rewind", LOG)


def test_a_spool_whose_body_breaks_off_is_closed(tmp_path: Path) -> None:
    def body() -> Iterator[bytes]:
        yield b"x"
        raise Crash

    with pytest.raises(Crash):
        Spool(body(), tmp_path)
    gc.collect()  # an open file would warn, and warnings are errors


@pytest.mark.parametrize("what", ["edit", "revert"])
@pytest.mark.parametrize("fate", [Fate.LOST, Fate.LATE, Fate.UNREACHABLE])
def test_after_an_answer_that_never_came_the_last_edit_still_stands(
    tmp_path: Path, what: str, fate: Fate
) -> None:
    for number in range(4):
        with world_in(tmp_path / str(number)) as world:
            (a, _) = world.pods
            world.start(a)
            first = world.edit(a, SETTINGS)
            world.backup(a)
            world.edit(a, SETTINGS)
            world.trouble(a, [Fate.NORMAL] * number + [fate])
            world.backup(a)
            last = world.edit(a, SETTINGS) if what == "edit" else first
            world.put_in(a, SETTINGS, last)
            world.settle()
            assert object_at(world, SETTINGS) == last


def test_after_the_answer_to_a_first_write_never_came_the_next_edit_still_stands(tmp_path: Path) -> None:
    for number in range(4):
        with world_in(tmp_path / str(number)) as world:
            (a, _) = world.pods
            world.start(a)
            world.edit(a, SETTINGS)
            world.trouble(a, [Fate.NORMAL] * number + [Fate.LOST])
            world.backup(a)
            last = world.edit(a, SETTINGS)
            world.settle()
            assert object_at(world, SETTINGS) == last


def test_lines_that_a_union_holds_already_are_not_sent_again_when_the_journal_brings_them(
    world: World,
) -> None:
    """The entry of a lost answer is nobody's to remove for a while; the object holds its line long since."""
    a, b = world.pods
    world.go_on(b)
    world.go_on(a)
    world.trouble(b, [Fate.LOST])
    world.go_on(b)
    world.go_on(a)
    world.settle()


def test_lines_that_were_never_flushed_are_not_durable_because_a_restore_added_others(world: World) -> None:
    a, b = world.pods
    world.go_on(a)
    world.append(a, LOG)
    world.flush(a)
    world.append(b, LOG)
    world.run(b)
    assert world.flush(b).durable
    world.replace_pod(1)
    world.settle()


def test_a_flush_behind_an_object_that_somebody_cut_off_begins_at_a_line(world: World) -> None:
    a, b = world.pods
    world.go_on(a)
    world.append(a, LOG)
    world.truth.disordered.add(LOG)
    world.bucket.put(OF_LOG, object_at(world, LOG)[:-7])
    world.truth.make(LOG, object_at(world, LOG))
    world.merge(a)
    world.append(a, LOG)
    assert world.flush(a).durable
    world.go_on(b)
    world.settle()


@pytest.mark.parametrize("path", [LOG, SETTINGS])
def test_what_was_only_flushed_and_then_deleted_stays_deleted_in_a_live_home(world: World, path: str) -> None:
    (a, _) = world.pods
    world.run(a)
    world.append(a, "projects/p/t.jsonl")  # the home is not empty: it is not taken for a new one
    if path == LOG:
        world.append(a, path)
    else:
        world.edit(a, path)
    world.flush(a)
    world.delete(a, path)
    world.merge(a)
    assert a.content(path) is None
    world.settle()


def test_a_transcript_that_begins_anew_after_a_flush_does_not_settle_what_was_flushed(world: World) -> None:
    """The home is emptied while the sidecar runs, after a restore that left a mark of nothing."""
    a, b = world.pods
    world.run(b)
    world.append(b, LOG)
    world.flush(b)
    world.append_lines(a, LOG, [b"same"])
    world.backup(a)
    world.merge(b)
    world.empty_home(b)
    world.append(b, LOG)
    world.flush(b)
    for _ in range(2):
        world.backup(b)
    world.settle()


def test_what_the_agent_writes_in_the_middle_of_a_restore_is_not_durable_by_that(world: World) -> None:
    a, b = world.pods
    world.go_on(a)
    world.run(b)
    world.append(a, LOG)
    world.flush(a)
    world.merge(b, {"after _append_at_once": [lambda: world.append(b, LOG)]})
    assert world.flush(b).durable
    world.replace_pod(1)
    world.settle()


def test_a_clock_that_is_set_back_does_not_bring_an_earlier_edit_of_the_same_pod_back(world: World) -> None:
    (a, _) = world.pods
    world.edit(a, SETTINGS)
    world.run(a)
    world.backup(a)
    world.wait(10_000)
    world.edit(a, SETTINGS)
    world.flush(a)
    a.skew_ns = -7200 * SECOND_NS
    last = world.edit(a, SETTINGS)
    world.backup(a)
    assert world.look().content(SETTINGS) == last
    world.settle()


def test_settings_that_the_journal_holds_come_although_somebody_cut_their_object(world: World) -> None:
    (a, _) = world.pods
    world.edit(a, SETTINGS)
    world.run(a)
    world.backup(a)
    mine = world.edit(a, SETTINGS)
    world.flush(a)
    torn = object_at(world, SETTINGS)[:4]
    world.truth.make(SETTINGS, torn)
    world.bucket.put(world.keys.object(SETTINGS), torn)
    assert world.look().content(SETTINGS) == mine


def test_what_a_union_left_in_the_object_comes_into_a_live_home_before_the_journal(world: World) -> None:
    """The object stays as the pod made it, so that no restore looks at it; its other lines come first."""
    a, b = world.pods
    world.append(a, LOG)
    world.run(a)
    world.run(b)
    world.append(b, LOG)
    world.backup(b)
    world.append(a, LOG)
    world.backup(a)
    world.append(b, LOG)
    world.flush(b)
    world.merge(a)
    assert lines_of(a.content(LOG) or b"")[2:] == lines_of(b.content(LOG) or b"")[1:]
    world.settle()


def test_a_home_that_ends_within_a_line_comes_to_rest_although_nothing_can_be_laid_on(world: World) -> None:
    """No round may forget what it knows of the object, only for the checkpoint to learn it again."""
    a, b = world.pods
    world.append(a, LOG)
    world.run(a)
    world.run(b)
    world.append(b, LOG)
    world.backup(b)
    world.append(a, LOG, 2, torn=True)
    world.backup(a)
    c = world.replace_pod(1)
    world.run(c)
    world.append(c, LOG)
    world.flush(c)
    world.replace_pod(1)
    world.settle()


def test_a_line_that_another_pod_journalled_too_comes_behind_those_of_its_own_writer(world: World) -> None:
    a, b = world.pods
    world.append(a, LOG)
    world.run(a)
    world.run(b)
    world.append(b, LOG)
    world.flush(b)
    world.merge(a)  # durable, so nobody flushes it again
    world.append(a, LOG)
    world.append(b, LOG)
    world.flush(b)
    world.merge(a)  # behind a line that is not: both go into one entry
    world.flush(a)
    world.settle()


def test_an_edit_that_was_flushed_and_taken_back_does_not_come_back(world: World) -> None:
    """The file is what its object holds again, so nothing is sent; only the journal still has the edit."""
    (a, _) = world.pods
    first = world.edit(a, SETTINGS)
    world.run(a)
    world.backup(a)
    world.edit(a, SETTINGS)
    world.flush(a)
    world.put_in(a, SETTINGS, first)
    assert world.backup(a).durable
    assert world.look().content(SETTINGS) == first
    world.settle()
    assert not world.truth.account.entries


def test_a_restore_into_a_live_home_does_not_lay_on_an_edit_that_was_taken_back(world: World) -> None:
    (a, _) = world.pods
    first = world.edit(a, SETTINGS)
    world.run(a)
    world.backup(a)
    world.edit(a, SETTINGS)
    world.flush(a)
    world.put_in(a, SETTINGS, first)
    world.merge(a)
    assert a.content(SETTINGS) == first
    world.settle()


def test_an_edit_laid_on_by_a_restore_and_taken_back_is_not_laid_on_again(world: World) -> None:
    a, b = world.pods
    first = world.edit(a, SETTINGS)
    world.run(a)
    world.backup(a)
    world.run(b)
    world.edit(a, SETTINGS)
    world.flush(a)
    world.merge(b)
    world.put_in(b, SETTINGS, first)
    world.merge(b)
    assert b.content(SETTINGS) == first
    world.settle()


def test_an_edit_is_not_laid_over_the_later_one_that_somebody_else_had_sent_before(world: World) -> None:
    """The object holds the later version already, by another hand and with an earlier time."""
    (a, _) = world.pods
    world.edit(a, SETTINGS)
    world.run(a)
    world.backup(a)
    world.outside_put(SETTINGS)
    theirs = object_at(world, SETTINGS)
    world.wait(100)
    world.edit(a, SETTINGS)
    world.flush(a)
    world.put_in(a, SETTINGS, theirs)
    assert world.backup(a).durable
    assert world.look().content(SETTINGS) == theirs
    world.settle()


def test_a_rewind_to_just_what_the_object_holds_is_not_undone(world: World) -> None:
    (a, _) = world.pods
    world.append(a, LOG, 2)
    world.run(a)
    world.backup(a)
    world.append(a, LOG)
    world.flush(a)
    world.rewind(a, LOG, 2)
    world.backup(a)
    assert world.look().content(LOG) == a.content(LOG)
    world.settle()
    assert not world.truth.account.entries


@pytest.mark.parametrize("path", [LOG, SETTINGS])
@pytest.mark.parametrize("fate", [Fate.UNREACHABLE, Fate.LOST, None])
def test_a_rewind_whose_settling_failed_is_settled_by_the_next_checkpoint(
    world: World, path: str, fate: Fate | None
) -> None:
    (a, _) = world.pods
    first = world.edit(a, SETTINGS)
    world.append(a, LOG, 3)
    world.run(a)
    world.backup(a)
    world.edit(a, SETTINGS)
    world.append(a, LOG)
    world.flush(a)
    world.put_in(a, SETTINGS, first) if path == SETTINGS else world.rewind(a, LOG, 1, more=1)
    world.backup(
        a, {f"before put {entry_of(a, 2)}": [lambda: world.trouble(a, [fate]) if fate else world.die()]}
    )
    world.run(a)
    assert world.backup(a).durable
    assert world.look().content(path) == a.content(path)
    world.settle()


def test_a_line_flushed_after_the_scan_of_a_checkpoint_is_no_rewind(world: World) -> None:
    """The checkpoint is at other files, of the transcript it knows the size from its scan."""
    (a, _) = world.pods
    world.append(a, LOG)
    world.edit(a, SETTINGS)
    world.run(a)
    world.backup(a)
    world.append(a, LOG)
    world.edit(a, SETTINGS)

    def more() -> None:
        world.append(a, LOG)
        world.happen(a, "flush", LOG)

    world.backup(a, {f"before put {world.keys.object(SETTINGS)}": [more]})
    assert world.look().content(LOG) == a.content(LOG)
    assert not world.truth.kept
    world.settle()


def test_a_line_flushed_while_a_rewind_is_settled_is_not_settled_with_it(world: World) -> None:
    (a, _) = world.pods
    world.append(a, LOG, 3)
    world.run(a)
    world.backup(a)
    world.append(a, LOG)
    world.flush(a)
    world.rewind(a, LOG, 1, more=6)

    def more() -> None:
        world.append(a, LOG)
        world.happen(a, "flush", LOG)

    world.backup(a, {f"before get {entry_of(a, 1)}": [more]})
    assert world.look().content(LOG) == a.content(LOG)
    world.settle()


def test_what_is_flushed_while_its_checkpoint_is_under_way_does_not_stay_in_the_journal(world: World) -> None:
    (a, _) = world.pods
    world.run(a)
    world.edit(a, SETTINGS)
    at_work = f"before put {world.keys.object(SETTINGS)}"
    world.backup(a, {at_work: [lambda: world.happen(a, "flush", SETTINGS)]})
    assert world.truth.account.entries
    for _ in range(3):
        world.backup(a)
    assert not world.truth.account.entries


def test_a_file_that_came_back_while_its_deletion_is_mirrored_stays_in_the_journal(tmp_path: Path) -> None:
    with world_in(tmp_path, deletions="mirror") as world:
        (a, _) = world.pods
        world.run(a)
        for path in (SETTINGS, "CLAUDE.md", "plans/a"):
            world.edit(a, path)
        world.backup(a)
        world.edit(a, SETTINGS)
        world.flush(a)
        world.delete(a, SETTINGS)
        world.wait(10)

        def again() -> None:
            world.edit(a, SETTINGS)
            world.happen(a, "flush", SETTINGS)

        world.backup(a, {f"after delete {world.keys.object(SETTINGS)}": [again]})
        assert world.look().content(SETTINGS) == a.content(SETTINGS)
        world.settle()


def test_an_edit_is_laid_over_a_home_that_equals_its_object_after_the_ledger_was_lost(world: World) -> None:
    """What is equal on both sides is adopted, and the edit was made from it: nothing is displaced."""
    a, b = world.pods
    first = world.edit(a, SETTINGS)
    world.run(a)
    world.backup(a)
    world.run(b)
    edit = world.edit(a, SETTINGS)
    world.flush(a)
    world.lose_ledger(b)
    world.run(b)
    assert b.content(SETTINGS) == edit
    assert first not in world.truth.kept.get(SETTINGS, ())
    world.settle()


def test_of_a_rewind_one_whole_old_version_is_kept(world: World) -> None:
    """What the object held and what only the journal had: a person takes one file back, not two halves."""
    (a, _) = world.pods
    for keep in (1, 4):  # into what the object holds, and behind it
        world.append(a, LOG, 3)
        world.run(a)
        world.backup(a)
        world.append(a, LOG, 2)
        world.flush(a)
        old = a.content(LOG)
        world.rewind(a, LOG, keep, more=1)
        world.backup(a)
        assert world.truth.kept.pop(LOG) == {old}
        for _ in range(2):
            world.backup(a)
    world.settle()


def test_a_rewind_keeps_what_the_journal_still_has_of_a_line_that_somebody_took_out_of_the_object(
    world: World,
) -> None:
    (a, _) = world.pods
    world.append(a, LOG)
    world.run(a)
    world.backup(a)
    world.append(a, LOG)
    world.flush(a)
    world.backup(a)
    world.bucket.put(OF_LOG, world.truth.ever[LOG][0].body)
    world.rewind(a, LOG, 0)
    world.go_on(a)
    world.settle()


def test_a_rewind_is_not_undone_by_an_entry_that_waits_for_an_older_one(world: World) -> None:
    """The checkpoint found it in the object; it stays as long as the older one must."""
    (a, _) = world.pods
    world.append(a, LOG)
    world.append(a, LOGS[1])
    world.run(a)
    world.backup(a)
    world.append(a, LOGS[1])
    world.flush(a, paths=frozenset([LOGS[1]]))
    world.append(a, LOG)
    world.flush(a)
    other = world.keys.object(LOGS[1])
    refused = {f"before put {other}": [lambda: world.trouble(a, [Fate.REFUSED] * 9)]}
    world.backup(a, {f"after put {OF_LOG}": [lambda: None], **refused})
    world.rewind(a, LOG, 1)
    world.backup(a, refused)
    assert world.look().content(LOG) == a.content(LOG)
    world.settle()


@pytest.mark.parametrize("point", [SETTINGS, LOG])
def test_a_transcript_that_a_flush_sends_whole_beside_a_checkpoint_keeps_its_lines(
    tmp_path: Path, point: str
) -> None:
    """It is new and large: the flush is faster, and has a line that the checkpoint did not see."""
    with world_in(tmp_path, batch_bytes=40) as world:
        (a, _) = world.pods
        world.run(a)
        world.append(a, LOG, 3)
        world.edit(a, SETTINGS)

        def more() -> None:
            world.append(a, LOG)
            world.happen(a, "flush", LOG)

        world.backup(a, {f"before put {world.keys.object(point)}": [more]})
        assert object_at(world, LOG) == a.content(LOG)
        assert not world.truth.kept
        world.append(a, LOG)
        world.backup(a)
        assert object_at(world, LOG) == a.content(LOG)
        world.settle()


def test_a_large_file_that_a_flush_sends_beside_a_checkpoint_is_not_replaced_by_what_it_was(
    tmp_path: Path,
) -> None:
    with world_in(tmp_path, batch_bytes=20) as world:
        (a, _) = world.pods
        world.run(a)
        world.edit(a, SETTINGS)

        def another() -> None:
            world.edit(a, SETTINGS)
            world.happen(a, "flush", SETTINGS)

        world.backup(a, {f"before put {world.keys.object(SETTINGS)}": [another]})
        assert object_at(world, SETTINGS) == a.content(SETTINGS)
        assert not world.truth.kept
        world.settle()


def answer_lost(world: World, pod: Life) -> Events:
    """The first entry of a flush arrives; nobody hears of it."""
    return {
        f"before put {entry_of(pod, 1)}": [lambda: world.trouble(pod, [Fate.LOST])],
    }


def killed_before_the_answer(world: World, pod: Life) -> Events:
    return {f"after put {entry_of(pod, 1)}": [world.die]}


@pytest.mark.parametrize("wrong", [answer_lost, killed_before_the_answer])
@pytest.mark.parametrize("next_step", ["backup", "flush"])
@pytest.mark.parametrize("path", [LOG, SETTINGS])
@pytest.mark.parametrize("keep", [1, 3])
def test_what_arrived_unheard_of_and_was_taken_back_does_not_come_back(
    world: World, keep: int, path: str, next_step: str, wrong: Callable[[World, Life], Events]
) -> None:
    (a, _) = world.pods
    first = world.edit(a, SETTINGS)
    world.append(a, LOG, 3)
    world.run(a)
    world.backup(a)
    world.append(a, LOG) if path == LOG else world.edit(a, SETTINGS)
    world.flush(a, wrong(world, a))
    assert world.truth.account.entries
    world.rewind(a, LOG, keep, more=1) if path == LOG else world.put_in(a, SETTINGS, first)
    world.run(a)
    assert getattr(world, next_step)(a).durable
    assert world.look().content(path) == a.content(path)
    for _ in range(3):
        world.backup(a)
    assert not world.truth.account.entries
    world.settle()


def test_a_restore_does_not_lay_on_an_own_edit_that_arrived_unheard_of_and_was_taken_back(
    world: World,
) -> None:
    (a, _) = world.pods
    first = world.edit(a, SETTINGS)
    world.run(a)
    world.backup(a)
    world.edit(a, SETTINGS)
    world.flush(a, answer_lost(world, a))
    world.put_in(a, SETTINGS, first)
    world.merge(a)
    assert a.content(SETTINGS) == first
    world.settle()


def test_an_entry_that_arrived_unheard_of_is_removed_by_its_own_writer(world: World) -> None:
    (a, _) = world.pods
    world.append(a, LOG)
    world.run(a)
    world.backup(a)
    world.append(a, LOG)
    world.edit(a, SETTINGS)
    world.flush(a, answer_lost(world, a))
    world.append(a, LOG)
    assert world.flush(a).durable
    assert len(world.truth.account.entries) == 2
    for _ in range(2):
        world.backup(a)
    assert not world.truth.account.entries
    assert not world.truth.kept
    world.settle()


def test_what_declares_an_entry_void_is_not_removed_before_it(world: World) -> None:
    """The entry has to wait again, because somebody deleted the object of its other path."""
    a, b = world.pods
    first = world.edit(a, SETTINGS)
    world.append(a, LOG)
    world.run(a)
    world.backup(a)
    world.append(a, LOG)
    world.edit(a, SETTINGS)
    world.flush(a)
    world.put_in(a, SETTINGS, first)
    world.backup(a)
    there = world.bucket.objects[world.keys.object(LOG)]
    world.outside_delete(LOG)
    for _ in range(2):
        world.backup(a)
    world.bucket.put(world.keys.object(LOG), there.body, metadata=there.metadata)
    assert world.look().content(SETTINGS) == first
    world.run(b)
    world.settle()
    assert a.content(SETTINGS) == first


def test_of_a_line_that_stands_twice_one_may_be_kept_aside_and_the_other_one_come_from_the_journal(
    world: World,
) -> None:
    """One pod says a line again and dies; the other one, whose home was emptied, rewrites the file."""
    a, b = world.pods
    world.append(a, LOG)
    world.backup(a)
    world.empty_home(a)
    world.append_lines(a, LOG, [b"same"])
    world.run(b)
    world.repeat(b, LOG)
    world.flush(b)
    world.replace_pod(1)
    world.backup(a)
    world.settle()


@pytest.mark.parametrize("path", [LOG, SETTINGS])
def test_nothing_is_displaced_where_the_copy_of_it_was_refused(world: World, path: str) -> None:
    """Refused means that the copy is there already; whether it is, is looked at."""
    a, b = world.pods
    for pod in (a, b):
        world.append(pod, LOG, 2)
        world.edit(pod, SETTINGS)
        world.start(pod)
    world.append(b, LOG)
    world.edit(b, SETTINGS)
    world.backup(b)
    world.wait(3600)
    world.rewind(a, LOG, 1, more=1)
    world.edit(a, SETTINGS)
    aside = [Fate.NORMAL, Fate.REFUSED]  # the object is read, the copy is refused
    world.backup(a, {f"before get {world.keys.object(path)}": [lambda: world.trouble(a, aside)]})
    world.settle()


def test_a_journal_is_not_laid_alone_where_a_listing_lacks_the_object_that_it_goes_on_from(
    world: World,
) -> None:
    a, b = world.pods
    world.append(a, LOG, 2)
    world.edit(a, SETTINGS)  # the area is not empty for whoever does not see the transcript
    world.run(a)
    world.append(a, LOG)
    world.flush(a)
    b.store.lies = {OF_LOG: Lie.LACKING}
    world.start(b)
    assert b.content(LOG) == a.content(LOG)
    world.settle()


def test_of_edits_that_were_only_flushed_and_then_deleted_the_last_one_becomes_the_object(
    world: World,
) -> None:
    (a, _) = world.pods
    world.edit(a, MEMORY)
    world.append(a, LOG)
    world.run(a)
    world.backup(a)
    for _ in range(2):
        last = world.edit(a, MEMORY)
        world.flush(a)
    world.delete(a, MEMORY)
    for _ in range(3):
        world.backup(a)
    assert object_at(world, MEMORY) == last
    assert not world.truth.account.entries
    world.settle()


def in_the_way(pod: Life, path: str, what: str) -> None:
    (pod.home / path).unlink()
    pod.touched[path] = None
    if what == "a link":
        (pod.home / path).symlink_to("elsewhere")
    else:
        (pod.home / path).mkdir()


@pytest.mark.parametrize("what", ["a link", "a directory"])
@pytest.mark.parametrize("path", [LOG, MEMORY])
def test_what_was_flushed_of_a_file_that_is_none_any_more_does_not_stay_in_the_journal(
    world: World, path: str, what: str
) -> None:
    (a, _) = world.pods
    world.append(a, LOG)
    world.edit(a, MEMORY)
    world.run(a)
    world.backup(a)
    world.append(a, LOG) if path == LOG else world.edit(a, MEMORY)
    world.flush(a)
    flushed = a.content(path)
    assert flushed
    in_the_way(a, path, what)
    for _ in range(3):
        world.backup(a)
    assert not world.truth.account.entries
    assert flushed in {object_at(world, path), *world.truth.kept.get(path, ())}
    world.assert_unbroken()


def test_the_journal_does_not_wait_for_settings_that_stay_broken(world: World) -> None:
    (a, _) = world.pods
    world.edit(a, SETTINGS)
    world.run(a)
    world.backup(a)
    flushed = world.edit(a, SETTINGS)
    world.flush(a)
    world.put_in(a, SETTINGS, b"{")
    for _ in range(4):
        world.backup(a)
    assert not world.truth.account.entries
    assert object_at(world, SETTINGS) == flushed
    last = world.edit(a, SETTINGS)
    world.backup(a)
    assert object_at(world, SETTINGS) == last
    world.settle()


def test_what_a_dead_pod_journalled_does_not_wait_where_a_directory_has_its_name(world: World) -> None:
    a, b = world.pods
    world.append(b, LOG)
    world.run(b)
    world.backup(b)
    world.append(b, LOG)
    world.flush(b)
    flushed = b.content(LOG)
    world.start(a)
    world.replace_pod(1)
    in_the_way(a, LOG, "a directory")
    world.wait(61)
    world.run(a)
    for _ in range(3):
        world.backup(a)
    assert not world.truth.account.entries
    assert object_at(world, LOG) == flushed


@pytest.mark.parametrize("what", ["put", "stale", "delete"])
@pytest.mark.parametrize("path", [LOG, SETTINGS])
def test_the_journal_does_not_wait_for_the_next_edit_of_a_file_whose_object_somebody_changed(
    world: World, path: str, what: str
) -> None:
    (a, _) = world.pods
    world.append(a, LOG)
    world.edit(a, SETTINGS)
    world.run(a)
    world.backup(a)
    world.append(a, LOG) if path == LOG else world.edit(a, SETTINGS)
    world.flush(a)
    world.backup(a)
    assert world.truth.account.entries
    getattr(world, f"outside_{what}")(path)
    for _ in range(4):
        world.backup(a)
    assert not world.truth.account.entries
    world.settle()


@pytest.mark.parametrize("path", [LOG, SETTINGS])
def test_what_was_declared_void_is_not_read_while_its_own_writer_removes_it(world: World, path: str) -> None:
    """Of two entries the older one is read before, and the one that declares it void after both are gone."""
    a, b = world.pods
    world.append(a, LOG, 3)
    first = world.edit(a, SETTINGS)
    world.run(a)
    world.backup(a)
    world.append(a, LOG) if path == LOG else world.edit(a, SETTINGS)
    world.flush(a)
    world.rewind(a, LOG, 3) if path == LOG else world.put_in(a, SETTINGS, first)
    world.backup(a)
    _, void = sorted(world.truth.account.entries)
    world.start(b, {f"before get {void}": [lambda: world.backup(a)]})
    assert not world.truth.account.entries
    assert b.content(path) == a.content(path)


def test_a_volume_that_does_not_take_a_spool_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be used"):
        Spool([b"x" * (SPOOL_BYTES + 1)], tmp_path / "is not there")


def test_a_session_that_is_begun_anew_in_a_home_that_lost_it_counts_as_a_rewind(world: World) -> None:
    """Its first line comes back from another pod, behind what that pod wrote after it; none is lost."""
    a, b = world.pods
    world.run(a)
    world.append(a, LOG)
    world.flush(a)
    world.start(b)
    world.lose_home(a)
    world.append(a, LOG, 3)
    world.run(a)
    world.append(a, LOG)
    world.flush(a)
    world.run(b)
    world.append(b, LOG)
    world.flush(b)
    world.settle()
    assert len(lines_of(object_at(world, LOG))) == 6


@pytest.mark.parametrize("path", [LOG, MEMORY])
def test_a_kill_between_two_notes_of_one_flush_leaves_no_entry_that_nobody_settles(
    tmp_path: Path, path: str
) -> None:
    for number in range(2, 30):
        with world_in(tmp_path / str(number)) as world:
            (a, _) = world.pods
            world.append(a, LOG)
            world.edit(a, MEMORY)
            world.run(a)
            world.backup(a)
            world.append(a, LOG) if path == LOG else world.edit(a, MEMORY)
            world.flush(a, {number: [world.die]})
            world.run(a)
            world.settle()


@pytest.mark.parametrize("path", [LOG, MEMORY])
def test_a_kill_while_it_is_noted_what_arrived_leaves_no_entry_that_nobody_settles(
    tmp_path: Path, path: str
) -> None:
    for number in range(2, 30):
        with world_in(tmp_path / str(number)) as world:
            (a, _) = world.pods
            world.append(a, LOG)
            world.edit(a, MEMORY)
            world.run(a)
            world.backup(a)
            world.append(a, LOG) if path == LOG else world.edit(a, MEMORY)
            world.flush(a, answer_lost(world, a))
            world.backup(a, {number: [world.die]})
            world.run(a)
            world.settle()
