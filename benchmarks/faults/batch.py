"""`trajcheck batch` disturbed at random moments, over a small archive.

After each fault an undisturbed call must end with the tables, byte for byte, that a batch gives which nothing happened
to: of the same archive, damaged as it is then, and once more when the archive is repaired. Rows of runs that are really
damaged say so. Neither processes nor temporary files may remain.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Annotated

import torch
import typer

import trajcheck
from benchmarks.faults.archive import Archive, make_archive
from benchmarks.faults.batch_calls import Call, index, start, tables, unexpected
from benchmarks.faults.batch_faults import FAULTS, Fault, Scene
from benchmarks.faults.table import Trials, show
from trajcheck.commands.batch.config_file import read_config

#: Columns of the index that differ from call to call.
TIMES = ("analyzed", "duration")

#: Of the trials that may have worker processes, the share that has them: they are slow to start.
WITH_WORKERS = 0.2


@dataclass(frozen=True)
class Result:
    """What a batch left: its exit code, the rows of the index by run, the tables by path."""

    status: int
    rows: Mapping[str, Mapping[str, str]]
    tables: Mapping[str, bytes]


@dataclass
class Ground:
    """Where trials are made. `whole` is what an undisturbed batch gives of the archive as it is, and `finished` the
    folder of its reports; `seconds` is how long it takes, by the runner: none, workers, ray."""

    place: Path
    archive: Archive
    whole: Result = field(init=False)
    seconds: dict[str, float] = field(default_factory=dict)
    number: int = 0

    def __post_init__(self) -> None:
        wrong: list[str] = []
        self.length("none")
        self.whole = self.undisturbed(self.finished, wrong)
        if wrong or self.whole.status:
            raise SystemExit(f"the undisturbed batch went wrong: {self.whole.status}, {wrong}")

    @property
    def finished(self) -> Path:
        return self.place / "finished"

    def length(self, runner: str) -> float:
        """How long an undisturbed call takes."""
        if runner not in self.seconds:
            shutil.rmtree(self.finished, ignore_errors=True)
            began = time.monotonic()
            call = self.call(self.finished, runner)
            if call.wait():
                raise SystemExit(f"the undisturbed batch went wrong: {call.said.read_text()}")
            self.seconds[runner] = time.monotonic() - began
        return self.seconds[runner]

    def call(self, out: Path, runner: str = "none") -> Call:
        """Start a batch: with workers from the command line, else as a fork of this process, where all is imported."""
        self.number += 1
        temporary = self.place / f"tmp-{self.number}"
        temporary.mkdir()
        mark, said = f"{self.place.name}-{self.number}", self.place / f"said-{self.number}"
        return start(self.arguments(out, runner), mark, said, temporary, forked=runner == "none")

    def arguments(self, out: Path, runner: str) -> list[str]:
        more = {"none": (), "workers": ("--workers", "2"), "ray": ("--runner", "ray", "--workers", "2")}[runner]
        return [str(self.archive.runs), "--out", str(out), "--config", str(self.archive.config), *more]

    def undisturbed(self, out: Path, wrong: list[str]) -> Result:
        call = self.call(out)
        status = call.wait()
        if status not in (0, 4):
            wrong.append(f"the undisturbed call ended with {status}: {call.said.read_text()[-300:]}")
        wrong += complaints(call)
        wrong += [f"{name} remained" for name in unexpected(out)]
        return Result(status, index(out), tables(out))


def complaints(call: Call) -> list[str]:
    """What a call that has ended must not leave: words of a bug, processes and, unless it was killed, temporary
    files."""
    said = call.said.read_text(errors="replace")
    wrong = [f"a call said: {said[-900:]}"] if "Traceback" in said or "a bug" in said else []
    for process in call.remains():
        wrong.append(f"process {process} remained")
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    if call.status != -signal.SIGKILL:
        wrong += [f"{path} remained" for path in call.temporary.iterdir()]
    shutil.rmtree(call.temporary)
    call.said.unlink()
    return wrong


def trial(ground: Ground, fault: Fault, stream: Random, row: Trials, share: float = WITH_WORKERS) -> None:
    """One call that is disturbed, and the next ones."""
    runner = "ray" if fault.ray else "workers" if fault.workers or stream.random() < share else "none"
    with _out(ground, fault.disk) as out:
        seen = ["no workers" if runner == "none" else runner]
        if stream.random() < 0.3:
            _begun(ground, out, stream)
            seen.append("reports there before")
        call = ground.call(out, runner)
        scene = Scene(ground.archive, out, call, stream, ground.arguments(out, runner))
        time.sleep(stream.uniform(0.0, 1.05 * ground.length(runner)))
        if not call.ended:
            seen.append("hit at work")
        codes = fault.strike(scene)
        status = call.wait()
        wrong = scene.wrong
        if status not in codes:
            wrong.append(f"the disturbed call ended with {status}: {call.said.read_text()[-300:]}")
        wrong += complaints(call)
        (out.parent / "ballast").unlink(missing_ok=True)
        expected = ground.whole
        if fault.damages:
            with tempfile.TemporaryDirectory(dir=ground.place) as fresh:
                expected = ground.undisturbed(Path(fresh) / "out", wrong)
        wrong += differences(ground.undisturbed(out, wrong), expected, ground.whole)
        failed = sum(each["status"] == "failed" for each in expected.rows.values())
        seen += ["rows failed"] if failed else []
        if fault.damages:
            ground.archive.restore()
            wrong += [f"repaired: {each}" for each in differences(ground.undisturbed(out, wrong), ground.whole)]
        row.count(wrong, seen)


def differences(found: Result, expected: Result, before: Result | None = None) -> list[str]:
    """What is lost or wrong. A run that failed may have the report that it had `before`."""
    wrong = [] if found.status == expected.status else [f"exit code {found.status}; expected {expected.status}"]
    for run, wanted in expected.rows.items():
        row = found.rows.get(run)
        if row is None:
            wrong.append(f"{run} has no row")
            continue
        failed = wanted["status"] == "failed"
        if failed and "a bug" in wanted["message"]:
            wrong.append(f"{run}: {wanted['message']}")
        wrong += [
            f"{run}: {name} is {row.get(name)!r}; expected {value!r}"
            for name, value in wanted.items()
            if name not in TIMES and row.get(name) != value and not (failed and name == "report")
        ]
    wrong += [
        f"{run} has a row, {row['status']}"
        for run, row in found.rows.items()
        if run not in expected.rows and (row["status"] != "gone" or Path(run).exists())
    ]
    wrong += [f"{name} is missing" for name in expected.tables.keys() - found.tables.keys()]
    for name, data in found.tables.items():
        allowed = {each.tables.get(name) for each in (expected, before) if each}
        if name in expected.tables and data != expected.tables[name]:
            wrong.append(f"{name} differs")
        elif data not in allowed:
            wrong.append(f"{name} is of no state of the archive")
    return wrong


@contextmanager
def _out(ground: Ground, disk: bool) -> Iterator[Path]:
    """A folder for the reports, which is not there yet; `disk`: on a file system of its own."""
    place = ground.place / "disk"
    place.mkdir()
    if disk:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], check=True)
    try:
        yield place / "out"
    finally:
        if disk:
            subprocess.run(["umount", place], check=True)
        shutil.rmtree(place)


def _begun(ground: Ground, out: Path, stream: Random) -> None:
    """Reports of an earlier call, of which some have gone, or what was saved with them."""
    shutil.copytree(ground.finished, out)
    for state in sorted(out.rglob(".batch.json")):
        if stream.random() < 0.7:
            state.unlink()
        if stream.random() < 0.7:
            shutil.rmtree(state.parent / "scalars")
        if stream.random() < 0.2:
            shutil.rmtree(state.parent)


def can_mount(place: Path) -> bool:
    """Whether a small file system can be had."""
    place.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True, capture_output=True)
        subprocess.run(["umount", place], check=True)
        return True
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        place.rmdir()


def run_trials(
    place: Path, trials: int, seed: int, faults: Sequence[str], runs: int = 24, share: float = WITH_WORKERS
) -> list[Trials]:
    """So many trials, dealt out among the faults: a row for each. A sixth of the runs have an objective; `share` of the
    trials have workers where they may or may not."""
    archive = make_archive(place, runs - 1 - runs // 6, runs // 6)
    torch.set_num_threads(1)
    trajcheck.batch([archive.runs], place / "imports", read_config(archive.config))  # so that a fork finds them there
    ground = Ground(place, archive)
    mounts, has_ray = can_mount(place / "mount"), find_spec("ray") is not None
    possible = [name for name in faults if (mounts or not FAULTS[name].disk) and (has_ray or not FAULTS[name].ray)]
    rows = {name: Trials(name) for name in possible}
    for number in range(trials):
        name = possible[number % len(possible)]
        known = len(rows[name].faults)
        trial(ground, FAULTS[name], Random(f"{seed} {number} {name}"), rows[name], share)
        archive.restore()
        found = rows[name].faults[known:]
        print(f"trial {number}, {name}: {'; '.join(found) or 'right'}", file=sys.stderr)
    return list(rows.values())


def main(
    trials: Annotated[int, typer.Option(help="Trials in all, dealt out among the faults.")] = 200,
    seed: Annotated[int, typer.Option(help="Another seed, other moments.")] = 0,
    runs: Annotated[int, typer.Option(help="Runs of the archive.")] = 24,
    folder: Annotated[Path | None, typer.Option(help="Where to make the data; by default for temporary files.")] = None,
    fault: Annotated[list[str] | None, typer.Option(help="Only this fault, by its name in the table. Repeat.")] = None,
) -> None:
    """Disturb batches at random moments, call them again, and count what is lost or wrong."""
    for name in fault or ():
        if name not in FAULTS:
            raise typer.BadParameter(f"{name!r}; expected one of {', '.join(FAULTS)}")
    with tempfile.TemporaryDirectory(prefix="trajcheck-faults-", dir=folder) as place:
        rows = run_trials(Path(place), trials, seed, fault or list(FAULTS), runs)
    show(rows)
    if any(row.wrong for row in rows):
        raise typer.Exit(1)
