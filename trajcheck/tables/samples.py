"""The tables on one kind of sample: of one sample a row, or means over probe batches with their standard errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trajcheck.metrics.columns import Column, lift
from trajcheck.metrics.convexity import DEN_RESOLUTION, convexity_ratio
from trajcheck.metrics.uncertainty import jackknife_error, mean_over_batches, standard_error
from trajcheck.runs.references import Reference
from trajcheck.tables.references import reference_columns
from trajcheck.tables.source import Source
from trajcheck.tables.steps import step_columns

#: Columns that no sample enters.
SAMPLE_FREE = frozenset(
    (
        *("prev_step", "stride", "weight", "tau", "lr", "param_norm", "step_norm", "init_dist", "path_length"),
        *("update_cos", "ref_dist", "update_dot_ref", "stability_threshold", "numel"),
    )
)
#: Bounds on rounding: their means over batches have no error worth a column.
RESOLUTIONS = frozenset(("gap_resolution", DEN_RESOLUTION))
SE = "_se"


@dataclass(frozen=True)
class Measured:
    """What was measured under one sample convention: a source for each of its samples of a row.

    `decorate` adds columns to those of the two tables.
    """

    sample: str
    sources: tuple[Source, ...]
    references: tuple[Reference, ...]
    decorate: Callable[[Source, Mapping[str, Column]], dict[str, Column]] = lambda source, columns: dict(columns)

    @cached_property
    def own(self) -> dict[str, Column]:
        """The columns of steps.csv."""
        return self._joined([self.decorate(source, step_columns(source)) for source in self.sources])

    @cached_property
    def towards(self) -> dict[str, dict[str, Column]]:
        """Those of references.csv, by the reference as it was given."""
        return {reference.spec: self._joined(self.each_towards[reference.spec]) for reference in self.references}

    @cached_property
    def each_towards(self) -> dict[str, list[dict[str, Column]]]:
        """Those of references.csv on each sample by itself."""
        return {
            reference.spec: [
                self.decorate(source, reference_columns(source, number, reference)) for source in self.sources
            ]
            for number, reference in enumerate(self.references)
        }

    def _joined(self, each: Sequence[Mapping[str, Column]]) -> dict[str, Column]:
        return over_batches(each) if self.sample == "probe" else dict(each[0])


def over_batches(each: Sequence[Mapping[str, Column]]) -> dict[str, Column]:
    """Columns over probe batches: the mean, and beside it `<name>_se`.

    The convexity ratio alone is the ratio of the means of its num and den, with a jackknife error; it is undefined
    where |den| is not above its resolution and its own standard error.
    """
    result: dict[str, Column] = {}
    for name in each[0]:
        batches = [columns[name] for columns in each]
        if name in SAMPLE_FREE:
            result[name] = batches[0]
            continue
        result[name] = mean_over_batches(batches)
        if name not in RESOLUTIONS:
            result[name + SE] = standard_error(batches)
    if "convexity_ratio" in result:
        den_mean, error = result["convexity_den"], result["convexity_den" + SE]
        ratio = convexity_ratio(result["convexity_num"], den_mean, result[DEN_RESOLUTION])
        ratio = ratio.except_where(np.abs(den_mean.values) <= error.values, "the denominator is within its error")
        num, den = ([columns[f"convexity_{part}"] for columns in each] for part in ("num", "den"))
        result["convexity_ratio"] = ratio
        result["convexity_ratio" + SE] = lift(lambda _, spread: spread, ratio, jackknife_error(num, den))
    return result
