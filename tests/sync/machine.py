"""A small world: pods of one user with agents in them, an outside writer, one bucket, and a clock.

Everything real but the bucket: homes and ledgers are files, operations are the project's own. A `World` has a
method for each thing that can happen; it keeps `Truth` informed and checks it after each operation. Tests
drive it by hand or at random.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sidecar.area.keys import AreaKeys
from sidecar.errors import SidecarError
from sidecar.home.reads import json_problem, must_be_whole_json
from sidecar.settings import Settings
from sidecar.sync.compare import is_transcript
from sidecar.sync.flusher import Flusher
from sidecar.sync.initial import backup_home, initial_sync, restore_area
from sidecar.sync.ledger import directory_of
from sidecar.sync.ledger_content import Content, content_of
from sidecar.sync.ledger_file import LedgerFile
from sidecar.sync.marks import Flushed, Mark
from sidecar.sync.workspace import Workspace
from tests.sync.machine_points import (
    Duet,
    Events,
    Process,
    close_left_open,
    installed,
    pass_point,
    running,
    running_process,
)
from tests.sync.machine_truth import Truth, lines_of, sha256, whole_lines
from tests.sync.memory_store import Crash, Fate, MemoryBucket, MemoryStore
from tests.sync.pods import Pod

LOGS = ("projects/p/s.jsonl", "projects/p/t.jsonl")
SETTINGS = "settings.json"
FILE, BELOW = "plans/a", "plans/a/b.md"
"""A file, and one in a directory of the same name: only one of the two can be in a home."""
WHOLE = (SETTINGS, "CLAUDE.md", FILE, BELOW)
PATHS = LOGS + WHOLE
# What can happen in the middle of an operation: `World.happen`.
MEANWHILE = (
    "crash",
    "append",
    "torn",
    "edit",
    "delete",
    "rewind",
    "outside put",
    "outside stale",
    "outside delete",
    "outside in place",
    "the others back up",
    "the others merge",
    "outage",
    "lost answer",
    "cleared answer",
    "late",
    "a late request arrives",
    "flush",
    "checkpoint",
    "the others flush",
    "the others go on",
)
SECOND_NS = 1_000_000_000
START_NS = 1_800_000_000 * SECOND_NS


class Life(Pod):
    """One pod, whose store is in memory. ``name``: changes with its home, because its agent is another."""

    def __init__(
        self, place: Path, name: str, bucket: MemoryBucket, *, tiny_blocks: bool, deletions: str = "keep"
    ) -> None:
        self.place = place / name
        self.name = name
        self.bucket = bucket
        self.skew_ns = 0
        self.touched: dict[str, bytes | None] = {}
        self.rest: dict[str, bytes] = {}
        self.marks: dict[str, Mark] = {}
        self.flushed: dict[str, Flushed] = {}
        self.known: set[str] = set()
        self.session: Session | None = None
        self.looked: Callable[[str, str], None] = lambda by, key: None
        self._tiny = tiny_blocks
        self.opened = False
        super().__init__(
            Settings(
                bucket=bucket.name,
                home=str(self.place / "home"),
                state_dir=self.place / "state",
                concurrency=1,
                deletions=deletions,
            )
        )

    def __post_init__(self) -> None:
        sizes: dict[str, Any] = (
            {"single_put_bytes": 60, "chunk_bytes": 7, "composed_from": 1} if self._tiny else {}
        )
        self.store: Any = MemoryStore(self.bucket, self.name, pass_point=self._pass_point, **sizes)

    def _pass_point(self, what: str) -> None:
        pass_point(what)
        if what.startswith(("before head", "before get")):
            self.looked(self.store.writer, what.split(" ", 2)[2])

    def open(self, *, live: bool = True) -> Workspace:
        workspace = super().open(live=live)
        self._note(workspace)
        return workspace

    def _note(self, workspace: Workspace) -> None:
        ledger = workspace.ledger
        self.marks, self.known, self.opened = ledger.marks(), ledger.known_paths(), True
        self.flushed = {path: noted for path in self.known if (noted := ledger.flushed(path))}

    # -- the sidecar as it runs: one process, whose flusher and workspace remember

    def run(self) -> Any:
        """The sidecar container begins: the first sync, if none was complete."""
        if self.session is None:
            workspace = super().open(live=True)
            self.session = Session(workspace, Flusher(workspace))
        self._note(self.session.workspace)
        return initial_sync(self.session.workspace)

    def halt(self) -> None:
        """The process is gone; the kernel gives its lock back."""
        if self.session:
            self.session.workspace.close()
        self.session = None

    def flush(self, paths: frozenset[str] | None = None) -> Any:
        """A flush by the running sidecar; `paths`: what the watch told, None: every file is looked at."""
        if self.session is None or not self.session.workspace.ledger.header.restored:
            return None
        self._note(self.session.workspace)
        return self.session.flusher.flush(Told(paths) if paths is not None else None)

    def backup(self, **options: Any) -> Any:
        if self.session is None:
            return super().backup(**options)
        self._note(self.session.workspace)
        return backup_home(self.session.workspace, **options)

    def merge(self) -> Any:
        if self.session is None:
            return super().merge()
        self._note(self.session.workspace)
        return restore_area(self.session.workspace)

    def drain(self) -> Any:
        """The end of a pod: a flush, a checkpoint, the end mark."""
        if self.session is None:
            return None
        result = self.flush()
        if result is None:
            return self.backup()
        backup = self.backup()
        if result.durable or backup.durable:
            self.session.flusher.say_ended()
        return backup if backup.durable else result

    def merge_as_at_the_start(self) -> Any:
        """A restore that takes the home for nobody's: a start, whatever was restored before."""
        with self.open(live=False) as workspace:
            return restore_area(workspace)

    def content(self, path: str) -> bytes | None:
        """What the file at `path` holds; None where there is no file."""
        try:
            return (self.home / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def on_disk(self) -> Content | None:
        """What its ledger holds."""
        return content_of(LedgerFile(directory_of(self.settings.state_dir, self.user)))

    def knows(self, path: str) -> bool:
        """Whether its ledger knows something of `path`."""
        content = self.on_disk()
        return content is not None and (path in content.marks or path in content.flushed)

    def contents(self) -> dict[str, bytes]:
        return {path: body for path in PATHS if (body := self.content(path)) is not None}


@dataclass(frozen=True)
class Told:
    """What a watch tells a flush."""

    paths: frozenset[str]
    everything: bool = False


@dataclass
class Session:
    """A sidecar that runs."""

    workspace: Workspace
    flusher: Flusher


@dataclass
class Tally:
    """What runs consisted of. ``faults``: requests that did not go well; ``lies``: listings that did not."""

    runs: int = 0
    operations: int = 0
    crashes: int = 0
    failures: int = 0
    events: int = 0
    faults: int = 0
    points: int = 0
    entries: int = 0
    removed: int = 0
    looks: int = 0

    def add(self, other: Tally) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def __str__(self) -> str:
        return ", ".join(f"{getattr(self, field.name)} {field.name}" for field in fields(self))


TOTAL = Tally()
"""Of all worlds of this process."""


class World:
    """`tiny_blocks`: see `machine_points.installed`; the world's code must run inside that."""

    def __init__(
        self,
        place: Path,
        *,
        pods: int = 2,
        tiny_blocks: bool = False,
        opaque_etags: bool = False,
        missing_answer: int = 404,
        deletions: str = "keep",
    ) -> None:
        self.place = place
        self.deletions = deletions
        self.keys = AreaKeys("user_data", "ada")
        self.bucket = MemoryBucket(opaque_etags=opaque_etags, missing_answer=missing_answer)
        self.truth = Truth(self.keys, mirrors=deletions == "mirror")
        self.bucket.watchers += [self.truth.watch, self.truth.account.watch]
        self.now_ns = START_NS
        self.tally = Tally()
        self._tiny = tiny_blocks
        self._count = 0
        self._busy: list[Life] = []
        self._seen: dict[str, int] = {}
        self.last_points = 0
        self.pods = [self._new_life(number) for number in range(pods)]

    # -- time and identity

    def wait(self, seconds: float) -> None:
        self.now_ns += int(seconds * SECOND_NS)
        self.bucket.clock = self.now_ns / SECOND_NS

    def next(self) -> int:
        self._count += 1
        return self._count

    def _new_life(self, number: int) -> Life:
        name = f"p{number}-{self.next()}"
        life = Life(self.place, name, self.bucket, tiny_blocks=self._tiny, deletions=self.deletions)
        life.looked = self.truth.account.looked
        return life

    # -- the agent

    def append(self, pod: Life, path: str, count: int = 1, *, torn: bool = False) -> None:
        """Whole lines that nobody else has; `torn`: the last one without its end, which comes next time."""
        lines = [f'{{"w":"{pod.name}","n":{self.next()}}}'.encode() for _ in range(count)]
        self.append_lines(pod, path, lines, torn=torn)

    def append_lines(self, pod: Life, path: str, lines: list[bytes], *, torn: bool = False) -> None:
        if pod.content(path) is None and pod.knows(path):
            self.truth.disordered.add(path)  # begun anew in a home that lost it: a rewind of all its lines
        before = pod.content(path) or b""
        data = b"".join(line + b"\n" for line in lines)
        if before and not before.endswith(b"\n"):
            data = pod.rest.get(path, b"") + b"\n" + data
        self.truth.make(path, *lines)
        self.truth.go_on(path, before, *lines)
        if torn:
            cut = len(data) - 1 - len(lines[-1]) // 2
            pod.rest[path], data = data[cut:-1], data[:cut]
        self._wrote(pod, path, lambda: pod.append(path, data))

    def repeat(self, pod: Life, path: str) -> None:
        """A line that is in the file once more, on purpose."""
        lines = lines_of(whole_lines(pod.content(path) or b""))
        if lines:
            self.append_lines(pod, path, [lines[self.next() % len(lines)]])

    def use_tool(self, pod: Life, path: str, size: int) -> None:
        """A tool's result, and then the line that names it."""
        number = self.next()
        result = f"{path[: -len('.jsonl')]}/tool-results/{number}.txt"
        body = b"%d\n" % number + b"x" * size
        pod.write(result, body)
        line = f'{{"w":"{pod.name}","result":"{result}"}}'.encode()
        self.truth.account.results[line] = (result, body)
        self.append_lines(pod, path, [line])

    def rewind(self, pod: Life, path: str, keep: int, *, more: int = 0) -> None:
        """The transcript cut back to its first lines, and gone on from there."""
        lines = lines_of(whole_lines(pod.content(path) or b""))
        if not lines:
            return
        self.truth.disordered.add(path)
        new = [f'{{"w":"{pod.name}","n":{self.next()}}}'.encode() for _ in range(more)]
        self.truth.make(path, *new)
        data = b"".join(line + b"\n" for line in lines[: keep % len(lines)] + new)
        self._wrote(pod, path, lambda: pod.write(path, data))

    def edit(self, pod: Life, path: str, *, in_place: bool = False) -> bytes:
        """A version that nobody had before, as long as every other."""
        body = self._version()
        self.put_in(pod, path, body, in_place=in_place)
        return body

    def put_in(self, pod: Life, path: str, body: bytes, *, in_place: bool = False) -> None:
        self.truth.make(path, body)

        def write() -> None:
            self._make_way(pod, path)
            if in_place:
                pod.write(path, body)
            else:
                pod.write(path + ".tmp.1", body).rename(pod.home / path)

        self._wrote(pod, path, write)

    def revert(self, pod: Life, path: str) -> None:
        """An earlier version put back by the agent."""
        made = sorted(self.truth.made.get(path, ()))
        if made:
            self.put_in(pod, path, made[self.next() % len(made)])

    def delete(self, pod: Life, path: str) -> None:
        if pod.content(path) is not None:
            self.truth.disordered.add(path)
            self.truth.by(path, "a deletion")
            pod.touched[path] = None
            (pod.home / path).unlink()

    def touch(self, pod: Life, path: str) -> None:
        if pod.content(path) is not None:
            self._wrote(pod, path, lambda: (pod.home / path).chmod(0o600 + self.next() % 8))

    def _wrote(self, pod: Life, path: str, write: Callable[[], object]) -> None:
        write()
        self.truth.by(path, pod.name)
        pod.touched[path] = pod.content(path)
        at = self.now_ns + pod.skew_ns
        os.utime(pod.home / path, ns=(at, at))

    def _make_way(self, pod: Life, path: str) -> None:
        if path == FILE and (pod.home / FILE).is_dir():
            pod.touched[BELOW] = None
            self.truth.by(BELOW, "a deletion")
            shutil.rmtree(pod.home / FILE)
        elif path == BELOW and (pod.home / FILE).is_file():
            pod.touched[FILE] = None
            self.truth.by(FILE, "a deletion")
            (pod.home / FILE).unlink()
        (pod.home / path).parent.mkdir(parents=True, exist_ok=True)

    def _version(self) -> bytes:
        return f'{{"v":{100_000 + self.next()}}}\n'.encode()

    # -- the outside writer: no conditions, no metadata unless it copies

    def outside_put(self, path: str) -> None:
        """A new version; of a transcript: what is there and a line more, whoever wrote in between."""
        if not is_transcript(path):
            body = self._version()
            self.truth.make(path, body)
            self.bucket.put(self.keys.object(path), body)
            return
        there = self.bucket.objects.get(self.keys.object(path))
        line = f'{{"outside":{self.next()}}}'.encode()  # who cuts and puts back keeps no order
        self.truth.make(path, line)
        self.bucket.put(self.keys.object(path), whole_lines(there.body if there else b"") + line + b"\n")

    def outside_stale(self, path: str, *, copy: bool = False) -> None:
        """An earlier version put back; `copy`: with the metadata that it had."""
        versions = self.truth.ever.get(path, [])
        self.truth.disordered.add(path)  # what is lost comes back behind what was flushed meanwhile
        if versions:
            old = versions[self.next() % len(versions)]
            self.bucket.put(self.keys.object(path), old.body, metadata=old.metadata if copy else {})

    def outside_cut(self, path: str) -> None:
        """An upload that broke: the object without its end, inside a line."""
        there = self.bucket.objects.get(self.keys.object(path))
        if there and len(there.body) > 3:
            body = there.body[: -1 - self.next() % (len(there.body) - 2)]
            self.truth.disordered.add(path)
            self.truth.make(path, lines_of(body)[-1] if is_transcript(path) else body)
            self.bucket.put(self.keys.object(path), body)

    def outside_in_place(self, path: str) -> None:
        """A tool that changes the bytes and sends the old metadata again (mounts of a bucket do)."""
        there = self.bucket.objects.get(self.keys.object(path))
        if there and not is_transcript(path):
            body = self._version()
            self.truth.make(path, body)
            self.bucket.put(self.keys.object(path), body, metadata=there.metadata)

    def outside_delete(self, path: str) -> None:
        self.truth.disordered.add(path)
        self.bucket.delete(self.keys.object(path))

    def outside_manifest(self, choice: int) -> None:
        """The manifest lost, damaged, or an earlier one."""
        key = self.keys.manifest
        there, before = self.bucket.objects.get(key), self.bucket.before.get(key)
        if choice % 3 == 0:
            self.bucket.delete(key)
        elif choice % 3 == 1 and there:
            self.bucket.put(key, there.body[: len(there.body) // 2])
        elif before:
            self.bucket.put(key, before.body)

    # -- in the middle of an operation

    def happen(self, pod: Life, what: str, path: str) -> None:
        """One of `MEANWHILE`, at a point of an operation of `pod`."""
        process = running_process()
        if what == "torn" and process and process.here == "before _append_at_once":
            return  # a client writes a line in one call: nothing can keep ours out of half of one
        self.tally.events += 1
        log, whole = (path, SETTINGS) if path in LOGS else (LOGS[0], path)
        happenings: dict[str, Callable[[], object]] = {
            "crash": self.die,
            "append": lambda: self.append(pod, log),
            "torn": lambda: self.append(pod, log, torn=True),
            "edit": lambda: self.edit(pod, whole),
            "delete": lambda: self.delete(pod, path),
            "rewind": lambda: self.rewind(pod, log, 1, more=1),
            "outside put": lambda: self.outside_put(path),
            "outside stale": lambda: self.outside_stale(path),
            "outside delete": lambda: self.outside_delete(path),
            "outside in place": lambda: self.outside_in_place(path),
            "the others back up": lambda: [self.backup(one) for one in self.pods if one is not pod],
            "the others merge": lambda: [self.merge(one) for one in self.pods if one is not pod],
            "outage": lambda: self.trouble(pod, [Fate.UNREACHABLE] * 50),
            "lost answer": lambda: self.trouble(pod, [Fate.LOST]),
            "cleared answer": lambda: self.trouble(pod, [Fate.CLEARED]),
            "late": lambda: self.trouble(pod, [Fate.LATE]),
            "a late request arrives": lambda: self.bucket.deliver() if self.bucket.late else None,
            "flush": lambda: self._inside(pod, pod.flush),
            "checkpoint": lambda: self._inside(pod, pod.backup),
            "the others flush": lambda: [self.flush(one) for one in self.pods if one is not pod],
            "the others go on": lambda: [self.go_on(one) for one in self.pods if one is not pod],
        }
        happenings[what]()

    # -- what happens to pods

    def lose_ledger(self, pod: Life) -> None:
        pod.halt()
        for path in PATHS:
            self.truth.by(path, "a lost ledger")
        shutil.rmtree(pod.place / "state", ignore_errors=True)

    def empty_home(self, pod: Life) -> None:
        """Everything in the home is gone; the home and the ledger stay."""
        self.truth.disordered.update(LOGS)
        for entry in pod.home.iterdir() if pod.home.exists() else ():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self._new_agent(pod)

    def lose_home(self, pod: Life) -> None:
        pod.halt()
        self.truth.robbed.update(LOGS)  # a session of the same name in the new home counts as rewritten
        shutil.rmtree(pod.home, ignore_errors=True)
        self._new_agent(pod)

    def _new_agent(self, pod: Life) -> None:
        pod.name = f"{pod.name.split('-')[0]}-{self.next()}"
        pod.rest.clear()

    def replace_pod(self, number: int) -> Life:
        """The pod goes with all it had; another comes."""
        self.pods[number].halt()
        shutil.rmtree(self.pods[number].place, ignore_errors=True)
        self.pods[number] = self._new_life(number)
        return self.pods[number]

    def trouble(self, pod: Life, fates: list[Fate]) -> None:
        """What becomes of the pod's next requests."""
        self.tally.faults += sum(fate is not Fate.NORMAL for fate in fates)
        pod.store.fates = list(fates)

    # -- the sidecar

    def start(self, pod: Life, events: Events | None = None, *, live: bool = False) -> Any:
        """The init hook (`live`: the first trigger, beside the agent)."""
        if live:

            def work() -> Any:
                with pod.open() as workspace:
                    return initial_sync(workspace)

            return self._operate(pod, work, events, restores=True, restarts=True)
        return self._operate(pod, pod.start, events, restores=True, restarts=True)

    def run(self, pod: Life, events: Events | None = None) -> Any:
        """The sidecar begins to run."""
        return self._operate(pod, pod.run, events, restores=True)

    def halt(self, pod: Life) -> None:
        """The sidecar's container ends; the next operation is another process's."""
        if pod not in self._busy:
            pod.halt()

    def flush(self, pod: Life, events: Events | None = None, *, paths: frozenset[str] | None = None) -> Any:
        """A flush, where the sidecar runs."""
        if pod.session is None:
            return None
        if paths is not None:  # the watch told of the results too
            paths |= {result for result, _ in self.truth.account.results.values()}
        return self._operate(pod, lambda: pod.flush(paths), events, restores=False, kind="flush", only=paths)

    def flush_beside_a_checkpoint(self, pod: Life, turns: Sequence[int], events: Events | None = None) -> Any:
        """Both at once, as the running sidecar does them; `turns`: see `machine_points.Duet`."""
        if pod.session is None or not pod.session.workspace.ledger.header.restored:
            return None

        def both() -> Any:
            process = running_process()
            assert process
            process.duet = Duet(turns)
            try:
                return process.duet.play(pod.backup, pod.flush)[0]
            finally:
                process.duet = None

        return self._operate(pod, both, events, restores=False, kind="both")

    def drain(self, pod: Life, events: Events | None = None) -> Any:
        """The pod ends in order."""
        return self._operate(pod, pod.drain, events, restores=False)

    def go_on(self, pod: Life) -> None:
        """A whole interval of a pod that is at work: what it wrote is flushed and checkpointed, twice."""
        if pod.session is None:
            self.run(pod)
        self.append(pod, LOGS[0])
        self.flush(pod)
        self.backup(pod)
        self.backup(pod)

    def _inside(self, pod: Life, work: Callable[[], Any]) -> None:
        """A flush inside a checkpoint, or the other way round: one process does both (rule 18)."""
        process = running_process()
        if pod.session is None or process is None or not process.takes_another(work.__name__):
            return
        self.tally.operations += 1
        before, touched, pod.touched = pod.contents(), pod.touched, {}
        try:
            with process.doing("both"):
                result = work()
            if result is not None and result.durable:
                self._check_durable(pod, before, {entry.path for entry in result.refused})
        except SidecarError:
            self.tally.failures += 1
        finally:
            pod.touched = touched | pod.touched

    def merge(self, pod: Life, events: Events | None = None) -> Any:
        return self._operate(pod, pod.merge, events, restores=True)

    def backup(self, pod: Life, events: Events | None = None) -> Any:
        return self._operate(pod, pod.backup, events, restores=False, kind="backup")

    def _operate(
        self,
        pod: Life,
        work: Callable[[], Any],
        events: Events | None,
        *,
        restores: bool,
        restarts: bool = False,
        kind: str = "",
        only: frozenset[str] | None = None,
    ) -> Any:
        """Run `work` as a process that may die; returns its result, or None where there is none.

        `restarts`: it is another process than the one that runs. `only`: what a flush is told of.
        """
        if pod in self._busy:
            return None  # its lock is held: the second one would end at once
        if restarts:
            pod.halt()
        if not self._busy:
            self.wait(1)  # else every file would count as changed a moment ago
        self.tally.operations += 1
        self.truth.account.begins(pod.store.writer)
        before, pod.touched, pod.opened = pod.contents(), {}, False
        if len(self._busy) == 0:
            self._seen = {path: len(versions) for path, versions in self.truth.ever.items()}
        process = Process(lambda: self.now_ns + pod.skew_ns, events, kind)
        result = None
        self._busy.append(pod)
        try:
            with running(process):
                result = work()
        except Crash:
            self.tally.crashes += 1
            pod.halt()
            close_left_open(pod.place)
        except SidecarError:
            self.tally.failures += 1
        finally:
            self._busy.remove(pod)
            pod.store.fates = []
            self.tally.points += process.points
        self.last_points = process.points
        if restores:
            self._note_carriers(pod, before)
        self._check_home(pod, before, restores=restores)
        if result is not None and not restores and result.durable:
            before = before if only is None else {p: body for p, body in before.items() if p in only}
            self._check_durable(pod, before, {entry.path for entry in result.refused})
        return result

    def _note_carriers(self, pod: Life, before: dict[str, bytes]) -> None:
        """A pod that took a version from the journal carries it into the object, also where its writer takes
        it back to just what the object holds: nobody can see that in the object."""
        for path, body in pod.contents().items():
            there = self.bucket.objects.get(self.keys.object(path))
            if before.get(path) != body and not (there and there.body == body):
                self.truth.by(path, pod.name)

    def die(self) -> None:
        """The process that runs now is killed at this point."""
        process = running_process()
        if process:
            process.die()

    # -- what must hold after each operation

    def _check_home(self, pod: Life, before: dict[str, bytes], *, restores: bool) -> None:
        after = pod.contents()
        for path, body in after.items():
            if is_transcript(path):
                own_tail = body[len(whole_lines(body)) :] and pod.rest.get(path)
                self.truth.check_lines(path, whole_lines(body) if own_tail else body, f"{pod.name}'s home")
            elif body not in self.truth.made.get(path, ()):
                self._broken(f"{pod.name}'s home: {path} is no version that anybody made: {body!r}")
        for path in PATHS:
            left = pod.touched[path] if path in pod.touched else before.get(path)
            self._check_left_alone(pod, path, left, after.get(path), restores)

    def _check_left_alone(
        self, pod: Life, path: str, old: bytes | None, new: bytes | None, restores: bool
    ) -> None:
        if old == new:
            return
        mark = pod.marks.get(path) if pod.opened else None
        if not restores:
            self._broken(f"a backup of {pod.name} changed {path} from {old!r} to {new!r}")
        elif old is None:
            if path in pod.known and pod.opened:
                self._broken(f"a restore of {pod.name} brought the deleted {path} back")
        elif new is None:
            self._broken(f"a restore of {pod.name} removed {path}")
        elif is_transcript(path):
            if not new.startswith(old):
                self._broken(f"a restore of {pod.name} made {new!r} of the transcript {old!r}")
        elif mark is None:
            if old not in self.truth.kept.get(path, ()) and not self._was_adopted(path, old):
                self._broken(
                    f"a restore of {pod.name} replaced {path}, {old!r} by {new!r}; it is kept nowhere"
                )
        elif path in pod.touched or _was_changed(old, mark, pod.flushed.get(path)):
            self._broken(f"a restore of {pod.name} undid the local change of {path}, {old!r}, by {new!r}")

    def _was_adopted(self, path: str, old: bytes) -> bool:
        """Whether the operation that ended just now met this very version as the object: nothing was unknown
        of it, and an entry that was made from it may be laid on it."""
        versions = self.truth.ever.get(path, [])
        return old in {version.body for version in versions[max(0, self._seen.get(path, 0) - 1) :]}

    def _check_durable(self, pod: Life, before: dict[str, bytes], refused: set[str]) -> None:
        for path, body in before.items():
            if path in refused or path in pod.touched:
                continue
            if not self.truth.is_durable(path, body):
                self._broken(f"{pod.name} said durable, and {path} is not in the bucket: {body!r}")
            elif is_transcript(path):
                self.truth.said_lines_durable(path, body)
            else:
                self.truth.said_durable(pod.name, path, body)

    def _broken(self, sentence: str) -> None:
        self.truth.broken.append(sentence)

    def close(self) -> None:
        """The end of the world: nothing is left open, and the books are added up."""
        for pod in self.pods:
            pod.halt()
        tally, account = self.tally, self.truth.account
        tally.runs, tally.entries, tally.removed = 1, len(account.numbers), account.removed
        TOTAL.add(tally)

    def assert_unbroken(self) -> None:
        assert not self.truth.broken, "\n".join(self.truth.broken)

    # -- the end

    def look(self) -> Life:
        """A new pod comes now and restores, whatever the others are about: it gets all that is durable."""
        fresh = self._new_life(90)
        self.tally.looks += 1
        assert self._operate(fresh, fresh.start, None, restores=True).synced
        for path in PATHS:
            self._check_restored(fresh, path)
        self.assert_unbroken()
        return fresh

    def _check_restored(self, fresh: Life, path: str) -> None:
        account, body = self.truth.account, fresh.content(path)
        if is_transcript(path):
            lacking = account.restorable(path) - Counter(lines_of(body or b""))
            if lacking:
                self._broken(f"a fresh pod lacks lines of {path}: {dict(lacking)}")
            lacking = self.truth.lines_to_come(path) - Counter(lines_of(body or b""))
            if lacking:
                self._broken(f"a fresh pod lacks durable lines of {path}: {dict(lacking)}")
            return
        versions = {version for version in account.versions(path) if not refused_json(path, version)}
        if body is None and versions and path not in (FILE, BELOW):
            self._broken(f"a fresh pod has no {path}, of which there is {versions}")
        elif body is not None and body not in versions:
            self._broken(f"a fresh pod has {body!r} of {path}, not one of {versions}")
        elif body is not None and self.truth.is_older_than_durable(path, body):
            self._broken(f"a fresh pod has {body!r} of {path}, and a later one of its only writer is durable")

    def _calm(self) -> None:
        """No more faults, and what was on its way arrives."""
        while self.bucket.late:
            self.bucket.deliver()
        for pod in self.pods:
            pod.store.fates, pod.store.lies, pod.store.outage = [], {}, False
        self.assert_unbroken()

    def settle(self, rounds: int = 8) -> Life:
        """No more faults: all pods back up and restore until nothing moves; then a fresh pod restores."""
        self._calm()
        self.look()
        for number in range(rounds + 1):
            self.wait(61 + max(abs(pod.skew_ns) for pod in self.pods) / SECOND_NS)
            seen = self._everything()
            backups = [self._round(pod) for pod in self.pods]
            self.assert_unbroken()
            if self._everything() == seen:
                break
            assert number < rounds, f"it never comes to rest: {self._moving(seen)}"
        for backup in backups:
            assert backup and backup.durable, f"at rest and not durable: {backup}"
        for pod in self.pods:
            self._check_journal(pod)
        fresh = self._new_life(99)
        assert self.start(fresh).synced
        for path in PATHS:
            self._check_restored(fresh, path)
        self._check_end(fresh)
        return fresh

    def _round(self, pod: Life) -> Any:
        if pod.session is None:
            self.start(pod)
        self.merge(pod)
        return self.backup(pod)

    def _check_journal(self, pod: Life) -> None:
        """At rest no entry waits for its own writer: nobody else removes it as long as that one lives."""
        for _ in range(3):
            self.backup(pod)
        content = pod.on_disk()
        if content and content.entries:
            self._broken(f"entries of {pod.name} stay in the journal for ever: {content.entries}")
        self.assert_unbroken()

    def _everything(self) -> dict[str, Any]:
        objects = {key: (v.body, v.etag) for key, v in self.bucket.objects.items()}
        return objects | {f"{pod.name}:{p}": body for pod in self.pods for p, body in pod.contents().items()}

    def _moving(self, seen: dict[str, Any]) -> dict[str, Any]:
        now = self._everything()
        return {key: (seen.get(key), now.get(key)) for key in seen | now if seen.get(key) != now.get(key)}

    def _check_end(self, fresh: Life) -> None:
        for pod in self.pods:
            for path, body in pod.contents().items():
                self._check_in_bucket(pod, path, body)
        for path in LOGS:
            if self.truth.account.records(path):
                continue  # what nobody folds comes with each restore: `_check_restored` has seen it
            there = self.bucket.objects.get(self.keys.object(path))
            wanted = (
                there.body + (b"" if there.body.endswith(b"\n") or not there.body else b"\n")
                if there
                else None
            )
            if fresh.content(path) != wanted:
                self._broken(f"a fresh pod got {fresh.content(path)!r} of {path}, not {wanted!r}")
        self.assert_unbroken()

    def _check_in_bucket(self, pod: Life, path: str, body: bytes) -> None:
        there = self.bucket.objects.get(self.keys.object(path))
        if is_transcript(path):
            lacking = Counter(lines_of(whole_lines(body))) - Counter(lines_of(there.body if there else b""))
            if lacking and (there or not self._was_deleted_outside(path)):
                self._broken(f"{path} of {pod.name} has lines that the object lacks: {dict(lacking)}")
        elif refused_json(path, body):
            return
        elif not self.truth.is_durable(path, body):
            self._broken(f"{path} of {pod.name} never came to the bucket: {body!r}")
        elif self.truth.authors.get(path) == {pod.name} and (there is None or there.body != body):
            self._broken(f"{path}: only {pod.name} ever wrote it, {body!r}, and the object is {there!r}")

    def _was_deleted_outside(self, path: str) -> bool:
        return self.keys.object(path) in self.bucket.before


def _was_changed(old: bytes, mark: Mark, flushed: Flushed | None) -> bool:
    """Whether this version of a file is another than what the ledger knew of it last: in its object, or of a
    flush; where that was only tried (no digest), of what was tried."""
    last = flushed.digest or (flushed.tried[1] if flushed.tried else "") if flushed else ""
    return sha256(old) != mark.local_digest or last not in ("", sha256(old))


def refused_json(path: str, body: bytes) -> bool:
    """Whether this version of a settings file is none that is kept or restored."""
    return must_be_whole_json(path) and bool(json_problem(body))


@contextlib.contextmanager
def world_in(place: Path, **options: Any) -> Iterator[World]:
    """A world with its points installed."""
    batch_bytes = options.pop("batch_bytes", None)
    with installed(tiny_blocks=options.get("tiny_blocks", False), batch_bytes=batch_bytes):
        world = World(place, **options)
        try:
            yield world
        finally:
            world.close()
