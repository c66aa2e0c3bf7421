"""`trajcheck analyze`, callable from Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trajcheck.commands.analyze.options import AnalyzeArguments
from trajcheck.errors import ObjectiveError
from trajcheck.files.remote.address import as_path
from trajcheck.measuring.measured_columns import ResolvedReferences
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.measuring.options import Options
from trajcheck.options.python_call import takes
from trajcheck.progress_bar import progress_bar
from trajcheck.reports.making.folder import ReportFolder, default_folder
from trajcheck.runs.references import Reference, files_of
from trajcheck.scalars.saved import FOLDER, INTERVAL
from trajcheck.scalars.saved.store import ScalarStore

if TYPE_CHECKING:
    from trajcheck.commands.analyze.findings import Findings
    from trajcheck.commands.analyze.plane import Plane
    from trajcheck.reports.making.results import Report


@takes(AnalyzeArguments)
def analyze(given: AnalyzeArguments) -> Report:
    """Analyze a recorded run against reference points, in one pass, and write the report.

    What is computed is saved in the report folder as it is found (`scalars/`): an analysis that was interrupted goes
    on from there, and one of a run that has grown adds what is missing.

    Raises:
        TrajcheckError: see errors.py; no report has then been written.
    """
    return run_analysis(as_path(given.run), given.options, given.folder, fresh=given.fresh, quiet=given.quiet)


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
    return report_of(MeasuredRun(run, options, quiet, deep=deep), out, fresh=fresh, interval=interval)[0]


def report_of(
    measured: MeasuredRun, out: Path | None, *, fresh: bool = False, interval: float = INTERVAL
) -> tuple[Report, MeasuredRun]:
    """Compute everything that is not saved yet, and write it; the report, and the run as it was measured: without
    losses where its own program, which nobody named, could not be used."""

    with ReportFolder(out or default_folder(measured.path), measured.trajectory.id) as folder:
        store = ScalarStore(folder.path / FOLDER, fresh=fresh, interval=interval, alone=lambda: folder.alone)
        references = measured.resolve(folder.path / FOLDER)
        store.use_vectors(Path(path).name for each in references.points for path in files_of(each.parameters))
        try:
            findings = _found(measured, references, store)
        except Exception:
            store.abandon()
            raise
        except BaseException:  # interrupted: what was found stays
            store.flush()
            raise
        report = replace(findings, plane=_plane(measured, references.points)).report(folder)
        store.tidy()
        return report, findings.run


def _found(measured: MeasuredRun, references: ResolvedReferences, store: ScalarStore) -> Findings:
    """What there is to say of the run, without losses where a program taken by default fails, or is not the training's
    loss."""
    from trajcheck.commands.analyze.findings import Findings

    try:
        findings = Findings(measured, references, measured.measure(references.points, store))
        why = findings.unlike
    except ObjectiveError as error:
        if not measured.choice.by_default:
            raise
        why = str(error)
    if why and measured.choice.by_default:
        plain = measured.without_losses(why)
        return Findings(plain, references, plain.measure(references.points, store))
    return findings


def _plane(measured: MeasuredRun, references: Sequence[Reference]) -> Plane | None:
    if measured.options.pca is None:
        return None
    from trajcheck.commands.analyze.plane import find_plane
    from trajcheck.stream.gram_pass import evenly_spaced, gram_bytes

    count = min(measured.options.pca, len(measured.rows.rows))
    size = gram_bytes(measured.trajectory, evenly_spaced(measured.rows, count), references)
    with progress_bar("projecting", count, measured.quiet, "iterate", size=lambda: size) as progress:
        return find_plane(measured.trajectory, measured.rows, references, measured.options.pca, progress)
