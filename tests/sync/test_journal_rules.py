"""The rules of the protocol that speak of the journal, each taken out: the story then ends badly.

As `test_protocol_rules`, for what the journal adds to rules 3, 4, 10, 12 to 16, 18 and 20.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.area import journal
from sidecar.home.reads import StableFile
from sidecar.sync import flush, fold, initial, mirroring, overlay, unfold, whole_files
from sidecar.sync.flush_entry import put_entry
from sidecar.sync.journal_reader import read_journal
from sidecar.sync.ledger import Ledger
from sidecar.sync.marks import Flushed
from sidecar.sync.restore import area_listing
from sidecar.sync.tails import Tail
from tests.sync import machine_points
from tests.sync.machine import LOGS, SETTINGS, Life, World
from tests.sync.machine_truth import lines_of
from tests.sync.memory_store import Fate
from tests.sync.rules import Rule, both_ways, in_a_world, object_of

LOG, OTHER_LOG = LOGS
OBJECT = f"user_data/ada/.claude/{LOG}"
OTHER_OBJECT = f"user_data/ada/.claude/{OTHER_LOG}"
OBJECTS, JOURNAL = "user_data/ada/.claude/", "user_data/ada/.claude-sidecar/journal/"


def before(pod: Life, point: str, then: Callable[[], object]) -> None:
    """Have `then` happen each time that a request of `pod` is about to be made."""
    passed = pod.store._pass_point

    def pass_point(what: str) -> None:
        passed(what)
        if what.startswith(f"before {point}"):
            then()

    pod.store._pass_point = pass_point


def never_takes(world: World, pod: Life, key: str) -> None:
    """Somebody else is always faster at `key`."""
    before(pod, f"put {key}", lambda: world.trouble(pod, [Fate.REFUSED]))


# -- stories


def a_line_comes_again_in_the_journal(world: World, a: Life, b: Life) -> None:
    world.append_lines(a, LOG, [b"again"])
    world.run(a)
    world.backup(a)
    world.start(b)
    world.append(b, LOG)
    world.backup(b)
    world.append_lines(a, LOG, [b"again"])
    world.flush(a)
    assert Counter(lines_of(world.look().content(LOG) or b""))[b"again"] == 2


def a_line_is_unfinished_at_the_flush(world: World, a: Life, b: Life) -> None:
    world.run(a)
    world.append(a, LOG, 2, torn=True)
    world.flush(a)


def a_restore_prefers_the_journal(world: World, a: Life, b: Life) -> None:
    """Two siblings, one in its object and a newer one in the journal of a pod that died."""
    world.edit(a, SETTINGS)
    world.run(a)
    world.backup(a)
    world.start(b)
    theirs = world.edit(b, SETTINGS)
    world.backup(b)
    world.wait(3600)
    mine = world.edit(a, SETTINGS)
    world.flush(a)
    c = world.replace_pod(0)
    world.wait(100)
    world.start(c)
    assert c.content(SETTINGS) == mine
    world.backup(c)
    assert object_of(world, SETTINGS) == mine
    assert theirs in world.truth.kept.get(SETTINGS, ())


def a_removal_arrives_late(world: World, a: Life, b: Life) -> None:
    """It was sent twice: the first time it stayed on its way."""
    before(a, f"delete {JOURNAL}", lambda: world.bucket.late.append(lambda: world.bucket.delete(first)))
    world.run(a)
    world.append(a, LOG)
    world.flush(a)
    (first,) = world.truth.account.entries
    world.backup(a)
    world.backup(a)
    assert world.bucket.late
    world.lose_ledger(a)
    world.run(a)
    world.append(a, LOG)
    assert world.flush(a).durable
    world.bucket.deliver()


def a_stale_copy_comes_between_two_checkpoints(world: World, a: Life, b: Life) -> None:
    world.append(a, LOG)
    world.run(a)
    world.backup(a)
    world.append(a, LOG)
    world.flush(a)
    world.backup(a)
    world.bucket.put(OBJECT, world.truth.ever[LOG][0].body)
    world.backup(a)


def a_stale_copy_comes_right_after_the_checkpoint(world: World, a: Life, b: Life) -> None:
    world.append(a, LOG)
    world.run(a)
    world.backup(a)
    world.append(a, LOG)
    world.flush(a)
    stale = world.truth.ever[LOG][0].body
    world.backup(a, {f"after put {OBJECT}": [lambda: world.bucket.put(OBJECT, stale)]})


def one_path_of_an_entry_cannot_be_sent(world: World, a: Life, b: Life) -> None:
    world.run(a)
    world.append(a, LOG)
    world.append(a, OTHER_LOG)
    world.flush(a)
    never_takes(world, a, OTHER_OBJECT)
    for _ in range(3):
        world.backup(a)
    a.store._pass_point = a._pass_point


def another_pod_lacks_what_an_entry_holds(world: World, a: Life, b: Life) -> None:
    """The first pod dies; the second one, which lives on, never gets its lines into the object."""
    world.append(a, LOG)
    world.run(a)
    world.backup(a)
    world.run(b)
    world.append(a, LOG)
    world.flush(a)
    world.replace_pod(0)
    world.wait(100)
    world.merge(b)
    never_takes(world, b, OBJECT)
    for _ in range(3):
        world.backup(b)
    b.store._pass_point = b._pass_point


def a_dead_pods_last_version_lost(world: World, a: Life, b: Life) -> None:
    """An edit that only the journal holds, and that the other pod's edit is not made from."""
    world.edit(a, SETTINGS)
    world.run(a)
    world.backup(a)
    world.run(b)
    world.edit(a, SETTINGS)
    world.flush(a)
    world.edit(b, SETTINGS)
    world.backup(b)
    world.replace_pod(0)
    world.wait(100)
    world.merge(b)
    for _ in range(3):
        world.backup(b)


