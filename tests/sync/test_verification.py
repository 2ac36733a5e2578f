"""Home, ledger and area compared by content: equal is called equal, and each difference has its reason."""

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sidecar.area.keys import AreaKeys
from sidecar.area.manifest import FileEntry
from sidecar.area.manifest_format import decoded_root, encoded_root
from sidecar.area.metadata import FileMetadata
from sidecar.area.objects import ObjectInfo
from sidecar.errors import StoreUnreachable
from sidecar.home.beneath import Home
from sidecar.home.entries import FileStat
from sidecar.home.rules import Rules
from sidecar.sync.findings import Kind
from sidecar.sync.flusher import Flusher
from sidecar.sync.inspection import Inspection, inspect
from sidecar.sync.marks import Mark, Settled
from sidecar.sync.verification import (
    Facts,
    LineCounts,
    LocalSide,
    RemoteSide,
    judged,
    sample,
)
from sidecar.sync.views import Sides
from tests.sync.pods import T0, MakeSettings, Pod, objects, pods

ADA = AreaKeys("user_data", "ada")
LOG = "projects/-w/s.jsonl"

# -- decisions

STAT = FileStat("p", 5, 100, 200, 0o600, 7)
INFO = ObjectInfo("k", 5, '"e"', 0.0)
MARK = Mark('"e"', 5, "d", 5, "d", STAT, 100, 0o600)
ENTRY = FileEntry('"e"', 5, 100, 0o600, "d")
LOCAL = LocalSide(STAT, "d", "d")
REMOTE = RemoteSide(INFO, "d", FileMetadata(100, 0o600, "w", "d"))
EQUAL = Facts("settings.json", LOCAL, REMOTE, MARK, ENTRY)


def kinds(facts: Facts) -> list[str]:
    return [finding.kind.value for finding in judged(facts)]


def changed(side: LocalSide | RemoteSide, digest: str, **more: Any) -> Any:
    return replace(side, sha256=digest, **more)


def test_equal_sides_leave_nothing_to_say() -> None:
    assert kinds(EQUAL) == []
    assert kinds(replace(EQUAL, local=LocalSide(STAT), remote=RemoteSide(INFO))) == [], "outside the sample"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Facts("p", LOCAL), "not_uploaded"),
        (Facts("p", LOCAL, mark=MARK), "deleted_in_bucket"),
        (Facts("p", LOCAL, journalled=True), "journalled"),
        (Facts("p", refused="it is a FIFO"), "refused"),
        (Facts("p", remote=REMOTE, entry=ENTRY), "not_restored"),
        (Facts("p", remote=REMOTE, entry=ENTRY, mark=MARK), "deleted_locally"),
        (Facts("p", in_journal=True), "not_restored"),
        (Facts("p", remote=REMOTE, left_out="a cache"), "passed_over"),
        (Facts("p", entry=ENTRY), "manifest_stale"),
        (
            replace(EQUAL, local=changed(LOCAL, "l", known_sha256="l", stat=replace(STAT, size=6))),
            "local_newer",
        ),
        (
            replace(
                EQUAL,
                remote=changed(REMOTE, "r", info=INFO._replace(etag='"f"'), metadata=None),
                entry=ENTRY._replace(etag='"f"', digest="r"),
            ),
            "remote_newer",
        ),
        (replace(EQUAL, mark=None, local=changed(LOCAL, "l")), "both_changed"),
        (
            replace(
                EQUAL,
                local=changed(LOCAL, "l", known_sha256="x", stat=replace(STAT, mtime_ns=101)),
                remote=changed(REMOTE, "r", info=INFO._replace(etag='"f"'), metadata=None),
                entry=ENTRY._replace(etag='"f"', digest="r"),
            ),
            "both_changed",
        ),
        (
            replace(
                EQUAL,
                local=changed(LOCAL, "l", stat=replace(STAT, mtime_ns=101)),
                mark=replace(MARK, settled=Settled("l", '"e"')),
            ),
            "conflict",
        ),
        (
            replace(EQUAL, local=changed(LOCAL, "l", stat=replace(STAT, mtime_ns=1)), journalled=True),
            "journalled",
        ),
        (replace(EQUAL, remote=replace(REMOTE, torn="it ends within a line")), "object_torn"),
        (
            replace(EQUAL, remote=replace(REMOTE, metadata=FileMetadata(100, 0o600, "w", "x"))),
            "metadata_lies",
        ),
        (replace(EQUAL, local=replace(LOCAL, known_sha256="x")), "ledger_lies"),
        (replace(EQUAL, entry=ENTRY._replace(mode=0o644)), "times_differ"),
        (replace(EQUAL, entry=ENTRY._replace(mtime_ns=99)), "times_differ"),
        (replace(EQUAL, entry=ENTRY._replace(digest="x")), "manifest_lies"),
        (replace(EQUAL, entry=ENTRY._replace(etag='"old"')), "manifest_behind"),
        (replace(EQUAL, entry=None), "manifest_behind"),
        (replace(EQUAL, entry=ENTRY._replace(etag='"old"'), mark=None), "manifest_stale"),
        (replace(EQUAL, local=replace(LOCAL, unfinished=3)), "unfinished_line"),
    ],
)
def test_each_difference_has_its_kind(facts: Facts, expected: str) -> None:
    assert kinds(facts) == [expected]


