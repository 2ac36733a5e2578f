"""Foreign keys are normal: one is skipped, counted and named, and never breaks a restore or a start."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Server, client
from tests.sync.pods import MakeSettings, pods

AREA = "user_data/ada/.claude/"


@pytest.fixture
def moto(moto_server: Server) -> Iterator[Any]:
    """An outside writer on moto, which keeps keys as they are."""
    outside = client(moto_server)
    yield outside
    outside.close()


@pytest.fixture
def foreign(moto: Any) -> str:
    """A bucket on moto of this test's own."""
    name = f"foreign-{uuid.uuid4().hex[:12]}"
    moto.create_bucket(Bucket=name)
    return name


@pytest.mark.parametrize(
    "key",
    [
        "config/",
        "a//b.md",
        "../up.md",
        "x/../y.md",
        "./z.md",
        "tab\there.md",
        "\x7f.md",
        "back\\slash.md",
    ],
    ids=ascii,
)
def test_one_foreign_key_never_breaks_the_rest(
    key: str, foreign: str, moto: Any, moto_server: Server, settings_for: MakeSettings, tmp_path: Path
) -> None:
    moto.put_object(Bucket=foreign, Key=AREA + key, Body=b"" if key.endswith("/") else b"foreign")
    moto.put_object(Bucket=foreign, Key=AREA + "CLAUDE.md", Body=b"ours")
    (pod,) = pods(settings_for, foreign, tmp_path, 1, server=moto_server)
    result = pod.start()
    assert result.action == "restored"
    assert set(pod.tree()) == {"CLAUDE.md"}
    assert len(result.skipped) == 1
    pod.write("settings.json", "{}")
    assert pod.backup().durable
    assert moto.head_object(Bucket=foreign, Key=AREA + key)["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert not list(tmp_path.rglob("up.md"))


def test_of_a_file_beside_a_directory_of_its_name_the_newer_comes_and_the_other_is_named(
    foreign: str, moto: Any, moto_server: Server, settings_for: MakeSettings, tmp_path: Path
) -> None:
    moto.put_object(Bucket=foreign, Key=AREA + "notes", Body=b"a file")
    moto.put_object(Bucket=foreign, Key=AREA + "notes/one.md", Body=b"in a directory")
    (pod,) = pods(settings_for, foreign, tmp_path, 1, server=moto_server)
    result = pod.start()
    assert pod.read("notes/one.md") == b"in a directory"
    assert [entry.path for entry in result.not_restored] == ["notes"]
    pod.write("settings.json", "{}")
    assert pod.backup().durable
    assert moto.get_object(Bucket=foreign, Key=AREA + "notes")["Body"].read() == b"a file"


def test_an_archived_object_is_named_and_neither_restored_nor_overwritten(
    foreign: str, moto: Any, moto_server: Server, settings_for: MakeSettings, tmp_path: Path
) -> None:
    archived, log = AREA + "plans/old.md", AREA + "projects/p/s.jsonl"
    moto.put_object(Bucket=foreign, Key=archived, Body=b"old", StorageClass="GLACIER")
    moto.put_object(Bucket=foreign, Key=log, Body=b"one\n")
    (pod,) = pods(settings_for, foreign, tmp_path, 1, server=moto_server)
    result = pod.start()
    assert result.action == "restored"
    assert pod.read("projects/p/s.jsonl") == b"one\n"
    assert not (pod.home / "plans/old.md").exists()
    named = [entry.path for entry in (*result.not_restored, *result.skipped)]
    assert named == ["plans/old.md"]
    pod.write("plans/old.md", "new")
    backup = pod.backup()
    assert [entry.path for entry in backup.pending] == ["plans/old.md"]
    assert moto.head_object(Bucket=foreign, Key=archived)["StorageClass"] == "GLACIER"


def test_ten_thousand_and_one_keys(bucket: str, settings_for: MakeSettings, tmp_path: Path) -> None:
    first, second = pods(settings_for, bucket, tmp_path, 2)
    first.start()
    for number in range(10_001):
        path = first.home / "file-of-a-skill" / f"{number // 500}"
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{number}.md").write_bytes(b"%d" % number)
    assert first.backup().files == 10_001
    assert second.start().files == 10_001
    assert second.read("file-of-a-skill/20/10000.md") == b"10000"
