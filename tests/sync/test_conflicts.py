"""What was displaced: found again by its id, shown so that it harms no terminal, and taken back whole."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.area.keys import AreaKeys
from sidecar.area.manifest import FileEntry
from sidecar.area.objects import ObjectInfo
from sidecar.errors import FileChanged, ObjectDamaged, SidecarError
from sidecar.home.beneath import Home
from sidecar.sync import conflicts as kept_versions
from sidecar.sync import picture
from sidecar.sync.bodies import Bytes
from sidecar.sync.conflicts import Kept, UnknownVersion, difference, find, kept_of, only
from sidecar.sync.taking_back import Taken, take
from sidecar.sync.version_diff import compared
from tests.sync.pods import T0, MakeSettings, Pod, conflicts, objects, pods

ADA = AreaKeys("user_data", "ada")
LOG = "projects/-w/s.jsonl"
HOUR_NS = 3600 * 10**9


def kept(path: str = "settings.json", stamp: str = "20260102T030405Z", size: int = 10) -> Kept:
    key = ADA.conflict(stamp, "pod-1", path, "abcdef0123456789")
    found = kept_of(ADA, ObjectInfo(key, size, '"e"', 0.0))
    assert found
    return found


# -- names


def test_a_key_says_when_who_and_what() -> None:
    one = kept("projects/a b/x.y.jsonl")
    assert (one.path, one.writer, one.digest) == ("projects/a b/x.y.jsonl", "pod-1", "abcdef01")
    assert one.when == "2026-01-02T03:04:05+00:00"
    assert one.id == kept("projects/a b/x.y.jsonl").id != kept().id


@pytest.mark.parametrize("key", ["x", "s/w/path", "s/w/path.abcdef0", "s/path.abcdef01", "s/w/path.ABCDEF01"])
def test_a_foreign_key_is_no_kept_version(key: str) -> None:
    assert kept_of(ADA, ObjectInfo(ADA.conflicts + key, 1, '"e"', 0.0)) is None


@pytest.mark.parametrize(
    ("current", "digest", "expected"),
    [
        (None, "", "absent"),
        (ObjectInfo("k", 12, '"c"', 0.0), "", "smaller"),
        (ObjectInfo("k", 8, '"c"', 0.0), "", "larger"),
        (ObjectInfo("k", 10, '"e"', 0.0), "", "equal"),
        (ObjectInfo("k", 10, '"c"', 0.0), "abcdef01ff", "equal"),
        (ObjectInfo("k", 10, '"c"', 0.0), "ffffffff", "other"),
        (ObjectInfo("k", 10, '"c"', 0.0), "", "unknown"),
    ],
)
def test_a_listing_tells_how_a_kept_version_differs(
    current: ObjectInfo | None, digest: str, expected: str
) -> None:
    entry = FileEntry('"c"', 10, 0, 0o600, digest) if digest else None
    assert difference(kept(), current, entry).kind == expected


def test_a_stale_manifest_tells_nothing() -> None:
    entry = FileEntry('"older"', 10, 0, 0o600, "abcdef01")
    assert difference(kept(), ObjectInfo("k", 10, '"c"', 0.0), entry).kind == "unknown"


def test_an_id_its_beginning_a_path_and_a_key_find_a_version_and_a_wrong_one_names_the_nearest() -> None:
    newer, older, other = kept(stamp="20260202T030405Z"), kept(), kept("CLAUDE.md")
    every = [newer, older, other]
    assert find(every, newer.id) == [newer]
    assert find(every, newer.id[:5]) == [newer]
    assert find(every, "settings.json") == [newer, older]
    assert find(every, "20260102T030405Z/pod-1/CLAUDE.md.abcdef01") == [other]
    with pytest.raises(UnknownVersion, match=f"the nearest are {newer.id} \\(settings.json, 2026-02-02"):
        find(every, "setings.json")
    with pytest.raises(UnknownVersion, match="names 2 kept versions"):
        only(every, "settings.json")
    with pytest.raises(UnknownVersion, match="there are no conflicts at all"):
        find([], "x")


# -- differences


def shown(kept_data: bytes, current: bytes | None, path: str = "settings.json") -> tuple[str, list[str]]:
    comparison = compared(Bytes(kept_data), None if current is None else Bytes(current), path)
    return comparison.kind, list(comparison.lines)


def test_text_is_shown_as_what_taking_it_back_would_change() -> None:
    current = "".join(f"line {n}\n" for n in range(1, 40))
    kind, lines = shown(current.replace("line 20", "line twenty").encode(), current.encode())
    assert kind == "text"
    assert lines[0] == "@@ -17,7 +17,7 @@"
    assert [line for line in lines if line[0] in "+-"] == ["-line 20", "+line twenty"]


def test_a_missing_line_end_is_a_difference() -> None:
    assert shown(b"a\nb", b"a\nb\n") == ("text", ["@@ -1,2 +1,2 @@", " a", "-b", "+b (without a line end)"])
    assert shown(b"a\n", b"") == ("text", ["@@ -0,0 +1,1 @@", "+a"])


def test_transcripts_are_counted_and_other_bytes_measured() -> None:
    assert shown(b"a\nb\nb\n", b"b\nc\n", LOG) == (
        "lines",
        [
            "The kept version has 3 lines, 2 of which the current one lacks.",
            "The current one has 2 lines, 1 of which the kept one lacks.",
        ],
    )
    kind, lines = shown(b"\x00\x01", b"\x00")
    assert (kind, lines[0][:17]) == ("binary", "kept:    2 bytes,")
    assert shown(b"\xff", b"x")[0] == "binary"
    assert shown(b"x", b"x")[0] == "same"
    assert shown(b"x", None)[0] == "absent"


def test_a_diff_is_bounded_whatever_the_file() -> None:
    many = "\n".join(str(n % 7) for n in range(50_000)).encode()
    other = "\n".join(str(n % 5) for n in range(50_000)).encode()
    assert shown(many, other)[0] == "lines"
    assert shown(many + b"\nend", many)[0] == "text"
    assert max(map(len, shown(b"x" * 100_000, b"")[1])) < 600


# -- taking back, against a bucket


def taken(pod: Pod, word: str, *, home: bool = True, spool: Path | None = None) -> Taken:
    one = only(kept_versions.listed(pod.store, ADA), word)
    if not home:
        return take(pod.store, ADA, one, None, writer="take-1", spool_directory=spool or pod.home.parent)
    with Home.open(pod.home) as opened:
        return take(pod.store, ADA, one, opened, writer="take-1", spool_directory=pod.home.parent)


def test_a_version_that_lost_a_conflict_wins_when_it_is_taken_back(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    a, b = pods(settings_for, bucket, tmp_path, 2)
    a.start()
    a.write("settings.json", '{"v": 0}', mtime_ns=T0)
    a.backup()
    b.start()
    b.write("settings.json", '{"v": "b"}', mtime_ns=T0 + HOUR_NS)
    b.backup()
    a.write("settings.json", '{"v": "a"}', mtime_ns=T0 + 10**9)
    a.backup()  # lost, and settled: the home of a still has these very bytes
    result = taken(a, "settings.json")
    assert (result.home, result.bucket, len(result.kept_aside)) == ("same", "written", 1)
    assert objects(s3, bucket)["settings.json"] == b'{"v": "a"}'
    assert sorted(conflicts(s3, bucket).values()) == [b'{"v": "a"}', b'{"v": "b"}']
    for pod in (a, b):
        assert pod.backup().conflicts == ()
    with a.open() as workspace:
        (mark,) = workspace.ledger.marks().values()
        assert mark.settled is None, "the checkpoint saw that the conflict is over"
        assert picture.read_if_any(workspace).files["settings.json"].etag == mark.etag
    b.merge()
    assert b.read("settings.json") == b'{"v": "a"}'
    a.write("settings.json", '{"v": "a2"}')
    a.backup()
    assert objects(s3, bucket)["settings.json"] == b'{"v": "a2"}'


def test_a_version_comes_back_into_the_home_and_what_stood_there_is_kept(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    pod.write("CLAUDE.md", "now", mode=0o640)
    pod.backup()
    pod.write("CLAUDE.md", "edited since", mode=0o640)
    kept_versions.keep(pod.store, ADA, "pod-0", "CLAUDE.md", Bytes(b"then"), _sha256(b"then"), T0)
    result = taken(pod, "CLAUDE.md")
    assert (result.home, result.bucket) == ("written", "written")
    assert pod.read("CLAUDE.md") == b"then"
    assert (pod.home / "CLAUDE.md").stat().st_mode & 0o777 == 0o640
    assert sorted(conflicts(s3, bucket).values()) == [b"edited since", b"now", b"then"]
    before = objects(s3, bucket)
    assert pod.backup().conflicts == ()
    assert objects(s3, bucket) == before == {"CLAUDE.md": b"then"}
    assert taken(pod, result.id).home == "same"


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def test_a_rewound_transcript_comes_back_and_other_writers_lines_stay(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    a, b = pods(settings_for, bucket, tmp_path, 2)
    a.start()
    a.append(LOG, "one\ntwo\nthree\n")
    a.backup()
    a.write(LOG, "one\nrewound\n")
    a.backup()
    b.start()
    b.append(LOG, "foreign\n")
    b.backup()
    result = taken(a, LOG)
    assert (result.home, result.bucket) == ("written", "next checkpoint")
    assert a.read(LOG) == b"one\ntwo\nthree\n"
    assert a.backup().durable
    lines = objects(s3, bucket)[LOG].decode().splitlines()
    assert lines[:3] == ["one", "two", "three"]
    assert "foreign" in lines
    assert any(b"rewound" in data for data in conflicts(s3, bucket).values())


def test_without_a_home_the_bucket_alone_takes_it_and_a_transcript_only_grows(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    put = kept_versions.keep
    put(pod.store, ADA, "pod-0", LOG, Bytes(b"one\ntwo"), _sha256(b"one\ntwo"), T0)
    put(pod.store, ADA, "pod-0", "CLAUDE.md", Bytes(b"then"), _sha256(b"then"), T0)
    s3.put_object(Bucket=bucket, Key=ADA.object(LOG), Body=b"one\nthree\n")
    s3.put_object(Bucket=bucket, Key=ADA.object("CLAUDE.md"), Body=b"now", Metadata={"mode": "0640"})
    for path in (LOG, "CLAUDE.md"):
        result = taken(pod, path, home=False, spool=tmp_path)
        assert (result.home, result.bucket) == ("none", "written")
        assert taken(pod, result.id, home=False, spool=tmp_path).bucket == "same"
    assert objects(s3, bucket) == {LOG: b"one\nthree\ntwo\n", "CLAUDE.md": b"then"}
    assert b"now" in conflicts(s3, bucket).values()
    pod.start()
    assert pod.read(LOG) == b"one\nthree\ntwo\n"
    assert (pod.home / "CLAUDE.md").stat().st_mode & 0o777 == 0o640


def test_what_is_gone_everywhere_comes_back_whole(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    kept_versions.keep(pod.store, ADA, "pod-0", LOG, Bytes(b"one"), _sha256(b"one"), T0)
    assert taken(pod, LOG).home == "written"
    assert pod.read(LOG) == b"one\n", "a client appends straight onto a torn line"
    pod.backup()
    assert objects(s3, bucket) == {LOG: b"one\n"}


def test_a_version_that_would_stop_the_client_or_is_not_what_it_says_is_not_taken(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    torn = b'{"theme": '
    kept_versions.keep(pod.store, ADA, "pod-0", ".claude.json", Bytes(torn), _sha256(torn), T0)
    with pytest.raises(SidecarError, match="not taken back: it is not whole JSON"):
        taken(pod, ".claude.json")
    key = ADA.conflict("20260102T030405Z", "w", "CLAUDE.md", "0" * 64)
    s3.put_object(Bucket=bucket, Key=key, Body=b"other bytes")
    with pytest.raises(ObjectDamaged):
        taken(pod, "CLAUDE.md")
    assert not pod.tree()
    assert not objects(s3, bucket)


def test_what_the_agent_writes_in_that_moment_is_not_lost(
    bucket: str,
    settings_for: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    s3: Any,
) -> None:
    (pod,) = pods(settings_for, bucket, tmp_path, 1)
    pod.start()
    pod.write("CLAUDE.md", "before")
    kept_versions.keep(pod.store, ADA, "pod-0", "CLAUDE.md", Bytes(b"then"), _sha256(b"then"), T0)
    keep, writes = kept_versions.keep, iter(["a", "b"])

    def keep_while_the_agent_writes(*arguments: Any) -> str:
        key = keep(*arguments)
        if text := next(writes, ""):
            pod.write("CLAUDE.md", f"written meanwhile {text}")
        return key

    monkeypatch.setattr(kept_versions, "keep", keep_while_the_agent_writes)
    assert taken(pod, "CLAUDE.md").home == "written"
    assert pod.read("CLAUDE.md") == b"then"
    everything = set(conflicts(s3, bucket).values())
    assert {b"before", b"written meanwhile a", b"written meanwhile b", b"then"} <= everything

    def write_each_time(*arguments: Any) -> str:
        pod.write("CLAUDE.md", os.urandom(8).hex())
        return keep(*arguments)

    pod.write("CLAUDE.md", "again")
    monkeypatch.setattr(kept_versions, "keep", write_each_time)
    with pytest.raises(FileChanged):
        taken(pod, _sha256_id(pod))


def _sha256_id(pod: Pod) -> str:
    return next(one.id for one in kept_versions.listed(pod.store, ADA) if one.writer == "pod-0")
