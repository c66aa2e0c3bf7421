"""summary.json: headline values, what was left out and why, and provenance."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from trajcheck.metrics.columns import Column
from trajcheck.metrics.convexity import shares
from trajcheck.metrics.uncertainty import mean_with_error
from trajcheck.version import __version__

#: Version of the definitions that the columns follow.
DEFINITIONS = 1

#: Median relative disagreement between recorded and replayed gradients or losses from which a replay is not called the
#: training; more where either is of lower precision, whose rounding alone is several of its epsilons.
FIDELITY, FIDELITY_EPSILONS = 1e-3, 4.0

#: How many times the median the largest disagreement is, beyond which the step itself is suspected.
OUTLIER = 10.0

NO_COSINE: dict[str, Any] = {"cosine": None, "cosine_error": None, "cosine_of": None, "cosine_sample": None}


def headline_cosine(
    columns: Mapping[str, Column], weights: np.ndarray, sample: str, batches: Sequence[Mapping[str, Column]] = ()
) -> dict[str, Any]:
    """The mean cosine over the run that holds no term of the step's own: cos_skip towards a later iterate of the same
    run, else cos; on probe batches always cos. On the previous sample there is none: x_t was made from it.

    Its error is by batch means over the rows; on probe batches (`batches`: the columns on each) it is that of the mean
    over batches of each one's mean over the run.
    """
    for name in ("cos_skip", "cos") if sample != "previous" else ():
        if name in columns and (found := mean_with_error(columns[name], weights)):
            mean, error = found
            if batches:
                means = [mean_with_error(each[name].along(columns[name]), weights) for each in batches]
                values = [each[0] for each in means if each]
                error = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
            return {"cosine": mean, "cosine_error": error, "cosine_of": name, "cosine_sample": sample}
    return dict(NO_COSINE)


def headline(columns: Mapping[str, Column], weights: np.ndarray) -> dict[str, Any]:
    """The convexity ratio with its num and den, those of the last row that has them, and the shares of rows that are
    convex, not, or undetermined, towards one reference or x_{t-1}; None where there is no value.

    On probe batches a gap within its standard error is undetermined too.
    """
    num, den, ratio = (last(columns.get(f"convexity_{name}")) for name in ("num", "den", "ratio"))
    gap, resolution = columns.get("inst_gap"), columns.get("gap_resolution")
    if gap is not None and "ref_dist" in columns:  # x* itself is neither convex nor not
        gap = gap.except_where(columns["ref_dist"].values == 0, "x_t is the reference itself")
    if resolution is not None and "inst_gap_se" in columns:
        resolution = Column(np.fmax(resolution.values, columns["inst_gap_se"].values), resolution.reasons)
    return {
        "convexity_ratio": ratio if _same_row(columns, "convexity_ratio", "convexity_den") else None,
        "convexity_num": num,
        "convexity_den": den,
        "shares": shares(gap, resolution, weights) if gap is not None and resolution is not None else None,
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


def fidelity_warning(columns: Mapping[str, Column], steps: Sequence[int], epsilon: float) -> str | None:
    """A warning when replayed gradients, or losses, are not those that were recorded, on most steps or on a single one,
    `epsilon` being the machine epsilon of the coarsest dtype that is involved and `steps` those of the rows."""
    limit = max(FIDELITY, FIDELITY_EPSILONS * epsilon)
    single = None
    for name, what in (("replay_grad_error", "gradients"), ("replay_loss_error", "losses")):
        each = columns.get(name)
        if each is None or not each.defined.any():
            continue
        median = float(np.median(each.values[each.defined]))
        if median > limit:
            return (
                f"replayed {what} differ from the recorded ones by {median:.1e} (median, relative): the replay is not "
                "the training. Another loss, weights of accumulated micro-batches, augmentation, autocast, clipping or "
                "dropout masks can be the cause."
            )
        worst = int(np.nanargmax(each.values))
        largest = float(each.values[worst])
        if single is None and largest > max(limit, OUTLIER * median):
            single = (
                f"replayed {what} differ from the recorded ones by {largest:.1e} at step {steps[worst]}, by "
                f"{median:.1e} in the median (relative): its file may be damaged, or its gradient or loss lies within "
                "rounding of 0."
            )
    return single


def versions(replayed: bool) -> dict[str, str]:
    """Versions of what computed the numbers; torch only where it was used."""
    packages = ["numpy", "scipy", "pandas", "safetensors", *(["torch"] if replayed else [])]
    return {
        "trajcheck": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
