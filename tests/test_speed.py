"""The comparison with other tools counts what it says it counts, and takes no failure for a figure."""

import dataclasses
import hashlib
import socket
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import chart, gauges, publishing, report, results, speed
from benchmarks.arena import Arena, Defect, check_equal
from benchmarks.counting import Wiretap
from benchmarks.flushes import Flush
from benchmarks.peers import TOOLS, ClaudeSidecar, Command, S5cmd, Site
from benchmarks.results import Comparison, Result
from benchmarks.rows import ROWS
from benchmarks.workloads import WORKLOADS, Workload, small
from tests.servers import client

TINY = Workload("small", "some files", lambda directory, shrink: small(directory, shrink, count=20))


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with Arena(TINY, tmp_path_factory.mktemp("arena")) as arena:
        yield arena


@dataclasses.dataclass
class Idle(S5cmd):
    """A tool that says that all went well, and does nothing."""

    name = "idle"
    argv: tuple[str, ...] = ("true",)

    def backup(self, home: Path, site: Site, *, first: bool) -> Command:
        return Command(self.argv, site.environ)

    def restore(self, site: Site, home: Path) -> Command:
        return Command(self.argv, site.environ)


class Absent(S5cmd):
    name = "absent"

    def version(self) -> None:
        return None


def options(directory: Path, *only: str) -> Namespace:
    common = {"quick": False, "rounds": 1, "long_rounds": 1, "round_trips": "0", "delayed_rounds": 1}
    return Namespace(**common, directory=directory, only=[*only])


def test_the_trees_are_the_same_bytes_on_every_machine(tmp_path: Path) -> None:
    for workload in ("small", "mixed", "append"):
        WORKLOADS[workload].make(tmp_path / workload, 40)
    digest = hashlib.sha256()
    for file in sorted(f for f in tmp_path.rglob("*") if f.is_file()):
        digest.update(f"{file.relative_to(tmp_path)} {file.stat().st_mtime} ".encode() + file.read_bytes())
    assert digest.hexdigest() == "15263a6d21c441efc683a43e80b51475e367c792a51fbdc44056b44db5c7c60c"


@pytest.mark.parametrize("delay_seconds", [0.0, 0.005])
def test_the_proxy_counts_requests_and_bytes_and_changes_none(arena: Arena, delay_seconds: float) -> None:
    body = bytes(range(256)) * 40_000
    with Wiretap(arena.server.endpoint, delay_seconds) as tap:
        s3 = client({**arena.server.environ(), "AWS_ENDPOINT_URL": tap.endpoint})
        s3.put_object(Bucket="ready", Key="one/two", Body=body)
        sent = tap.take()
        assert s3.get_object(Bucket="ready", Key="one/two")["Body"].read() == body
        s3.list_objects_v2(Bucket="ready")
        s3.delete_object(Bucket="ready", Key="one/two")
        received = tap.take()
        s3.close()
    assert sent.requests == {"PUT": 1}
    assert len(body) < sent.sent_bytes < len(body) + 2000
    assert received.requests == {"GET": 1, "LIST": 1, "DELETE": 1}
    assert len(body) < received.received_bytes < len(body) + 5000


def test_the_proxy_finds_the_next_request_behind_a_body_in_chunks() -> None:
    said = b""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            nonlocal said
            connection, _ = listener.accept()
            with connection:
                while not said.endswith(b"/end HTTP/1.1\r\n\r\n") and (data := connection.recv(65536)):
                    said += data
                connection.sendall(b"done")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with Wiretap(f"http://127.0.0.1:{listener.getsockname()[1]}") as tap:
            port = int(tap.endpoint.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
                one.sendall(b"PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n")
                one.sendall(b"x-trailer: 1\r\n\r\nPOST /b/k HTTP/1.1\r\nContent-Le")
                one.sendall(b"ngth: 6\r\n\r\nHEAD /DELETE /b/end HTTP/1.1\r\n\r\n")
                assert one.recv(10) == b"done"
            thread.join(10)
            assert tap.take().requests == {"PUT": 1, "POST": 1, "DELETE": 1}


def test_a_tree_with_one_other_byte_is_not_equal(tmp_path: Path) -> None:
    for side in ("here", "there"):
        small(tmp_path / side, count=5)
    check_equal(tmp_path / "here", tmp_path / "there")
    file = next(f for f in (tmp_path / "there").rglob("*") if f.is_file())
    body = bytearray(file.read_bytes())
    body[-1] ^= 1
    file.write_bytes(body)
    with pytest.raises(Defect, match="other bytes"):
        check_equal(tmp_path / "here", tmp_path / "there")
    file.unlink()
    with pytest.raises(Defect, match="one side only"):
        check_equal(tmp_path / "here", tmp_path / "there")


@pytest.mark.parametrize("tool", [Idle(), Idle(("false",))])
def test_a_tool_that_did_nothing_or_failed_has_no_figure(arena: Arena, tool: Idle) -> None:
    with pytest.raises(Defect):
        arena.backup(tool, arena.server.endpoint)


def test_a_restore_that_restored_nothing_is_a_defect(arena: Arena) -> None:
    arena._sites["idle"] = arena.empty_site(Idle())
    with pytest.raises(Defect, match="one side only"):
        arena.restore(Idle(), arena.server.endpoint)


def test_what_failed_and_what_is_missing_is_named_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(speed.WORKLOADS, "small", TINY)
    comparison = speed.compare(options(tmp_path, "backup-small"), [S5cmd(), Idle(("false",)), Absent()])
    said = report.markdown(comparison)
    assert "**Missing here: absent.**" in said
    assert "**idle failed in backup-small:** exit 1" in said
    assert comparison.find("backup-small", "s5cmd", 0)
    assert not comparison.find("backup-small", "idle", 0)


def test_a_directory_that_is_too_small_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed.shutil, "disk_usage", lambda _: Namespace(free=2**30 - 1))
    assert speed.run(Namespace(**vars(options(tmp_path, "empty")), peers=["s5cmd"])) == 2
    assert "has 1.0 GiB free and needs 1.0; name another directory" in capsys.readouterr().out


