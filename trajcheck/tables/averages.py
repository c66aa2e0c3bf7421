"""The columns of averages.csv: one average on one sample convention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trajcheck.metrics.columns import Column, column
from trajcheck.metrics.quantity import AVERAGES
from trajcheck.metrics.resolution import Rounding
from trajcheck.scalars.averages import Average
from trajcheck.scalars.rows import Rows
from trajcheck.tables.evaluated import Evaluated
from trajcheck.tables.samples import over_batches
from trajcheck.tables.source import NOT_FINITE

NOT_TWICE = "not evaluated in the second precision"
NO_ROW = "an iterate of the average is on no row of the report, or has no loss there"

#: f(x_t; z) and f(avg_t; z); None where one is not finite.
Pair = tuple[float | None, float | None]


@dataclass(frozen=True)
class Averaged:
    """`draws` are the losses on each sample of the convention by place, `second` those in the second precision; `why`
    says by place why there are none at all. `steps` are those of all records."""

    average: Average
    sample: str
    rows: Rows
    steps: Sequence[int]
    draws: Sequence[Mapping[int, Pair]]
    second: Sequence[Mapping[int, Pair]]
    why: Mapping[int, str]
    rounding: Rounding

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Those of the table: means over probe batches with their errors."""
        return over_batches(AVERAGES, self.each) if self.sample == "probe" else dict(self.each[0])

    @cached_property
    def each(self) -> list[dict[str, Column]]:
        """The columns on each sample by itself."""
        return [self._of(*each) for each in zip(self.draws, self.second, strict=True)]

    def _of(self, losses: Mapping[int, Pair], second: Mapping[int, Pair]) -> dict[str, Column]:
        places = [row.place for row in self.rows.rows]
        reasons = [self.why.get(place, "") for place in places]
        few = [self.average.missing(place) for place in places]

        def of(pairs: Mapping[int, Pair], which: int, missing: str, *why: list[str]) -> Column:
            values = [pairs[place][which] if place in pairs else None for place in places]
            return column(values, *why, ["" if value is not None else missing for value in values])

        at_x = of(losses, 0, NOT_FINITE, reasons)
        operands = {
            "loss_at_x": at_x,
            "loss_at_average": of(losses, 1, NOT_FINITE, reasons, few),
            "second_loss_at_x": of(second, 0, NOT_TWICE),
            "second_loss_at_average": of(second, 1, NOT_TWICE),
            "averaged_losses": self._mean_losses(losses).along(at_x),
            "rounding": self.rounding,
        }
        return Evaluated(AVERAGES, operands.__getitem__).columns(())

    def _mean_losses(self, losses: Mapping[int, Pair]) -> Column:
        """sum_s w_s f(x_s; z) over the iterates that the average is of."""
        known = np.full(len(self.steps), np.nan)
        for place, (at_x, _) in losses.items():
            known[place] = np.nan if at_x is None else at_x
        found, total, count = np.full(len(known), np.nan), 0.0, self.average.count
        if count and count <= len(known):
            found[count - 1 :] = np.lib.stride_tricks.sliding_window_view(known, count).mean(axis=1)
        for place in range(0 if count else len(known)):
            kept = self.average.kept(self.steps, place)
            total = kept * total + (1 - kept) * known[place]
            found[place] = total / self.average.whole(self.steps, place)
        of_rows = [found[row.place] for row in self.rows.rows]
        missing = [self.average.missing(row.place) for row in self.rows.rows]
        return column(of_rows, missing, ["" if value == value else NO_ROW for value in of_rows])
