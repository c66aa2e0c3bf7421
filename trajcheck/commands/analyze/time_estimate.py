"""How long an analysis would take, from a short part of it that is really done: `--dry-run`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from trajcheck.errors import ObjectiveError
from trajcheck.measuring.cost import Cost
from trajcheck.measuring.hessian_products import OF_ANALYSIS, WORTH
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.measuring.options import Options
from trajcheck.readable import time_text
from trajcheck.runs.references import Reference, resolve_references
from trajcheck.scalars.values import RowScalars
from trajcheck.stream.row_pass import gather
from trajcheck.tables.needed import needed

Clock = Callable[[], float]

#: Seconds after which the pass, and the replay, have been watched long enough.
PASS, REPLAY = 1.0, 4.0

#: Parts of what was watched whose paces are compared.
PARTS = 3

#: How many times as long an evaluation in the second precision takes, at most, as a rule.
SLOWER = 2.0


class Mark(NamedTuple):
    """At `time` so many rows' worth of work was done."""

    time: float
    done: float


class Span(NamedTuple):
    """Seconds: from the fastest and the slowest part of what was measured, for the whole."""

    low: float
    high: float

    def __str__(self) -> str:
        low, high = time_text(self.low), time_text(self.high)
        return low if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class Estimate:
    """What an analysis costs, and how long its parts would take; None for those that there are not."""

    cost: Cost
    reading: Span
    replaying: Span | None
    curvature: Span | None

    def __str__(self) -> str:
        lines = [str(self.cost), f"time       pass: {self.reading}, as fast as the files could be read just now"]
        if self.replaying is not None:
            lines.append(f"           replay: {self.replaying}, measured on its first rows")
        if self.curvature is not None:
            lines.append(f"           Hessians: {self.curvature}, not measured: as many products")
        return "\n".join(lines)


def estimate_time(run: Path, options: Options, clock: Clock = time.perf_counter) -> Estimate:
    """What an analysis would read and evaluate, and how long it would take.

    Reads recorded vectors for about a second. An objective that is given is loaded, which executes its file, and some
    rows are replayed for a few seconds; the time of Hessians is inferred from that. Writes nothing. The passes of
    --memory-lags and --pca are counted in bytes alone. Raises as `analyze` does.
    """
    whole = MeasuredRun(run, options, quiet=True)
    try:
        return _estimate(whole, clock)
    except ObjectiveError as error:
        if not whole.choice.by_default:
            raise
        return _estimate(whole.without_losses(str(error)), clock)


def _estimate(whole: MeasuredRun, clock: Clock) -> Estimate:
    run, options, choice = whole.path, whole.options, whole.choice
    plain = replace(options, curvature=None)
    analysis = MeasuredRun(run, plain, quiet=True, trajectory=whole.trajectory, choice=choice)
    references = resolve_references(options.refs, analysis.trajectory, None, roles=options.roles)
    precision = None if options.objective is None else analysis.precision
    counted = whole.cost(references, precision=precision)
    rows = len(analysis.rows.work)
    reading = span(_watch(lambda progress: _pass(analysis, references, progress), PASS, clock), rows)
    if options.objective is None:
        return Estimate(counted, reading, None, None)
    replay = analysis.prepare_replay(references)
    replayed = span(_watch(replay.rows, REPLAY, clock), rows)
    again = counted.second[2] if counted.second else 0
    evaluations = max(1, counted.losses + counted.gradients - again)
    products = OF_ANALYSIS[options.curvature_ends]
    worth = [counted.hessians * count * each / evaluations for count, each in zip(products, WORTH, strict=True)]
    curvature = Span(replayed.low * worth[0], replayed.high * worth[1]) if counted.hessians else None
    twice = again / evaluations
    replayed = Span(replayed.low * (1 + twice), replayed.high * (1 + SLOWER * twice))
    return Estimate(counted, reading, replayed, curvature)


def span(marks: Sequence[Mark], total: float) -> Span:
    """How long `total` rows take, from marks the first of which is the beginning: at the fastest and at the slowest of
    up to three parts. The first stretch, in which all is opened and warmed up, is left out where three others are."""
    marks = marks[1:] if len(marks) > 4 else marks
    borders = [round(i * (len(marks) - 1) / PARTS) for i in range(PARTS + 1)]
    parts = [(marks[a], marks[b]) for a, b in pairwise(borders) if b > a]
    paces = [(b.time - a.time) / (b.done - a.done) for a, b in parts]
    return Span(total * min(paces), total * max(paces))


class _Enough(Exception):
    """It has been watched for long enough."""


def _watch(work: Callable[[Callable[[float], object]], Iterable[object]], seconds: float, clock: Clock) -> list[Mark]:
    """Do some work for so long, or to its end; when how much of it was done."""
    marks = [Mark(clock(), 0.0)]

    def progress(done: float) -> None:
        marks.append(Mark(clock(), marks[-1].done + done))
        if marks[-1].time - marks[0].time > seconds:
            raise _Enough

    with suppress(_Enough):
        deque(work(progress), maxlen=0)
    return marks


def _pass(
    analysis: MeasuredRun, references: Sequence[Reference], progress: Callable[[float], object]
) -> Iterator[RowScalars]:
    """The pass over recorded vectors, with the products that the families need."""
    replayed = analysis.options.objective is not None
    products = needed(analysis.families.values(), without=("path_integral", "allocate"))
    return gather(
        analysis.trajectory,
        analysis.rows,
        references,
        list(products.step_products),
        list(products.reference_products),
        replayed=[row.step for row in analysis.rows.work if replayed and not row.no_sample],
        threads=analysis.options.threads,
        progress=progress,
    )
