"""`trajcheck analyze`, callable from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trajcheck.measuring.cost import Cost
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.measuring.options import Options
from trajcheck.progress_bar import progress_bar
from trajcheck.reports.making.folder import ReportFolder, default_folder
from trajcheck.runs.references import Reference, files_of
from trajcheck.scalars.saved import FOLDER, INTERVAL
from trajcheck.scalars.saved.store import ScalarStore

if TYPE_CHECKING:
    from trajcheck.commands.analyze.plane import Plane
    from trajcheck.reports.making.results import Report


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
    return report_of(MeasuredRun(run, options, quiet, deep=deep), out, fresh=fresh, interval=interval)


def estimate(run: Path, options: Options) -> Cost:
    """What an analysis would read and evaluate.

    Reads headers, the end of the run (to see whether it is finite), and files given as references; writes nothing, and
    does not load the objective. Raises as `analyze` does.
    """
    return MeasuredRun(run, options, quiet=True).cost()


def report_of(measured: MeasuredRun, out: Path | None, *, fresh: bool = False, interval: float = INTERVAL) -> Report:
    """Compute everything that is not saved yet, and write it."""
    from trajcheck.commands.analyze.findings import Findings

    with ReportFolder(out or default_folder(measured.run), measured.trajectory.id) as folder:
        store = ScalarStore(folder.path / FOLDER, fresh=fresh, interval=interval)
        references = measured.resolve(folder.path / FOLDER)
        store.use_vectors(Path(path).name for each in references for path in files_of(each.parameters))
        try:
            found = measured.measure(references, store)
        except Exception:
            store.abandon()
            raise
        except BaseException:  # interrupted: what was found stays
            store.flush()
            raise
        findings = Findings(
            measured.run,
            measured.options,
            measured.families,
            references,
            found,
            measured.replay_facts,
            measured.alignments,
            measured.scalar_facts,
            _plane(measured, references),
        )
        report = findings.report(folder)
        store.tidy()
        return report


def _plane(measured: MeasuredRun, references: Sequence[Reference]) -> Plane | None:
    if measured.options.pca is None:
        return None
    from trajcheck.commands.analyze.plane import find_plane
    from trajcheck.stream.gram_pass import evenly_spaced, gram_bytes

    count = min(measured.options.pca, len(measured.rows.rows))
    size = gram_bytes(measured.trajectory, evenly_spaced(measured.rows, count), references)
    with progress_bar("projecting", count, measured.quiet, "iterate", size=lambda: size) as progress:
        return find_plane(measured.trajectory, measured.rows, references, measured.options.pca, progress)
