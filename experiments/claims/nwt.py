"""Guille-Escuret et al., No Wrong Turns, arXiv 2306.11922: secant quantities towards the final iterate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from experiments.claims.claim import Cell, Claim, Numbers, differs, is_above, is_below, is_bounded
from experiments.measured import Measured, mean, spread, stretch
from experiments.recipe import Training

NETWORKS = ("images", "language")
OWN = "own samples, whose gradient is a part of x_t - x_T"
FLOOR, FULL = "floor of own", "training set"
EIGHTHS = "eighths of the training set"
SAMPLES = ("own", FULL, "probe")


def _cosine(run: Measured) -> Numbers:
    found = {}
    for words, column in _cosines(run).items():
        found[f"{words}, mean"] = mean(column)
        if words != FLOOR:
            found[f"{words}, positive %"] = 100 * float((column > 0).mean()) if len(column) else np.nan
        if words in SAMPLES:
            found[f"{words}, 95%/5%"] = spread(column)
    return found


def _cosines(run: Measured) -> dict[str, pd.Series]:
    return {
        "own": run.towards("cos"),
        FLOOR: run.towards("cos_floor"),
        "no own term": run.towards("cos_skip"),
        FULL: _full(run, "cos"),
        "probe": run.towards("cos", "probe"),
    }


def _full(run: Measured, name: str) -> pd.Series:
    """A column towards the final iterate on all that was trained on, where that was analyzed."""
    full = run.sibling("-full")
    return full.towards(name, "full") if full else pd.Series(dtype=float)


def _by_batch(run: Measured) -> Numbers:
    eighths = run.sibling("-eighths")
    columns = _cosines(run)
    probe = columns.pop("probe")
    columns[EIGHTHS] = eighths.towards("cos", "probe") if eighths else pd.Series(dtype=float)
    return {words: mean(column, 0.1, 0.9) for words, column in {**columns, "probe": probe}.items()}


def _grows(found: Sequence[Cell]) -> Mapping[str, list[str]]:
    """Of each group of cells that differ in their batch alone: whether the cosine at the largest batch lies above that
    at the smallest."""
    groups: dict[Training, list[Cell]] = {}
    for cell in found:
        groups.setdefault(replace(cell.training, batch=0), []).append(cell)
    pairs = [(min(group, key=_examples), max(group, key=_examples)) for group in groups.values() if len(group) > 1]
    return {
        words: [differs(large.values[words], small.values[words]) for small, large in pairs]
        for words in (*SAMPLES[:2], EIGHTHS, SAMPLES[2])
    }


def _examples(cell: Cell) -> float:
    return cell.training.batch or np.inf


def _late(run: Measured) -> Numbers:
    """The last twentieth beside the middle half."""
    found = {}
    for words, column in _cosines(run).items():
        middle, late = mean(column, 0.25, 0.75), mean(column, 0.95, 1.0)
        found[f"{words}, middle"], found[f"{words}, last 5%"] = middle, late
        found[f"_{words}, drop"] = middle - late
    return found


def _stable(run: Measured) -> Numbers:
    found = {}
    for name in ("rsi", "eb"):
        found[f"{name}, own, 95%/5%"] = spread(run.towards(name))
        found[f"{name}, {FULL}, 95%/5%"] = spread(_full(run, name))
        found[f"{name}, probe, 95%/5%"] = spread(run.towards(name, "probe"))
    return found


def _schedule(run: Measured) -> Numbers:
    """Of plain SGD, lo_lr in units of the largest rate that was used: in the first twentieth of the rows, at its peak,
    in the last twentieth."""
    used = float(run.towards("lr").max()) if len(run.towards("lr")) else np.nan
    found = {}
    for words, column in {
        "own": run.towards("lo_lr"),
        "no own term": run.towards("lo_lr_skip"),
        FULL: _full(run, "lo_lr"),
        "probe": run.towards("lo_lr", "probe"),
    }.items():
        smooth = column.rolling(max(len(column) // 20, 1)).mean().dropna() / used
        found[f"{words}, first 5%"] = float(smooth.iloc[0]) if len(smooth) else np.nan
        found[f"{words}, peak"] = float(smooth.max()) if len(smooth) else np.nan
        found[f"{words}, last 5%"] = float(smooth.iloc[-1]) if len(smooth) else np.nan
        for part in ("first 5%", "last 5%"):
            found[f"_{words}, {part} / peak"] = found[f"{words}, {part}"] / found[f"{words}, peak"]
    return found


def _rate(run: Measured) -> Numbers:
    """Of plain SGD, mu the smallest rsi, L the largest eb, on the first nine tenths of the rows: a step of rate mu/L^2
    takes off (mu/L)^2."""
    if run.training.optimizer != "sgd":
        return {}
    found = {}
    for words, rsi, eb in (
        ("own", run.towards("rsi"), run.towards("eb")),
        ("no own term", run.towards("rsi_skip"), run.towards("eb")),
        (FULL, _full(run, "rsi"), _full(run, "eb")),
        ("probe", run.towards("rsi", "probe"), run.towards("eb", "probe")),
    ):
        rsi, eb = stretch(rsi, 0, 0.9), stretch(eb, 0, 0.9)
        mu, largest = (float(rsi.min()), float(eb.max())) if len(rsi) and len(eb) else (np.nan, np.nan)
        found[f"{words}, mu/L"] = mu / largest if largest > 0 else np.nan
    return found


CLAIMS = (
    Claim(
        "NWT-1",
        "The cosine of gradient and x_t - x_T is positive almost always, and stable through training",
        NETWORKS,
        OWN,
        _cosine,
        {
            **{f"positive, {sample}": is_above(f"{sample}, positive %", 95) for sample in SAMPLES},
            **{f"stable, {sample}": is_bounded(f"{sample}, 95%/5%", 10) for sample in SAMPLES},
        },
        "positive on more than 95% of the rows; its 95% quantile less than ten times its 5% quantile over the middle "
        "four fifths of the rows, in every training; by two errors",
        why="Positive, and within a factor of ten, on own samples and with the gradient of the whole training set. "
        "In small batches most of it on own samples is the step's own term: 0.17 for plain SGD in batches of 8, "
        "against a floor of 0.12, and 0.02 without that term; yet 0.28 with the training set's gradient: the "
        "geometry is there. On the probe, images held aside, it is positive and small, and in full batches it falls "
        "by a factor of ten.",
        figures=(
            (
                "images-by-batch",
                "Perceptron, momentum, cosine rate: it falls on the probe, and is stable on own batches",
            ),
        ),
    ),
    Claim(
        "NWT-2",
        "The cosine grows with the batch size",
        NETWORKS,
        OWN,
        _by_batch,
        {},
        "its mean over the middle four fifths of the rows is larger in the largest batch than in the smallest, all "
        "else equal, by two errors",
        across=_grows,
        why="On own batches it grows in every network of images. Part of that is noise: a gradient's noise dilutes "
        "its cosine, and larger batches have less. With the gradient of the whole training set at the same points, "
        "which has none, it still grows under momentum (0.60 to 0.98, and 0.34 to 0.96 at a constant rate) and plain "
        "SGD (0.25 to 0.44), hardly under AdamW at a constant rate (0.52 to 0.54), and falls under AdamW and the "
        "cosine (0.70 to 0.59). On samples of one size none of it is left: with eighths of the training set, 179 "
        "images each, it is 0.36 to 0.37 whatever the batch under momentum and falls under AdamW (0.50 to 0.32), and "
        "on the probe, 8 batches of 45 held-aside images, it falls in every network. A cosine's height compares only "
        "between samples of one size.",
        figures=(
            ("images-by-batch", "Perceptron, momentum, cosine rate: on the probe, and on own batches"),
            ("images-by-batch-all", "The same runs, with the gradient of the whole training set"),
        ),
    ),
    Claim(
        "NWT-3",
        "The cosine drops late in training",
        NETWORKS,
        OWN,
        _late,
        {sample: is_above(f"_{sample}, drop", 0) for sample in SAMPLES},
        "the mean of the last 5% of the rows lies below that of the middle half, run by run, by two errors",
        why="It held for them on own samples over long runs. Here the last 5% are 12 steps, and the floor, "
        "1/sqrt(steps left) at a constant rate, is 0.40 over them: x_t - x_T is little but the steps' own gradients, "
        "and the cosine rises in small batches. In runs of 10^5 steps the floor would be below 0.03. The training "
        "set's gradient drops in one network of 15; the probe's does under momentum and AdamW on images, not under "
        "plain SGD nor on the transformer.",
        figures=(
            ("images-sgd-by-batch", "Perceptron, plain SGD: the rise at the end, on the probe and on own batches"),
        ),
    ),
    Claim(
        "NWT-4",
        "Restricted secant inequality and error bound are stable through training",
        NETWORKS,
        OWN,
        _stable,
        {
            f"{name}, {sample}": is_bounded(f"{name}, {sample}, 95%/5%", 10)
            for name in ("rsi", "eb")
            for sample in SAMPLES
        },
        "the 5% quantile over the middle four fifths of the rows is positive in every training, and the 95% quantile "
        "less than ten times it, by two errors",
        why="The rate decides, not the sample nor the precision: own samples, training set and probe give nearly "
        "the same answers. At a constant rate both stay within a factor of ten, but for eb on the probe at 10.8 and "
        "10.9, and rsi on own batches of 8, at 48 by their noise. Under a rate that falls to 0 both grow 30 to 700 "
        "times, since x_t comes arbitrarily near to x_T while the gradient stays. Where a ratio is of fewer "
        "trainings than there are, the 5% quantile is not positive in the others, which counts as no.",
        figures=(
            ("images-constant", "Perceptron, momentum, batches of 64, constant rate: rsi and eb towards x_T"),
            ("images-cosine", "The same under a cosine rate"),
        ),
    ),
    Claim(
        "NWT-5",
        "The rate that the secant quantities prescribe, rsi/eb^2, warms up and decays as rates in practice do",
        ("images",),
        OWN,
        _schedule,
        {
            **{f"warmup, {sample}": is_below(f"_{sample}, first 5% / peak", 0.8) for sample in SAMPLES},
            **{f"decay, {sample}": is_below(f"_{sample}, last 5% / peak", 0.8) for sample in SAMPLES},
        },
        "the mean of lo_lr over the first 5% of the rows, and over the last, lies 20% below the largest such mean, by "
        "two errors (in units of the largest rate that was used); plain SGD alone, since for momentum and Adam the "
        "quantity promises nothing",
        why="A decay and no warmup, on every sample: the prescribed rate is largest at the first steps, 5 to 50 "
        "times the used one. That it ends near the used rate on own samples is so by construction: at the last step "
        "x_t - x_T is eta g_t, and without that term it ends at 0. These networks are small and start without a "
        "warmup of their own; whether large ones prescribe one was not tried.",
        figures=(("images-rates", "Perceptron, plain SGD, batches of 64: the prescribed and the used rate"),),
    ),
    Claim(
        "NWT-6",
        "Positive rsi and bounded eb along the path imply a linear rate",
        ("images",),
        OWN,
        _rate,
        {sample: is_above(f"{sample}, mu/L", 0) for sample in SAMPLES},
        "mu, the smallest rsi of the first nine tenths of the rows, is positive by two errors; L is the largest eb; "
        "plain SGD alone",
        why="mu is the smallest of many noisy values: on own batches of 8 it is negative, in 64 around 0, in 512 "
        "positive. With the training set's gradient it is positive at 64 too, by 20 errors, and open at 8: noise, "
        "not geometry, is in the way. The implied rate, (mu/L)^2 a step, is 0.01 to 0.1%.",
        figures=(("images-small-batches", "Perceptron, plain SGD, batches of 8: rsi on own samples crosses 0"),),
    ),
)
