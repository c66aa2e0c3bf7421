"""`trajcheck analyze`, callable from Python."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajcheck.dry_run import Cost, cost
from trajcheck.errors import UsageError
from trajcheck.finite import cut_at_divergence, find_bad_steps
from trajcheck.gather import gather
from trajcheck.metrics.families import choose_families
from trajcheck.progress_bar import progress_bar
from trajcheck.references import Reference, resolve_references
from trajcheck.reports.folder import SUMMARY, ReportFolder, default_folder
from trajcheck.rows import choose_rows, parse_steps
from trajcheck.scalars import RowScalars
from trajcheck.snapshot import EPSILON
from trajcheck.tables.references import reference_columns
from trajcheck.tables.source import NOT_FINITE, Source
from trajcheck.tables.steps import step_columns
from trajcheck.trajectory import Trajectory, open_trajectory

if TYPE_CHECKING:
    import pandas as pd

    from trajcheck.columns import Column

#: The sample convention of every row: z_t, the step's own.
OWN = "own"

#: Steps after which momentum of 0.9 has forgotten a gradient.
LASTING = 50

_STEP_BASE = ("prev_step", "stride", "weight", "tau", "lr", "loss")
_REFERENCE_BASE = ("weight", "loss")
_CURVATURE = (
    *("lambda_max", "lambda_max_residual", "lambda_min", "lambda_min_residual"),
    *("grad_curvature", "stability_threshold"),
)
_FIDELITY = ("replay_loss_error", "replay_grad_error")


@dataclass(frozen=True)
class Options:
    """What to analyze; see `analyze`."""

    refs: tuple[str, ...] = ("final",)
    objective: str | None = None
    ref_gradients: bool = False
    metrics: tuple[str, ...] = ()
    steps: str | None = None
    skip: int = 1
    skip_bad: bool = False
    replay_dtype: str | None = None
    device: str = "auto"
    curvature: int | None = None


@dataclass(frozen=True)
class Report:
    """What an analysis gave: the tables as they stand in the CSV files, the summary, and the folder that holds them.

    `incomplete` lists what was explicitly asked for and could not be computed.
    """

    folder: Path
    steps: pd.DataFrame
    references: pd.DataFrame
    undefined: pd.DataFrame
    summary: dict[str, Any]
    incomplete: list[str] = field(default_factory=list)


def analyze(
    run: str | Path,
    refs: Sequence[str] = ("final",),
    objective: str | None = None,
    *,
    ref_gradients: bool = False,
    metrics: Sequence[str] = (),
    steps: str | None = None,
    skip: int = 1,
    skip_bad: bool = False,
    replay_dtype: str | None = None,
    device: str = "auto",
    curvature: int | None = None,
    out: str | Path | None = None,
    quiet: bool = True,
) -> Report:
    """Analyze a recorded run against reference points, in one pass, and write the report.

    Args:
        run: folder of the run; it is only read.
        refs: reference points x*, each one of final, init, best, step:N, mean:N, OTHER_RUN, OTHER_RUN@(any of these),
            FILE.safetensors.
        objective: "FILE.py:NAME"; NAME() returns (model, loss), loss(model, batch) a scalar. The file is executed.
            Without it, what needs no replayed loss is computed, and undefined.csv says what that leaves out.
        ref_gradients: also replay the gradient at every reference, for smoothness towards it.
        metrics: families of metrics (convexity, smoothness, progress, secant, geometry); all when empty.
        steps: "A:B:C", the rows, like a slice of step numbers; moves neither init nor final nor x_{t-1}.
        skip: cos_skip takes the first record at least this many steps on.
        skip_bad: leave out step files that cannot be used or hold NaN or Inf, and list them.
        replay_dtype: float64, float32 or bfloat16; by default the run's own, float32 at least.
        device: auto, cpu, cuda, cuda:1, ...
        curvature: at every that many rows, the extreme eigenvalues of the Hessian at x_t on z_t; needs an objective.
        out: the report folder; default reports/<the run's path below the working folder>.
        quiet: no progress bars.

    Raises:
        TrajcheckError: see errors.py; nothing has then been written.
    """
    options = Options(
        tuple(refs), objective, ref_gradients, tuple(metrics), steps, skip, skip_bad, replay_dtype, device, curvature
    )
    return run_analysis(Path(run), options, None if out is None else Path(out), quiet=quiet)


def run_analysis(run: Path, options: Options, out: Path | None = None, *, quiet: bool = True) -> Report:
    """`analyze`, with its options in one object."""
    return _Analysis(run, options, quiet).report(out)


def estimate(run: Path, options: Options) -> Cost:
    """What an analysis would read and evaluate.

    Reads headers, the end of the run (to see whether it is finite), and files given as references; writes nothing, and
    does not load the objective. Raises as `analyze` does.
    """
    return _Analysis(run, options, quiet=True).cost()


class _Analysis:
    """One analysis on its way from a folder to a report."""

    def __init__(self, run: Path, options: Options, quiet: bool) -> None:
        self.run, self.options, self.quiet = run, options, quiet
        self.families = choose_families(options.metrics)
        steps = parse_steps(options.steps)
        if options.skip < 1:
            raise UsageError(f"--skip {options.skip}: expected a number of steps, 1 or more.")
        if options.ref_gradients and options.objective is None:
            raise UsageError("--ref-gradients needs --objective FILE.py:NAME: gradients at a reference are replayed.")
        if options.ref_gradients and "smoothness" not in self.families:
            raise UsageError("--ref-gradients is for smoothness towards references: add smoothness to --metrics.")
        if options.replay_dtype is not None and options.objective is None:
            raise UsageError("--replay-dtype needs --objective FILE.py:NAME: without it nothing is replayed.")
        if options.curvature is not None and options.objective is None:
            raise UsageError("--curvature needs --objective FILE.py:NAME: Hessians are replayed.")
        if options.curvature is not None and options.curvature < 1:
            raise UsageError(f"--curvature {options.curvature}: expected a number of rows, 1 or more.")
        if not options.refs:
            raise UsageError("no reference was given; the default is final.")
        self.trajectory = load_trajectory(run, options.skip_bad)
        self.rows = choose_rows(self.trajectory, steps, options.skip)
        self.curvature = frozenset(row.place for row in self.rows.rows[:: options.curvature] if options.curvature)
        self.replay_facts: dict[str, Any] | None = None

    def report(self, out: Path | None) -> Report:
        """Compute everything and write it."""
        with ReportFolder(out or default_folder(self.run), self.trajectory.id) as folder:
            references = resolve_references(self.options.refs, self.trajectory, folder.staging)
            replay = self._prepare_replay(references)
            scalars = self._stored(references)
            if replay is not None:
                self._replayed(replay, scalars)
            source = Source(
                self.trajectory,
                self.rows,
                scalars,
                self.replay_facts["epsilon"] if self.replay_facts else None,
                self.options.ref_gradients,
                self.curvature,
            )
            return self._write(folder, references, source)

    def cost(self) -> Cost:
        """What `report` would read and evaluate."""
        references = resolve_references(self.options.refs, self.trajectory, None)
        return cost(
            self.trajectory,
            self.rows,
            references,
            self._union("evaluations"),
            replay=self.options.objective is not None,
            ref_gradients=self.options.ref_gradients,
            curvature=self.curvature,
        )

    # -- the pass and the replay ------------------------------------------------------------------------------------

    def _union(self, what: str) -> dict[str, None]:
        """The union of what the families need, in a fixed order."""
        return {name: None for family in self.families.values() for name in getattr(family, what)}

    def _step_products(self) -> dict[str, None]:
        return self._union("step_products")

    def _reference_products(self) -> dict[str, None]:
        return self._union("reference_products")

    def _stored(self, references: Sequence[Reference]) -> dict[int, RowScalars]:
        replayed = [row.step for row in self.rows.work if self.options.objective and not row.no_sample]
        with progress_bar("reading", len(self.rows.work), self.quiet) as progress:
            rows = gather(
                self.trajectory,
                self.rows,
                references,
                self._step_products(),
                self._reference_products(),
                replayed=frozenset(replayed),
                progress=progress,
            )
            return {row.place: scalars for row, scalars in zip(self.rows.work, rows, strict=True)}

    def _prepare_replay(self, references: Sequence[Reference]) -> Any:
        """The replay, checked against the run before anything long begins; None without an objective."""
        if self.options.objective is None:
            return None
        from trajcheck.objective import load_objective
        from trajcheck.replay import REFERENCE_REPLAYED, STEP_REPLAYED, Plan, Replay, epsilon, replay_dtype

        dtype = replay_dtype(self.trajectory, self.options.replay_dtype)
        objective = load_objective(self.options.objective, device=self.options.device, dtype=dtype)
        fidelity = ("recorded_sq", "disagreement_sq")
        plan = Plan(
            evaluations=frozenset(self._union("evaluations")),
            step_products=[
                name for name in dict.fromkeys(("grad_sq", *self._step_products(), *fidelity)) if name in STEP_REPLAYED
            ],
            reference_products=[name for name in self._reference_products() if name in REFERENCE_REPLAYED],
            ref_gradients=self.options.ref_gradients,
            curvature=self.curvature,
        )
        self.replay_facts = {"dtype": dtype, "device": str(objective.device), "epsilon": epsilon(dtype)}
        return Replay(self.trajectory, references, objective, dtype, plan)

    def _replayed(self, replay: Any, scalars: Mapping[int, RowScalars]) -> None:
        """Add what the replay brings to the rows of the stored pass."""
        with progress_bar("replaying", len(self.rows.work), self.quiet) as progress:
            for row, found in zip(self.rows.work, replay.rows(self.rows, progress), strict=True):
                if found is not None:
                    scalars[row.place].update(found)
        assert self.replay_facts is not None
        self.replay_facts |= {"evaluations": replay.evaluations, "randomness": replay.randomness}

    # -- the report -------------------------------------------------------------------------------------------------

    def _write(self, folder: ReportFolder, references: Sequence[Reference], source: Source) -> Report:
        import pandas as pd

        from trajcheck.reports.frames import table_frame, undefined_rows

        steps = [row.step for row in self.rows.rows]
        recorded = self.trajectory.steps
        grad_norm = ("grad_norm",) if "grad_sq" in self._step_products() else ()
        more = (*(_CURVATURE if self.curvature else ()), *(_FIDELITY if source.epsilon else ()))
        own = self._chosen(step_columns(source), "step_columns", (*_STEP_BASE, *grad_norm, *more))
        towards = {
            reference.spec: self._chosen(
                reference_columns(source, number, reference), "reference_columns", (*_REFERENCE_BASE, *grad_norm)
            )
            for number, reference in enumerate(references)
        }
        undefined = undefined_rows("steps", "", OWN, steps, recorded, own)
        for spec, columns in towards.items():
            undefined += undefined_rows("references", spec, OWN, steps, recorded, columns)
        filled = {name for columns in towards.values() for name, each in columns.items() if each.defined.any()}
        frames = {
            "steps": table_frame({"step": steps, "sample": OWN}, own, after="weight"),
            "references": pd.concat(
                [
                    table_frame({"step": steps, "ref": spec, "sample": OWN}, columns, keep=filled)
                    for spec, columns in towards.items()
                ],
                ignore_index=True,
            ),
            "undefined": pd.DataFrame(undefined, columns=["table", "column", "ref", "sample", "steps", "reason"]),
        }
        incomplete = self._incomplete(source, own, towards)
        summary = self._summary(references, own, towards, incomplete)
        texts = {f"{name}.csv": frame.to_csv(index=False, lineterminator="\n") for name, frame in frames.items()}
        folder.publish({**texts, SUMMARY: json.dumps(summary, indent=2, allow_nan=False) + "\n"})
        return Report(folder.path, **frames, summary=summary, incomplete=incomplete)

    def _chosen(self, columns: Mapping[str, Column], of: str, base: Sequence[str]) -> dict[str, Column]:
        """The columns of the asked-for families, in the order of the contract."""
        wanted = {*base, *self._union(of)}
        return {name: each for name, each in columns.items() if name in wanted}

    def _incomplete(
        self, source: Source, own: Mapping[str, Column], towards: Mapping[str, Mapping[str, Column]]
    ) -> list[str]:
        """What was explicitly asked for and could not be computed."""
        found = [f"{self.trajectory.ended}: analyzed up to there"] if self.trajectory.ended else []
        if source.epsilon is not None and not any(each.replayed for each in source.own):
            why = self.rows.rows[0].no_sample or NOT_FINITE
            found.append(f"--objective: nothing could be replayed; {why}")
        if not self.options.objective:
            found += [
                f"--metrics {name}: its losses need --objective FILE.py:NAME"
                for name in self.options.metrics
                if self.families[name].evaluations
            ]
        elif source.epsilon is not None and any(each.replayed for each in source.own):
            found += [
                f"--ref {spec}: the loss there is not finite on any step"
                for spec, columns in towards.items()
                if "loss_ref" in columns and not columns["loss_ref"].defined.any()
            ]
        if self.curvature and not own["lambda_max"].defined.any():
            found.append("--curvature: no eigenvalue was found; undefined.csv says why")
        return found

    def _summary(
        self,
        references: Sequence[Reference],
        own: Mapping[str, Column],
        towards: Mapping[str, Mapping[str, Column]],
        incomplete: list[str],
    ) -> dict[str, Any]:
        from trajcheck.reports.summary import DEFINITIONS, headline, versions

        trajectory, info = self.trajectory, self.trajectory.info
        return {
            "format": 1,
            "definitions": DEFINITIONS,
            "run": {
                "path": str(self.run),
                "id": trajectory.id,
                "recorded_steps": len(trajectory.steps),
                "first_step": trajectory.steps[0],
                "last_step": trajectory.steps[-1],
                "stride": self.rows.stride,
                "tensors": len(trajectory.shapes),
                "parameters": trajectory.numel,
                "optimizer": info.optimizer,
                "plain_sgd": info.plain_sgd,
            },
            "headline": {
                "sample": OWN,
                "previous": headline(own, self.rows.pair_weights),
                "references": {
                    reference.spec: {
                        "point": reference.key,
                        **headline(towards[reference.spec], self.rows.weights),
                    }
                    for reference in references
                },
            },
            "warnings": self._warnings(own),
            "incomplete": incomplete,
            "left_out": {
                "steps": {str(step): reason for step, reason in trajectory.left_out.items()},
                "columns": sorted(name for name, each in own.items() if not each.defined.any()),
            },
            "options": asdict(self.options),
            "replay": self.replay_facts,
            "versions": versions(self.options.objective is not None),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }

    def _warnings(self, own: Mapping[str, Column]) -> list[str]:
        from trajcheck.reports.summary import fidelity_warning

        first = self.trajectory.snapshots[0]
        dtypes = {extent.dtype for each in (first.parameters, first.gradients) for extent in each.values()}
        replay_epsilon = self.replay_facts["epsilon"] if self.replay_facts else 0.0
        found = [fidelity_warning(own, max(replay_epsilon, *(EPSILON[dtype] for dtype in dtypes)))]
        if self.rows.stride > 1:
            found.append(f"pair quantities (steps.csv) are over chords of {self.rows.stride} steps")
        if self.replay_facts and any(not words.startswith("recorded") for words in self.replay_facts["randomness"]):
            found += [
                f"randomness of {count} steps: {words}"
                for words, count in self.replay_facts["randomness"].items()
                if not words.startswith(("recorded", "seeded: no generator"))
            ]
        if low := {extent.dtype for extent in first.parameters.values()} & {"BF16", "F16"}:
            found.append(f"parameters were recorded in {', '.join(sorted(low))}: differences are of rounded iterates")
        info = self.trajectory.info
        if info.decoupled and "secant" in self.families:
            found.append("weight decay is decoupled: rsi_wd, eb_wd, cos_wd are not those of an objective's gradient")
        if info.plain_sgd is False and self.options.skip < LASTING:
            found.append(
                f"{info.optimizer} carries a gradient on for a while, so cos_skip still holds some of the step's own "
                f"term; give --skip {LASTING}"
            )
        if self.trajectory.left_out:
            found.append(f"{len(self.trajectory.left_out)} steps were left out; summary.json lists them with reasons")
        return [warning for warning in found if warning]


def load_trajectory(run: Path, skip_bad: bool) -> Trajectory:
    """A run that is ready to be walked: headers checked, the end finite, and bad steps left out where asked for."""
    trajectory = cut_at_divergence(open_trajectory(run, skip_bad=skip_bad))
    return trajectory.without(find_bad_steps(trajectory)) if skip_bad else trajectory