def a_large_result_and_its_line(world: World, a: Life, b: Life) -> None:
    world.run(a)
    world.use_tool(a, LOG, 300)
    world.flush(a)


def a_small_result_and_its_line(world: World, a: Life, b: Life) -> None:
    world.run(a)
    for path in LOGS:
        world.use_tool(a, path, 90)
    world.flush(a)


def a_session_goes_from_pod_to_pod(world: World, a: Life, b: Life) -> None:
    for _ in range(3):
        world.run(a)
        world.append(a, LOG)
        world.append_lines(a, LOG, [b"again"])
        world.flush(a)
        a = world.replace_pod(0)
    world.look()
    assert Counter(lines_of(world.look().content(LOG) or b""))[b"again"] == 3


def much_is_new(world: World, a: Life, b: Life) -> None:
    world.run(a)
    for path in LOGS:
        world.append(a, path, 2)
    world.edit(a, SETTINGS)
    world.flush(a)
    sizes = [sum(len(r.data) for r in entry.records) for entry in world.truth.account.written]
    assert len(sizes) > 1
    assert max(sizes) <= journal.MAX_BATCH_BYTES


def a_deletion_is_mirrored(world: World, a: Life, b: Life) -> None:
    world.run(a)
    for path in (SETTINGS, "CLAUDE.md", "plans/a"):
        world.edit(a, path)
    world.append(a, LOG)
    world.backup(a)
    world.append(a, LOG)
    world.flush(a)
    world.delete(a, LOG)
    world.wait(10)
    world.backup(a)
    assert OBJECT not in world.bucket.objects
    assert world.look().content(LOG) is None


def a_checkpoint_in_the_middle_of_a_restore(world: World, a: Life, b: Life) -> None:
    world.run(b)
    world.append(b, LOG)
    world.flush(b)
    at_work = [lambda: world.backup(b), lambda: world.backup(b)]
    world.start(a, {f"after list {JOURNAL}": [*at_work], f"after list {OBJECTS}": [*at_work]})
    assert a.content(LOG) == b.content(LOG)


def a_flush_inside_a_checkpoint(world: World, a: Life, b: Life) -> None:
    world.run(a)
    world.append(a, LOG)
    world.flush(a)

    def more() -> None:
        world.append(a, LOG)
        world.happen(a, "flush", LOG)

    world.backup(a, {f"before put {OBJECT}": [more]})
    never_takes(world, a, OBJECT)
    for _ in range(3):
        world.backup(a)
    a.store._pass_point = a._pass_point


def a_flush_does_not_arrive(world: World, a: Life, b: Life) -> None:
    world.run(a)
    world.append(a, LOG)
    world.trouble(a, [Fate.UNREACHABLE])
    assert not world.flush(a).durable
    assert world.flush(a).durable


def a_restore_appends_behind_unsent_lines(world: World, a: Life, b: Life) -> None:
    """After a restore nothing foreign counts as new, and what is new is not taken for durable."""
    world.go_on(a)
    world.append(a, LOG)
    world.flush(a)
    world.append(b, LOG)
    world.run(b)
    assert world.flush(b).durable
    world.replace_pod(1)


# -- removals


def no_occurrences(patch: pytest.MonkeyPatch) -> None:
    grown = Tail.grown
    patch.setattr(Tail, "grown", lambda self, data: (grown(self, data)[0], {}))


def up_to_the_size(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        StableFile,
        "last_newline",
        lambda self, limit=None: min(self.size, self.size if limit is None else limit),
    )


def no_loser_is_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(whole_files.Shipment, "_keep_loser_aside", lambda self, mark: None)


def the_same_writer_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(machine_points, "writers_name", lambda number: "pod-for-ever")


def any_version_holds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fold._Proofs, "version_holds", lambda self, path: True)


def removed_at_once(patch: pytest.MonkeyPatch) -> None:
    def at_once(workspace: Any, proofs: Any) -> int:
        for sequence, entry in workspace.ledger.entries().items():
            if all(fold._is_settled(workspace, proofs, path, sequence) for path in entry.paths):
                key = workspace.keys.journal + journal.name(workspace.ledger.writer, sequence)
                workspace.store.delete(key, if_match=None)
                workspace.ledger.entry_removed(sequence)
        return 0

    patch.setattr(fold, "_fold_own", at_once)


def one_record_is_enough(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fold, "all", any, raising=False)


