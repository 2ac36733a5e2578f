"""What every store must do, on each server that we can run."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sidecar.area.objects import IfAbsent, IfMatch
from sidecar.area.store import Store
from sidecar.errors import ConditionFailed, FileChanged, ObjectMissing
from sidecar.settings import Settings
from tests.area.conftest import FileSource, Remote

MIB = 1024 * 1024


@pytest.fixture(params=["weed", "moto", "rclone"])
def remote(request: pytest.FixtureRequest, remote_on: Callable[[str], Remote]) -> Remote:
    made = remote_on(request.param)
    if request.param == "rclone":
        made.store.probe_conditions("p/own/")
    return made


@pytest.fixture(params=["weed", "moto"])
def guarded(request: pytest.FixtureRequest, remote_on: Callable[[str], Remote]) -> Remote:
    return remote_on(request.param)


def test_what_was_written_is_read_back_with_its_metadata(remote: Remote) -> None:
    etag = remote.store.put(
        "p/a/b.txt", b"hello", condition=IfAbsent(), metadata={"mtime": "1.5", "mode": "0600"}
    )
    with remote.store.open("p/a/b.txt", if_match=etag) as download:
        assert download.read() == b"hello"
        assert (download.info.key, download.info.size, download.info.etag) == ("p/a/b.txt", 5, etag)
        assert (download.metadata["mtime"], download.metadata["mode"]) == ("1.5", "0600")
    head = remote.store.head("p/a/b.txt")
    assert head is not None
    assert head.info == download.info
    assert head.metadata == download.metadata
    listed = remote.store.list("p/").objects["p/a/b.txt"]
    assert (listed.size, listed.etag) == (5, etag)


def test_what_was_written_is_plain_to_other_tools(remote: Remote) -> None:
    remote.store.put("p/a", b"plain", condition=IfAbsent(), metadata={}, content_type="text/plain")
    got = remote.outside.get_object(Bucket=remote.bucket, Key="p/a")
    assert got["Body"].read() == b"plain"
    assert got["ContentType"].startswith("text/plain")


def test_an_object_that_is_there_is_not_overwritten_by_a_first_write(remote: Remote) -> None:
    remote.write("p/a", b"theirs")
    with pytest.raises(ConditionFailed):
        remote.store.put("p/a", b"ours", condition=IfAbsent(), metadata={})
    assert remote.read("p/a") == b"theirs"


def test_a_version_that_was_not_read_is_not_overwritten(remote: Remote) -> None:
    ours = remote.store.put("p/a", b"one", condition=IfAbsent(), metadata={})
    remote.write("p/a", b"theirs")
    with pytest.raises(ConditionFailed):
        remote.store.put("p/a", b"two", condition=IfMatch(ours), metadata={})
    assert remote.read("p/a") == b"theirs"


def test_a_write_over_the_version_that_was_read_takes_its_place(remote: Remote) -> None:
    first = remote.store.put("p/a", b"one", condition=IfAbsent(), metadata={})
    second = remote.store.put("p/a", b"two", condition=IfMatch(first), metadata={})
    assert remote.read("p/a") == b"two"
    assert remote.store.list("p/").objects["p/a"].etag == second


def test_a_write_over_a_version_that_is_gone_is_refused(remote: Remote) -> None:
    first = remote.store.put("p/a", b"one", condition=IfAbsent(), metadata={})
    remote.outside.delete_object(Bucket=remote.bucket, Key="p/a")
    with pytest.raises(ConditionFailed):
        remote.store.put("p/a", b"two", condition=IfMatch(first), metadata={})


def test_reading_what_is_missing_says_so(remote: Remote) -> None:
    assert remote.store.head("p/none") is None
    with pytest.raises(ObjectMissing, match=f"s3://{remote.bucket}/p/none"):
        remote.store.open("p/none")


def test_reading_another_version_than_expected_is_refused(guarded: Remote) -> None:
    guarded.write("p/a")
    with pytest.raises(ConditionFailed):
        guarded.store.open("p/a", if_match='"00000000000000000000000000000000"')
    with pytest.raises(ConditionFailed):
        guarded.store.read_range("p/a", 0, 1, if_match='"00000000000000000000000000000000"')


def test_a_range_is_exactly_what_was_asked_for(remote: Remote) -> None:
    etag = remote.write("p/a", b"0123456789")
    assert remote.store.read_range("p/a", 3, 4, if_match=etag) == b"3456"
    assert remote.store.read_range("p/a", 3, 0, if_match=etag) == b""


def test_a_deletion_only_hits_the_version_that_was_meant(remote: Remote) -> None:
    etag = remote.write("p/a", b"one")
    with pytest.raises(ConditionFailed):
        remote.store.delete("p/a", if_match='"00000000000000000000000000000000"')
    assert remote.read("p/a") == b"one"
    remote.store.delete("p/a", if_match=etag)
    remote.store.delete("p/a", if_match=etag)
    remote.store.delete("p/a", if_match=None)
    assert not remote.store.list("p/").objects


def test_a_listing_is_of_whole_segments(remote: Remote) -> None:
    for key in ("p/USER/a", "p/USER2/b", "p/USER"):
        if remote.name != "rclone" or key != "p/USER":
            remote.write(key)
    assert set(remote.store.list("p/USER/").objects) == {"p/USER/a"}
    assert set(remote.store.list("p/USER").objects) == {"p/USER/a"}
    assert set(remote.store.list("p/USER/", exact=True).objects) == {"p/USER/a"}


def test_names_that_need_care_on_the_way_arrive_as_they_are(remote: Remote) -> None:
    names = [
        "a%b#c?d*e{f}~.txt",
        "ü ñ é+&=.md",
        "%2F",
        "a+b c",
        'q"<>|^`[]',
        " leading and trailing ",
        "a:b@c;d,e!f$g'h(i)",
        "日本語.md",
    ]
    for name in names:
        body = name.encode()
        etag = remote.store.put(f"p/{name}", body, condition=IfAbsent(), metadata={})
        with remote.store.open(f"p/{name}") as download:
            assert download.read() == body
        with pytest.raises(ConditionFailed):
            remote.store.delete(f"p/{name}", if_match='"0"')
        assert remote.store.read_range(f"p/{name}", 0, 1, if_match=etag) == body[:1]
    wanted = {f"p/{name}" for name in names}
    assert set(remote.store.list("p/").objects) == wanted
    assert set(remote.store.list("p/", exact=True).objects) == wanted
    listed = remote.outside.list_objects_v2(Bucket=remote.bucket, Prefix="p/")["Contents"]
    assert {entry["Key"] for entry in listed} == wanted


def test_metadata_that_no_header_can_carry_is_escaped(remote: Remote) -> None:
    remote.store.put("p/a", b"", condition=IfAbsent(), metadata={"writer": "pöd\n1"})
    head = remote.store.head("p/a")
    assert head is not None
    assert head.metadata["writer"] == "p\\xf6d\\n1"


def test_a_store_tells_whether_it_honours_conditions_and_keeps_nothing_of_the_question(
    remote: Remote,
) -> None:
    assert remote.store.probe_conditions("p/own/") is (remote.name != "rclone")
    assert remote.store.guarded is (remote.name != "rclone")
    assert not remote.store.list("p/").objects


def test_a_large_object_goes_up_in_parts_under_the_same_conditions(guarded: Remote, tmp_path: Path) -> None:
    body = bytes(range(256)) * (40 * MIB // 256)
    (tmp_path / "large").write_bytes(body)
    source = FileSource(tmp_path / "large", len(body))
    etag = guarded.store.put("p/large", source, condition=IfAbsent(), metadata={"mtime": "2.5"})
    parts = guarded.store.requests["part"].requests
    assert parts > 1
    with guarded.store.open("p/large") as download:
        assert download.metadata["mtime"] == "2.5"
        assert b"".join(download.chunks()) == body
    assert guarded.store.list("p/").objects["p/large"].etag == etag
    with pytest.raises(ConditionFailed):
        guarded.store.put("p/large", source, condition=IfAbsent(), metadata={})
    assert guarded.store.requests["part"].requests == parts, "it was known before the first byte went"
    second = guarded.store.put("p/large", source, condition=IfMatch(etag), metadata={})
    with pytest.raises(ConditionFailed):
        guarded.store.put("p/large", source, condition=IfMatch('"gone"'), metadata={})
    assert guarded.store.list("p/").objects["p/large"].etag == second


def test_a_file_that_is_truncated_while_it_goes_up_leaves_no_object(
    remote_on: Callable[[str], Remote], tmp_path: Path
) -> None:
    remote = remote_on("weed")
    path = tmp_path / "shrinking"
    path.write_bytes(b"x" * (40 * MIB))

    class Shrinking(FileSource):
        def read(self, offset: int, length: int) -> bytes:
            if offset >= 16 * MIB:
                path.write_bytes(b"x")
            return super().read(offset, length)

    with pytest.raises(FileChanged):
        remote.store.put("p/a", Shrinking(path, 40 * MIB), condition=IfAbsent(), metadata={})
    assert remote.store.head("p/a") is None
    assert "Uploads" not in remote.outside.list_multipart_uploads(Bucket=remote.bucket)


@pytest.mark.parametrize("size", [10, 40 * MIB], ids=["whole", "in parts"])
@pytest.mark.parametrize(("sse", "key"), [("AES256", None), ("aws:kms", None), ("aws:kms", "a-key")])
def test_encryption_is_asked_for_on_each_way_in(
    remote_on: Callable[[str], Remote],
    settings_for: Callable[..., Settings],
    size: int,
    sse: str,
    key: str | None,
) -> None:
    remote = remote_on("moto")
    settings = settings_for(remote.bucket, server=remote.server, sse=sse, sse_kms_key_id=key)
    store = Store.connect(settings, outage_seconds=0)
    store.put("p/a", b"x" * size, condition=IfAbsent(), metadata={})
    head = remote.outside.head_object(Bucket=remote.bucket, Key="p/a")
    assert head["ServerSideEncryption"] == sse
    assert head.get("SSEKMSKeyId") == key


def test_many_threads_write_and_read_at_once(remote_on: Callable[[str], Remote]) -> None:
    store = remote_on("weed").store

    def both(number: int) -> bytes:
        store.put(f"p/{number}", str(number).encode(), condition=IfAbsent(), metadata={})
        with store.open(f"p/{number}") as download:
            return download.read()

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(both, range(200))) == [str(number).encode() for number in range(200)]
    assert store.requests["put"].requests == store.requests["get"].requests == 200


def test_of_many_first_writers_one_wins(remote_on: Callable[[str], Remote]) -> None:
    remote = remote_on("weed")

    def write(number: int) -> bool:
        try:
            remote.store.put("p/a", str(number).encode(), condition=IfAbsent(), metadata={})
        except ConditionFailed:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(write, range(16)))
    assert won.count(True) == 1
    assert remote.read("p/a") == str(won.index(True)).encode()


def test_an_unguarded_store_is_looked_at_before_each_write(remote_on: Callable[[str], Remote]) -> None:
    remote = remote_on("rclone")
    assert not remote.store.probe_conditions("p/own/")
    etag = remote.store.put("p/a", b"one", condition=IfAbsent(), metadata={})
    remote.store.put("p/a", b"two", condition=IfMatch(etag), metadata={})
    assert remote.store.requests["head"].requests == 2
