"""The options of a comparison, and the arguments of `compare`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from trajcheck.errors import UsageError
from trajcheck.measuring.options import Options
from trajcheck.objective.common.names import check_data, choice_of
from trajcheck.options import shared
from trajcheck.options.checks import among, between
from trajcheck.options.declared import Declared, Option, part_of
from trajcheck.options.python_call import REST
from trajcheck.runs.logs.log_choice import log_of

#: Which iterates may belong together: scalars/pairs.py has a rule for each.
ALIGNMENTS = ("step", "time", "loss")

#: On which sample the loss along a line may be taken.
LINE_SAMPLES = ("own", "probe", "full")

#: In which mode the model may be there.
LINE_MODES = ("recorded", "train", "eval")

#: Points between the ends of a line, where an objective is given and no other number.
LINE = 9


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions(Declared):
    """What to compare. Their order is that of summary.json and of the page."""

    align: Annotated[
        str,
        Option(
            "Which iterates belong together: step (of equal number), time (of equal tau, the sum of learning rates), "
            "loss (of nearest recorded loss, in the order of both runs).",
            "HOW",
            check=among(ALIGNMENTS, "expected"),
            python='which iterates belong together: those of equal "step"; of equal "time" tau = sum of learning '
            'rates; or of the nearest recorded "loss", in the order of both runs.',
        ),
    ] = "step"
    tolerance: Annotated[
        float | None,
        Option(
            "The largest difference of two taus, or losses, that are matched.  (default: rounding of taus; any of "
            "losses)",
            "X",
            python="the largest |tau_a - tau_b| (by default 1e-9 of the larger, and rounding), or difference of losses "
            "(by default any).",
        ),
    ] = None
    interpolate: Annotated[
        bool,
        Option(
            "With --align time: where RUN_B has no record at a time of RUN_A, the point between the two around it, "
            "marked in its row.",
            python='with "time", where B has no record at the time of A\'s, take the point between the two around it, '
            "and mark it.",
        ),
    ] = False
    objective: Annotated[
        str | None,
        shared.objective(
            "The loss to replay, as for analyze (the file is executed): for gaps, ratios and lines.  (default: run, "
            "where all runs have programs)",
            python='"FILE.py:NAME", "run" or "none", as for `analyze`; for gaps and ratios, and for losses along '
            'lines. "run" is the default where all runs have programs.',
        ),
    ] = None
    line: Annotated[
        int | None,
        Option(
            "Take the loss at N points on the straight line between x_a and x_b, and at both ends; 0: none.  (default: "
            f"{LINE} with an objective)",
            "N",
            check=between(0, 999, "a number of points, 0 (none) to 999"),
            python="at how many points between x_a and x_b the loss is taken, beside both ends; by default "
            f"{LINE} with an objective, and 0 for none.",
        ),
    ] = None
    sample: Annotated[
        str,
        Option(
            "On which z that loss is: own (the batch of RUN_A's record), probe (RUN_A's probe batches, with standard "
            "errors), full (the objective's data set).",
            "NAME",
            check=among(LINE_SAMPLES, "expected"),
            python="on which sample: own (z of A's record), probe (A's probe batches), full (the objective's data "
            "set).",
        ),
    ] = "own"
    mode: Annotated[
        str,
        Option(
            "In which mode the model is on the line: recorded (that of RUN_A's record), train, eval (with batch "
            "statistics that are computed anew at every point).",
            "MODE",
            check=among(LINE_MODES, "expected"),
            after="sample",
            python='in which mode the model is on the line: "recorded" (that of A\'s record), "train", "eval" (with '
            "batch statistics that are computed anew at every point, on the batches of the sample).",
        ),
    ] = "recorded"
    layers: Annotated[
        bool,
        Option(
            "Write layers.csv too: distances and cosines for each tensor.",
            python="also write layers.csv, a row for each pair and tensor.",
        ),
    ] = False
    steps: Annotated[
        str | None,
        Option(
            "Records of RUN_A, as a slice of step numbers; under --align step those of the others too.",
            "A:B:C",
            python='"A:B:C", the rows of run A like a slice of step numbers; with align="step" those of the others '
            "too.",
        ),
    ] = None
    skip_bad: shared.SkipBad = False
    replay_dtype: Annotated[
        str | None,
        Option(
            "float64, float32, bfloat16, or as-is: each tensor in its own.  (default: float64 where it costs little, "
            "for small models; else the runs', float32 at least; "
            "as-is where they have several)",
            "DTYPE",
            replays=True,
            python='float64, float32, bfloat16, or "as-is": each tensor in its own, the default where runs have '
            "several dtypes; else float64 where it costs little, for small models, or the runs' own, float32 at least.",
        ),
    ] = None
    device: Annotated[str, shared.device()] = shared.AUTO
    match_permutations: Annotated[
        bool,
        Option(
            "Put the hidden units of the other runs in the order nearest to RUN_A's; the objective file says which "
            "permute.",
            after="sample",
            replays=True,
            python="put the hidden units of every other run in the order in which its last iterate lies nearest to "
            "that of run A; the objective file says which units permute.",
        ),
    ] = False

    probe: shared.ProbeBatches = None
    data: shared.Data = None
    batch_size: shared.BatchSize = None
    sequence_length: shared.SequenceLength = None
    data_dtype: shared.DataDtype = None
    data_seed: shared.DataSeed = 0
    log: shared.Log = None
    log_step: shared.LogStep = "step"
    log_loss: shared.LogLoss = None
    log_lr: shared.LogLr = ()

    @property
    def points(self) -> int:
        """Points between the ends of a line; 0: no losses along lines."""
        if self.objective is None:
            return 0
        return LINE if self.line is None else self.line

    @property
    def asks_for_losses(self) -> bool:
        """Whether something that is computed of replayed losses alone was named, and an exported program can say it: it
        knows no hidden units, and has one mode."""
        if self.match_permutations or self.mode != "recorded":
            return False
        return bool(self.replaying() or self.line) or self.sample != "own"

    def side(self, *, steps: bool) -> Options:
        """The options of one run's analysis towards the others' last iterates; `steps`: of the same step numbers."""
        return Options(
            objective=self.objective or shared.NONE,
            steps=self.steps if steps else None,
            skip_bad=self.skip_bad,
            replay_dtype=self.replay_dtype,
            device=self.device,
            data=self.data,
            batch_size=self.batch_size,
            sequence_length=self.sequence_length,
            data_dtype=self.data_dtype,
        )

    def check(self) -> None:
        """Raise UsageError for values that make no sense, and for options that contradict each other."""
        if self.tolerance is not None and not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise UsageError(f"--tolerance {self.tolerance}: expected a number, 0 or more.")
        self.check_values()
        check_data(self.objective, choice_of(self), self.sample)
        log_of(self).check(runs=2)
        if self.tolerance is not None and self.align == "step":
            raise UsageError("--tolerance is of times or losses: step numbers are equal or not. Add --align time.")
        if self.interpolate and self.align != "time":
            raise UsageError(f"--interpolate is between times: it needs --align time, not {self.align}.")
        if self.match_permutations:
            shared.check_permutable(self.objective)
        lines = (
            (f"--line {self.line}", bool(self.line)),
            (f"--sample {self.sample}", self.sample != "own"),
            (f"--mode {self.mode}", self.mode != "recorded"),
        )
        shared.check_objective(self, self.objective, *lines)
        for name, value, usual in (("sample", self.sample, "own"), ("mode", self.mode, "recorded")):
            if self.objective is not None and value != usual and not self.points:
                raise UsageError(f"--{name} {value} is that of the losses along the line: it needs --line 1 or more.")


@dataclass(frozen=True)
class TwoRuns:
    run_a: Annotated[str | Path, "folder of a run, which is only read; it is compared with each of the others."]
    run_b: Annotated[str | Path, "folder of another run of the same model."]


@dataclass(frozen=True, kw_only=True)
class CompareArguments(ComparisonOptions, TwoRuns):
    runs: Annotated[Sequence[str | Path], REST, "folders of further ones."] = ()
    out: Annotated[
        str | Path | None,
        shared.out("reports/compare/RUN_A--RUN_B", python="reports/compare/<name of A>--<name of B>--<...>"),
    ] = None
    quiet: Annotated[bool, "no progress bars."] = True

    @property
    def options(self) -> ComparisonOptions:
        return part_of(self, ComparisonOptions)

    @property
    def folder(self) -> Path | None:
        """Of the report, if one was named."""
        return None if self.out is None else Path(self.out)

    @property
    def folders(self) -> list[Path]:
        """Of the runs, A's first."""
        return [Path(run) for run in (self.run_a, self.run_b, *self.runs)]
