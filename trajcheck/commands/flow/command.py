"""`trajcheck flow`, callable from Python: how far a run is from its gradient flow (EC, arXiv 2107.06608)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trajcheck.commands.flow.integrated import Integrated
from trajcheck.commands.flow.options import FlowArguments, FlowOptions
from trajcheck.errors import IntegrationError, ObjectiveError, RunError, StepFileError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.files.prints import hash_file
from trajcheck.measuring.hessian_products import OF_FLOW, in_words
from trajcheck.measuring.which_objective import choose
from trajcheck.objective.common.names import choice_of
from trajcheck.options.python_call import takes
from trajcheck.progress_bar import progress_bar
from trajcheck.readable import in_lines
from trajcheck.reports.making.folder import ReportFolder, default_folder
from trajcheck.runs.divergence import load_trajectory, not_finite_error
from trajcheck.runs.formats.stored_run import PROGRAM
from trajcheck.runs.logs.log_choice import log_of
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.values import FlowScalars

if TYPE_CHECKING:
    from trajcheck.commands.flow.sample_function import SampleFunction
    from trajcheck.commands.flow.state_file import Reached, StateFile
    from trajcheck.reports.making.results import FlowReport

#: Float64 vectors of the model's size that two integrations hold at their peak, K of RK45 and its interpolant first.
VECTORS = 34

#: Where times come from.
TIMES = (
    "Recorder stores tau for optimizers with a learning rate; of a run written by hand it is summed where the rate of "
    'every step is known: "lr" in the metadata of every step, or a log (--log).'
)


@takes(FlowArguments)
def flow(given: FlowArguments) -> FlowReport:
    """Integrate theta'(tau) = -grad f(theta(tau)) from an iterate of a run, and measure the run against it.

    flow_dist_t = |x_t - theta(tau_t)| at the recorded times tau_t, the sums of learning rates. f is the loss on one
    fixed sample, without weight decay, whatever trained the run; the summary warns where that was not gradient descent
    on f. theta is float64; two solutions are computed, the second at half the tolerances. The flow is the second, and
    the distance between them, flow_error, estimates its error.

    A call that was killed goes on when it is made again: its state is in the report folder, in a hidden file.

    Raises:
        TrajcheckError: see errors.py. No report has then been written, but a state may have been.
    """
    return run_flow(Path(given.run), given.options, given.folder, quiet=given.quiet)


def run_flow(run: Path, options: FlowOptions, out: Path | None = None, *, quiet: bool = True) -> FlowReport:
    """`flow`, with its options in one object."""
    return _Flow(run, options, quiet).report(out)


def estimate_flow(run: Path, options: FlowOptions) -> str:
    """What `flow` would do, in words; reads headers alone and does not load the objective. Raises as `flow` does."""
    found = _Flow(run, options, quiet=True)
    reached = [time for time in found.times if time is not None]
    hessians = sum(found.curvature)
    lines = [
        f"times      {len(reached)} recorded, tau up to {max(reached):g} after the start",
        f"flow       {found.trajectory.numel:,} parameters, 2 solutions, {options.max_evaluations:,} gradients at most",
        f"           {2 * len(reached):,} losses and gradients beside those of the integration",
        f"memory     about {VECTORS * 8 * found.trajectory.numel:,} bytes for the integration",
        f"reading    {2 * sum(found.bytes_of(snapshot) for snapshot in found.snapshots):,} bytes",
    ]
    if hessians:
        lines += [f"           {line}" for line in in_words(hessians, OF_FLOW)]
    return in_lines(lines)


class _Flow:
    """One flow on its way from a run to a report."""

    def __init__(self, run: Path, options: FlowOptions, quiet: bool) -> None:
        options = replace(
            options, objective=choose(options.objective, [run], asked=True).objective or options.objective
        )
        options.check()
        self.run, self.options, self.quiet = run, options, quiet
        loaded = load_trajectory(run, options.skip_bad, log_of(options))
        self.trajectory: Trajectory = loaded.with_drawn_probes(options.probe)
        self.place = self._start()
        self.snapshots: Sequence[Snapshot] = self.trajectory.snapshots[self.place :]
        self.steps = [snapshot.step for snapshot in self.snapshots]
        self.taus = [_tau(run, snapshot) for snapshot in self.snapshots]
        self.times = self._times()
        last = max(i for i, time in enumerate(self.times) if time is not None)
        every = options.curvature
        self.curvature = [
            every is not None and time is not None and (i % every == 0 or i == last)
            for i, time in enumerate(self.times)
        ]

    def report(self, out: Path | None) -> FlowReport:
        """Compute everything and write it."""
        from trajcheck.commands.flow.findings import FlowFindings

        path = out or Path("reports") / "flow" / default_folder(self.run).relative_to("reports")
        with ReportFolder(path, f"{self.trajectory.id}/flow") as folder:
            function = self._function()
            state = self._state_file(folder)
            done = self._integrated(function, state)
            findings = FlowFindings(
                self.run,
                self.options,
                self.trajectory,
                self.snapshots,
                self.taus,
                self.times,
                self.curvature,
                done,
                {**self.replay, "sample": self.sample, "other_evaluations": function.evaluations},
                self.doubts,
            )
            report = findings.report(folder)
            if not done.ended:
                state.remove()
            return report

    # -- what is integrated -----------------------------------------------------------------------------------------

    def _start(self) -> int:
        step = self.options.start_step
        if step is None:
            return 0
        place = self.trajectory.index(step)
        if place is None:
            steps = self.trajectory.steps
            nearest = sorted(sorted(steps, key=lambda each: abs(each - step))[:4])
            raise RunError(
                f"{self.run}: --from step:{step}: not among the {len(steps)} recorded steps ({steps[0]} to "
                f"{steps[-1]}). The nearest are {', '.join(map(str, nearest))}."
            )
        return place

    def _times(self) -> list[float | None]:
        """tau_t - tau_s, s the step where the flow starts; None where tau is not known."""
        start = self.taus[0]
        if start is None:
            raise RunError(
                f"{self.run}: step {self.steps[0]}, where the flow starts, has no tau, the sum of the learning rates "
                f"before it, so it is not known when the run was where{self._why(0)}. {TIMES}"
            )
        times = [None if tau is None else tau - start for tau in self.taus]
        if len(times) > 1 and all(time is None for time in times[1:]):
            raise RunError(
                f"{self.run}: none of the {len(times) - 1} records after step {self.steps[0]}, where the flow starts, "
                f"has a tau, the sum of the learning rates before it{self._why(1)}. {TIMES}"
            )
        known = [(step, time) for step, time in zip(self.steps, times, strict=True) if time is not None]
        for (before, earlier), (step, time) in pairwise(known):
            if not (math.isfinite(time) and time >= earlier):
                raise RunError(
                    f"{self.run}: tau falls, or is not finite, from step {before} to step {step} ({earlier:g} to "
                    f"{time:g} since the start); expected a sum of learning rates, which grows."
                )
        return times

    def _why(self, place: int) -> str:
        why = self.snapshots[place].omitted.get("tau")
        return f": {why}" if why else ""

    def _function(self) -> SampleFunction:
        """f on the sample, checked at the start: theta0, f and grad f are finite there."""
        from trajcheck.commands.flow.sample_function import flow_function
        from trajcheck.objective.loading import load_objective
        from trajcheck.replay.fitting import epsilon
        from trajcheck.replay.plan import replay_dtype

        dtype = replay_dtype(self.trajectory, self.options.replay_dtype, one=True)
        assert self.options.objective is not None
        objective = load_objective(
            self.options.objective,
            run=self.run,
            device=self.options.device,
            dtype=dtype,
            trajectory=self.trajectory,
            choice=choice_of(self.options),
        )
        self.replay: dict[str, Any] = {
            "dtype": dtype,
            "device": str(objective.device),
            "epsilon": epsilon(dtype, self.trajectory),
        }
        if objective.note:
            self.replay["program"] = objective.note
        if objective.facts:
            self.replay["data"] = dict(objective.facts)
        asked = self.options.sample or (None if self.options.probe is None else "probe")
        self.sample, function = flow_function(self.trajectory, self.place, objective, asked)
        if function.weighing:
            self.replay["data_set"] = function.weighing
        for snapshot in self.snapshots:  # before anything long begins
            self._flat(snapshot, snapshot.parameters)
        self.theta0 = self._flat(self.snapshots[0], self.snapshots[0].parameters)
        where = f"step {self.steps[0]}, where the flow starts"
        self.loss0, gradient = function.loss_and_gradient(self.theta0, where)
        if not (math.isfinite(self.loss0) and np.isfinite(gradient).all()):
            raise ObjectiveError(
                f"objective {self.options.objective}, {where}: the loss or its gradient is not finite on sample "
                f"{self.sample}; expected finite numbers, from which a flow can start."
            )
        self.doubts = self._doubts(function, gradient, where)
        return function

    def _doubts(self, function: SampleFunction, gradient: np.ndarray, where: str) -> dict[str, Any]:
        """Whether the run can have been gradient descent on f: the relative distance of the recorded gradient at the
        start from grad f there (None: none was recorded), and whether f draws random numbers."""
        from trajcheck.scalars.rows import gradient_missing

        disagreement = None
        if not gradient_missing(self.trajectory, self.place) and gradient.any():
            first = self.snapshots[0]
            recorded = self._flat(first, first.gradients, "grad") / (first.clip or 1.0)
            disagreement = float(np.linalg.norm(recorded - gradient) / np.linalg.norm(gradient))
        return {
            "recorded_gradient_disagreement": disagreement,
            "random": function.is_random(self.theta0, where),
            "clipped": any(snapshot.clip != 1.0 for snapshot in self.snapshots if snapshot.gradients),
        }

    def _flat(self, snapshot: Snapshot, tensors: Any, kind: str = "param") -> np.ndarray:
        """The trainable parameters, or what has their shapes, of a record: [n] float64. Raises NotFiniteError."""
        flat, begin = np.empty(self.trajectory.numel), 0
        with ExtentReader() as reader:
            for name in self.trajectory.shapes:
                extent: Extent = tensors[name]
                part = flat[begin : begin + extent.numel]
                reader.widen(extent, 0, part)
                if not np.isfinite(part).all():
                    raise not_finite_error(snapshot, f"{kind}/{name}")
                begin += extent.numel
        return flat

    def bytes_of(self, snapshot: Snapshot) -> int:
        return sum(snapshot.parameters[name].length for name in self.trajectory.shapes)

    # -- the integration --------------------------------------------------------------------------------------------

    @cached_property
    def _asked(self) -> list[int]:
        """The rows that have a time, by number."""
        return [i for i, time in enumerate(self.times) if time is not None]

    def _state_file(self, folder: ReportFolder) -> StateFile:
        from trajcheck.commands.flow.state_file import StateFile, key_of
        from trajcheck.reports.making.publishing import versions

        options = asdict(self.options)
        for free in ("max_evaluations", "wanted_distance", "start"):
            del options[free]
        spec = self.options.objective
        assert spec is not None
        file = self.run / PROGRAM if spec == "run" else Path(spec.rpartition(":")[0]).expanduser()
        facts = {
            "run": self.trajectory.id,
            "steps": self.steps,
            "taus": self.taus,
            "shapes": {name: list(shape) for name, shape in self.trajectory.shapes.items()},
            "options": options,
            "sample": self.sample,
            "objective": hash_file(file),
            "replay": self.replay,
            "versions": versions(True),
        }
        return StateFile(folder.path, key_of(facts))

    def _resumed(self, state: StateFile) -> tuple[Reached | None, tuple[str, ...]]:
        """Where an earlier call of the same flow stopped; None, with what there is to say, where it begins anew."""
        try:
            found = state.load(self.trajectory.numel)
        except StepFileError as error:
            return None, (f"the state of an earlier call could not be used, and the flow began anew: {error}",)
        if found is None or not found.rows:
            return None, ()
        before = found.rows[0].flow_loss
        if before is None or not math.isclose(before, self.loss0, rel_tol=1e-6, abs_tol=1e-12):
            return None, ("the objective's value at the start is not that of an earlier call; the flow began anew",)
        return found, ()

    def _integrated(self, function: SampleFunction, file: StateFile) -> Integrated:
        """Both solutions carried along to every recorded time, row by row."""
        from trajcheck.commands.flow.integrate import ABSOLUTE, EvaluationCap, integrate
        from trajcheck.commands.flow.state_file import Reached

        found, notes = self._resumed(file)
        rows = list(found.rows) if found else []
        done = found.points if found else 0
        states = found.states if found else (None, None)
        resumed_at = self.steps[len(rows)] if found and len(rows) < len(self.steps) else None
        budget = EvaluationCap(self.options.max_evaluations, sum(state.evaluations for state in states if state))
        rtol = self.options.rtol
        atol = ABSOLUTE * rtol if self.options.atol is None else self.options.atol
        times = [time for time in self.times if time is not None]

        def rhs(theta: np.ndarray) -> np.ndarray:
            gradient = function.loss_and_gradient(theta, "on the flow")[1]
            function.evaluations -= 1  # the budget counts these
            return -gradient

        solutions = [
            integrate(rhs, self.theta0, times, rtol=rtol * half, atol=atol * half, budget=budget, state=each, done=done)
            for half, each in zip((1.0, 0.5), states, strict=True)
        ]
        missing = [self.trajectory.no_tau(snapshot) for snapshot in self.snapshots]
        ended, progress = "", found
        with progress_bar("flow", len(self.steps), self.quiet) as bar, function.many():
            bar(len(rows))
            try:
                while len(rows) < len(self.steps):
                    number = len(rows)
                    row = FlowScalars()
                    points = [next(solution) for solution in solutions] if not missing[number] else []
                    x = self._run_side(row, number, function)
                    if points:
                        self._flow_side(row, number, x, points[1].theta, points[0].theta, function)
                        done += 1
                    rows.append(row)
                    if points:
                        progress = Reached(tuple(rows), done, [point.state for point in points])
                        file.save(progress)
                    bar(1)
            except IntegrationError as error:
                reached = max(i for i in self._asked if i < len(rows)) if done else None
                where = (
                    "its start" if reached is None else f"step {self.steps[reached]}, tau = {self.taus[reached]:.6g}"
                )
                ended = f"the integration ended after {where}, the last recorded time that it reached: {error}"
                if budget.spent >= self.options.max_evaluations:
                    ended += "; with a larger --max-evaluations the same command goes on from there"
            finally:
                if progress is not None and len(rows) < len(self.steps):
                    file.save(progress, now=True)
        for number in range(len(rows), len(self.steps)):
            missing[number] = missing[number] or "the integration ended before this time"
            rows.append(row := FlowScalars())
            self._run_side(row, number, function)
        return Integrated(rows, missing, budget.spent, ended, resumed_at, notes)

    def _run_side(self, row: FlowScalars, number: int, function: SampleFunction) -> np.ndarray:
        """What is said of the run's iterate by itself; returns x_t."""
        x = self._flat(self.snapshots[number], self.snapshots[number].parameters)
        row.init_dist = _finite(float(np.linalg.norm(x - self.theta0)))
        row.loss = _finite(function.loss(x, f"step {self.steps[number]}, at x_t"))
        return x

    def _flow_side(
        self,
        row: FlowScalars,
        number: int,
        x: np.ndarray,
        theta: np.ndarray,
        coarser: np.ndarray,
        function: SampleFunction,
    ) -> None:
        """What is said of the flow at the row's time, beside the run's x_t."""
        where = f"on the flow at the time of step {self.steps[number]}"
        loss, gradient = function.loss_and_gradient(theta, where)
        row.flow_dist = _finite(float(np.linalg.norm(x - theta)))
        row.flow_error = _finite(float(np.linalg.norm(theta - coarser)))
        row.flow_loss, row.flow_grad_norm = _finite(loss), _finite(float(np.linalg.norm(gradient)))
        if self.curvature[number]:
            found = function.extremes(theta, self.steps[number], where)
            row.hessian_asymmetry = found.asymmetry or None
            for name in ("lambda_min", "lambda_min_residual", "lambda_max", "lambda_max_residual"):
                setattr(row, name, _finite(getattr(found, name)))


def _tau(run: Path, snapshot: Snapshot) -> float | None:
    """tau_t as one number. Raises RunError where parameter groups differ."""
    if not snapshot.tau:
        return None
    if len(set(snapshot.tau)) > 1:
        raise RunError(
            f"{run}: step {snapshot.step} has tau {', '.join(f'{tau:g}' for tau in snapshot.tau)} in its parameter "
            "groups; a flow has one time, and can be compared with runs whose groups have one learning rate."
        )
    return float(snapshot.tau[0])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