def test_bytes_that_changed_under_their_etag_are_damage_and_nothing_else() -> None:
    facts = replace(EQUAL, remote=changed(REMOTE, "r", metadata=None), entry=None, has_manifest=False)
    assert kinds(facts) == ["object_damaged"]


def test_transcripts_are_told_apart_by_lines() -> None:
    facts = replace(
        EQUAL, path=LOG, local=changed(LOCAL, "l", stat=replace(STAT, mtime_ns=1)), lines=LineCounts(2, 3, 1)
    )
    assert kinds(facts) == ["object_lacks_lines", "object_has_more_lines", "journalled"]
    assert kinds(replace(facts, lines=LineCounts(0, 0, 0))) == ["same_lines"]


def test_a_sample_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    paths = [f"projects/{n}.jsonl" for n in range(2000)]
    drawn = sample(paths, 0.05, "2026-01-02")
    assert drawn == sample(paths, 0.05, "2026-01-02")
    assert drawn != sample(paths, 0.05, "2026-01-03")
    assert 50 < len(drawn) < 150
    assert sample(paths, 1.0, "x") == set(paths)


def test_the_smallest_sample_holds_one_and_not_always_the_same() -> None:
    drawn = [sample(["a", "b", "c"], 1e-9, f"day {n}") for n in range(40)]
    assert {len(one) for one in drawn} == {1}
    assert frozenset[str]().union(*drawn) == {"a", "b", "c"}
    assert sample([], 0.5, "x") == frozenset()


# -- against a bucket


def looked(pod: Pod, tmp_path: Path, **options: Any) -> Inspection:
    with Home.open(pod.home) as home:
        rules = Rules(include=pod.settings.include, exclude=pod.settings.exclude)
        sides = Sides(pod.settings, pod.store, ADA, home, rules)
        return inspect(sides, spool_directory=tmp_path, **options)


def told(pod: Pod, tmp_path: Path, *, by_design: bool = False, **options: Any) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for finding in looked(pod, tmp_path, **options).findings:
        if finding.by_design == by_design:
            found.setdefault(finding.path, set()).add(finding.kind.value)
    return found


def filled(pod: Pod) -> None:
    pod.start()
    for number in range(3):
        pod.write(f"plans/{number}.md", f"plan {number}", mtime_ns=T0)
    pod.write("settings.json", "{}", mtime_ns=T0)
    pod.write("plans/empty.md", "", mtime_ns=T0)
    pod.write(LOG, "one\ntwo\n", mtime_ns=T0)
    pod.backup()


