"""`trajcheck analyze`, callable from Python."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trajcheck.dry_run import Cost, cost
from trajcheck.errors import RunError, UsageError
from trajcheck.file_prints import FilePrints
from trajcheck.finite import cut_at_divergence, find_bad_steps
from trajcheck.measurement import MEMORY, REPLAYED, STORED, Measurement, Portion, facts
from trajcheck.metrics.averaging import Averaging, tzc_v1
from trajcheck.metrics.families import Family, choose_families
from trajcheck.options import Options
from trajcheck.progress_bar import progress_bar
from trajcheck.references import Reference, Workspace, files_of, resolve_references
from trajcheck.replay_plan import Plan, replay_dtype
from trajcheck.reports.folder import ReportFolder, default_folder
from trajcheck.request import Request
from trajcheck.rows import Rows, choose_rows, parse_steps
from trajcheck.saved_scalars import FOLDER, INTERVAL
from trajcheck.saved_scalars.identity import Identity
from trajcheck.saved_scalars.store import ScalarStore
from trajcheck.scalars import RowScalars
from trajcheck.tables.samples import Measured
from trajcheck.tables.source import Source
from trajcheck.trajectory import Trajectory, open_trajectory

if TYPE_CHECKING:
    from trajcheck.findings import Report
    from trajcheck.memory import Cell
    from trajcheck.permuted_references import Alignment
    from trajcheck.plane import Plane


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
    pca: int | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    quiet: bool = True,
) -> Report:
    """Analyze a recorded run against reference points, in one pass, and write the report.

    What is computed is saved in the report folder as it is found (`scalars/`): an analysis that was interrupted goes
    on from there, and one of a run that has grown adds what is missing.

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
        memory: such as "4GB": a bound on the vectors that the pass holds, and on what the replay keeps on its device:
            parameters, gradients, references, what is read ahead, Lanczos vectors; not on what the model's own forward
            and backward take.
        threads: how many read and multiply recorded vectors; by default as many as there are
            processors, or one where numpy does the work of the compiled loop.
        convention: tzc-v1, for the conventions of that paper's own code.
        match_permutations: put the hidden units of references from other runs or files in the order in which they lie
            nearest to this run's last iterate; the objective file's PERMUTATIONS says which axes permute together.
        pca: so many iterates, evenly spaced, in the plane of their first two principal components: trajectory.csv.
        out: the report folder; default reports/<the run's path below the working folder>.
        fresh: compute everything anew: for what trajcheck cannot see has changed, such as data that the objective
            loads.
        quiet: no progress bars.

    Raises:
        TrajcheckError: see errors.py; no report has then been written.
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
        pca=pca,
    )
    return run_analysis(Path(run), options, None if out is None else Path(out), fresh=fresh, quiet=quiet)


def run_analysis(
    run: Path,
    options: Options,
    out: Path | None = None,
    *,
    fresh: bool = False,
    deep: bool = False,
    quiet: bool = True,
    interval: float = INTERVAL,
) -> Report:
    """`analyze`, with its options in one object. `deep`: step files are known by the hash of their bytes, not by size
    and time; at most `interval` seconds of work are lost when it is interrupted."""
    return Analysis(run, options, quiet, deep=deep).report(out, fresh=fresh, interval=interval)


def estimate(run: Path, options: Options) -> Cost:
    """What an analysis would read and evaluate.

    Reads headers, the end of the run (to see whether it is finite), and files given as references; writes nothing, and
    does not load the objective. Raises as `analyze` does.
    """
    return Analysis(run, options, quiet=True).cost()


