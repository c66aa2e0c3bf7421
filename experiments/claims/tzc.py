"""Tran, Zhang and Cutkosky, arXiv 2407.01825: convexity, smoothness and progress along the path."""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.claims.claim import NO, YES, Claim, Judge, Numbers, halves, is_above, is_below, within_two
from experiments.measured import Measured, last, mean

ALL = ("tzc-convex", "images", "language")
SAMPLES = ("own", "probe")
PREVIOUS = "the batch of x_{t-1}'s own step at both points, of which x_t was made"


def _shares(run: Measured) -> Numbers:
    """Of steps whose inst_gap(x_{t-1}) is below -resolution, and within it; in float32 also of those that are not
    positive, as the sign alone says."""
    found = {}
    single = run.sibling("-float32")
    for words, report, sample in (
        ("own", run, "own"),
        ("previous", run, "previous"),
        ("probe", run, "probe"),
        *((("own in float32", single, "own"), ("previous in float32", single, "previous")) if single else ()),
    ):
        gap = report.steps("inst_gap", sample)
        resolution = report.steps("gap_resolution", sample).reindex(gap.index)
        found[f"{words}, convex %"] = 100 * float((gap < -resolution).mean()) if len(gap) else np.nan
        found[f"{words}, unresolved %"] = 100 * float((gap.abs() <= resolution).mean()) if len(gap) else np.nan
    return found


def _ratios(run: Measured) -> Numbers:
    num, floor = run.towards("convexity_num"), run.towards("convexity_num_floor")
    full = run.sibling("-full")
    return {
        "own": last(run.towards("convexity_ratio")),
        "own, share that noise alone would give %": 100 * last(floor) / last(num) if last(num) > 0 else np.nan,
        "no own term": last(run.towards("convexity_ratio_skip")),
        "training set": last(full.towards("convexity_ratio", "full")) if full else np.nan,
        "probe": last(run.towards("convexity_ratio", "probe")),
        "other seed, own": last(run.towards("convexity_ratio", ref="other-seed")),
        "other seed, probe": last(run.towards("convexity_ratio", "probe", "other-seed")),
        "other seed matched, probe": _matched(run),
        "same init, probe": last(run.towards("convexity_ratio", "probe", "same-init")),
    }


def _matched(run: Measured) -> float:
    matched = run.sibling("-matched")
    return last(matched.towards("convexity_ratio", "probe", "other-seed")) if matched else np.nan


def _smoothness(run: Measured) -> Numbers:
    from scipy.stats import spearmanr  # which takes a second to import

    largest, recent, sharpness = (run.steps(name) for name in ("max_smooth", "exp_smooth", "lambda_max"))
    before = run.steps("max_smooth", "previous")
    recent_there = recent.reindex(sharpness.index, method="ffill").dropna()  # of the update before, where there is none
    sharpness = sharpness[recent_there.index]
    vary = len(sharpness) >= 5 and recent_there.nunique() > 1 and sharpness.nunique() > 1
    ranks = spearmanr(recent_there, sharpness).statistic if vary else np.nan
    return {
        "previous, max_smooth, end / at 10%": _growth(before),
        "own, max_smooth, end / at 10%": _growth(largest),
        "max_smooth, end / largest lambda_max": last(largest) / float(sharpness.max()) if len(sharpness) else np.nan,
        "max_smooth / exp_smooth, end": last(largest) / last(recent) if len(recent) else np.nan,
        "exp_smooth / lambda_max": float((recent_there / sharpness).median()) if len(sharpness) else np.nan,
        "rank correlation of exp_smooth and lambda_max": float(ranks),
    }


def _growth(largest: pd.Series) -> float:
    early = mean(largest, 0.1, 0.12)
    return last(largest) / early if early > 0 else np.nan


