"""`trajcheck compare`, callable from Python: the first run against each of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trajcheck.commands.compare.options import CompareArguments, ComparisonOptions
from trajcheck.commands.compare.sides import last_iterate, measure_sides
from trajcheck.commands.compare.stages import ComparedRun, OrderedRun, PairedRun
from trajcheck.errors import ObjectiveError, RunError, UsageError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.kept_vectors import Workspace
from trajcheck.files.prints import FilePrints
from trajcheck.measuring.cost import Cost, extent_bytes
from trajcheck.measuring.measured_run import MeasuredRun, check_batches
from trajcheck.measuring.precision import ReplayPrecision, expected_precision, tried
from trajcheck.measuring.which_objective import Choice, choose, say_beforehand
from trajcheck.objective.common.names import choice_of, common_objective
from trajcheck.objective.dtype_names import AS_IS
from trajcheck.objective.exported_modes import EXPORTED, with_program
from trajcheck.options.python_call import takes_more
from trajcheck.progress_bar import progress_bar
from trajcheck.replay.plan import replay_dtype, rows_twice, second_dtype
from trajcheck.reports.making.folder import ReportFolder, name_of
from trajcheck.runs.divergence import load_trajectory
from trajcheck.runs.independence.nearness import equal_points
from trajcheck.runs.logs.log_choice import log_of
from trajcheck.runs.references import Reference
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.pairs import pair_up
from trajcheck.scalars.rows import choose_rows, evenly, parse_steps
from trajcheck.scalars.values import PairScalars
from trajcheck.stream.pair_pass import gather_pairs, pass_bytes, same_model
from trajcheck.tables.comparison import SIDE, Line, no_updates

if TYPE_CHECKING:
    from trajcheck.commands.compare.straight_line import StraightLine
    from trajcheck.reports.making.results import Comparison


@takes_more(CompareArguments)
def compare(given: CompareArguments) -> Comparison:
    """Compare a recorded run with one or several others of the same model, pair by pair of iterates, and write the
    report.

    Raises:
        TrajcheckError: see errors.py; nothing has then been written.
    """
    return run_comparison(given.folders, given.options, given.folder, quiet=given.quiet)


def run_comparison(
    runs: Sequence[Path],
    options: ComparisonOptions,
    out: Path | None = None,
    *,
    quiet: bool = True,
) -> Comparison:
    """`compare`, with its options in one object."""
    return _Comparison(runs, options, quiet).report(out)


def estimate_comparison(runs: Sequence[Path], options: ComparisonOptions) -> Cost:
    """What a comparison would read and evaluate; writes nothing, and does not load the objective."""
    return _Comparison(runs, options, quiet=True).cost()


def default_comparison_folder(runs: Sequence[Path]) -> Path:
    """reports/compare/<the runs' names, joined by -->."""
    return Path("reports") / "compare" / "--".join(map(name_of, runs))


