"""The options of a comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trajcheck.errors import UsageError
from trajcheck.measuring.options import Options, check_permutable
from trajcheck.scalars.pairs import ALIGNMENTS

#: On which sample the loss along a line may be taken.
LINE_SAMPLES = ("own", "probe", "full")

#: Points between the ends of a line, where an objective is given and no other number.
LINE = 9


@dataclass(frozen=True)
class ComparisonOptions:
    """What to compare; see `compare`."""

    align: str = "step"
    tolerance: float | None = None
    interpolate: bool = False
    objective: str | None = None
    line: int | None = None
    sample: str = "own"
    layers: bool = False
    steps: str | None = None
    skip_bad: bool = False
    replay_dtype: str | None = None
    device: str = "auto"
    match_permutations: bool = False

    @property
    def points(self) -> int:
        """Points between the ends of a line; 0: no losses along lines."""
        if self.objective is None:
            return 0
        return LINE if self.line is None else self.line

    def side(self, *, steps: bool) -> Options:
        """The options of one run's analysis towards the others' last iterates; `steps`: of the same step numbers."""
        return Options(
            objective=self.objective,
            steps=self.steps if steps else None,
            skip_bad=self.skip_bad,
            replay_dtype=self.replay_dtype,
            device=self.device,
        )

    def check(self) -> None:
        """Raise UsageError for options that contradict each other."""
        if self.align not in ALIGNMENTS:
            raise UsageError(f"--align {self.align!r}: expected {', '.join(ALIGNMENTS)}.")
        if self.tolerance is not None and not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise UsageError(f"--tolerance {self.tolerance}: expected a number, 0 or more.")
        if self.tolerance is not None and self.align == "step":
            raise UsageError("--tolerance is of times or losses: step numbers are equal or not. Add --align time.")
        if self.interpolate and self.align != "time":
            raise UsageError(f"--interpolate is between times: it needs --align time, not {self.align}.")
        if self.sample not in LINE_SAMPLES:
            raise UsageError(f"--sample {self.sample!r}: expected {', '.join(LINE_SAMPLES)}.")
        if self.line is not None and not 0 <= self.line <= 999:
            raise UsageError(f"--line {self.line}: expected a number of points, 0 (none) to 999.")
        if self.match_permutations:
            check_permutable(self.objective)
        if self.objective is None:
            for option, given in (
                (f"--line {self.line}", bool(self.line)),
                (f"--sample {self.sample}", self.sample != "own"),
                ("--replay-dtype", self.replay_dtype is not None),
                ("--match-permutations", self.match_permutations),
            ):
                if given:
                    raise UsageError(f"{option} needs --objective FILE.py:NAME: without it nothing is replayed.")
        elif self.sample != "own" and not self.points:
            raise UsageError(f"--sample {self.sample} is that of the losses along the line: it needs --line 1 or more.")