def _promise(run: Measured) -> Numbers:
    found: dict[str, float] = {}
    for sample in ("previous", "own", "probe"):
        change = last(run.steps("loss_change_sum", sample))
        promised = last(run.steps("predicted_change_exp_sum", sample))
        found[f"{sample}, loss change"] = change
        found[f"{sample}, promised by exp"] = promised
        found[f"{sample}, promised by max"] = last(run.steps("predicted_change_max_sum", sample))
        found.update(halves(sample, promised, change))
    return found


def _broken(sample: str) -> Judge:
    kept = within_two(sample)
    return lambda values: {YES: NO, NO: YES}.get(answer := kept(values), answer)


def _correlation(run: Measured) -> Numbers:
    correlation = run.steps("update_corr")
    found = {"own, steps with progress %": 100 * float((correlation < 0).mean()) if len(correlation) else np.nan}
    for sample in ("own", "probe"):
        total, change = last(run.steps("update_corr_sum", sample)), last(run.steps("loss_change_sum", sample))
        found[f"{sample}, sum of update_corr"] = total
        found[f"{sample}, sum of loss changes"] = change
        found[f"{sample}, sum of descent"] = last(run.steps("descent_sum", sample))
        found.update(halves(sample, total, change))
    loss = run.steps("loss", "probe")
    found["probe, f(x_T) - f(x_0)"] = float(loss.iloc[-1] - loss.iloc[0]) if len(loss) else np.nan
    return found


