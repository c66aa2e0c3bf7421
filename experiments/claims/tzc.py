"""Tran, Zhang and Cutkosky, arXiv 2407.01825: convexity, smoothness and progress along the path."""

from __future__ import annotations

import numpy as np

from experiments.claims.claim import Claim, Numbers, Values, above, every
from experiments.measured import Measured, last, mean

ALL = ("tzc-convex", "images", "language")
PREVIOUS = "the batch of x_{t-1}'s own step at both points, of which x_t was made"


def _shares(run: Measured) -> Numbers:
    """Of steps whose inst_gap(x_{t-1}) is below -resolution, and above it."""
    found = {}
    for sample in ("own", "previous", "probe"):
        gap = run.steps("inst_gap", sample)
        resolution = run.steps("gap_resolution", sample).reindex(gap.index)
        found[f"{sample}, convex %"] = 100 * float((gap < -resolution).mean()) if len(gap) else np.nan
        found[f"{sample}, unresolved %"] = 100 * float((gap.abs() <= resolution).mean()) if len(gap) else np.nan
    return found


def _mostly(values: Values) -> bool | None:
    return every(*(above(values.get(f"{sample}, convex %"), 50) for sample in ("own", "probe")))


def _ratios(run: Measured) -> Numbers:
    return {
        "own": last(run.towards("convexity_ratio")),
        "own, no own term": last(run.towards("convexity_ratio_skip")),
        "probe": last(run.towards("convexity_ratio", "probe")),
        "other seed": last(run.towards("convexity_ratio", ref="other-seed")),
        "same init": last(run.towards("convexity_ratio", ref="same-init")),
        "other seed, matched": _matched(run),
    }


def _matched(run: Measured) -> float:
    matched = run.sibling("-matched")
    return last(matched.towards("convexity_ratio", ref="other-seed")) if matched else np.nan


def _smoothness(run: Measured) -> Numbers:
    from scipy.stats import spearmanr  # which takes a second to import

    largest, recent, sharpness = (run.steps(name) for name in ("max_smooth", "exp_smooth", "lambda_max"))
    recent_there = recent.reindex(sharpness.index, method="ffill").dropna()  # of the update before, where there is none
    sharpness = sharpness[recent_there.index]
    early = mean(largest, 0.1, 0.12)
    vary = len(sharpness) >= 5 and recent_there.nunique() > 1 and sharpness.nunique() > 1
    ranks = spearmanr(recent_there, sharpness).statistic if vary else np.nan
    return {
        "max_smooth, end / at 10%": last(largest) / early if early > 0 else np.nan,
        "max_smooth / exp_smooth, end": last(largest) / last(recent) if len(recent) else np.nan,
        "rank correlation of exp_smooth and lambda_max": float(ranks),
        "exp_smooth / lambda_max": float((recent_there / sharpness).median()) if len(sharpness) else np.nan,
    }


def _promise(run: Measured) -> Numbers:
    found = {}
    for sample in ("previous", "probe"):
        found[f"{sample}, loss change"] = last(run.steps("loss_change_sum", sample))
        found[f"{sample}, promised by exp"] = last(run.steps("predicted_change_exp_sum", sample))
        found[f"{sample}, promised by max"] = last(run.steps("predicted_change_max_sum", sample))
    return found


def _fails(values: Values) -> bool | None:
    """The promise of exp_smooth is not within a factor of two of what came."""
    change, promised = values.get("probe, loss change"), values.get("probe, promised by exp")
    if change is None or promised is None or not change.runs or not promised.runs:
        return None
    return not 0.5 <= promised.mean / change.mean <= 2


