"""Quotients of sums, where the denominator is known well enough."""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.columns import Column

#: A denominator within so many of its errors for the choice of rows has no quotient: there the error of a quotient is
#: not what its first order says. Of fewer than 30 rows it must be farther away: a denominator that is noise around 0 is
#: sometimes far from it by chance, and the fewer the rows the less its error tells. On 72 trainings of which every step
#: is known, thinned to 10% and 2%, three stated errors covered 1 of 20 ratios towards x_{t-1} from 10 rows above two
#: errors of the denominator, 93% of 44 from 50 rows, and 99 to 100% towards the last iterate.
DEN_ERRORS, DEN_ERRORS_OF_FEW, FEW_ROWS = 2.0, 3.0, 30

RESOLUTION, NO_QUOTIENT = "the denominator is below its resolution", "the denominator is 0"
WITHIN_ERRORS = "the denominator is within two of its errors for the choice of rows"
WITHIN_ERRORS_OF_FEW = "the denominator is within three of its errors for the choice of rows, of which there are few"


def resolved_quotient(num: Column, den: Column, resolution: Column, rows_error: Column) -> Column:
    """num / den; undefined where |den| is not above its resolution, or within two of its errors for the choice of
    rows, three up to the 29th row; these are 0 where every step is there."""
    size = np.abs(den.values)
    resolved = den.except_where(size <= resolution.values, RESOLUTION)
    thinned, few = rows_error.values > 0, np.cumsum(den.defined) < FEW_ROWS
    resolved = resolved.except_where(thinned & (size <= DEN_ERRORS * rows_error.values), WITHIN_ERRORS)
    unsure = thinned & few & (size <= DEN_ERRORS_OF_FEW * rows_error.values)
    resolved = resolved.except_where(unsure, WITHIN_ERRORS_OF_FEW)
    return num.over(resolved, NO_QUOTIENT)


def quotient_error(difference: Column, den: Column, den_error: Column) -> Column:
    """Of N / M for the choice of rows, M `den` more than its error from 0: the error of the sum of the terms of N - R
    M, `difference`, over |M| - its error. What R is off by is exactly the sum over all steps of those terms over the
    true M, which may be nearer to 0."""
    return difference.over(abs(den) - den_error, NO_QUOTIENT)
