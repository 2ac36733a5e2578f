"""An area whose small files ride in packs, for tests: made, looked at, and edited behind everybody's back."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sidecar.area.manifest import FileEntry
from sidecar.area.manifest_format import Root, decoded_root, encoded_root
from sidecar.sync import picture
from tests.sync.pods import T0, MakeSettings, Pod, pods
from tests.sync.test_round_trip import fill

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OWN = "user_data/ada/.claude-sidecar/"
MANIFEST = OWN + "manifest.json.zst"


def many(pod: Pod, count: int = 150, stem: str = "skills/s") -> None:
    for n in range(count):
        # Old enough that the next checkpoint needs not look again whether they changed within a clock tick.
        pod.write(f"{stem}/{n}.md", f"skill {n} " * (n + 1), mode=0o640, mtime_ns=T0)


def backed_up(make: MakeSettings, bucket: str, place: Path) -> tuple[Pod, Pod]:
    first, second = pods(make, bucket, place, 2)
    first.start()
    fill(first)
    many(first)
    first.append("projects/-w/torn.jsonl", b'{"n": 1}\n')
    assert first.backup().durable
    return first, second


def pack_keys(s3: Any, bucket: str) -> list[str]:
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=OWN + "packs/").get("Contents", [])
    return [entry["Key"] for entry in listed if entry["Key"].endswith(".tar.zst")]


def unpacked(s3: Any, bucket: str) -> list[bytes]:
    """The content of every pack that is in the bucket."""
    bodies = (s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in pack_keys(s3, bucket))
    return [zstd.decompress(body) for body in bodies]


def gets(pod: Pod) -> int:
    return pod.store.requests["get"].requests


def edited_root(s3: Any, bucket: str, edit: Callable[[Root], Root]) -> None:
    body = s3.get_object(Bucket=bucket, Key=MANIFEST)["Body"].read()
    s3.put_object(Bucket=bucket, Key=MANIFEST, Body=encoded_root(edit(decoded_root(body, "k"))))


def entries_of(pod: Pod) -> dict[str, FileEntry]:
    with pod.open() as workspace:
        return picture.read_if_any(workspace).files


def etag_of(s3: Any, bucket: str, path: str) -> str:
    return str(s3.head_object(Bucket=bucket, Key=f"user_data/ada/.claude/{path}")["ETag"])
