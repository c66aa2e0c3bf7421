"""`trajcheck schedule`, callable from Python: the last-iterate bound of a training, from its log alone."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trajcheck.commands.schedule.csv_rows import read_csv_rows
from trajcheck.commands.schedule.logged import LOSS, NORM, RATE, FilledSteps, Known, Logged, filled, of_rows
from trajcheck.errors import BadInputError, OutputError, RunError, UsageError
from trajcheck.files.opening import MOST_TEXT, read_json
from trajcheck.files.walking import make_folders
from trajcheck.files.whole_files import write_json
from trajcheck.metrics.last_iterate import last_iterate
from trajcheck.reports.making.schedule_bound import KIND, ScheduleBound, bound_of
from trajcheck.runs.formats.recognise import EVERY_STEP, read_every_step_file, run_around
from trajcheck.runs.logs.all_losses import arrays
from trajcheck.runs.logs.run_log import RunLog
from trajcheck.runs.trajectory import Trajectory, open_trajectory
from trajcheck.tables.schedule.subgradient_steps import one_function, other_steps, rate_arrays, update_lengths

UNKNOWN_STEPS = (
    "a log does not say how the steps were made: the bound is that of x_(t+1) = x_t - eta_t g_t, g_t the gradient that "
    "is logged, on a convex f; momentum, Adam, weight decay and clipping make other steps"
)
ONE_RUN = (
    "where gradients are of minibatches, the inequality is one of means over trainings: in a single one it may fail "
    "for a convex f, and its loss at step T is of one batch"
)


def schedule(
    log: str | os.PathLike[str],
    distance: float | None = None,
    loss_ref: float | None = None,
    loss_last: float | None = None,
    *,
    step: str | None = None,
    loss: str | None = None,
    lr: str | None = None,
    grad_norm: str | None = None,
    out: str | os.PathLike[str] | None = None,
) -> ScheduleBound:
    """The last-iterate bound of the theory of schedules, term by term, of a training of which there is a log.

    Args:
        log: a CSV with the columns step, loss, lr, grad_norm, or the usual other names of them; trainer_state.json of
            Hugging Face's Trainer, or a folder with one; every-step.f64, or a recorded run with one.
        distance: |x_1 - x*|. loss_ref: f(x*). loss_last: f(x_T), in the place of the logged loss of that step.
        step, loss, lr, grad_norm: columns of a CSV whose names are others.
        out: write it there too, as JSON, whole; a file that is no such bound is not replaced.

    Raises:
        UsageError, BadInputError, OutputError.
    """
    for flag, value, least in (
        ("--distance", distance, 0.0),
        ("--loss-ref", loss_ref, -math.inf),
        ("--loss-last", loss_last, -math.inf),
    ):
        if value is not None and not (math.isfinite(value) and value >= least):
            wanted = "a finite number" if least else "a finite number, 0 or more"
            raise UsageError(f"{flag} {value:g}: expected {wanted}.")
    columns = {"step": step, "loss": loss, "lr": lr, "grad_norm": grad_norm}
    found = _read(Path(log), columns, Given(distance, loss_ref, loss_last))
    if out is not None:
        _write(Path(out), found)
    return found


class Given(NamedTuple):
    """What no log has: |x_1 - x*|, f(x*), and f(x_T) where it was measured otherwise."""

    distance: float | None
    loss_ref: float | None
    loss_last: float | None


class Made(NamedTuple):
    """Whether the steps are the theorem's, as `ScheduleBound` has it, and what there is to say."""

    theorem: bool | None
    not_theorem: tuple[str, ...]
    notes: Sequence[str]


def _read(path: Path, columns: Mapping[str, str | None], given: Given) -> ScheduleBound:
    if not path.exists():
        raise BadInputError(f"{path}: no such file. Give a CSV, a trainer_state.json, every-step.f64 or a run.")
    if path.is_dir() and (path / "trainer_state.json").is_file():
        path = path / "trainer_state.json"
    kind = path.suffix.lower()
    named = [name for name, each in columns.items() if each is not None]
    if named and (path.is_dir() or kind in (".json", ".f64")):
        raise UsageError(f"--{named[0].replace('_', '-')} names a column of a CSV, and {path} is none.")
    if path.is_dir():
        return _of_run(path, given)
    if kind == ".f64":
        return _of_every_step(path, read_every_step_file(path), given)
    if kind == ".json":
        from trajcheck.commands.schedule.trainer_log import read_trainer_log

        logged, notes = read_trainer_log(path)
        return _of_rows(path, logged, [*notes, *_of_means(of_rows(logged, LOSS))], "trainer_state.json", 0, given)
    logged, notes = read_csv_rows(path, columns)
    return _of_rows(path, logged, notes, "CSV", None, given)


