"""What measuring a run comes to: columns on each sample, and how they were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from trajcheck.runs.references import Reference
from trajcheck.tables.averages import Averaged
from trajcheck.tables.samples import Measured

if TYPE_CHECKING:
    from trajcheck.permutations.permuted_references import Matching


@dataclass(frozen=True)
class ResolvedReferences:
    """The points that were asked for, and by their names how the units of those from elsewhere were put in order; None
    where that was not asked for."""

    points: Sequence[Reference]
    matchings: Mapping[str, Matching] | None = None


@dataclass(frozen=True)
class SecondFacts:
    """The second precision, on how many rows rounding was measured with it, and why on some it was not, or ''."""

    dtype: str
    rows: int
    failed: str


@dataclass(frozen=True)
class ReplayFacts:
    """How losses were replayed: in `dtype`, and `why` in that; `epsilon` is the dtype's, `randomness` on how many steps
    the draws of the step's own sample came from where, `program` a note on the objective, and `data_set` how its
    batches weigh, where there are any. `modes`: in which modes how many steps were replayed, where that is known;
    `doubts`: buffers that were not those of their step or reference, in sentences. `second`: how rounding was measured;
    None where it is that of float64, or nothing needs it. `data`: on which data, and which batches were drawn from it.
    """

    dtype: str
    why: str
    device: str
    epsilon: float
    program: str | None
    evaluations: int
    randomness: Mapping[str, int]
    data_set: str | None = None
    modes: Mapping[str, int] = field(default_factory=dict)
    doubts: Sequence[str] = ()
    second: SecondFacts | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def in_summary(self) -> dict[str, Any]:
        optional = ("program", "data_set", "modes", "doubts", "second", "data")
        return {name: value for name, value in asdict(self).items() if name not in optional or value}


@dataclass(frozen=True)
class RowCounts:
    """Of how many rows scalars were computed, and on how many all had been saved by an earlier call."""

    computed: int
    reused: int


@dataclass(frozen=True)
class MeasuredColumns:
    """`samples` hold what each sample convention gave, in the order of the tables; `replay` is None where nothing was
    replayed. `averages`: what --average asked for."""

    samples: Sequence[Measured]
    replay: ReplayFacts | None
    rows: RowCounts
    averages: Sequence[Averaged] = ()