class Analysis:
    """One analysis on its way from a folder to a report; `measure` gives its columns without one.

    `trajectory` is the run where it is open already; `families` are measured in place of those that the options name;
    `device` is where to replay if the options leave it open.
    """

    def __init__(
        self,
        run: Path,
        options: Options,
        quiet: bool,
        *,
        trajectory: Trajectory | None = None,
        families: Mapping[str, Family] | None = None,
        deep: bool = False,
        device: str | None = None,
    ) -> None:
        self.run, self.options, self.quiet = run, options, quiet
        self.families = choose_families(options.metrics) if families is None else families
        steps = parse_steps(options.steps)
        options.check(self.families)
        self.prints = FilePrints(deep)
        self.device = options.device if device is None or options.device != "auto" else device
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
        self.request = Request(self.trajectory, self.rows, options, self.families)
        self.replay_facts: dict[str, Any] | None = None
        self.scalar_facts: Mapping[str, int] = {}
        self.alignments: dict[str, Alignment] | None = None

    def report(self, out: Path | None, *, fresh: bool = False, interval: float = INTERVAL) -> Report:
        """Compute everything that is not saved yet, and write it."""
        from trajcheck.findings import Findings

        with ReportFolder(out or default_folder(self.run), self.trajectory.id) as folder:
            store = ScalarStore(folder.path / FOLDER, fresh=fresh, interval=interval)
            references = self.resolve(folder.path / FOLDER)
            store.use_vectors(Path(path).name for each in references for path in files_of(each.parameters))
            try:
                measured = self.measure(references, store)
            except Exception:
                store.abandon()
                raise
            except BaseException:  # interrupted: what was found stays
                store.flush()
                raise
            findings = Findings(
                self.run,
                self.options,
                self.families,
                references,
                measured,
                self.replay_facts,
                self.alignments,
                self.scalar_facts,
                self._plane(references),
            )
            report = findings.report(folder)
            store.tidy()
            return report

    def resolve(self, workspace: Path) -> list[Reference]:
        """The references, those of other runs permuted where that was asked for; averages in files in `workspace`."""
        references = resolve_references(self.options.refs, self.trajectory, workspace, self.prints)
        if not self.options.match_permutations:
            return references
        from trajcheck.permuted_references import permute_references

        assert self.options.objective is not None
        references, self.alignments = permute_references(
            references,
            self.trajectory,
            self._objective,
            self.options.objective,
            Workspace(workspace, self.prints),
        )
        return references

    def measure(self, references: Sequence[Reference], store: ScalarStore | None = None) -> list[Measured]:
        """The columns towards some references, of each sample convention; what is not in the store is computed."""
        measurement = self.measurement(references, ScalarStore() if store is None else store)
        self.compute(measurement, measurement.portions)
        scalars, memory = measurement.scalars(), measurement.memory()
        self.scalar_facts, self.replay_facts = facts(measurement), self._replay_facts(measurement)
        return [self._measured(sample, draws, references, memory) for sample, draws in scalars.items()]

    def measurement(self, references: Sequence[Reference], store: ScalarStore) -> Measurement:
        """What is to be measured towards some references, and what of it the store lacks."""
        return Measurement(self.request, references, store, self.identity)

    def compute(self, measurement: Measurement, portions: Sequence[Portion]) -> None:
        """Measure some portions, into the store of the measurement."""
        replays = measurement.replays(self._make_replay, portions)
        words = {STORED: "reading", REPLAYED: "replaying", MEMORY: "memory"}
        for kind, label in words.items():
            mine = [portion for portion in portions if portion.kind == kind]
            if not mine:
                continue
            rows = sum(len(portion.places) for portion in mine)
            size = partial(self._bytes, kind, measurement.references, rows) if kind != MEMORY else None
            with progress_bar(label, rows, self.quiet, size=size) as progress:
                for portion in mine:
                    measurement.compute(portion, replays.get(portion), progress)

    def _bytes(self, kind: str, references: Sequence[Reference], rows: int) -> int:
        """About how many bytes so many rows of one kind of work read."""
        whole = self.cost(references)
        return (whole.stored_bytes if kind == STORED else whole.replay_bytes) * rows // len(self.rows.work)

    @cached_property
    def identity(self) -> Identity:
        """What the scalars' keys stand for."""
        objective = self._objective
        if objective is None:
            return self._files
        from trajcheck.replay import identity_of

        dtype = replay_dtype(self.trajectory, self.options.replay_dtype)
        return replace(self._files, replay=identity_of(objective, dtype, self.options.device, self.request.plan))

    @cached_property
    def _files(self) -> Identity:
        return Identity(self.trajectory, self.prints)

    def _replay_facts(self, measurement: Measurement) -> dict[str, Any] | None:
        """How losses were replayed; None where they were not."""
        objective = self._objective
        if objective is None:
            return None
        from trajcheck.replay import epsilon

        dtype = replay_dtype(self.trajectory, self.options.replay_dtype)
        return {
            **{"dtype": dtype, "device": measurement.devices() or str(objective.device), "epsilon": epsilon(dtype)},
            **({"program": objective.note} if objective.note else {}),
            **{"evaluations": measurement.evaluations, "randomness": measurement.randomness()},
        }

    def prepare_replay(self, references: Sequence[Reference]) -> Any:
        """The replay of all rows towards some references; needs an objective."""
        return self._make_replay(self.rows, references, self.request.plan)

    @property
    def sources(self) -> Mapping[str, str]:
        """The files of the objective's code, with their hashes."""
        return {} if self._objective is None else self._objective.sources

    def content_of(self, steps: Sequence[int]) -> str:
        """What the files of some steps hold, as far as their names, sizes and times tell; nothing is loaded for it."""
        return self._files.of_steps(steps)

    def _make_replay(self, rows: Rows, references: Sequence[Reference], plan: Plan) -> Any:
        from trajcheck.replay import Replay

        dtype = replay_dtype(self.trajectory, self.options.replay_dtype)
        return Replay(self.trajectory, rows, references, self._objective, dtype, plan)

    def _measured(
        self,
        sample: str,
        draws: Sequence[Mapping[int, RowScalars]],
        references: Sequence[Reference],
        memory: Mapping[int, Sequence[Sequence[Cell]]],
    ) -> Measured:
        source = Source(
            self.trajectory,
            self.rows,
            {},
            self.replay_facts["epsilon"] if self.replay_facts else None,
            self.options.ref_gradients,
            self.request.curvature,
            sample,
            self.options.path_integral is not None,
            self.options.smoothing,
            self._averaging(),
            memory,
        )
        return Measured(sample, tuple(replace(source, scalars=rows) for rows in draws), tuple(references))

    def cost(self, references: Sequence[Reference] | None = None) -> Cost:
        """What `report`, or `measure` towards these references, would read and evaluate where nothing is saved yet."""
        if references is None:
            references = resolve_references(self.options.refs, self.trajectory, None)
        return cost(
            self.trajectory,
            self.rows,
            references,
            self.request.plan,
            self.options,
            windows="window_dot_ref" in self.request.reference_products,
            neighbours=bool(self.request.vectors & {"previous", "next", "skip", "first"}),
        )

    def _plane(self, references: Sequence[Reference]) -> Plane | None:
        if self.options.pca is None:
            return None
        from trajcheck.gather_gram import evenly_spaced, gram_bytes
        from trajcheck.plane import find_plane

        count = min(self.options.pca, len(self.rows.rows))
        size = gram_bytes(self.trajectory, evenly_spaced(self.rows, count), references)
        with progress_bar("projecting", count, self.quiet, "iterate", size=lambda: size) as progress:
            return find_plane(self.trajectory, self.rows, references, self.options.pca, progress)

    def _averaging(self) -> Averaging:
        if self.options.convention is None:
            return Averaging()
        epochs = [self.trajectory.snapshots[row.place].epoch for row in self.rows.rows]
        known = [epoch for epoch in epochs if epoch is not None]
        # the closing iterate has none: it is in the epoch of the step before it
        filled = [known[-1] if epoch is None and known else epoch for epoch in epochs]
        return tzc_v1(None if None in filled else np.array(filled))

    @cached_property
    def _objective(self) -> Any:
        """None where there is none. In float64 where symmetries are checked first; the replay converts it."""
        if self.options.objective is None:
            return None
        from trajcheck.objective import load_objective

        dtype = replay_dtype(self.trajectory, self.options.replay_dtype)
        first = "float64" if self.options.match_permutations else dtype
        return load_objective(self.options.objective, run=self.run, device=self.device, dtype=first)


def load_trajectory(run: Path, skip_bad: bool) -> Trajectory:
    """A run that is ready to be walked: headers checked, the end finite, and bad steps left out where asked for."""
    trajectory = cut_at_divergence(open_trajectory(run, skip_bad=skip_bad))
    return trajectory.without(find_bad_steps(trajectory)) if skip_bad else trajectory
