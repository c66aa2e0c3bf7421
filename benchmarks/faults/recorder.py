"""The Recorder killed, or out of disk, at random moments of a training that is then gone on with.

After each fault every step file that is there must verify and hold what the same step of an undisturbed training holds;
of records that were handed over, no more than the writer's queue may be missing. In the end the continued run must have
the steps of the undisturbed one, the same final iterate, and give the same tables.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from safetensors import safe_open

import trajcheck
from benchmarks.faults.table import Trials, show
from benchmarks.faults.training import RECORDINGS, train
from trajcheck.recording.every_step.rows import BLOCK
from trajcheck.recording.run.background_writer import QUEUE_LENGTH

#: Records that a killed process may not have written: those in the queue, the one being written, that of the last step.
UNWRITTEN = QUEUE_LENGTH + 2

#: Of the numbers of every step those that a killed process may not have written.
UNWRITTEN_NUMBERS = 2 * BLOCK

#: Kills of one training, at most; then it may end.
KILLS = 3

#: Columns that depend on sums of windows, of which the one that a kill cuts in two is lost.
WINDOWED = ("window_num", "window_num_skip", "window_loss_sum", "window_grad_sq_sum")


@dataclass(frozen=True)
class Undisturbed:
    """A training that nothing happened to: its run, tables, final parameters, and how long it took."""

    run: Path
    report: Path
    final: dict[str, torch.Tensor]
    seconds: float


def undisturbed(recording: str, place: Path) -> Undisturbed:
    place.mkdir()
    train(place / "first", place / "first checkpoint", recording)  # takes longer: what is imported late
    began = time.monotonic()
    final = train(place / "run", place / "checkpoint", recording)
    seconds = time.monotonic() - began
    trajcheck.analyze(place / "run", ["final", "init"], out=place / "report")
    return Undisturbed(place / "run", place / "report", final, seconds)


def killed(expected: Undisturbed, recording: str, place: Path, stream: Random, trials: Trials) -> None:
    """One training, killed a few times; each kill is a trial."""
    place.mkdir()
    run, checkpoint = place / "run", place / "checkpoint"
    for _ in range(stream.randrange(1, KILLS + 1)):
        progress = mmap.mmap(-1, 4)
        child = _forked(partial(train, run, checkpoint, recording, progress=progress))
        time.sleep(stream.uniform(0.0, 1.1 * expected.seconds))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        seen = ["killed" if os.WIFSIGNALED(status) else "had ended"]
        wrong = _after_fault(expected, run, int.from_bytes(progress[:4], "little"), recording, seen)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                wrong.append(f"the training ended with exit code {os.WEXITSTATUS(status)}")
            trials.count(wrong, seen)
            break
        if not checkpoint.exists():
            shutil.rmtree(
                run, ignore_errors=True
            )  # as the Recorder says: nothing was trained that could be gone on with
        trials.count(wrong, seen)
    else:
        trials.faults += (wrong := _gone_on(expected, run, checkpoint, recording))
        trials.wrong += bool(wrong)


def out_of_disk(expected: Undisturbed, recording: str, place: Path, stream: Random, trials: Trials) -> None:
    """From a random step on no file may grow beyond a part of a record; afterwards the training goes on from its last
    checkpoint."""
    place.mkdir()
    run, checkpoint = place / "run", place / "checkpoint"
    moment, size, strict = stream.randrange(30), stream.randrange(6000), stream.random() < 0.3
    said = place / "said"
    said.touch()

    def limited() -> None:
        def before(step: int) -> None:
            if step == moment:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        _train_on_a_full_disk(expected, run, checkpoint, recording, strict, before, said)

    wrong, seen = _full(expected, run, checkpoint, recording, _forked(limited), said)
    stopped = "warned 1" in seen[0]
    trials.count(wrong + _gone_on(expected, run, checkpoint, recording, recording_stopped=stopped), seen)


def on_a_small_disk(expected: Undisturbed, recording: str, place: Path, stream: Random, trials: Trials) -> None:
    """The same on a file system of its own, which something else fills at a random step."""
    place.mkdir()
    strict = stream.random() < 0.3
    moment, left = stream.randrange(30), stream.choice((0, 4096, 8192, 16384, 65536))
    said = place / "said"
    said.touch()
    with _file_system(place / "disk", 4 << 20) as disk:
        run, checkpoint = disk / "run", disk / "checkpoint"

        def filled() -> None:
            def before(step: int) -> None:
                if step == moment:
                    free = shutil.disk_usage(disk).free
                    with suppress(OSError):
                        (disk / "ballast").write_bytes(bytes(max(free - left, 0)))

            _train_on_a_full_disk(expected, run, checkpoint, recording, strict, before, said)

        wrong, seen = _full(expected, run, checkpoint, recording, _forked(filled), said)
        (disk / "ballast").unlink(missing_ok=True)
        stopped = "warned 1" in seen[0]
        trials.count(wrong + _gone_on(expected, run, checkpoint, recording, recording_stopped=stopped), seen)


def _train_on_a_full_disk(
    expected: Undisturbed,
    run: Path,
    checkpoint: Path,
    recording: str,
    strict: bool,
    before: Callable[[int], object],
    said: Path,
) -> None:
    """Write down, in a file that is open already, what the Recorder said and whether training ended as it should."""
    with open(said, "r+b", buffering=0) as file, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            final = train(run, checkpoint, recording, before=before, strict=strict)
            same = all(torch.equal(final[name], tensor) for name, tensor in expected.final.items())
            told = [str(each.message)[:200] for each in caught if "training goes on" in str(each.message)]
            text = f"{'same' if same else 'OTHER'} weights, warned {len(told)} times"
        except trajcheck.TrajcheckError as error:
            text = f"{type(error).__name__}"
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        file.write(text.encode())


def _full(
    expected: Undisturbed, run: Path, checkpoint: Path, recording: str, child: int, said: Path
) -> tuple[list[str], list[str]]:
    _, status = os.waitpid(child, 0)
    text = said.read_text()
    wrong = [f"the training ended with status {status}"] if status else []
    if text not in ("same weights, warned 1 times", "same weights, warned 0 times", "OutputError"):
        wrong.append(f"the training on a full disk: {text!r}")
    seen = [text]
    wrong += _after_fault(expected, run, 0, recording, seen)
    if not checkpoint.exists():
        shutil.rmtree(run, ignore_errors=True)
    return wrong, seen


def _forked(work: Callable[[], object]) -> int:
    """A child process that does the work, with everything imported already; its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