def every_line_is_contained(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(unfold, "contained", lambda record, counts: True)


def foreign_versions_are_nobodys(patch: pytest.MonkeyPatch) -> None:
    contained = fold._is_contained
    patch.setattr(
        fold,
        "_is_contained",
        lambda w, proofs, others, record, later: (
            isinstance(record, journal.Whole) or contained(w, proofs, others, record, later)
        ),
    )


def results_come_last(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(flush, "_results_first", lambda stats: ([], list(stats)))


def lines_come_first(patch: pytest.MonkeyPatch) -> None:
    def lines_first(stats: Any, key: Any = None, reverse: bool = False) -> Any:
        return sorted(stats, key=key, reverse=reverse or key is not None)

    patch.setattr(flush, "sorted", lines_first, raising=False)


def the_names_decide(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(unfold, "_in_order", lambda writers: [r for name in sorted(writers) for r in writers[name]])


def no_cap(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(flush, "_batches", lambda gathered: iter([list(gathered)]))


def nothing_is_voided(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(mirroring, "_void", lambda workspace, paths: None)


def objects_first(patch: pytest.MonkeyPatch) -> None:
    listings: list[Any] = []

    def read(workspace: Any, **more: Any) -> Any:
        listings.append(area_listing(workspace))
        return read_journal(workspace)

    patch.setattr(initial, "wait_for_the_living", read)
    patch.setattr(
        initial, "area_listing", lambda w, **how: listings.pop() if listings else area_listing(w, **how)
    )


def whatever_was_flushed_is_folded(patch: pytest.MonkeyPatch) -> None:
    real = Ledger.fold

    def fold_all(self: Ledger, path: str, known: Flushed | None, after: Flushed, *void: Any) -> None:
        real(self, path, self.flushed(path), after, *void)

    patch.setattr(Ledger, "fold", fold_all)


def the_ledger_first(patch: pytest.MonkeyPatch) -> None:
    def note_and_put(workspace: Any, records: Any, *carried: Any, **more: Any) -> Any:
        noted = {}
        for record in records:
            whole = workspace.home.root.joinpath(record.path).read_bytes()[: record.end]
            noted[record.path] = Flushed(record.end, hashlib.sha256(whole).hexdigest(), 0)
        workspace.ledger.record_flush(workspace.ledger.next_sequence(), 0, noted)
        return put_entry(workspace, records, *carried, **more)

    patch.setattr(flush, "put_entry", note_and_put)


def all_of_a_home_is_durable(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(overlay, "_is_durable", lambda workspace, file: True)


RULES = (
    Rule("3, the journal carries occurrences", in_a_world(a_line_comes_again_in_the_journal), no_occurrences),
    Rule("4, whole lines in the journal too", in_a_world(a_line_is_unfinished_at_the_flush), up_to_the_size),
    Rule(
        "6, a flush mark never covers what was not sent",
        in_a_world(a_restore_appends_behind_unsent_lines),
        all_of_a_home_is_durable,
    ),
    Rule("10, the loser of a restore is kept", in_a_world(a_restore_prefers_the_journal), no_loser_is_kept),
    Rule(
        "12, a fresh ledger is a fresh writer",
        in_a_world(a_removal_arrives_late),
        the_same_writer_again,
    ),
    Rule(
        "13, the object is the version of the mark",
        in_a_world(a_stale_copy_comes_between_two_checkpoints),
        any_version_holds,
    ),
    Rule(
        "13, found by two checkpoints",
        in_a_world(a_stale_copy_comes_right_after_the_checkpoint),
        removed_at_once,
    ),
    Rule(
        "13, all records of an entry", in_a_world(one_path_of_an_entry_cannot_be_sent), one_record_is_enough
    ),
    Rule(
        "13, a foreign line is contained",
        in_a_world(another_pod_lacks_what_an_entry_holds),
        every_line_is_contained,
    ),
    Rule(
        "13, a foreign version is kept aside",
        in_a_world(a_dead_pods_last_version_lost),
        foreign_versions_are_nobodys,
    ),
    Rule(
        "14, large results before their line",
        in_a_world(a_large_result_and_its_line, batch_bytes=200),
        results_come_last,
    ),
    Rule(
        "14, small results before their line",
        in_a_world(a_small_result_and_its_line, batch_bytes=200),
        lines_come_first,
    ),
    Rule("14, a batch is capped", in_a_world(much_is_new, batch_bytes=80), no_cap),
    Rule(
        "15, a mirrored deletion voids the journal",
        in_a_world(a_deletion_is_mirrored, deletions="mirror"),
        nothing_is_voided,
    ),
    Rule("16, the journal first", in_a_world(a_checkpoint_in_the_middle_of_a_restore), objects_first),
    Rule(
        "18, a flush inside a checkpoint keeps its say",
        in_a_world(a_flush_inside_a_checkpoint),
        whatever_was_flushed_is_folded,
    ),
    Rule("the order of lines", in_a_world(a_session_goes_from_pod_to_pod), the_names_decide),
    Rule("20, the journal before the ledger", in_a_world(a_flush_does_not_arrive), the_ledger_first),
)

test_with_the_rule_the_story_ends_well, test_without_the_rule_something_is_lost = both_ways(RULES)
