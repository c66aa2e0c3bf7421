"""One of the runs that run a is compared with, and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trajcheck.permutations.weight_matching import Relabelling
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.pairs import Alignment
from trajcheck.scalars.values import PairScalars
from trajcheck.tables.comparison import Line, Side


@dataclass(frozen=True)
class Other:
    """One run that is compared with A: how its records are matched, and what the weights of the pairs give."""

    run: Trajectory
    alignment: Alignment
    no_update: Sequence[str]  # why a pair has no two updates; '' where it has
    one_init: bool | None  # whether the first iterates are the same numbers; None where one of them is not of step 0
    relabelling: Relabelling | None = None
    scalars: Sequence[PairScalars] = ()
    side_a: Side | None = None
    side_b: Side | None = None
    line: Line | None = None

    @property
    def chords(self) -> list[bool]:
        return [not reason for reason in self.no_update]
