"""What the columns of allocation.csv are made of, beside products of one tensor: what all tensors together tell."""

from __future__ import annotations

from functools import cached_property
from typing import cast

from trajcheck.metrics.columns import Column, running_sum, sum_error
from trajcheck.metrics.formulas.other_tables.allocation import rounding_of, scale_of, sum_of_absolutes
from trajcheck.metrics.quantity import ALLOCATION
from trajcheck.tables.operands import Operands, operand
from trajcheck.tables.source import Source


class Chords:
    """The chords of all tensors together, on one sample: how well their slopes are integrated, made once for all."""

    def __init__(self, source: Source) -> None:
        self.source, self.of_all = source, Operands(source)

    @cached_property
    def rounding(self) -> Column:
        """rho_t of metrics/formulas/other_tables/allocation.py."""
        return rounding_of(*(self.of_all[name] for name in ("loss_change_resolution", "loss_at_x", "loss_at_y")))

    @cached_property
    def scale(self) -> Column:
        """max(1, k_t)."""
        source, integral = self.source, self.of_all["path_integral"]
        rows = (source.scalars[row.place].tensors.values() for row in source.rows.rows)
        parts = [[share.own.path_remainder for share in tensors] for tensors in rows]
        told = sum_of_absolutes(parts, integral)
        return scale_of(integral, self.of_all["loss_change"], self.of_all["loss_change_resolution"], told)

    @cached_property
    def sum(self) -> Column:
        """Of what all tensors made, up to each row."""
        return running_sum(self.of_all["path_integral"], self.of_all["weights"])

    @cached_property
    def error(self) -> Column:
        """Of `sum`, for the choice of rows, >= 0."""
        error = sum_error(self.of_all["path_integral"], self.of_all["weights"])
        return error if self.of_all.thinned else 0.0 * error


class OfTensor(Operands):
    """The columns of allocation.csv of one tensor, or of several together: `source` holds their shares."""

    def __init__(self, source: Source, chords: Chords) -> None:
        super().__init__(source, of_path=ALLOCATION)
        self.chords = chords


@operand(ALLOCATION)
def relative_rounding(o: Operands) -> Column:
    return cast("OfTensor", o).chords.rounding


@operand(ALLOCATION)
def every_sum(o: Operands) -> Column:
    return cast("OfTensor", o).chords.sum


@operand(ALLOCATION)
def every_error(o: Operands) -> Column:
    return cast("OfTensor", o).chords.error


@operand(ALLOCATION, needs=("allocation_resolution",))
def allocation_limit(o: Operands) -> Column:
    """On one sample; over batches tables/allocation.py has that of their mean."""
    limit: Column = o["allocation_resolution"]
    return limit


@operand(ALLOCATION)
def remainder_scale(o: Operands) -> Column:
    return cast("OfTensor", o).chords.scale
