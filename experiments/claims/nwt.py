"""Guille-Escuret et al., No Wrong Turns, arXiv 2306.11922: secant quantities towards the final iterate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from experiments.claims.claim import UNDECIDED, Cell, Claim, Numbers, Values, above, every
from experiments.measured import Measured, Value, mean, spread, stretch
from experiments.recipe import Training

NETWORKS = ("images", "language")
OWN = "own samples, whose gradient is a part of x_t - x_T"


def _cosine(run: Measured) -> Numbers:
    found = {}
    for words, column in _cosines(run).items():
        found[f"{words}, mean"] = mean(column)
        found[f"{words}, positive %"] = 100 * float((column > 0).mean()) if len(column) else np.nan
    found["own, 95%/5%"] = spread(run.towards("cos"))
    return found


def _cosines(run: Measured) -> dict[str, pd.Series]:
    return {
        "own": run.towards("cos"),
        "no own term": run.towards("cos_skip"),
        "probe": run.towards("cos", "probe"),
    }


def _by_batch(run: Measured) -> Numbers:
    return {words: mean(column, 0.1, 0.9) for words, column in _cosines(run).items()}


def _grows(found: Sequence[Cell]) -> str:
    """How many of the groups of cells that differ in their batch alone have a larger cosine at the largest batch."""
    groups: dict[Training, list[Cell]] = {}
    for cell in found:
        groups.setdefault(replace(cell.training, batch=0), []).append(cell)
    pairs = [(min(group, key=_examples), max(group, key=_examples)) for group in groups.values() if len(group) > 1]
    answers = []
    for words in ("own", "no own term", "probe"):
        grown = [_apart(large.values[words], small.values[words]) for small, large in pairs]
        answers.append(f"{words}: {grown.count(True)} of {len(grown)}")
    return ", ".join(answers) if pairs else UNDECIDED


def _examples(cell: Cell) -> float:
    return cell.training.batch or np.inf


def _apart(one: Value, other: Value) -> bool:
    return one.mean - other.mean > 2 * np.hypot(np.nan_to_num(one.error), np.nan_to_num(other.error))


def _late(run: Measured) -> Numbers:
    """The last twentieth over the middle half."""
    found = {}
    for words, column in _cosines(run).items():
        middle = mean(column, 0.25, 0.75)
        found[f"{words}, middle"] = middle
        found[f"{words}, last 5%"] = mean(column, 0.95, 1.0)
    return found


def _stable(run: Measured) -> Numbers:
    return {
        "rsi, own, 95%/5%": spread(run.towards("rsi")),
        "rsi, no own term, 95%/5%": spread(run.towards("rsi_skip")),
        "rsi, probe, 95%/5%": spread(run.towards("rsi", "probe")),
        "eb, own, 95%/5%": spread(run.towards("eb")),
        "eb, probe, 95%/5%": spread(run.towards("eb", "probe")),
    }


def _schedule(run: Measured) -> Numbers:
    """Of plain SGD, lo_lr in units of the largest rate that was used: in the first twentieth of the rows, at its peak,
    in the last twentieth."""
    used = float(run.towards("lr").max()) if len(run.towards("lr")) else np.nan
    found = {}
    for words, column in {
        "own": run.towards("lo_lr"),
        "no own term": run.towards("lo_lr_skip"),
        "probe": run.towards("lo_lr", "probe"),
    }.items():
        smooth = column.rolling(max(len(column) // 20, 1)).mean().dropna() / used
        found[f"{words}, first 5%"] = float(smooth.iloc[0]) if len(smooth) else np.nan
        found[f"{words}, peak"] = float(smooth.max()) if len(smooth) else np.nan
        found[f"{words}, last 5%"] = float(smooth.iloc[-1]) if len(smooth) else np.nan
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
        ("probe", run.towards("rsi", "probe"), run.towards("eb", "probe")),
    ):
        rsi, eb = stretch(rsi, 0, 0.9), stretch(eb, 0, 0.9)
        mu, largest = (float(rsi.min()), float(eb.max())) if len(rsi) and len(eb) else (np.nan, np.nan)
        found[f"{words}, mu/L"] = mu / largest if largest > 0 else np.nan
    return found


def _drops(values: Values, words: str) -> bool | None:
    middle, late = values.get(f"{words}, middle"), values.get(f"{words}, last 5%")
    if middle is None or late is None or not middle.runs or not late.runs:
        return None
    apart, error = middle.mean - late.mean, np.hypot(np.nan_to_num(middle.error), np.nan_to_num(late.error))
    return True if apart > 2 * error else False if apart < -2 * error else None


def _peaks(values: Values, words: str) -> bool | None:
    first, peak, end = (values.get(f"{words}, {part}") for part in ("first 5%", "peak", "last 5%"))
    if first is None or peak is None or end is None or not peak.runs:
        return None
    return bool(first.mean < 0.8 * peak.mean and end.mean < 0.8 * peak.mean)


CLAIMS = (
    Claim(
        "NWT-1",
        "The cosine of gradient and x_t - x_T is positive almost always, and stable through training",
        NETWORKS,
        OWN,
        _cosine,
        lambda values: every(above(values.get("own, positive %"), 95), above(values.get("probe, positive %"), 95)),
        "positive on more than 95% of the rows, on own samples and on the probe",
        why="The step's own term makes most of it in small batches: without it the cosine of SGD in batches "
        "of 8 is nearly 0 on own samples. On the probe, which is free of it and less noisy, the cosine "
        "is small and positive nearly always: the geometry is there.",
    ),
    Claim(
        "NWT-2",
        "The cosine grows with the batch size",
        NETWORKS,
        OWN,
        _by_batch,
        lambda values: None,
        "from the smallest to the largest batch, all else equal, by two errors; on own samples and on the probe",
        across=_grows,
        why="On own batches it grows in every network, on the fixed probe in none: a larger batch has less "
        "noise in its gradient, and the same geometry.",
        figure=(
            "images-by-batch",
            "The cosine on the probe, on own samples without the step's own term, and on the previous "
            "sample, by batch size: means over seeds and their spread",
        ),
    ),
    Claim(
        "NWT-3",
        "The cosine drops late in training",
        NETWORKS,
        OWN,
        _late,
        lambda values: every(_drops(values, "own"), _drops(values, "probe")),
        "the mean of the last 5% of the rows lies below that of the middle half by two errors, own and probe",
        why="On own samples it rises late where batches are small, as noise alone would make it: the step's "
        "own term is all that is left of x_t - x_T. On the probe it drops under most of momentum's and "
        "AdamW's runs on images, and not under plain SGD nor on the transformer.",
    ),
    Claim(
        "NWT-4",
        "Restricted secant inequality and error bound are stable through training",
        NETWORKS,
        OWN,
        _stable,
        lambda values: above(values.get("rsi, probe, 95%/5%"), 0) and values["rsi, probe, 95%/5%"].mean < 10,
        "on the probe rsi stays positive from 5% to 95% of the middle rows, within a factor of ten",
        why="Under a constant rate it holds. Under a rate that falls to 0 both grow without bound, since "
        "x_t comes arbitrarily near to x_T while the gradient stays.",
    ),
    Claim(
        "NWT-5",
        "The rate that the secant quantities prescribe, rsi/eb^2, warms up and decays as rates in practice do",
        ("images",),
        OWN,
        _schedule,
        lambda values: _peaks(values, "probe"),
        "on the probe the first and the last 5% lie 20% below the peak (in units of the largest rate that was used); "
        "plain SGD alone, since for momentum and Adam the quantity promises nothing",
        why="There is a decay and no warmup: the prescribed rate is largest at the first steps, tens of "
        "times the used one. On own samples it ends near the used rate, as noise alone would make it; "
        "on the probe it ends well below.",
    ),
    Claim(
        "NWT-6",
        "Positive rsi and bounded eb along the path imply a linear rate",
        ("images",),
        OWN,
        _rate,
        lambda values: every(above(values.get("own, mu/L"), 0), above(values.get("probe, mu/L"), 0)),
        "mu, the smallest rsi of the first nine tenths of the rows, is positive on own samples and on the probe; "
        "plain SGD alone",
        why="mu is the smallest of many noisy values. In small batches it is not above 0; in large ones the "
        "implied rate is positive and slow.",
    ),
)
