"""Each rule of the protocol has a story that ends well, and ends badly where the rule is taken out.

The journal's rules (10, 12 to 15, and 16 where it speaks of entries) are told in `test_journal_rules`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.home.reads import StableFile
from sidecar.sync import adoption, arrivals, merge, restore, transcripts, whole_files
from sidecar.sync.bodies import Bytes
from sidecar.sync.compare import TranscriptStep, Version, Winner, transcript_step
from sidecar.sync.marks import Mark
from sidecar.sync.workspace import Workspace
from tests.sync.machine import LOGS, SETTINGS, Life, World
from tests.sync.machine_scenes import SCENES
from tests.sync.machine_truth import lines_of
from tests.sync.memory_store import MemoryBucket, MemoryStore
from tests.sync.rules import Rule, both_ways, in_a_world, in_the_middle, object_of

LOG = LOGS[0]
PUT_LOG = f"put user_data/ada/.claude/{LOG}"
HOUR = 3600


# -- stories


def both_write(world: World, a: Life, b: Life) -> None:
    """Two pods that came from one line, each with a line of its own, united by the first."""
    world.append(a, LOG)
    world.start(a)
    world.start(b)
    world.append(b, LOG, 2)
    world.backup(b)
    world.append(a, LOG)
    world.backup(a)


def one_goes_on_after_a_union(world: World, a: Life, b: Life) -> None:
    both_write(world, a, b)
    world.append(a, LOG)
    world.backup(a)
    assert not world.truth.kept


def one_rewinds_and_goes_on(world: World, a: Life, b: Life) -> None:
    both_write(world, a, b)
    before = object_of(world, LOG)
    world.rewind(a, LOG, 1, more=4)
    world.backup(a)
    assert before in world.truth.kept.get(LOG, ())
    rewound = a.content(LOG)
    assert rewound and object_of(world, LOG).startswith(rewound)


def one_writes_a_line_twice(world: World, a: Life, b: Life) -> None:
    world.append(a, LOG)
    world.start(a)
    world.start(b)
    world.append_lines(a, LOG, [b"again", b"again"])
    world.append(b, LOG)
    world.backup(b)
    world.backup(a)
    assert Counter(lines_of(object_of(world, LOG)))[b"again"] == 2


def a_line_is_unfinished_at_the_backup(world: World, a: Life, b: Life) -> None:
    world.start(a)
    world.append(a, LOG, 2, torn=True)
    world.backup(a)


def the_agent_holds_its_transcript_open(world: World, a: Life, b: Life) -> None:
    """A restore beside a client that opened its file before and writes after."""
    both_write(world, a, b)
    with (b.home / LOG).open("ab") as held:
        world.merge(b)
        line = b'{"written":"after"}'
        world.truth.make(LOG, line)
        held.write(line + b"\n")
    assert line in lines_of(b.content(LOG) or b"")


def an_edit_after_a_restore(world: World, a: Life, b: Life) -> None:
    world.edit(a, SETTINGS)
    world.start(a)
    world.start(b)
    last = world.edit(b, SETTINGS)
    world.backup(b)
    assert object_of(world, SETTINGS) == last


def a_stale_copy_is_put_back(world: World, a: Life, b: Life) -> None:
    SCENES["a restore over a copy that was put back"].prepare(world, a, b)
    world.merge(a)


def a_lost_conflict_is_edited_on(world: World, a: Life, b: Life) -> None:
    world.edit(a, SETTINGS)
    world.start(a)
    world.start(b)
    world.edit(b, SETTINGS)
    world.backup(b)
    world.edit(a, SETTINGS)
    world.backup(a)
    world.wait(HOUR)
    world.edit(a, SETTINGS)
    world.backup(a)


def the_base_is_copied_later_than_the_edit(world: World, a: Life, b: Life) -> None:
    """Somebody copies the very bytes that the edit was made from: the object is newer, its version is not."""
    base = world.edit(a, SETTINGS)
    world.start(a)
    last = world.edit(a, SETTINGS)
    world.wait(HOUR)
    world.bucket.put(world.keys.object(SETTINGS), base)
    world.backup(a)
    assert object_of(world, SETTINGS) == last


def an_old_manifest(world: World, a: Life, b: Life) -> None:
    world.edit(a, SETTINGS)
    world.start(a)
    world.outside_put(SETTINGS)
    world.lose_ledger(a)
    world.start(a)
    world.wait(HOUR)
    world.edit(a, SETTINGS)
    world.backup(a)


def the_home_is_emptied(world: World, a: Life, b: Life) -> None:
    world.edit(a, SETTINGS)
    world.append(a, LOG, 3)
    world.start(a)
    before = a.contents()
    world.empty_home(a)
    world.start(a)
    assert a.contents() == before


def a_restore_is_killed(world: World, a: Life, b: Life) -> None:
    SCENES["a restore into a new pod"].prepare(world, a, b)
    world.start(a, {"after take_free_name": [world.die]})
    world.start(a)
    assert a.contents() == b.contents()


def a_backup_is_killed(world: World, a: Life, b: Life) -> None:
    SCENES["a backup of what grew"].prepare(world, a, b)
    world.backup(a, {f"before {PUT_LOG}": [world.die]})
    world.backup(a)


def a_live_home_goes_its_own_way(world: World, a: Life, b: Life) -> None:
    SCENES["a restore into a live pod that went its own way"].prepare(world, a, b)
    world.merge(a)


def another_writes_while_a_store_puts_together(world: World, a: Life, b: Life) -> None:
    """A store that would compose, and holds to no condition there; to those of a plain write it does."""
    world.bucket.composes_blindly = True
    SCENES["a backup of what grew"].prepare(world, a, b)
    world.backup(a, {f"before {PUT_LOG}": [lambda: world.outside_put(LOG)]})


def another_version_stands_there_during_the_copy(world: World, a: Life, b: Life) -> None:
    """Somebody cuts the object and puts it back: at the end its ETag is what it was before the copy."""
    SCENES["a backup of what grew"].prepare(world, a, b)
    key = world.keys.object(LOG)
    first = world.bucket.objects[key]
    begins: list[Callable[[], None]] = [lambda: world.outside_cut(LOG)]
    ends: list[Callable[[], object]] = [
        lambda: world.bucket.put(key, first.body, metadata=first.metadata, parts=first.etag.count("-"))
    ]
    world.backup(a, {f"before copy {key}": begins, f"after copy {key}": ends})
    assert object_of(world, LOG).startswith(first.body)


# -- removals


def grow_alone(patch: pytest.MonkeyPatch) -> None:
    def step(mark: Mark | None, end: int, *, begins_with_mark: bool) -> TranscriptStep:
        found = transcript_step(mark, end, begins_with_mark=begins_with_mark)
        return TranscriptStep.GROW if found is TranscriptStep.EXTEND else found

    patch.setattr(transcripts, "transcript_step", step)


def never_rewritten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        transcripts,
        "transcript_step",
        lambda mark, end, begins_with_mark: transcript_step(mark, end, begins_with_mark=True),
    )


def shorter_is_rewritten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        transcripts,
        "transcript_step",
        lambda mark, end, begins_with_mark: transcript_step(
            mark, end, begins_with_mark=mark is None or end >= mark.size
        ),
    )


def line_is_bytes(patch: pytest.MonkeyPatch) -> None:
    def missing(
        have: Any, have_end: int, other: Any, other_end: int, *, side: Any, emit_from: int = 0
    ) -> Any:
        held = {identity for _, _, identity in merge.lines(have, 0, have_end)}
        return [
            merge.Span(side, at, length)
            for at, length, identity in merge.lines(other, 0, other_end)
            if identity not in held and not held.add(identity)  # type: ignore[func-returns-value]
        ]

    patch.setattr(merge, "missing_lines", missing)


def up_to_the_size(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        StableFile,
        "last_newline",
        lambda self, limit=None: min(self.size, self.size if limit is None else limit),
    )


def replace_in_a_live_home(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Life, "merge", Life.merge_as_at_the_start)


def keep_the_mark_after_an_append(patch: pytest.MonkeyPatch) -> None:
    def believe(self: Any, stat: Any) -> None:
        digest = hashlib.sha256(self.workspace.home.root.joinpath(self.path).read_bytes()).hexdigest()
        mark = Mark(self.info.etag, stat.size, digest, stat.size, digest, stat, stat.mtime_ns, stat.mode)
        self.workspace.ledger.record(self.path, mark)

    patch.setattr(arrivals._Path, "_clear", believe)


def no_base_after_a_restore(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(arrivals._Path, "_record", lambda self, info, sha256, stat, **more: None)


def leave_the_object_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(arrivals._Path, "_record_contained", lambda self, info, spool, stat, contained: None)


def settling_moves_the_base(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(whole_files.Shipment, "_settle", lambda self, etag: self._record(etag))


def clocks_decide(patch: pytest.MonkeyPatch) -> None:
    def winner(local: Version, remote: Version, **more: Any) -> Winner:
        if local.digest == remote.digest:
            return Winner.EQUAL
        return Winner.LOCAL if local.mtime_ns > remote.mtime_ns else Winner.REMOTE

    patch.setattr(whole_files, "winner", winner)


def no_copy(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Workspace, "keep_aside", lambda self, *what: None)


def the_copy_comes_after(patch: pytest.MonkeyPatch) -> None:
    waiting: list[Callable[[], None]] = []
    keep, put = Workspace.keep_aside, MemoryStore.put

    def later(self: Workspace, path: str, body: Any, digest: str, mtime_ns: int) -> None:
        data = bytes(body.read(0, body.size))
        waiting.append(lambda: keep(self, path, Bytes(data), digest, mtime_ns))

    def put_first(self: MemoryStore, key: str, source: Any, **more: Any) -> str:
        etag = put(self, key, source, **more)
        while waiting:
            waiting.pop()()
        return etag

    patch.setattr(Workspace, "keep_aside", later)
    patch.setattr(MemoryStore, "put", put_first)


def believe_the_manifest(patch: pytest.MonkeyPatch) -> None:
    adopt = adoption._adopt
    patch.setattr(
        adoption,
        "_adopt",
        lambda w, stat, info, entry: adopt(w, stat, info, entry and entry._replace(etag=info.etag)),
    )


def any_ledger_counts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Workspace, "_match_ledger", lambda self: None)


def complete_from_the_start(patch: pytest.MonkeyPatch) -> None:
    run = restore.Bringing.run

    def finish_first(self: Any, *more: Any) -> None:
        restore._finish(self._workspace, restore.Tally())
        run(self, *more)

    patch.setattr(restore.Bringing, "run", finish_first)


def mark_what_is_there_now(patch: pytest.MonkeyPatch) -> None:
    record = transcripts._Shipment._record

    def look_again(self: Any, etag: str, size: int, digest: str, **more: Any) -> None:
        if more.get("end") is None:
            body = self.workspace.home.root.joinpath(self.path).read_bytes()
            more = {"end": len(body), "digest_of_end": hashlib.sha256(body).hexdigest()}
        record(self, etag, size, digest, **more)

    patch.setattr(transcripts._Shipment, "_record", look_again)


def no_condition_at_the_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryBucket, "_demand", lambda self, key, condition: None)


def compose_wherever_it_pays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryStore, "composes", lambda self, held_bytes, key_prefix: held_bytes > 0)


def copy_what_is_there(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryBucket, "held", lambda self, key, condition, length: self.objects[key].body[:length])


def the_ledger_first(patch: pytest.MonkeyPatch) -> None:
    put = transcripts._Shipment._put

    def record_and_put(self: Any, body: Any, digest: str, condition: Any, held_bytes: int = 0) -> Any:
        md5 = hashlib.md5(bytes(body.read(0, body.size)), usedforsecurity=False).hexdigest()
        self._record(f'"{md5}"', body.size, digest)
        return put(self, body, digest, condition, held_bytes)

    patch.setattr(transcripts._Shipment, "_put", record_and_put)


RULES = (
    Rule("1, two marks", in_a_world(one_goes_on_after_a_union), grow_alone),
    Rule("2, rewritten means another beginning", in_a_world(one_rewinds_and_goes_on), never_rewritten),
    Rule("2, shorter is not rewritten", in_a_world(one_goes_on_after_a_union), shorter_is_rewritten),
    Rule("3, a line is its bytes and its occurrence", in_a_world(one_writes_a_line_twice), line_is_bytes),
    Rule("4, whole lines", in_a_world(a_line_is_unfinished_at_the_backup), up_to_the_size),
    Rule("5, append to a live home", in_a_world(the_agent_holds_its_transcript_open), replace_in_a_live_home),
    Rule(
        "5, an append clears the mark",
        in_a_world(a_live_home_goes_its_own_way),
        keep_the_mark_after_an_append,
    ),
    Rule("6, a restore leaves a base", in_a_world(an_edit_after_a_restore), no_base_after_a_restore),
    Rule("7, a stale copy is healed", in_a_world(a_stale_copy_is_put_back), leave_the_object_alone),
    Rule("8, settling moves no base", in_a_world(a_lost_conflict_is_edited_on), settling_moves_the_base),
    Rule(
        "9, ancestry before clocks",
        in_a_world(the_base_is_copied_later_than_the_edit, opaque_etags=True),
        clocks_decide,
    ),
    Rule("11, what is displaced is kept", in_a_world(one_rewinds_and_goes_on), no_copy),
    Rule(
        "11, and before it is displaced",
        in_the_middle("a backup after a rewind", f"after {PUT_LOG}", "crash"),
        the_copy_comes_after,
    ),
    Rule(
        "16, a manifest of this version",
        in_a_world(an_old_manifest),
        believe_the_manifest,
    ),
    Rule("17, a ledger of this home only", in_a_world(the_home_is_emptied), any_ledger_counts),
    Rule("17, complete at the end", in_a_world(a_restore_is_killed), complete_from_the_start),
    Rule(
        "18, one snapshot",
        in_the_middle("a backup of what grew", f"before {PUT_LOG}", "append"),
        mark_what_is_there_now,
    ),
    Rule(
        "19, the condition counts at the end of an upload in parts",
        in_the_middle("a backup of what grew", f"before {PUT_LOG}", "outside put", tiny_blocks=True),
        no_condition_at_the_end,
    ),
    Rule(
        "19, put together only where both conditions hold",
        in_a_world(another_writes_while_a_store_puts_together, tiny_blocks=True),
        compose_wherever_it_pays,
    ),
    Rule(
        "19, what is copied is the version that is meant",
        in_a_world(another_version_stands_there_during_the_copy, tiny_blocks=True),
        copy_what_is_there,
    ),
    Rule("20, the bucket before the ledger", in_a_world(a_backup_is_killed), the_ledger_first),
)

test_with_the_rule_the_story_ends_well, test_without_the_rule_something_is_lost = both_ways(RULES)