def test_a_process_is_measured_with_all_that_it_started(arena: Arena) -> None:
    script = "import subprocess,sys; subprocess.run([sys.executable, '-c', 'b = bytearray(150_000_000)'])"
    sample = arena.run(Command((sys.executable, "-c", script), {}))
    assert sample.peak_kib > 140_000
    assert not sample.anonymous_kib
    assert arena.run(Command(("true",), {})).peak_kib < 40_000


def test_memory_of_its_own_is_told_from_that_of_mapped_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100_000_000))
    script = """if True:
        import mmap, os, time
        mapped = mmap.mmap(os.open("file", os.O_RDONLY), 0, access=mmap.ACCESS_READ)
        assert not mapped.find(b"x") > 0
        own = bytearray(50_000_000)
        time.sleep(0.5)
    """
    with Arena(TINY, tmp_path, look_seconds=0.01) as arena:
        sample = arena.run(Command((sys.executable, "-c", script), {}, cwd=tmp_path))
    assert sample.peak_kib > 140_000
    assert 48_000 < sample.anonymous_kib < 90_000


def test_the_cpu_time_of_threads_that_ended_counts() -> None:
    script = """if True:
        import sys, threading, time
        def burn():
            while time.thread_time() < 0.1: pass
        thread = threading.Thread(target=burn)
        thread.start(); thread.join()
        print("burnt", flush=True); sys.stdin.read()
    """
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert gauges.cpu_seconds(process.pid) >= 0.1
        assert gauges.rss_kib(process.pid) <= gauges.peak_kib(process.pid)
        process.communicate()


def test_the_same_figures_come_back_from_the_file(tmp_path: Path) -> None:
    comparison = Comparison("now", "here", {"s5cmd": "1"}, [Result("empty", "s5cmd", 0, [1.0], [1.0], [1])])
    results.save(comparison, tmp_path / "json")
    assert results.load(tmp_path / "json") == comparison


def _comparison(ours: float, requests: dict[str, int]) -> Comparison:
    figures = [
        Result("nothing-changed", "claude-sidecar", 0, [ours, 9.0, 0.0], [0.1], [1024], requests),
        Result("nothing-changed", "s5cmd", 0, [2.0], [0.1], [1024], {"LIST": 5}, 10, 20),
    ]
    return Comparison("now", "here", {"claude-sidecar": "1", "s5cmd": "2", "restic": None}, figures)


def test_a_row_that_misses_its_target_says_so() -> None:
    row = ROWS["nothing-changed"]
    assert report.verdict(_comparison(0.5, {}), row, 0) == "0.25, 0 requests"
    missed = report.verdict(_comparison(0.6, {"LIST": 1}), row, 0)
    assert missed == "**0.30: missed**, **1 request: missed**"


def test_the_chart_is_well_formed_and_names_every_tool() -> None:
    comparison = _comparison(0.5, {})
    picture = ElementTree.fromstring(chart.svg(comparison))
    said = " ".join(picture.itertext())
    assert ROWS["nothing-changed"].title in said
    assert "0.25 · 0.500 s" in said
    assert "restic: missing" in said


def test_publishing_changes_the_readme_between_its_marks_only(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{publishing.BEGIN}\nold\n{publishing.END}\nafter\n")
    publishing.publish(_comparison(0.5, {}), tmp_path)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "docs/speed.svg" in text
    assert {file.name for file in (tmp_path / "docs").iterdir()} == {"speed.json", "speed.md", "speed.svg"}


def test_the_readme_has_the_section_that_the_benchmark_writes() -> None:
    text = (publishing.ROOT / "README.md").read_text()
    assert publishing.with_section(text, "x") != text


def test_every_tool_that_can_be_asked_for_has_another_name() -> None:
    assert all(name == tool.name for name, tool in TOOLS.items())
    assert ClaudeSidecar.name in TOOLS


@pytest.mark.parametrize(("name", "seconds", "slow"), [("idle", 2.1, True), ("idle", 2.0, False)])
def test_a_peer_that_takes_more_than_twice_the_time_of_s5cmd_is_slow(
    name: str, seconds: float, slow: bool
) -> None:
    found = {
        tool: Result("empty", tool, 0, [time, time, 9.0]) for tool, time in (("s5cmd", 1.0), (name, seconds))
    }
    assert speed._is_slow(found, Idle()) is slow


def test_what_is_measured_is_never_cut_short() -> None:
    times = {"s5cmd": [1.0], "claude-sidecar": [9.0], "claude-sidecar run": [9.0]}
    found = {name: Result("empty", name, 0, seconds) for name, seconds in times.items()}
    assert not any(speed._is_slow(found, tool) for tool in (S5cmd(), ClaudeSidecar(), Flush()))