def _of_rows(
    path: Path, logged: Logged, notes: Sequence[str], form: str, first: int | None, given: Given
) -> ScheduleBound:
    if not logged.steps:
        raise BadInputError(f"{path}: has no row with a number; expected loss, lr and grad_norm of steps.")
    norms, values = of_rows(logged, NORM)
    with np.errstate(over="ignore"):
        squares = norms, values**2
    steps = _filled(path, of_rows(logged, RATE), squares, logged.steps[0] if first is None else first)
    made = Made(None, (), [*logged.notes(), *notes, UNKNOWN_STEPS, ONE_RUN])
    return _bound(path, form, steps, of_rows(logged, LOSS), given, made)


def _of_means(losses: Known) -> list[str]:
    """What the Trainer's losses are, where an entry is of several updates."""
    apart = np.diff(losses[0], prepend=-1)
    if not len(apart) or apart.max() == 1:
        return []
    return [
        f"a logged loss is the mean over the updates since the entry before ({int(apart[-1])} of the last), of no "
        "single iterate: f(x_T) is that mean unless --loss-last says it"
    ]


def _of_run(path: Path, given: Given) -> ScheduleBound:
    trajectory = open_trajectory(path, skip_bad=True)
    log = trajectory.log
    if log is not None and log.grad_sq and not log.lr:
        raise RunError(
            f"{path}: no rate of a step is known: parameter groups that differ in their rates have none in common, and "
            "the theorem is of one rate a step."
        )
    if log is None or not (log.grad_sq and log.lr):
        raise RunError(
            f"{path}: has no {EVERY_STEP} with rates and gradients of all steps. `trajcheck analyze {path}` makes the "
            "bound from its records, where they are of every step."
        )
    return _of_every_step(path, log, given, trajectory)


def _of_every_step(path: Path, log: RunLog | None, given: Given, run: Trajectory | None = None) -> ScheduleBound:
    """Of the file alone, or of the run that it lies in."""
    if log is None:
        raise BadInputError(f"{path}: knows no number of any step.")
    steps = _filled(path, rate_arrays(log), arrays(log.grad_sq), 0)
    last = steps.first + len(steps.rates) - 1
    why = [*([] if run is None else other_steps(run, last)), update_lengths(log, steps.first, last)]
    not_theorem = tuple(each for each in why if each)
    theorem = False if not_theorem else None if run is None else True
    notes = [UNKNOWN_STEPS] if theorem is None else []
    if run is None or not one_function(run):
        notes.append(ONE_RUN)
    if log.skipped:
        notes.append(f"{len(log.skipped)} steps that a loss scaler skipped count as steps of rate 0, which they are")
    return _bound(path, EVERY_STEP, steps, arrays(log.loss), given, Made(theorem, not_theorem, notes))


def _filled(path: Path, rates: Known, squares: Known, first: int) -> FilledSteps:
    try:
        return filled(rates, squares, first)
    except ValueError as error:
        raise BadInputError(f"{path}: {error}. Expected a rate and the norm of a gradient of every step.") from error


def _bound(path: Path, form: str, steps: FilledSteps, losses: Known, given: Given, made: Made) -> ScheduleBound:
    try:
        terms = last_iterate(steps.rates, steps.squares)
    except ValueError as error:
        raise BadInputError(f"{path}: {error}.") from error
    if not terms.steps:
        raise BadInputError(f"{path}: no step has a rate above 0; expected one of each step.")
    horizon, behind = steps.first + terms.steps - 1, len(steps.rates) - terms.steps
    loss = given.loss_last
    if loss is None:
        here = np.flatnonzero(losses[0] == horizon)
        loss = float(losses[1][here[-1]]) if len(here) else None
    notes = list(made.notes)
    if behind:
        notes.insert(
            0,
            f"the last {behind} steps have rate 0: T is step {horizon}, that of the last update, as the theorem says "
            "nothing of an iterate behind it",
        )
    if any(steps.held):
        notes.insert(
            0,
            f"an estimate: of {len(steps.rates)} steps {steps.held[0]} took the rate and {steps.held[1]} the gradient "
            "of the nearest step that has one",
        )
    return bound_of(
        *(terms, given.distance, loss, given.loss_ref),
        log=str(path),
        form=form,
        first_step=steps.first,
        step=horizon,
        steps=terms.steps,
        theorem=made.theorem,
        not_theorem=made.not_theorem,
        estimate=any(steps.held),
        notes=tuple(notes),
    )


def _write(path: Path, found: ScheduleBound) -> None:
    """Write the file whole, unless what lies there is no such bound. Raises OutputError."""
    if (run := run_around(path.parent)) is not None:
        raise OutputError(f"{path}: lies in the recorded run {run}; runs are never written to.")
    try:
        if os.path.lexists(path) and not _is_ours(path):
            raise OutputError(f"{path}: is there already, and is no bound of trajcheck schedule. Choose another --out.")
        make_folders(path.parent)
        write_json(path, found.as_json)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}.") from error


def _is_ours(path: Path) -> bool:
    try:
        there = read_json(path, MOST_TEXT)
    except (OSError, ValueError):
        return False
    return isinstance(there, dict) and there.get("kind") == KIND