def test_a_home_in_step_is_equal_in_two_pods_and_nothing_is_changed(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    a, b = pods(settings_for, bucket, tmp_path, 2)
    filled(a)
    b.start()
    tree, area = a.tree(), objects(s3, bucket, "user_data/ada/")
    for pod in (a, b):
        result = looked(pod, tmp_path)
        assert result.findings == ()
        assert (result.paths, result.read) == (6, 6)
        assert result.ledger == "the ledger was read"
    assert (a.tree(), objects(s3, bucket, "user_data/ada/")) == (tree, area)


def test_what_is_on_one_side_only_is_named_with_its_reason(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1, exclude=("secret/",), max_file_mib=1)
    filled(pod)
    pod.write("plans/new.md", "new")
    pod.write("plans/large.md", b"x" * (1024 * 1024 + 1))
    os.mkfifo(pod.home / "plans/fifo")
    (pod.home / "plans/1.md").unlink()
    s3.delete_object(Bucket=bucket, Key=ADA.object("plans/2.md"))
    for path in ("CLAUDE.md", "secret/x", ".credentials.json", "config/"):
        s3.put_object(Bucket=bucket, Key=ADA.object(path), Body=b"x" if path[-1] != "/" else b"")
    found = told(pod, tmp_path)
    assert found == {
        "plans/new.md": {"not_uploaded"},
        "plans/large.md": {"refused"},
        "plans/fifo": {"refused"},
        "plans/1.md": {"deleted_locally"},
        "plans/2.md": {"deleted_in_bucket"},
        "CLAUDE.md": {"not_restored"},
    }
    assert told(pod, tmp_path, by_design=True) == {
        **{path: {"passed_over"} for path in ("secret/x", ".credentials.json", "config/")},
        **{path: {"manifest_stale"} for path in ("plans/2.md", "CLAUDE.md")},
    }


def test_changes_are_laid_at_the_right_door(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    filled(pod)
    pod.write("plans/0.md", "here")
    s3.put_object(Bucket=bucket, Key=ADA.object("plans/1.md"), Body=b"there")
    pod.write("plans/2.md", "here too")
    s3.put_object(Bucket=bucket, Key=ADA.object("plans/2.md"), Body=b"there too")
    os.utime(pod.home / "plans/empty.md", ns=(T0, T0 + 1))
    (pod.home / "settings.json").chmod(0o644)
    assert told(pod, tmp_path) == {
        "plans/0.md": {"local_newer"},
        "plans/1.md": {"remote_newer"},
        "plans/2.md": {"both_changed"},
        "plans/empty.md": {"times_differ"},
        "settings.json": {"times_differ"},
    }


def test_transcripts_are_compared_line_by_line(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    filled(pod)
    for name in ("lacks", "more", "order", "torn", "tail"):
        pod.write(f"projects/-w/{name}.jsonl", "one\ntwo\n", mtime_ns=T0)
    pod.backup()
    pod.append("projects/-w/lacks.jsonl", "three\nfour\n")
    pod.append("projects/-w/tail.jsonl", '{"unfin')

    def put(name: str, data: bytes) -> None:
        s3.put_object(Bucket=bucket, Key=ADA.object(f"projects/-w/{name}.jsonl"), Body=data)

    put("more", b"one\ntwo\nthree\n")
    put("order", b"two\none\n")
    put("torn", b"one\ntwo")
    reasons = {
        (f.path.rpartition("/")[2], f.kind): f.reason
        for f in looked(pod, tmp_path).findings
        if "manifest" not in f.kind.value
    }
    assert reasons[("lacks.jsonl", Kind.OBJECT_LACKS_LINES)] == "the bucket lacks 2 of its lines"
    assert reasons[("more.jsonl", Kind.OBJECT_HAS_MORE_LINES)] == "the bucket has 1 lines that the home lacks"
    assert ("order.jsonl", Kind.SAME_LINES) in reasons
    assert ("torn.jsonl", Kind.OBJECT_TORN) in reasons
    assert ("tail.jsonl", Kind.UNFINISHED_LINE) in reasons


def test_settings_that_are_cut_short_at_this_moment_are_refused_as_a_checkpoint_refuses_them(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    filled(pod)
    pod.write("settings.json", '{"k": ')
    pod.write(".claude.json", "")
    refused = {entry.path: entry.reason for entry in pod.backup().refused}
    assert set(refused) == {"settings.json", ".claude.json"}
    found = {finding.path: (finding.kind, finding.reason) for finding in looked(pod, tmp_path).findings}
    assert found == {path: (Kind.REFUSED, reason) for path, reason in refused.items()}


def test_a_transcript_whose_first_line_is_not_whole_is_no_difference(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    filled(pod)
    pod.write("projects/-w/torn.jsonl", '{"n": ')
    pod.backup()
    assert told(pod, tmp_path) == {}
    assert told(pod, tmp_path, by_design=True) == {"projects/-w/torn.jsonl": {"unfinished_line"}}
    pod.append("projects/-w/torn.jsonl", "1}\n")
    assert told(pod, tmp_path) == {"projects/-w/torn.jsonl": {"not_uploaded"}}


def test_what_is_durable_in_the_journal_is_no_difference(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    a, b = pods(settings_for, bucket, tmp_path, 2)
    filled(a)
    b.start()
    a.append(LOG, "three\n")
    a.write("plans/0.md", "changed")
    a.write("plans/new.md", "new")
    a.append("projects/-w/new.jsonl", "first\n")
    with a.open() as workspace:
        assert Flusher(workspace).flush().files == 4
    assert told(a, tmp_path) == {}
    assert set(told(a, tmp_path, by_design=True)) == {
        LOG,
        "plans/0.md",
        "plans/new.md",
        "projects/-w/new.jsonl",
    }
    others = told(b, tmp_path)
    assert others["projects/-w/new.jsonl"] == {"not_restored"}
    assert others[LOG] == {"object_has_more_lines"}
    assert others["plans/0.md"] == {"remote_newer"}
    a.append(LOG, "four\n")
    assert told(a, tmp_path) == {LOG: {"object_lacks_lines"}}


def test_lies_are_found_out(bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    filled(pod)
    key = ADA.object("plans/0.md")
    seen = s3.head_object(Bucket=bucket, Key=key)["Metadata"]
    s3.put_object(Bucket=bucket, Key=key, Body=b"plan 0", Metadata={**seen, "sha256": "0" * 64})
    manifest_key = ADA.manifest
    with pod.store.open(manifest_key) as download:
        root = decoded_root(download.read(), "k")
    files = dict(root.changes.files)
    one, two = files["plans/1.md"], files["plans/2.md"]
    assert one and two
    stale = two._replace(etag='"0"')
    files |= {"plans/1.md": one._replace(digest="0" * 64), "plans/2.md": stale, "plans/gone.md": stale}
    root = replace(root, changes=replace(root.changes, files=files))
    s3.put_object(Bucket=bucket, Key=manifest_key, Body=encoded_root(root))
    before = (pod.home / "settings.json").stat()
    with (pod.home / "settings.json").open("r+b") as file:
        file.write(b"[]")
    os.utime(pod.home / "settings.json", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pod.open() as workspace:  # as a file system does whose ctime cannot be told apart
        mark = workspace.ledger.mark("settings.json")
        now = (pod.home / "settings.json").stat()
        assert mark and mark.stat
        workspace.ledger.record(
            "settings.json", replace(mark, stat=replace(mark.stat, ctime_ns=now.st_ctime_ns))
        )
    found = told(pod, tmp_path)
    assert found["plans/0.md"] >= {"metadata_lies"}
    assert found["plans/1.md"] == {"manifest_lies"}
    assert found["settings.json"] >= {"ledger_lies"}
    told_apart = told(pod, tmp_path, by_design=True)
    assert told_apart["plans/2.md"] == {"manifest_behind"}
    assert told_apart["plans/gone.md"] == {"manifest_stale"}


def test_a_sample_reads_some_of_what_looks_untouched_and_all_that_does_not(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    for number in range(40):
        pod.write(f"plans/{number}.md", f"plan {number}", mtime_ns=T0)
    pod.backup()
    pod.write("plans/7.md", "changed")
    first = looked(pod, tmp_path, fraction=0.2, seed="a")
    assert 2 <= first.read <= 20
    assert first == looked(pod, tmp_path, fraction=0.2, seed="a")
    assert [finding.path for finding in first.findings] == ["plans/7.md"]


def test_what_moves_meanwhile_is_looked_at_again_and_not_reported(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    filled(pod)
    pod.write("plans/0.md", "changed")
    view, backed_up = Sides.view, threading.Event()

    def view_then_back_up(self: Sides) -> Any:
        seen = view(self)
        if not backed_up.is_set():
            backed_up.set()
            pod.backup()
        return seen

    monkeypatch.setattr(Sides, "view", view_then_back_up)
    assert told(pod, tmp_path) == {}
    assert backed_up.is_set()


def test_another_homes_ledger_and_none_at_all_give_no_reasons_but_find_the_same(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    filled(pod)
    pod.write("plans/0.md", "changed")
    pod.settings = replace(pod.settings, state_dir=tmp_path / "no-state")
    result = looked(pod, tmp_path)
    assert [(f.path, f.kind) for f in result.findings] == [("plans/0.md", Kind.BOTH_CHANGED)]
    assert result.ledger.startswith("there is no ledger here")
    assert not (tmp_path / "no-state").exists()


def test_it_looks_beside_the_holder_of_the_ledger(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    filled(pod)
    with pod.open():
        result = looked(pod, tmp_path)
    assert (result.findings, result.ledger) == (
        (),
        "the ledger was read beside the process that works on it",
    )


def test_a_bucket_that_cannot_be_read_is_an_error_and_no_difference(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1, endpoint="http://127.0.0.1:9")
    pod.store = type(pod.store).connect(pod.settings, outage_seconds=0.2)
    pod.write("settings.json", "{}")
    with pytest.raises(StoreUnreachable):
        looked(pod, tmp_path)


def test_a_large_transcript_that_differs_is_told_apart_without_being_held_in_memory(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    import tracemalloc

    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    line = "x" * 99_999 + "\n"
    pod.write(LOG, line * 400)
    s3.put_object(Bucket=bucket, Key=ADA.object(LOG), Body=(line * 399 + "other\n").encode())
    tracemalloc.start()
    try:
        result = looked(pod, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert {f.kind for f in result.findings} >= {Kind.OBJECT_LACKS_LINES, Kind.OBJECT_HAS_MORE_LINES}
    assert peak < 30 * 1024 * 1024


def test_what_was_put_together_on_the_server_is_clean_and_known_again_without_a_ledger(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    filled(pod)
    pod.append("projects/-w/long.jsonl", b'{"line":"long"}\n' * (1024 * 1024 + 1))
    pod.backup()
    pod.append("projects/-w/long.jsonl", b'{"line":"last"}\n')
    pod.backup()
    assert pod.store.requests["part"].requests == 1, "it was put together"
    assert told(pod, tmp_path) == {}
    shutil.rmtree(pod.settings.state_dir)
    sent = sum(flow.bytes_sent for flow in pod.store.requests.values())
    assert pod.start().synced
    assert pod.backup().durable
    assert sum(flow.bytes_sent for flow in pod.store.requests.values()) < sent + 64 * 1024
    assert told(pod, tmp_path) == {}