@contextmanager
def _file_system(place: Path, size: int) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def can_mount(place: Path) -> bool:
    try:
        with _file_system(place, 1 << 20):
            return True
    except (subprocess.CalledProcessError, OSError):
        return False


# What must hold


def _after_fault(
    expected: Undisturbed, run: Path, begun: int, recording: str, seen: list[str], *, recording_stopped: bool = False
) -> list[str]:
    """What is wrong with what lies on the disk; `begun` is the last step that the training began."""
    if not (run / "run.json").exists():
        seen.append("no run yet")
        return [f"{run}: step files without run.json"] if list(run.glob("step-*")) else []
    (found,) = trajcheck.verify(run, threads=1).runs
    if any("temporary" in note for note in found.notes):
        seen.append("temporary file")
    wrong = list(found.damage)
    wrong += _other_numbers(expected, run, begun, seen)
    other = (path for path in _files(run) if _other(path, expected, untold=recording_stopped))
    wrong += [f"{path.name} is not that of the undisturbed training" for path in other]
    if RECORDINGS[recording].get("every") == 1 and begun:
        last = max((int(path.name[5:14]) for path in _files(run)), default=-1)
        if last < begun - UNWRITTEN:
            wrong.append(f"step {begun} had begun, and the last record is of step {last}")
    return wrong


