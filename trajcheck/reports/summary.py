"""summary.json: headline values, what was left out and why, and provenance."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from trajcheck import __version__
from trajcheck.columns import Column
from trajcheck.metrics.convexity import shares
from trajcheck.metrics.secant import mean_with_error

#: Version of the definitions that the columns follow.
DEFINITIONS = 1

#: Median relative disagreement between recorded and replayed gradients or losses from which a replay is not called the
#: training; more where either is of lower precision, whose rounding alone is several of its epsilons.
FIDELITY, FIDELITY_EPSILONS = 1e-3, 4.0


def headline(columns: Mapping[str, Column], weights: np.ndarray) -> dict[str, Any]:
    """The values to read first, towards one reference or x_{t-1}; None where there is no value.

    The cosine is the one that holds no term of the step's own: cos_skip towards a later iterate of the same run, else
    cos. Its error is by batch means over the rows. The ratio, num and den are those of the last row that has them.
    """
    result: dict[str, Any] = {"cosine": None, "cosine_error": None, "cosine_of": None}
    for name in ("cos_skip", "cos"):
        if name in columns and (found := mean_with_error(columns[name], weights)):
            result |= {"cosine": found[0], "cosine_error": found[1], "cosine_of": name}
            break
    num, den, ratio = (last(columns.get(f"convexity_{name}")) for name in ("num", "den", "ratio"))
    gap = columns.get("inst_gap")
    if gap is not None and "ref_dist" in columns:  # x* itself is neither convex nor not
        gap = gap.except_where(columns["ref_dist"].values == 0, "x_t is the reference itself")
    return {
        **result,
        "convexity_ratio": ratio if _same_row(columns, "convexity_ratio", "convexity_den") else None,
        "convexity_num": num,
        "convexity_den": den,
        "shares": shares(gap, columns["gap_resolution"], weights) if gap is not None else None,
    }


def last(each: Column | None) -> float | None:
    """The last defined value of a column."""
    if each is None or not each.defined.any():
        return None
    return float(each.values[each.defined][-1])


def _same_row(columns: Mapping[str, Column], *names: str) -> bool:
    """Whether the last defined values of some columns stand in one row."""
    places = {tuple(np.flatnonzero(columns[name].defined)[-1:]) for name in names if name in columns}
    return len(places) == 1


def fidelity_warning(steps: Mapping[str, Column], epsilon: float) -> str | None:
    """A warning when replayed gradients, or losses, are not those that were recorded, `epsilon` being the machine
    epsilon of the coarsest dtype that is involved."""
    for name, what in (("replay_grad_error", "gradients"), ("replay_loss_error", "losses")):
        each = steps.get(name)
        if each is None or not each.defined.any():
            continue
        median = float(np.median(each.values[each.defined]))
        if median > max(FIDELITY, FIDELITY_EPSILONS * epsilon):
            return (
                f"replayed {what} differ from the recorded ones by {median:.1e} (median, relative): the replay is not "
                "the training. Another loss, weights of accumulated micro-batches, augmentation, autocast, clipping or "
                "dropout masks can be the cause."
            )
    return None


def versions(replayed: bool) -> dict[str, str]:
    """Versions of what computed the numbers; torch only where it was used."""
    packages = ["numpy", "scipy", "pandas", "safetensors", *(["torch"] if replayed else [])]
    return {
        "trajcheck": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
