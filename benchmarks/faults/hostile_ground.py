"""Where the trials of `hostile` are made: an archive, somebody else's files, calls, and what must hold after them."""

from __future__ import annotations

import fcntl
import gc
import hashlib
import json
import os
import resource
import shutil
import signal
import stat
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import torch
from safetensors.numpy import save_file
from torch import nn

import trajcheck
from benchmarks.faults.archive import walk
from benchmarks.faults.batch_calls import TABLES, Call
from trajcheck.cli.net import INTERRUPTED
from trajcheck.files.leftovers import meant_name

#: Exit codes of a call that says what is wrong.
SAID = (0, 2, 3, 4, 5)
#: Seconds after which a call hangs.
PATIENCE = 120.0
#: The status of one.
HUNG = -1000
#: Bytes that a call may take: all memory is no answer.
MEMORY = 8 << 30
STEPS = 8

#: The archive's one run, and another beside the archive: a report of a run takes most of a trial's time.
RUN, OTHER = "runs/a", "other/b"
#: Commands that write reports, and all that are called.
WRITERS = ("analyze", "batch", "compare")
COMMANDS = ("analyze", "batch", "verify", "compare", "table")


@dataclass
class Ground:
    """`archive`, `finished`, the reports of a batch over it, and `recorded` are copied for every trial, to where they
    were made."""

    place: Path
    neighbour: int  # a process that lives as long as the trials are made
    expected: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for seed, name in enumerate((RUN, OTHER)):
            folder = self.pristine / name
            folder.mkdir(parents=True)
            for step, tensors, metadata in walk(seed, STEPS):
                save_file(tensors, folder / f"step-{step:09d}.safetensors", {"trajcheck": json.dumps(metadata)})
            (folder / "run.json").write_text(json.dumps({"format": 1, "id": folder.name}))
        shutil.copytree(self.pristine, self.trial)
        scene = Scene(self, self.trial, Random(0), {})
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
            call(scene.words("batch"))
            shutil.copytree(scene.out, self.finished)
            call(scene.words("analyze"))
            scene.out.rename(self.analyzed)
            record(self.trial / "recorded")
            (self.trial / "recorded").rename(self.recorded)
            self._import(scene)
        shutil.rmtree(self.trial)

    def _import(self, scene: Scene) -> None:
        """Call what children will call, so that they find it imported."""
        for command in COMMANDS:
            call(scene.words(command))
        (scene.run / "step-000000003.safetensors").write_bytes(b"")
        call(scene.words("verify"))  # what is wrong has words of its own
        gc.collect()
        gc.freeze()

    @property
    def pristine(self) -> Path:
        """The two runs, as they were made."""
        return self.place / "pristine"

    @property
    def finished(self) -> Path:
        return self.place / "finished"

    @property
    def analyzed(self) -> Path:
        """The same after an analysis, which has saved an average."""
        return self.place / "analyzed"

    @property
    def recorded(self) -> Path:
        return self.place / "recorded"

    @property
    def trial(self) -> Path:
        return self.place / "trial"

    def scene(self, stream: Random) -> Scene:
        here = self.trial
        shutil.copytree(self.pristine, here)
        victim = here / "victim"
        victim.mkdir()
        for name in ("steps.csv", "summary.json", "cosine.png", "precious", f"mean-{'0' * 16}-{'1' * 32}.safetensors"):
            (victim / name).write_text("precious")
        if stream.random() < 0.6:
            shutil.copytree(self.finished, here / "out")
        return Scene(self, here, stream, contents(victim))

    def tables(self, scene: Scene, command: str, *more: str) -> dict[str, bytes]:
        """What an undisturbed call gives, by paths in `out`; made once, of runs as they were, where they stood."""
        key = " ".join((command, *more))
        if key not in self.expected:
            aside = self.place / "aside"
            scene.place.rename(aside)
            shutil.copytree(self.pristine, self.trial)
            status, said = here(lambda: call([*scene.words(command), *more]), self.place / "said")
            if status:
                raise SystemExit(f"an undisturbed call went wrong: {said}")
            self.expected[key] = tables(scene.out)
            shutil.rmtree(self.trial)
            aside.rename(scene.place)
        return self.expected[key]


