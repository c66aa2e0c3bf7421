"""One of the runs that run A is compared with, stage by stage: each is made of the one before, and knows more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trajcheck.permutations.permuted_references import Matching
from trajcheck.permutations.weight_matching import Matched
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.pairs import Pair, Pairing
from trajcheck.scalars.values import PairScalars
from trajcheck.tables.comparison import Line, Side


@dataclass(frozen=True)
class PairedRun:
    """Which of its records belong to which of A's, from headers alone."""

    run: Trajectory
    pairing: Pairing
    no_update: Sequence[str]  # why a pair has no two updates; '' where it has
    one_init: bool | None  # whether the first iterates are the same numbers; None where one of them is not of step 0

    @property
    def path(self) -> str:
        return str(self.run.path)

    @property
    def pairs(self) -> Sequence[Pair]:
        return self.pairing.pairs

    @property
    def chords(self) -> list[bool]:
        return [not reason for reason in self.no_update]


@dataclass(frozen=True)
class OrderedRun(PairedRun):
    """The order of its hidden units in which it lies nearest to A, and how that was found; None where its own is
    kept."""

    matched: Matched | None
    matching: Matching | None


@dataclass(frozen=True)
class ComparedRun(OrderedRun):
    """What its pairs with A's records gave: inner products, the columns of either run towards the other's last iterate,
    and the losses on the lines between them, where they were asked for."""

    scalars: Sequence[PairScalars]
    side_a: Side
    side_b: Side
    line: Line | None
