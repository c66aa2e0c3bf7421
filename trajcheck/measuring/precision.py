"""In which precision a run is replayed, and why: as asked; else in float64 where that costs little; else in its own.

It costs little where the model has at most 1,000,000 parameters, frozen ones included, and one loss with its gradient
takes at most 2 * 10^9 floating-point operations, some tenths of a second of one processor. They are counted, not timed,
on the first sample of the run, so that one machine decides as another, and an analysis that goes on as the one before;
only on a GPU that is not known to be fast in float64 it keeps its own precision, whatever its size.
A loss that float64 makes another one, or that fails there, keeps its own precision, and so does a run whose parameters
have several.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trajcheck.errors import ObjectiveError
from trajcheck.objective.dtype_names import AS_IS
from trajcheck.replay.plan import replay_dtype
from trajcheck.replay.two_precisions.trial_reads import TrialReads, trial_reads
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.rows import Row

if TYPE_CHECKING:
    from trajcheck.replay.two_precisions.trial import Trial

#: Parameters, and floating-point operations of a loss with its gradient, up to which float64 costs little.
PARAMETERS, OPERATIONS = 10**6, 2 * 10**9

WIDE = "float64"


@dataclass(frozen=True)
class ReplayPrecision:
    """The dtype of a replay by name, and why it is that one, in place of `own`. `trial`: what is read to try whether it
    can be that one; None where that needs no trial."""

    dtype: str
    why: str
    own: str
    trial: TrialReads | None = None

    @property
    def evaluations(self) -> int:
        """Losses with gradients that the trial takes, one in either dtype."""
        return 0 if self.trial is None else 2


def expected_precision(
    trajectory: Trajectory, rows: Sequence[Row], asked: str | None, samples: Collection[str]
) -> ReplayPrecision:
    """What is known from headers alone."""
    own = replay_dtype(trajectory, None)
    if asked is not None:
        return ReplayPrecision(asked, "as asked by --replay-dtype", asked)
    if own == AS_IS:
        return ReplayPrecision(own, "the run's parameters are of several dtypes, and each keeps its own", own)
    if own == WIDE:
        return ReplayPrecision(own, "the run's own", own)
    count = trajectory.numel + sum(math.prod(each.shape) for each in trajectory.snapshots[0].frozen.values())
    if count > PARAMETERS:
        why = f"the model has {count:,} parameters; up to {PARAMETERS:,} it would be {WIDE}"
        return ReplayPrecision(own, why, own)
    reads = trial_reads(trajectory, rows, samples)
    if reads is None:
        return ReplayPrecision(own, "no row has a sample of its own or a probe batch to try float64 on", own)
    return ReplayPrecision(WIDE, f"it costs little at {count:,} parameters", own, reads)


def tried(expected: ReplayPrecision, trial: Callable[[TrialReads, str, str], Trial], slow: str = "") -> ReplayPrecision:
    """After a `trial` of the two dtypes, own and wider; `slow` says why the wider one is slow on the device, or ''."""
    if expected.trial is None:
        return expected
    if slow:
        return ReplayPrecision(expected.own, slow, expected.own)
    own = replace(expected, dtype=expected.own)
    try:
        found = trial(expected.trial, expected.own, expected.dtype)
    except ObjectiveError:  # the replay itself says what fails, and where
        return replace(own, why=f"the loss fails in {expected.own} already")
    if found.differs:
        return replace(own, why=f"not float64: {found.differs}")
    if found.operations > OPERATIONS:
        more = f"one loss with its gradient takes {found.operations:.2g} operations; up to {OPERATIONS:.0g} it would be"
        return replace(own, why=f"{more} {WIDE}")
    return expected
