"""What noise alone would give: a loss <n_z, x>, n_z of mean 0 and independent of the iterates before its step."""

from __future__ import annotations

from trajcheck.metrics.assumptions.entries import Cell
from trajcheck.metrics.columns import Column

BIASED = "x_t was made from this sample, so that noise alone is not known to give anything"
NO_NOISE = "every record has the same batch: there is no noise"
OWN_TERM = "known on own samples towards a later iterate, of plain SGD"


def of_inner_product(sample: str, one_batch: bool, rsi_floor: Column | None) -> Column | Cell:
    """Of <g_t, e_t> / |e_t|^2.

    On own samples towards a later iterate under plain SGD eta_t |g_t|^2 / |e_t|^2, as e_t holds eta_t g_t; 0 on samples
    from which no step was made, and of whole data sets, whose noise has mean 0.
    """
    if sample in ("probe", "full"):
        return 0.0
    if one_batch:
        return NO_NOISE
    if sample != "own":
        return BIASED
    return OWN_TERM if rsi_floor is None else rsi_floor
