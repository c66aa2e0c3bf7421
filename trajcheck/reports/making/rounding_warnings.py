"""What rounding leaves open: shares of signs that a wider precision would judge otherwise, rounding that could not be
measured."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trajcheck.metrics.columns import Column
from trajcheck.metrics.judged import POINTS, judged_otherwise
from trajcheck.metrics.weights import Weights
from trajcheck.readable import percent_text

#: Machine epsilons by the names of dtypes.
EPSILONS = {"float64": 2.0**-52, "float32": 2.0**-23}
#: Losses in two precisions are the same function where |f - f'| / |f| is no more than this, or so many epsilons.
SAME, SAME_EPSILONS = 3e-3, 16.0
#: On the rows of the largest losses, so many, float32 rounds by less than this share of the loss, or it tells nothing.
LARGEST, TELLS = 3, 0.5
#: What is resolved by which column.
RESOLVED = {"inst_gap": "gap_resolution", "loss_change": "loss_change_resolution"}


def otherwise(columns: Mapping[str, Column], weights: Weights, epsilon: float, second: str) -> float | None:
    """The share of steps whose convexity would be judged otherwise in the precision `second`; None where no gap is.

    `columns` are all of one table on one sample, hidden ones included, and `epsilon` the replay's.
    """
    gap, resolution, again = (columns.get(name) for name in ("inst_gap", "gap_resolution", "second_gap"))
    if gap is None or resolution is None or again is None:
        return None
    if "ref_dist" in columns:  # x* itself is neither convex nor not
        gap = gap.except_where(columns["ref_dist"].values == 0, "x_t is the reference itself")
    wider = EPSILONS[second] / epsilon
    return judged_otherwise(gap, resolution, again, wider, columns.get("inst_gap_se"), weights)


def otherwise_warning(shares: Mapping[str, float | None], dtype: str, second: str) -> str | None:
    """That shares would change by more than a point; `shares` by the reference and sample in words."""
    told = {where: share for where, share in shares.items() if share is not None and share > POINTS}
    if not told:
        return None
    each = ", ".join(f"{percent_text(share, 2)} towards {where}" for where, share in told.items())
    return (
        f"rounding in {dtype} decides signs: in {second}, about these shares of the steps would be judged otherwise "
        f"(convex, not, undetermined): {each}. Give --replay-dtype float64"
    )


def unmeasured_warning(failed: str, dtype: str, second: str) -> str | None:
    """That the second precision failed."""
    if not failed:
        return None
    return (
        f"the rounding of {dtype} could not be measured: {second} fails ({failed}). Resolutions are the bound "
        "4 eps (|f| + |f'|), which is too small where losses are small"
    )


def other_function_warning(error: Column | None, sample: str, epsilon: float, second: str) -> str | None:
    """That the losses of the second precision are others, not the same ones with less rounding; `error` is
    |f - f'| / |f| on the rows that were evaluated twice."""
    if error is None or not error.defined.any():
        return None
    apart = float(np.median(error.values[error.defined]))
    if apart <= max(SAME, SAME_EPSILONS * epsilon):
        return None
    return (
        f"losses on sample {sample} differ by {apart:.1e} (median, relative) in {second}: that is not rounding, but "
        "other random draws, or code that looks at the dtype. Resolutions are too large"
    )


def untold_warning(columns: Mapping[str, Column], sample: str, dtype: str, second: str) -> str | None:
    """That the rounding of `dtype` is not known from the coarser precision `second`, and signs were resolved by it.

    `columns` are those of steps.csv on one sample, hidden ones included. A small loss that is made of large numbers
    loses all of its digits in the coarser precision and keeps some in the finer; while some digits are left, what is
    off is as large as what it is made of rounds by. So nothing is told where even the largest losses are off by
    themselves, and nobody is misled where nothing is called resolved.
    """
    error, loss = columns.get("second_loss_error"), columns.get("loss")
    if error is None or loss is None or not (error.defined & loss.defined).any():
        return None
    here = np.flatnonzero(error.defined & loss.defined)
    largest = here[np.argsort(-np.abs(loss.values[here]), kind="stable")[:LARGEST]]
    if np.median(error.values[largest]) <= TELLS:
        return None
    resolved = {name: _resolved(columns, name, limit) for name, limit in RESOLVED.items()}
    told = ", ".join(f"{name} on {count} rows" for name, count in resolved.items() if count)
    if not told:
        return None
    most = np.abs(loss.values[largest]).max()
    return (
        f"losses on sample {sample} are at most {most:.1e} on the {len(here)} rows on which "
        f"rounding was measured, and {second} rounds them to 0 or nearly so: it does not show how {dtype} rounds, and "
        f"what counts as resolved ({told}) may be rounding. Rows of larger losses, as from the beginning of the run, "
        "would show it"
    )


def _resolved(columns: Mapping[str, Column], name: str, limit: str) -> int:
    """On how many rows it is above its resolution."""
    if name not in columns or limit not in columns:
        return 0
    return int((np.abs(columns[name].values) > columns[limit].values).sum())