def _numbers(run: Path) -> np.ndarray:
    """What every-step.f64 holds, without a torn record."""
    path = run / "every-step.f64"
    data = path.read_bytes() if path.exists() else b""
    return np.frombuffer(data[: len(data) // 32 * 32]).reshape(-1, 4)


def _other_numbers(expected: Undisturbed, run: Path, begun: int, seen: list[str]) -> list[str]:
    """What is wrong with the numbers of every step: they are those of the undisturbed training, to the bit, or unknown;
    and no more of them are missing than a job that is killed may lose."""
    found, meant = _numbers(run), _numbers(expected.run)
    if len(found) > len(meant):
        return [f"every-step.f64 has {len(found)} records of {len(meant)} steps"]
    known = ~np.isnan(found)
    other = (found != meant[: len(found)]) & known
    wrong = [f"every-step.f64: record {row} is not that of the undisturbed training" for row in np.where(other)[0][:1]]
    if begun and len(found) < begun - UNWRITTEN_NUMBERS:
        wrong.append(f"step {begun} had begun, and every-step.f64 has {len(found)} records")
    if (run / "every-step.f64").exists() and (run / "every-step.f64").stat().st_size % 32:
        seen.append("torn record")
    return wrong


def _gone_on(
    expected: Undisturbed, run: Path, checkpoint: Path, recording: str, *, recording_stopped: bool = False
) -> list[str]:
    """What is wrong with the run when the training has gone on to its end.

    Where `recording_stopped` before the checkpoint was made, the records in between may be missing, and no others; and
    those that follow need not know the sums of rates, which the checkpoint has not.
    """
    child = _forked(lambda: train(run, checkpoint, recording, strict=True))
    _, status = os.waitpid(child, 0)
    if status:
        return [f"the training did not go on: status {status}"]
    wrong = _after_fault(expected, run, 0, recording, [], recording_stopped=recording_stopped)
    names = {path.name for path in _files(run)}
    missing = {path.name for path in _files(expected.run)} - names
    thinned = "schedule" in RECORDINGS[recording] and "overhead" in RECORDINGS[recording]
    if missing and recording_stopped:
        steps = sorted(int(name[5:14]) for name in missing)
        if steps != list(range(steps[0], steps[-1] + 1)):
            wrong.append(f"records are missing here and there: {steps}")
    elif missing and not thinned:
        wrong.append(f"{len(missing)} records are missing, the first {min(missing)}")
    numbers = _numbers(run)
    if not recording_stopped and (len(numbers) < len(_numbers(expected.run)) or np.isnan(numbers).any()):
        wrong.append(
            f"every-step.f64 has {len(numbers)} records, {int(np.isnan(numbers).any(1).sum())} with unknown ones"
        )
    if _files(expected.run)[-1].name not in names:
        wrong.append("the final iterate is missing")
    if wrong:
        return wrong
    report = run.parent / "report"
    trajcheck.analyze(run, ["final", "init"], out=report)
    if RECORDINGS[recording].get("every") == 1 and not missing:  # others begin with a record where a job went on
        wrong += [f"{name} differs" for name in ("steps.csv", "references.csv") if _differs(report, expected, name)]
    shutil.rmtree(report)
    return wrong


def _files(run: Path) -> list[Path]:
    return sorted(run.glob("step-*.safetensors"))


def _other(path: Path, expected: Undisturbed, *, untold: bool = False) -> bool:
    """Whether a step file holds anything else than that of the undisturbed training: parameters, gradient, batch,
    randomness, buffers, loss, rates, tau, which may be `untold`. Windows end where a job ended, and a batch may be
    stored elsewhere."""
    twin = expected.run / path.name
    if not twin.exists():
        return False  # thinned otherwise, or where a job went on
    with safe_open(path, framework="pt") as one, safe_open(twin, framework="pt") as other:
        shared = set(one.keys()) & set(other.keys())
        if any(
            not name.startswith(("window", "batch", "param/frozen")) for name in set(one.keys()) ^ set(other.keys())
        ):
            return "lr" in json.loads(one.metadata()["trajcheck"])  # a job that was told to end records params alone
        if any(not torch.equal(one.get_tensor(n), other.get_tensor(n)) for n in shared if not n.startswith("window")):
            return True
        said, meant = (json.loads(file.metadata()["trajcheck"]) for file in (one, other))
    sums = [key for key in ("tau", "tau_squares") if not (untold and key not in said)]
    return any(said.get(key) != meant.get(key) for key in ("step", "loss", "lr", *sums))


def _differs(report: Path, expected: Undisturbed, name: str) -> bool:
    """Whether a table is another one; a sum over windows may be empty, but not wrong."""
    one, other = pd.read_csv(report / name), pd.read_csv(expected.report / name)
    if len(one) != len(other):
        return True
    for column in set(WINDOWED) & set(other):
        there = other.pop(column).to_numpy()
        here = one.pop(column).to_numpy() if column in one else np.full(len(there), np.nan)
        if not (np.isnan(here) | (abs(here - there) <= 1e-9 * (1 + abs(there)))).all():
            return True
    return not one.equals(other)


def run_trials(kills: int, full: int, seed: int, place: Path) -> Iterator[Trials]:
    """A row for each recording: so many kills, and so many full disks of either kind."""
    mounts = can_mount(place / "probe")
    for recording in RECORDINGS:
        stream = Random(f"{seed} {recording}")
        expected = undisturbed(recording, place / f"expected-{recording}")
        kinds: list[tuple[str, int, Callable[..., None]]] = [("SIGKILL", kills, killed)]
        if recording in ("every step", "every step, windows"):
            kinds.append(("file size limit", full, out_of_disk))
            kinds.append(("full file system", full if mounts else 0, on_a_small_disk))
        for kind, wanted, trial in kinds:
            row = Trials(f"{kind}: {recording}")
            number = 0
            while row.trials < wanted:
                here = place / f"trial-{number}"
                trial(expected, recording, here, stream, row)
                shutil.rmtree(here)
                number += 1
            yield row


def main(
    trials: Annotated[int, typer.Option(help="Kills of each way of recording.")] = 200,
    full: Annotated[int, typer.Option(help="Full disks, of either kind.")] = 50,
    seed: Annotated[int, typer.Option(help="Another seed, other moments.")] = 0,
) -> None:
    """Kill recorded trainings, fill their disks, go on, and count what is lost or wrong."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        rows = []
        for row in run_trials(trials, full, seed, Path(name)):
            print(f"{row.fault}: {row.trials} trials, {row.wrong} wrong", file=sys.stderr, flush=True)
            rows.append(row)
    show(rows)
    if any(row.wrong for row in rows):
        raise typer.Exit(1)