@dataclass
class Scene:
    """One trial: all that lies in `place` is its own. `undo` takes away what was planted."""

    ground: Ground
    place: Path
    stream: Random
    victims: dict[str, object]
    undo: list[Callable[[], object]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    said: int = 0

    @property
    def runs(self) -> Path:
        return self.place / "runs"

    @property
    def run(self) -> Path:
        return self.runs / "a"

    @property
    def out(self) -> Path:
        return self.place / "out"

    @property
    def report(self) -> Path:
        return self.out / "runs" / "a"

    @property
    def compared(self) -> Path:
        return self.out / "compared"

    @property
    def recorded(self) -> Path:
        return self.place / "recorded"

    def has_recorded(self) -> None:
        """A run was recorded in `recorded`, by a Recorder that has ended."""
        shutil.copytree(self.ground.recorded, self.recorded)

    @property
    def victim(self) -> Path:
        return self.place / "victim"

    def words(self, command: str) -> list[str]:
        """A call that reads the archive, or writes a report."""
        both = [self.place / name for name in (RUN, OTHER)]
        return {
            "analyze": ["analyze", str(self.run), "--ref", "mean:3", "--out", str(self.report), "--no-plots"],
            "batch": ["batch", str(self.runs), "--out", str(self.out), "--no-plots"],
            "verify": ["verify", str(self.runs)],
            "compare": ["compare", *map(str, both), "--out", str(self.compared), "--no-plots"],
            "table": ["table", str(self.out)],
            "report": ["report", str(self.report)],
        }[command]

    def start(self, words: Sequence[str]) -> Call:
        self.said += 1
        return start(words, self.place / f"said-{self.said}")

    def ended(self, call: Call, codes: Sequence[int] = SAID) -> int:
        """The exit code of a call in a process of its own, of which is noted what must not be."""
        return self._note(call.wait(PATIENCE), call.said.read_text(errors="replace"), codes)

    def call(self, command: str, codes: Sequence[int] = SAID, file_size: int | None = None) -> str:
        """The same of a call in this process: most of a call's time would be a fork's. What it said."""
        return self.work(lambda: call(self.words(command)), codes, file_size)

    def record(self, start_step: int, codes: Sequence[int]) -> str:
        """A training that records into `recorded`, in this process; what it said."""
        return self.work(lambda: record(self.recorded, start_step), codes)

    def work(self, work: Callable[[], int], codes: Sequence[int], file_size: int | None = None) -> str:
        self.said += 1
        status, text = here(work, self.place / f"said-{self.said}", file_size)
        self._note(status, text, codes)
        return text

    def _note(self, status: int, text: str, codes: Sequence[int]) -> int:
        if status == HUNG:
            self.wrong.append("it hung")
        elif status not in codes:
            self.wrong.append(f"it ended with {status}: {text[-300:]}")
        if "Traceback" in text or "a bug" in text:
            self.wrong.append(f"it said: {text[-900:]}")
        if bad := [letter for letter in text if letter in UNREADABLE]:
            self.wrong.append(f"it printed {bad[0]!r}")
        return status

    def check(self, again: str | None = "batch") -> None:
        """What must hold when a call has ended: nobody else's files changed, nothing left. Then, without what was
        planted, the undisturbed call `again` ends with the tables that it should; those that write none need none."""
        if contents(self.victim) != self.victims:
            self.wrong.append("a file of somebody else's was changed")
        self.wrong += [f"{path.relative_to(self.place)} was left" for path in leftovers(self.place)]
        for undo in self.undo:
            undo()
        if again not in WRITERS:
            return
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(self.ground.pristine / RUN, self.run)
        self.call(again, (0,))
        expected = self.ground.tables(self, again)
        found = tables(self.out)
        self.wrong += [
            f"{name} is not that of an undisturbed call" for name in expected if found.get(name) != expected[name]
        ]


#: What a terminal must not get from a file: escapes, C1, directions.
UNREADABLE = frozenset(
    map(chr, (*range(9), 11, 12, *range(14, 32), *range(127, 160), *range(0x202A, 0x202F), 0x2066, 0x2067))
)


def start(words: Sequence[str], said: Path, before: Callable[[], object] | None = None) -> Call:
    """Call the command line in a child of this process, which has imported everything; `before` comes first there."""

    return forked(lambda: call(words), said, before)


def call(words: Sequence[str]) -> int:
    """Call the command line in this process; its exit code."""
    from trajcheck.cli import main

    sys.argv = ["trajcheck", *words]
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    return 0


class _Hung(BaseException):
    pass


def _hung(number: int, frame: object) -> None:
    raise _Hung


def here(work: Callable[[], int], said: Path, file_size: int | None = None) -> tuple[int, str]:
    """Work in this process: its exit code, HUNG where it does not end, and what it printed. No file of it, but that
    for what it prints, may grow beyond `file_size`."""
    streams, kept = (sys.stdout, sys.stderr), [os.dup(number) for number in (1, 2)]
    limits = {kind: resource.getrlimit(kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE)}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP)}
    handlers |= {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGXFSZ)}
    read, write = _output(said, limited=file_size is not None)
    for number in (1, 2):
        os.dup2(write, number)
    os.close(write)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, limits[resource.RLIMIT_AS][1]))
    if file_size is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, limits[resource.RLIMIT_FSIZE][1]))
    signal.signal(signal.SIGALRM, _hung)
    signal.alarm(int(PATIENCE))
    status = 70
    try:
        status = work()
    except _Hung:
        status = HUNG
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        signal.alarm(0)
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.stdout, sys.stderr = streams
        for kind, limit in limits.items():
            resource.setrlimit(kind, limit)
        for signalled, handler in handlers.items():
            signal.signal(signalled, handler)
    with open(read, errors="replace") as file:
        return status, file.read()


