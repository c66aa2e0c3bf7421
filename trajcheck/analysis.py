"""`trajcheck analyze`, callable from Python."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trajcheck.dry_run import Cost, cost
from trajcheck.errors import RunError, UsageError
from trajcheck.finite import cut_at_divergence, find_bad_steps
from trajcheck.gather import gather
from trajcheck.metrics.averaging import Averaging, tzc_v1
from trajcheck.metrics.families import Family, choose_families
from trajcheck.options import Options
from trajcheck.products import REFERENCE_PRODUCTS, STEP_PRODUCTS, vectors_needed
from trajcheck.progress_bar import progress_bar
from trajcheck.references import Reference, resolve_references
from trajcheck.replay_plan import REFERENCE_REPLAYED, STEP_REPLAYED, Plan, replay_dtype
from trajcheck.reports.folder import ReportFolder, default_folder
from trajcheck.rows import choose_rows, parse_steps
from trajcheck.scalars import RowScalars
from trajcheck.tables.samples import Measured
from trajcheck.tables.scale import ROWS
from trajcheck.tables.source import Source
from trajcheck.trajectory import Trajectory, open_trajectory

if TYPE_CHECKING:
    from trajcheck.findings import Report
    from trajcheck.memory import Cell
    from trajcheck.permuted_references import Alignment


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
    sample: Sequence[str] = (),
    layers: bool = False,
    group: Sequence[str] = (),
    path_integral: int | None = None,
    memory_lags: Sequence[int] = (),
    smoothing: int = 51,
    convention: str | None = None,
    memory: str | None = None,
    threads: int | None = None,
    match_permutations: bool = False,
    out: str | Path | None = None,
    quiet: bool = True,
) -> Report:
    """Analyze a recorded run against reference points, in one pass, and write the report.

    Args:
        run: folder of the run; it is only read.
        refs: reference points x*, each one of final, init, best, step:N, mean:N, OTHER_RUN, OTHER_RUN@(any of these),
            FILE.safetensors.
        objective: "FILE.py:NAME"; NAME() returns (model, loss), loss(model, batch) a scalar. The file is executed.
            "run": the program that the Recorder exported, the run's objective.pt2; loading it can execute code too.
            Without it, what needs no replayed loss is computed, and undefined.csv says what that leaves out.
        ref_gradients: also replay the gradient at every reference, for smoothness towards it.
        metrics: families of metrics (convexity, smoothness, progress, secant, geometry); all when empty.
        steps: "A:B:C", the rows, like a slice of step numbers; moves neither init nor final nor x_{t-1}.
        skip: cos_skip takes the first record at least this many steps on.
        skip_bad: leave out step files that cannot be used or hold NaN or Inf, and list them.
        replay_dtype: float64, float32 or bfloat16; by default the run's own, float32 at least.
        device: auto, cpu, cuda, cuda:1, ...
        curvature: at every that many rows, the extreme eigenvalues of the Hessian at x_t on z; needs an objective.
        sample: on which z a row is measured, some of own (the step's), previous (that of the record before), probe (the
            run's probe batches, with standard errors), full (the objective's data set); by default own, and previous
            under tzc-v1.
        layers: also write layers.csv, a row for each tensor.
        group: regular expressions; tensors in whose names one matches the same text are one row of layers.csv.
        path_integral: points of a Gauss-Legendre rule for the gradient along each step.
        memory_lags: steps k of the cosine between the parts of g_t and g_{t+k} orthogonal to e_t and e_{t+k}.
        smoothing: rows over which lo_lr_smooth is taken.
        memory: such as "4GB": a bound on what the replay keeps on its device: parameters, gradients, references, what
            is read ahead, Lanczos vectors; not on what the model's own forward and backward take.
        threads: how many read and multiply recorded vectors; by default as many as there are
            processors, or one where numpy does the work of the compiled loop.
        convention: tzc-v1, for the conventions of that paper's own code.
        match_permutations: put the hidden units of references from other runs or files in the order in which they lie
            nearest to this run's last iterate; the objective file's PERMUTATIONS says which axes permute together.
        out: the report folder; default reports/<the run's path below the working folder>.
        quiet: no progress bars.

    Raises:
        TrajcheckError: see errors.py; nothing has then been written.
    """
    options = Options(
        refs=tuple(refs),
        objective=objective,
        ref_gradients=ref_gradients,
        metrics=tuple(metrics),
        steps=steps,
        skip=skip,
        skip_bad=skip_bad,
        replay_dtype=replay_dtype,
        device=device,
        curvature=curvature,
        sample=tuple(sample),
        layers=layers,
        group=tuple(group),
        path_integral=path_integral,
        memory_lags=tuple(memory_lags),
        smoothing=smoothing,
        convention=convention,
        memory=memory,
        threads=threads,
        match_permutations=match_permutations,
    )
    return run_analysis(Path(run), options, None if out is None else Path(out), quiet=quiet)


def run_analysis(run: Path, options: Options, out: Path | None = None, *, quiet: bool = True) -> Report:
    """`analyze`, with its options in one object."""
    return Analysis(run, options, quiet).report(out)


def estimate(run: Path, options: Options) -> Cost:
    """What an analysis would read and evaluate.

    Reads headers, the end of the run (to see whether it is finite), and files given as references; writes nothing, and
    does not load the objective. Raises as `analyze` does.
    """
    return Analysis(run, options, quiet=True).cost()


class Analysis:
    """One analysis on its way from a folder to a report; `measure` gives its columns without one.

    `trajectory` is the run where it is open already; `families` are measured in place of those that the options name.
    """

    def __init__(
        self,
        run: Path,
        options: Options,
        quiet: bool,
        *,
        trajectory: Trajectory | None = None,
        families: Mapping[str, Family] | None = None,
    ) -> None:
        self.run, self.options, self.quiet = run, options, quiet
        self.families = choose_families(options.metrics) if families is None else families
        steps = parse_steps(options.steps)
        options.check(self.families)
        self.trajectory = trajectory or load_trajectory(run, options.skip_bad)
        if "probe" in options.samples and not self.trajectory.probes:
            raise RunError(
                f"{run}: no probe batches were stored with this run (probe-000.safetensors); expected for --sample "
                "probe. Recorder.probe(batches) stores them."
            )
        for pattern in options.group:
            if not any(re.search(pattern, name) for name in self.trajectory.shapes):
                names = ", ".join(list(self.trajectory.shapes)[:4])
                raise UsageError(f"--group {pattern!r} is found in no tensor's name; this run has {names}, ...")
        self.rows = choose_rows(self.trajectory, steps, options.skip)
        self.curvature = frozenset(row.place for row in self.rows.rows[:: options.curvature] if options.curvature)
        self.by_tensor = self._by_tensor()
        self.replay_facts: dict[str, Any] | None = None
        self.alignments: dict[str, Alignment] | None = None

    def report(self, out: Path | None) -> Report:
        """Compute everything and write it."""
        from trajcheck.findings import Findings

        with ReportFolder(out or default_folder(self.run), self.trajectory.id) as folder:
            references = resolve_references(self.options.refs, self.trajectory, folder.staging)
            references = self._matched(references, folder.staging)
            measured = self.measure(references)
            findings = Findings(
                self.run, self.options, self.families, references, measured, self.replay_facts, self.alignments
            )
            return findings.report(folder)

    def measure(self, references: Sequence[Reference]) -> list[Measured]:
        """The columns towards some references, of each sample convention; nothing is written."""
        replay = self.prepare_replay(references)
        stored = self._stored(references)
        self.memory = self._memory(references)
        scalars = {"own": [stored]} if replay is None else self._replayed(replay, stored)
        return [self._measured(sample, draws, references) for sample, draws in scalars.items()]

    def _measured(
        self, sample: str, draws: Sequence[Mapping[int, RowScalars]], references: Sequence[Reference]
    ) -> Measured:
        source = Source(
            self.trajectory,
            self.rows,
            {},
            self.replay_facts["epsilon"] if self.replay_facts else None,
            self.options.ref_gradients,
            self.curvature,
            sample,
            self.options.path_integral is not None,
            self.options.smoothing,
            self._averaging(),
            self.memory,
        )
        return Measured(sample, tuple(replace(source, scalars=rows) for rows in draws), tuple(references))

    def cost(self, references: Sequence[Reference] | None = None) -> Cost:
        """What `report`, or `measure` towards these references, would read and evaluate."""
        if references is None:
            references = resolve_references(self.options.refs, self.trajectory, None)
        return cost(
            self.trajectory,
            self.rows,
            references,
            self._plan(),
            self.options,
            windows="window_dot_ref" in self._reference_products(),
            neighbours=bool(self._vectors() & {"previous", "next", "skip", "first"}),
        )

    def _vectors(self) -> set[str]:
        """The vectors that the products are made of."""
        return vectors_needed(
            [STEP_PRODUCTS[name] for name in self._step_products()]
            + [REFERENCE_PRODUCTS[name] for name in self._reference_products()]
        )

    def _by_tensor(self) -> frozenset[int]:
        """Places of the rows whose products are kept tensor by tensor: all for layers, else a few, to see whose scale
        does not matter."""
        if self.options.layers or self.options.group or self.options.convention:
            return frozenset(row.place for row in self.rows.work)
        if "secant" not in self.families:
            return frozenset()
        replayed = self.options.objective is not None
        able = [row.place for row in self.rows.rows if not (row.no_sample if replayed else row.no_gradient)]
        return frozenset(able[:: max(1, len(able) // ROWS)][:ROWS])

    # -- the pass and the replay ------------------------------------------------------------------------------------

    def _union(self, what: str) -> dict[str, None]:
        """The union of what the families need, in a fixed order."""
        return {name: None for family in self.families.values() for name in getattr(family, what)}

    def _step_products(self) -> dict[str, None]:
        radial = ("param_sq", "grad_sq", "grad_dot_param") if self.by_tensor else ()
        products = self._union("step_products") | dict.fromkeys(radial)
        if self.options.path_integral is None:
            products.pop("path_integral", None)
        return products

    def _reference_products(self) -> dict[str, None]:
        return self._union("reference_products")

    def _stored(self, references: Sequence[Reference]) -> dict[int, RowScalars]:
        replayed = [
            row.step
            for row in self.rows.work
            if self.options.objective and not ("own" in self.options.samples and row.no_sample)
        ]
        with progress_bar("reading", len(self.rows.work), self.quiet) as progress:
            rows = gather(
                self.trajectory,
                self.rows,
                references,
                self._step_products(),
                self._reference_products(),
                replayed=frozenset(replayed),
                by_tensor=self.by_tensor,
                threads=self.options.threads,
                progress=progress,
            )
            return {row.place: scalars for row, scalars in zip(self.rows.work, rows, strict=True)}

    def _averaging(self) -> Averaging:
        if self.options.convention is None:
            return Averaging()
        epochs = [self.trajectory.snapshots[row.place].epoch for row in self.rows.rows]
        known = [epoch for epoch in epochs if epoch is not None]
        # the closing iterate has none: it is in the epoch of the step before it
        filled = [known[-1] if epoch is None and known else epoch for epoch in epochs]
        return tzc_v1(None if None in filled else np.array(filled))

    def _memory(self, references: Sequence[Reference]) -> dict[int, list[list[Cell]]]:
        if not self.options.lags:
            return {}
        from trajcheck.memory import memory_cells

        with progress_bar("memory", len(self.rows.rows), self.quiet) as progress:
            return memory_cells(self.trajectory, self.rows, references, self.options.lags, progress)

    @cached_property
    def _objective(self) -> Any:
        """None where there is none. In float64 where symmetries are checked first; the replay converts it."""
        if self.options.objective is None:
            return None
        from trajcheck.objective import load_objective

        dtype = replay_dtype(self.trajectory, self.options.replay_dtype)
        first = "float64" if self.options.match_permutations else dtype
        return load_objective(self.options.objective, run=self.run, device=self.options.device, dtype=first)

    def _matched(self, references: list[Reference], workspace: Path) -> list[Reference]:
        """The references, those of other runs permuted where that was asked for."""
        if not self.options.match_permutations:
            return references
        from trajcheck.permuted_references import permute_references

        assert self.options.objective is not None
        references, self.alignments = permute_references(
            references, self.trajectory, self._objective, self.options.objective, workspace
        )
        return references

    def _plan(self) -> Plan:
        """What the replay is asked for."""
        fidelity = ("recorded_sq", "disagreement_sq")
        return Plan(
            samples=self.options.samples,
            evaluations=frozenset(self._union("evaluations")),
            step_products=[
                name for name in dict.fromkeys(("grad_sq", *self._step_products(), *fidelity)) if name in STEP_REPLAYED
            ],
            reference_products=[name for name in self._reference_products() if name in REFERENCE_REPLAYED],
            ref_gradients=self.options.ref_gradients,
            curvature=self.curvature,
            by_tensor=self.by_tensor,
            memory=self.options.memory_bytes,
            path_points=self.options.path_integral or 0,
        )

    def prepare_replay(self, references: Sequence[Reference]) -> Any:
        """The replay, checked against the run before anything long begins; None without an objective."""
        objective = self._objective
        if objective is None:
            return None
        from trajcheck.replay import Replay, epsilon

        dtype = replay_dtype(self.trajectory, self.options.replay_dtype)
        self.replay_facts = {"dtype": dtype, "device": str(objective.device), "epsilon": epsilon(dtype)}
        if objective.note:
            self.replay_facts["program"] = objective.note
        return Replay(self.trajectory, self.rows, references, objective, dtype, self._plan())

    def _replayed(self, replay: Any, stored: dict[int, RowScalars]) -> dict[str, list[dict[int, RowScalars]]]:
        """The rows of each sample: those of the stored pass with what the replay brings."""
        geometry = STEP_PRODUCTS.keys() - STEP_REPLAYED, REFERENCE_PRODUCTS.keys() - REFERENCE_REPLAYED
        scalars = {
            sample: [stored]
            if sample == "own"
            else [{place: row.keep(*geometry) for place, row in stored.items()} for _ in range(count)]
            for sample, count in replay.draws.items()
        }
        with (
            progress_bar("replaying", len(self.rows.work), self.quiet) as progress,
            closing(replay.rows(progress)) as found_rows,
        ):
            for row, found in zip(self.rows.work, found_rows, strict=True):
                for sample, draws in found.items():
                    for rows, draw in zip(scalars[sample], draws, strict=True):
                        rows[row.place].update(draw)
        assert self.replay_facts is not None
        self.replay_facts |= {"evaluations": replay.evaluations, "randomness": replay.randomness}
        return scalars


def load_trajectory(run: Path, skip_bad: bool) -> Trajectory:
    """A run that is ready to be walked: headers checked, the end finite, and bad steps left out where asked for."""
    trajectory = cut_at_divergence(open_trajectory(run, skip_bad=skip_bad))
    return trajectory.without(find_bad_steps(trajectory)) if skip_bad else trajectory