CLAIMS = (
    Claim(
        "TZC-1",
        "The loss is locally convex most of the time: f(x_t) - f(x_{t-1}) <= <g_t, x_t - x_{t-1}>",
        ALL,
        f"in version 1 of their code {PREVIOUS} (*previous*), in float32; signs below rounding counted",
        _shares,
        {sample: is_above(f"{sample}, convex %", 50) for sample in SAMPLES},
        "more than half of the steps are convex beyond the resolution of their arithmetic, by two errors",
        why="It is not the sample that makes it: the shares are the same on the batch that made the step, on a "
        "fresh one and on the probe. float32 hides a part of it: of the same steps of the same perceptrons it calls "
        "67 to 91% convex where float64 says 89 to 98%, and leaves 6 to 26% within its rounding, most in full "
        "batches, whose last steps are the smallest.",
    ),
    Claim(
        "TZC-2",
        "The convexity ratio towards the final iterate is positive, and mostly above 1",
        ALL,
        "own samples, with the step's own term in x_t - x_T",
        _ratios,
        {
            **{f"positive, {sample}": is_above(sample, 0) for sample in SAMPLES},
            **{f"above 1, {sample}": is_above(sample, 1) for sample in SAMPLES},
        },
        "at the end of the run the ratio is positive, and above 1, by two errors",
        why="Above 1 on the perceptrons, the ResNet and the transformer, not on the CNN (0.79 to 0.95). Neither "
        "noise nor precision makes the difference: there own samples and the probe agree to 1%. It depends on x*: "
        "towards the end of another seed's run the ratio is negative (-0.2 to -2.4 on images), with its hidden units "
        "in the nearest order 0.1 to 0.6, or on the CNN and the ResNet of AdamW -0.4 to -0.1, and towards the end of "
        "a run from the same init nearly that towards the own end. Convex is the way into the valley that the init "
        "has chosen. *No own term* puts x_s as many steps later as the optimizer remembers, a fifth of these runs "
        "with momentum, so that it is a lower bound here. In the ResNet most of |x_t - x*|^2 lies in weights before "
        "a normalisation, whose scale does not matter.",
        figures=(
            (
                "images-by-model",
                "The convexity ratio on the probe along runs of AdamW in batches of 64: means over seeds and one "
                "standard deviation",
            ),
        ),
    ),
    Claim(
        "TZC-3",
        "The largest smoothness grows through training, while its exponential average follows the sharpness",
        ("tzc-convex", "images"),
        "gradients of the previous batch at both points (*previous*); norms of tensors summed, here one norm over all",
        _smoothness,
        {
            "largest grows, previous": is_above("previous, max_smooth, end / at 10%", 1),
            "largest grows, own": is_above("own, max_smooth, end / at 10%", 1),
            "average follows, own": is_above("rank correlation of exp_smooth and lambda_max", 0),
        },
        "max_smooth at the end is above that after a tenth of the steps; the rank correlation of exp_smooth and the "
        "sample's own lambda_max along the run is positive; by two errors",
        why="The largest smoothness grows in small batches, except in the ResNet under momentum, and in full "
        "batches only under a rate that falls to 0: there steps of some 10^-5 across a kink of ReLU meet a jump of "
        "the gradient, so that max_smooth ends at 2 to 8 times the largest eigenvalue met on the way. In full "
        "batches at a constant rate it is that of the first steps, on convex losses nearly so. Rounding has no part "
        "in it: its resolution in float64 is below 10^-10. The second half depends on sample and optimizer: "
        "exp_smooth is the curvature along the updates, 2 to 70% of the sample's own lambda_max. It follows "
        "lambda_max under AdamW in batches of 64 and 512; in full batches lambda_max stays while the updates turn "
        "into flat directions, and the two go opposite ways.",
        figures=(
            (
                "images-smoothness",
                "Perceptron, momentum, full batches, cosine rate: the last steps cross a kink",
            ),
        ),
    ),
    Claim(
        "TZC-4",
        "Progress predicted from smoothness (the descent lemma with exp_smooth) is not the progress that is made",
        ALL,
        f"{PREVIOUS} (*previous*)",
        _promise,
        {sample: _broken(sample) for sample in ("previous", "own", "probe")},
        "the promise is off by more than a factor of two, or of the other sign, by two errors",
        why="It fails on the probe for plain SGD in batches of 8, the ResNet and the transformer, where the promise "
        "is a rise, or less than a third of the fall. On the batch that made the step (*previous*) the same promise "
        "is kept in all networks of images but one, since that batch's loss falls by as much as its own gradient "
        "says: up to 40 times more than a fresh sample's. On the perceptrons of momentum and AdamW and on convex "
        "losses it is kept to some tenths on the probe too: smoothness/2 |d|^2, which the promise adds to the slope "
        "(descent, TZC-5), is small there. On *own* the slope is that of the batch that made the step, the loss that "
        "of a fresh one.",
        figures=(
            (
                "images-promise",
                "Perceptron, momentum, batches of 64: the promise is kept on both samples",
            ),
            ("language-promise", "Transformer, AdamW, batches of 16: the promise has the wrong sign"),
        ),
    ),
    Claim(
        "TZC-5",
        "A fresh sample's gradient agrees with the update (progress: update_corr < 0 in our sign), and its sum follows "
        "the loss change",
        ALL,
        "own samples; each step's batch is fresh",
        _correlation,
        {
            **{f"negative, {sample}": is_below(f"{sample}, sum of update_corr", 0) for sample in SAMPLES},
            **{f"follows, {sample}": within_two(sample) for sample in SAMPLES},
        },
        "the sum is negative by two errors; it is within a factor of two of the sum of the loss changes of the same "
        "steps",
        why="It holds here under AdamW and, where decided, Muon, and mostly under momentum. It fails for plain SGD "
        "at rate 0.5 in all batches, and for momentum on the CNN in batches of 64. Not by noise, since own and probe "
        "agree, but by the length of the step: the loss falls at its beginning (descent) and rises at its end "
        "(update_corr), and the change of the loss lies between (-24, +16 and -3.4 in batches of 64, on the probe). "
        "A sum is over the recorded pairs of iterates, scaled to all steps; f(x_T) - f(x_0) beside it says what that "
        "scaling costs: little on the perceptrons of momentum and AdamW, much under plain SGD and on the transformer.",
        figures=(
            (
                "images-progress",
                "Perceptron, plain SGD at rate 0.5, batches of 64: down at the start of a step, up at its end",
            ),
        ),
    ),
)
