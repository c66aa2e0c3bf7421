"""The ABC condition, expected smoothness of stochastic gradients (Khaled and Richtarik, arXiv 2002.03329)."""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.assumptions.assumption import assumption
from trajcheck.metrics.assumptions.entries import Entry
from trajcheck.metrics.assumptions.fitted import EXPLAINED, SAVED, envelope_rows, refused
from trajcheck.metrics.columns import Column, constant
from trajcheck.metrics.formulas.noise import UNDETERMINED
from trajcheck.metrics.quantity import STEPS
from trajcheck.metrics.weights import Weights

NAMES = ("A", "B", "C")
ONE_SAMPLE = (
    "one batch a step is not enough: its |g_t|^2 stands for E|g|^2, but contains the noise's own square, so that it is "
    "not |grad f|^2; take several probe batches (--sample probe)"
)
NO_NOISE_AT_ALL = "every record has the same batch: E|g|^2 is |grad f|^2, so that A = 0, B = 1, C = 0 by definition"
NOT_BETWEEN = "it takes the noise between several probe batches (--metrics noise)"


@assumption(
    STEPS,
    name="abc",
    title="the ABC condition",
    formula="E|g|^2 <= 2 A (f(x_t) - f_inf) + B |grad f(x_t)|^2 + C",
    constants={**{name: name for name in NAMES}, EXPLAINED: SAVED},
    source="Khaled and Richtarik, arXiv 2002.03329",
)
def abc(
    above_floor: Column,
    point_weights: Weights,
    steps: np.ndarray,
    sample: str,
    one_batch: bool,
    batch_grad_sq: Column | None = None,
    batch_grad_sq_se: Column | None = None,
    grad_true_sq: Column | None = None,
    grad_true_sq_se: Column | None = None,
) -> dict[str, Entry]:
    """The upper envelope of least weighted excess: A in loss / length^2, B a number, C in loss^2 / length^2, all >= 0,
    for batches of the probe's size.

    E|g|^2 is the mean of |g_b|^2 over m batches and |grad f|^2 its estimate without bias, G2; on the rows where G2 is
    above its error: without the others a fit says nothing of where noise is all there is. Each is known to its
    jackknife error alone, and an envelope lies above the errors too.
    """
    names, nowhere = (*NAMES, EXPLAINED), np.zeros(len(above_floor), dtype=bool)
    if sample == "full" or (sample != "probe" and one_batch):
        return refused(names, NO_NOISE_AT_ALL, nowhere)
    if sample != "probe":
        return refused(names, ONE_SAMPLE, nowhere)
    if batch_grad_sq is None or batch_grad_sq_se is None or grad_true_sq is None or grad_true_sq_se is None:
        return refused(names, NOT_BETWEEN, nowhere)
    signal = grad_true_sq.along(grad_true_sq_se)
    signal = signal.except_where(~(signal.values > grad_true_sq_se.values), UNDETERMINED)
    regressors = (2.0 * above_floor, signal, constant(1.0, len(signal)))
    return envelope_rows(NAMES, batch_grad_sq, regressors, batch_grad_sq_se, point_weights, steps)