def _correlation(run: Measured) -> Numbers:
    correlation = run.steps("update_corr")
    return {
        "own, steps with progress %": 100 * float((correlation < 0).mean()) if len(correlation) else np.nan,
        "own, sum of update_corr": last(run.steps("update_corr_sum")),
        "own, loss change": last(run.steps("loss_change_sum")),
        "probe, sum of update_corr": last(run.steps("update_corr_sum", "probe")),
        "probe, loss change": last(run.steps("loss_change_sum", "probe")),
        "own, mean of the last third": mean(correlation, 2 / 3, 1.0),
    }


def _follows(values: Values) -> bool | None:
    """The sum has the sign of the loss change, and is within a factor of two of it."""
    change, total = values.get("own, loss change"), values.get("own, sum of update_corr")
    if change is None or total is None or not change.runs or not total.runs:
        return None
    return 0.5 <= total.mean / change.mean <= 2


CLAIMS = (
    Claim(
        "TZC-1",
        "The loss is locally convex most of the time: f(x_t) - f(x_{t-1}) <= <g_t, x_t - x_{t-1}>",
        ALL,
        f"in version 1 of their code {PREVIOUS}, in float32; signs below rounding counted",
        _shares,
        _mostly,
        "more than half of the steps are convex beyond their resolution, on own samples and on the probe",
        why="The share is about the same on the batch that made the step, on a fresh one and on the probe: "
        "it is not the sample that makes it.",
    ),
    Claim(
        "TZC-2",
        "The convexity ratio towards the final iterate is positive, and mostly above 1",
        ALL,
        "own samples, with the step's own term in x_t - x_T",
        _ratios,
        lambda values: every(above(values.get("own"), 0), above(values.get("probe"), 0)),
        "positive by two errors on own samples and on the probe",
        why="Towards the end of another seed's run the ratio is negative nearly everywhere, with its hidden "
        "units in the "
        "nearest order positive but below 1, and from the same init nearly that towards the own end: "
        "convex is the way into the valley that the init has chosen. Without the step's own term x_s "
        "stands as many steps later as the optimizer remembers, a fifth of these runs with momentum, so "
        "that this number is a lower bound here.",
        figure=(
            "images-by-model",
            "The convexity ratio along runs of AdamW in batches of 64: means over seeds and their spread",
        ),
    ),
    Claim(
        "TZC-3",
        "The largest smoothness grows through training, while its exponential average follows the sharpness",
        ("tzc-convex", "images"),
        "gradients of the previous batch at both points; per-tensor norms summed",
        _smoothness,
        lambda values: above(values.get("rank correlation of exp_smooth and lambda_max"), 0),
        "the rank correlation of exp_smooth and the sample's own lambda_max along the run is positive by two errors",
        why="exp_smooth is a curvature along the updates, a part of the sample's largest eigenvalue. It "
        "follows that eigenvalue most clearly under AdamW in batches of 64; with all images in a batch "
        "the two go opposite ways. On the quadratic the eigenvalue is a constant of each batch, and "
        "exp_smooth follows the batches of many steps.",
    ),
    Claim(
        "TZC-4",
        "Progress predicted from smoothness (the descent lemma with exp_smooth) is not the progress that is made",
        ALL,
        PREVIOUS,
        _promise,
        _fails,
        "on the probe the promise is off by more than a factor of two, or of the other sign",
        why="On convex losses and on the perceptrons of momentum and AdamW the promise is kept to some tenths. "
        "It is broken where steps are long for their noise (plain SGD in batches of 8), on the ResNet and on the "
        "transformer, where its sign is wrong. On the batch that made the step it looks better than it is.",
    ),
    Claim(
        "TZC-5",
        "A fresh sample's gradient agrees with the update (progress: update_corr < 0 in our sign), and its sum follows "
        "the loss change",
        ALL,
        "own samples; each step's batch is fresh",
        _correlation,
        _follows,
        "the sum is within a factor of two of the loss change on own samples",
        why="Under AdamW and Muon it holds, under momentum mostly. Under plain SGD at a large rate the sum "
        "has the wrong sign, "
        "on the probe as well: the update goes uphill at its end, though the loss has fallen.",
    ),
)