def _output(said: Path, limited: bool) -> tuple[int, int]:
    """Descriptors to read and to write what is printed: of a file or, where files may not grow, of a pipe."""
    if not limited:
        write = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        return os.open(said, os.O_RDONLY), write
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.set_blocking(write, False)  # one that is full says so, and does not hang
    return read, write


def forked(work: Callable[[], int], said: Path, before: Callable[[], object] | None = None) -> Call:
    sys.stdout.flush()
    sys.stderr.flush()
    said.touch()
    # an interrupt that comes at once must find the child where it knows what to do, and not in what called this
    before_fork = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_SETMASK, before_fork)
        return Call(child, "", said, said)
    code = 70
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before_fork)
        descriptor = os.open(said, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
        for number in (signal.SIGXFSZ,):
            signal.signal(number, signal.SIG_IGN)
        if before is not None:
            before()
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:
        import traceback

        early = isinstance(error, KeyboardInterrupt) and not _of_package(error)
        if early:  # the command line was not reached
            code = INTERRUPTED
        else:
            traceback.print_exc()
            sys.stderr.flush()
    finally:
        os._exit(code)


def _of_package(error: BaseException) -> bool:
    """Whether an exception came through code of trajcheck."""
    at, package = error.__traceback__, f"{Path(trajcheck.__file__).parent}{os.sep}"
    while at is not None:
        if at.tb_frame.f_code.co_filename.startswith(package):
            return True
        at = at.tb_next
    return False


def contents(folder: Path) -> dict[str, object]:
    """What lies in a folder: names, rights and bytes."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        regular = stat.S_ISREG(status.st_mode)
        data = hashlib.sha256(path.read_bytes()).hexdigest() if regular and status.st_size < 1 << 20 else status.st_size
        found[path.relative_to(folder).as_posix()] = (status.st_mode, data if regular else None)
    return found


def tables(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*.csv"))
        if path.name in TABLES and path.is_file()
    }


def leftovers(place: Path) -> list[Path]:
    """Temporary files; those that were planted are called draft."""
    return [path for path in place.rglob(".*") if meant_name(path.name) not in (None, "draft")]


def record(run: Path, start_step: int = 0, steps: int = 6) -> int:
    """A small training that is recorded, in this process; 0 where it was, 2 where it was said why it is not."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(start_step):  # as a job that goes on from its checkpoint
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            recorder = trajcheck.Recorder(run, model, optimizer, every=1, start_step=start_step)
        except trajcheck.TrajcheckError as error:
            print(error)
            return 2
        with recorder:
            for _ in range(steps):
                batch = torch.randn(4, 3)
                loss = model(batch).square().mean()
                loss.backward()
                recorder.observe(batch, loss)
                optimizer.step()
                optimizer.zero_grad()
    return 0