class _Comparison:
    """One comparison on its way from folders to a report."""

    def __init__(
        self, runs: Sequence[Path], options: ComparisonOptions, quiet: bool, choice: Choice | None = None
    ) -> None:
        own = not options.match_permutations and options.mode == "recorded"
        self.choice = choice or choose(
            options.objective, [Path(run) for run in runs], asked=options.asks_for_losses, wanted=own
        )
        replace(options, objective=self.choice.objective or options.objective).check()
        self._given = runs, options
        self.options = options = replace(options, objective=self.choice.objective)
        self.quiet = quiet
        steps = parse_steps(options.steps)
        if len(runs) < 2:
            raise UsageError("one run was given; a comparison needs two or more.")
        first, *others = runs
        self.runs = [first, *dict.fromkeys(others)]
        self.a = load_trajectory(first, options.skip_bad, log_of(options)).with_drawn_probes(options.probe)
        if options.objective == EXPORTED:
            self.a = with_program(self.a)
        if options.sample == "probe" and not self.a.probes:
            raise RunError(
                f"{first}: no probe batches were stored with this run (probe-000.safetensors); expected for --sample "
                "probe. Recorder.probe(batches) stores them, and --probe N draws some of the objective's data."
            )
        if options.points and options.sample == "own" and common_objective(options.objective):
            check_batches(self.a)
        self.all_a = choose_rows(self.a, slice(0, None, 1))
        self.places_a = [row.place for row in choose_rows(self.a, steps).rows]
        self.others = [self._paired(path, steps) for path in self.runs[1:]]

    def _paired(self, path: Path, steps: slice) -> PairedRun:
        b = load_trajectory(path, self.options.skip_bad, log_of(self.options))
        same_model(self.a, b)
        everything = choose_rows(b, slice(0, None, 1))
        rows = choose_rows(b, steps) if self.options.align == "step" else everything
        pairing = pair_up(
            self.a,
            b,
            self.options.align,
            self.places_a,
            [row.place for row in rows.rows],
            tolerance=self.options.tolerance,
            interpolate=self.options.interpolate,
        )
        one_init = None
        if self.a.steps[0] == b.steps[0] == 0:
            with ExtentReader() as reader:
                one, other = self.a.snapshots[0].parameters, b.snapshots[0].parameters
                one_init = equal_points(reader, one, other, self.a.shapes)
        return PairedRun(b, pairing, no_updates(self.a, b, self.all_a, everything, pairing.pairs), one_init)

    @cached_property
    def id(self) -> str:
        return "--".join([self.a.id, *(other.run.id for other in self.others)])

    def report(self, out: Path | None) -> Comparison:
        """Compute everything and write it; without losses where programs that nobody named cannot be used."""
        try:
            return self._report(out)
        except ObjectiveError as error:
            if not self.choice.by_default:
                raise
            return _Comparison(*self._given, self.quiet, self.choice.without(str(error)))._report(out)

    def _report(self, out: Path | None) -> Comparison:
        """Compute everything and write it."""
        from trajcheck.commands.compare.findings import ComparisonFindings

        with ReportFolder(out or default_comparison_folder(self.runs), self.id) as folder:
            line = self._prepare_line()  # first of all, since the objective may not fit
            ordered = [self._ordered(each) for each in self.others]
            sides = measure_sides(self.a, ordered, self._side, Workspace(folder.workspace, FilePrints()))
            scalars = [self._scalars(each) for each in ordered]
            lines = [None if line is None else self._along(line, each) for each in ordered]
            compared = [
                ComparedRun(**vars(each), scalars=of_pairs, side_a=side_a, side_b=side_b, line=along)
                for each, of_pairs, (side_a, side_b), along in zip(ordered, scalars, sides.pairs, lines, strict=True)
            ]
            facts = None if line is None else line.facts
            return ComparisonFindings(
                self.id, self.options, self.a, self.all_a, compared, sides.columns, facts, self.choice
            ).report(folder)

    def _ordered(self, other: PairedRun) -> OrderedRun:
        """With the order of B's units in which its last iterate lies nearest to A's, checked to leave the loss as it
        is, where that was asked for."""
        if not self.options.match_permutations:
            return OrderedRun(**vars(other), matched=None, matching=None)
        from trajcheck.objective.loading import load_objective
        from trajcheck.permutations.permuted_references import match_runs

        spec = self.options.objective
        assert spec is not None
        objective = load_objective(
            spec,
            run=self.a.path,
            device=self.options.device,
            dtype="float64",
            trajectory=self.a,
            choice=choice_of(self.options),
        )
        matched, matching = match_runs(self.a, other.run, objective, spec)
        return OrderedRun(**vars(other), matched=matched, matching=matching)

    def cost(self) -> Cost:
        """What `report` would read and evaluate: everything but the comparison of the inits."""
        parts = [self._side_cost(self.a, [last_iterate(each.run) for each in self.others])]
        for each in self.others:
            parts += [self._side_cost(each.run, [last_iterate(self.a)]), self._own_cost(each)]
        probes = self.a.probes if self.options.sample == "probe" else ()
        return Cost(
            rows=sum(len(each.pairs) for each in self.others),
            stored_bytes=sum(part.stored_bytes for part in parts),
            replay_bytes=sum(part.replay_bytes for part in parts) + extent_bytes(*(probe.batch for probe in probes)),
            losses=sum(part.losses for part in parts),
            gradients=sum(part.gradients for part in parts),
            full=self.options.sample == "full",
            replayed=self.choice.in_words,
        )

    def _side_cost(self, run: Trajectory, references: Sequence[Reference]) -> Cost:
        """Of one run towards the others' ends, in the precision that headers let expect."""
        side = self._side(run)
        return side.cost(references, precision=side.expected_precision)

    def _own_cost(self, other: PairedRun) -> Cost:
        """Of the pass over pairs, and the losses along lines, but for probe batches, which are read once."""
        pairs = other.pairs
        read = pass_bytes(self.a, other.run, pairs, other.chords)
        lines = [pair for pair, why in zip(pairs, self._no_line(other), strict=True) if not why]
        if not self.options.points:
            return Cost(len(pairs), read, 0, 0, 0)
        probes = self.a.probes if self.options.sample == "probe" else ()
        losses = len(lines) * (sum(probe.batches for probe in probes) or 1) * (self.options.points + 2)
        losses += losses // max(len(lines), 1) * self._twice(len(lines))
        losses *= 2 if self.options.mode == "eval" else 1  # each point once more, for its batch statistics
        bytes_read = 0
        for pair in [*lines, *evenly(lines, self._twice(len(lines)))]:
            snapshot = self.a.snapshots[pair.place_a]
            for each in (snapshot, *(other.run.snapshots[place] for place in pair.near_b)):
                bytes_read += extent_bytes({**dict(each.frozen), **dict(each.parameters)}, each.buffers)
            if self.options.sample == "own":
                source = self.a.batch_source(snapshot)
                bytes_read += extent_bytes(source.batch if source else {}, snapshot.generators)
        return Cost(len(pairs), read, bytes_read, losses, 0)

    def _twice(self, lines: int) -> int:
        """On how many lines losses are taken in a second precision too."""
        dtype = self._line_precision.dtype
        return min(lines, rows_twice(dtype)) if second_dtype(self.a, dtype) else 0

    # -- each run towards the others' last iterates -------------------------------------------------------------------

    def _side(self, run: Trajectory) -> MeasuredRun:
        same_steps = run is self.a or self.options.align == "step"
        options = self.options.side(steps=same_steps)
        return MeasuredRun(run.path, options, self.quiet, trajectory=run, families={"comparison": SIDE})

    # -- the pairs ----------------------------------------------------------------------------------------------------

    def _scalars(self, other: OrderedRun) -> list[PairScalars]:
        pairs = other.pairs
        size = partial(pass_bytes, self.a, other.run, pairs, other.chords)
        with progress_bar("comparing", len(pairs), self.quiet, "pair", size=size) as progress:
            return list(
                gather_pairs(
                    self.a,
                    other.run,
                    pairs,
                    other.chords,
                    by_tensor=self.options.layers,
                    reorder=other.matched.permute if other.matched else None,
                    progress=progress,
                )
            )

    def _prepare_line(self) -> StraightLine | None:
        """The losses along lines, checked against the run; None where nobody asked for them."""
        if not self.options.points:
            return None
        from trajcheck.commands.compare.straight_line import StraightLine
        from trajcheck.objective.devices import slow_in_double
        from trajcheck.objective.loading import load_objective
        from trajcheck.replay.two_precisions.trial import trial

        expected = self._line_precision
        assert self.options.objective is not None
        objective = load_objective(
            self.options.objective,
            run=self.a.path,
            device=self.options.device,
            dtype=expected.own,
            trajectory=self.a,
            choice=choice_of(self.options),
        )
        if self.choice.by_default:
            say_beforehand(self.a.path, self.cost(), objective.seconds, self.quiet)
        precision = tried(expected, partial(trial, objective, self.a), slow_in_double(objective.device))
        return StraightLine(
            self.a, objective, precision, self.options.sample, self.options.points, mode=self.options.mode
        )

    @cached_property
    def _line_precision(self) -> ReplayPrecision:
        """One for all runs, as far as headers tell: one that has several dtypes, or float64, has its own."""
        asked = self.options.replay_dtype
        expected = expected_precision(self.a, self.all_a.rows, asked, (self.options.sample,))
        own = {replay_dtype(each.run, asked) for each in self.others}
        widest = next((name for name in (AS_IS, "float64") if name in own), expected.dtype)
        if asked is not None or widest == expected.dtype:
            return expected
        return ReplayPrecision(widest, "that of another run", widest)

    def _along(self, line: StraightLine, other: OrderedRun) -> Line:
        pairs, missing = other.pairs, self._no_line(other)
        found = np.empty((len(pairs), line.draws, len(line.s)))
        with progress_bar("lines", len(pairs), self.quiet) as progress:
            for number, losses in enumerate(line.losses(other.run, pairs, missing, other.matched)):
                found[number] = losses
                progress(1)
        second = line.in_second(other.run, pairs, missing, other.matched)
        return Line(found, missing, line.s, line.rounding, self.options.sample == "probe", second)

    def _no_line(self, other: PairedRun) -> list[str]:
        """Why a pair has no sample for its line; '' where it has."""
        rows = self.all_a.rows
        unsure = [[other.run.snapshots[place].unsure for place in pair.near_b] for pair in other.pairs]
        return [
            rows[pair.place_a].no_sample_of(self.options.sample) or next(filter(None, reasons), "")
            for pair, reasons in zip(other.pairs, unsure, strict=True)
        ]
