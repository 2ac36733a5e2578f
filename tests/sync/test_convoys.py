"""Small files on their way up in company: what is read ahead is sent as it was read, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sidecar.area.store import Store
from sidecar.home import beneath, reads
from sidecar.sync import convoys, packing, whole_files
from sidecar.sync.at_hand import AtHand
from sidecar.sync.ledger import Ledger
from tests.sync.packed_area import unpacked
from tests.sync.pods import MakeSettings, Pod, pods

COUNT = 16
PREFIX = "user_data/ada/.claude/"


@pytest.fixture
def pod(settings_for: MakeSettings, bucket: str, tmp_path: Path) -> Pod:
    (made,) = pods(settings_for, bucket, tmp_path, 1, concurrency=1)
    for number in range(COUNT):
        made.write(f"plans/{number}.md", f"plan {number}", mtime_ns=10**18 - number)
    return made


def at_first_put(monkeypatch: pytest.MonkeyPatch, event: Any) -> None:
    put, events = Store.put, [event]

    def putting(self: Store, key: str, *args: Any, **options: Any) -> str:
        if events and key.startswith(PREFIX):
            events.pop()()
        return put(self, key, *args, **options)

    monkeypatch.setattr(Store, "put", putting)


def body(s3: Any, bucket: str, path: str) -> bytes:
    found: bytes = s3.get_object(Bucket=bucket, Key=PREFIX + path)["Body"].read()
    return found


def test_all_arrive_and_a_second_checkpoint_sends_nothing(pod: Pod, bucket: str, s3: Any) -> None:
    assert pod.backup().files == COUNT
    assert {body(s3, bucket, f"plans/{n}.md") for n in range(COUNT)} == {
        f"plan {n}".encode() for n in range(COUNT)
    }
    before = pod.requests()
    assert pod.backup().files == 0
    assert pod.requests() == before


def test_a_file_that_changes_between_reading_and_sending_is_taken_by_the_next_checkpoint(
    pod: Pod, bucket: str, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_first_put(monkeypatch, lambda: pod.write("plans/3.md", "another"))
    assert pod.backup().durable
    assert body(s3, bucket, "plans/3.md") == b"plan 3"
    assert pod.backup().files == 1
    assert body(s3, bucket, "plans/3.md") == b"another"


def test_what_another_pod_sends_between_reading_and_sending_is_met_and_kept(
    pod: Pod, bucket: str, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_first_put(
        monkeypatch, lambda: s3.put_object(Bucket=bucket, Key=PREFIX + "plans/3.md", Body=b"another's")
    )
    result = pod.backup()
    assert (result.files, result.conflicts) == (COUNT - 1, ("plans/3.md",))
    assert body(s3, bucket, "plans/3.md") == b"another's"


def test_a_file_that_has_grown_since_the_scan_is_sent_by_itself(
    pod: Pod, bucket: str, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = b"x" * (convoys.SMALL_BYTES + 1)
    at_first_put(monkeypatch, lambda: pod.write(f"plans/{COUNT - 1}.md", large))
    monkeypatch.setattr(convoys, "MOST_FILES", 4)
    assert pod.backup().files == COUNT
    assert body(s3, bucket, f"plans/{COUNT - 1}.md") == large


def test_a_link_in_the_place_of_a_file_is_refused_by_name_and_the_others_arrive(
    pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("of somebody else")
    ready = whole_files.read_ahead

    def swapped(workspace: Any, path: str, *others: Any) -> Any:
        if path == "plans/3.md":
            (pod.home / path).unlink()
            (pod.home / path).symlink_to(tmp_path / "secret")
        return ready(workspace, path, *others)

    monkeypatch.setattr("sidecar.sync.convoys.read_ahead", swapped)
    result = pod.backup()
    assert result.files == COUNT - 1
    assert [entry.path for entry in result.refused] == ["plans/3.md"]


def test_a_kill_before_the_notes_are_on_disk_costs_a_look_and_writes_nothing_again(
    pod: Pod, bucket: str, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed() -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_settle", lambda self: None)
        patch.setattr(Ledger, "settle", lambda self: killed())
        with pytest.raises(Killed):
            pod.backup()
    stamps = {n: s3.head_object(Bucket=bucket, Key=f"{PREFIX}plans/{n}.md")["ETag"] for n in range(COUNT)}
    with pod.open() as workspace:
        assert len(workspace.ledger.marks()) < COUNT // 2
    result = pod.backup()
    assert (result.files, result.conflicts, result.durable) == (0, (), True)
    for number, etag in stamps.items():
        assert s3.head_object(Bucket=bucket, Key=f"{PREFIX}plans/{number}.md")["ETag"] == etag


def test_a_file_is_opened_for_reading_once_also_where_it_rides_in_a_pack(
    pod: Pod, bucket: str, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    descend = beneath.Home.descend

    def counted(self: beneath.Home, path: str, flags: int) -> int:
        if flags == reads.FILE:
            opened.append(path)
        return descend(self, path, flags)

    monkeypatch.setattr(beneath.Home, "descend", counted)
    monkeypatch.setattr(convoys, "PER_THREAD", 1)
    monkeypatch.setattr(packing, "LOOSE_FILES", 2)
    assert pod.backup().files == COUNT
    (packed,) = unpacked(s3, bucket)
    assert all(b"plan %d\0" % number in packed for number in range(COUNT))
    assert sorted(opened) == sorted(f"plans/{n}.md" for n in range(COUNT))


def test_what_changed_since_it_was_sent_rides_in_no_pack_with_other_bytes(
    pod: Pod, bucket: str, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convoys, "PER_THREAD", 1)
    monkeypatch.setattr(packing, "LOOSE_FILES", 2)
    at_first_put(monkeypatch, lambda: pod.write("plans/3.md", "another"))
    pod.backup()
    (packed,) = unpacked(s3, bucket)
    assert b"plan 3\0" in packed
    assert b"another" not in packed


def test_bodies_are_at_hand_up_to_a_bound_and_only_by_their_digest() -> None:
    at_hand = AtHand(most_bytes=10)
    for path, size in (("a", 6), ("b", 6), ("c", 4)):
        at_hand.keep(path, f"digest of {path}", b"x" * size)
    assert at_hand.take("a", "digest of another") is None
    assert at_hand.take("b", "digest of b") is None, "no room"
    assert at_hand.take("c", "digest of c") == b"xxxx"
    assert at_hand.take("c", "digest of c") is None, "once"
