"""Smoothness that may grow with the gradient (Zhang et al., arXiv 1905.11881) or the loss (arXiv 2510.03164)."""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.assumptions.assumption import assumption
from trajcheck.metrics.assumptions.entries import Entry, with_error
from trajcheck.metrics.assumptions.fitted import EXPLAINED, SAVED, envelope_rows
from trajcheck.metrics.columns import Column, constant
from trajcheck.metrics.quantity import STEPS
from trajcheck.metrics.weights import Weights


@assumption(
    STEPS,
    name="l0_l1",
    title="(L0, L1)-smoothness",
    formula="inst_smooth_t <= L0 + L1 |grad f(x_t; z)|",
    constants={"L0": "L0", "L1": "L1", EXPLAINED: SAVED},
    source="Zhang et al., arXiv 1905.11881",
)
def l0_l1(
    inst_smooth: Column,
    smooth_resolution: Column,
    grad_norm: Column,
    weights: Weights,
    steps: np.ndarray,
    inst_smooth_se: Column | None = None,
) -> dict[str, Entry]:
    """The upper envelope of least weighted excess: L0 >= 0 in loss / length^2, L1 >= 0 in 1 / length.

    Of the chords of this path: along a path of an ill-conditioned quadratic, gradient and curvature both fall with the
    steep directions, and L1 > 0 says so. For f = exp it is 1, but for what a chord of length d adds, (e^d - 1) / d.
    """
    return _envelope(
        ("L0", "L1"), inst_smooth, grad_norm, with_error(smooth_resolution, inst_smooth_se), weights, steps
    )


@assumption(
    STEPS,
    name="h0_h1",
    title="(H0, H1)-smoothness",
    formula="inst_smooth_t <= H0 + H1 (f(x_t; z) - f_inf)",
    constants={"H0": "H0", "H1": "H1", EXPLAINED: SAVED},
    source="Alimisis et al., arXiv 2510.03164",
)
def h0_h1(
    inst_smooth: Column,
    smooth_resolution: Column,
    above_floor: Column,
    weights: Weights,
    steps: np.ndarray,
    inst_smooth_se: Column | None = None,
) -> dict[str, Entry]:
    """The upper envelope of least weighted excess: H0 >= 0 in loss / length^2, H1 >= 0 in 1 / length^2."""
    return _envelope(
        ("H0", "H1"), inst_smooth, above_floor, with_error(smooth_resolution, inst_smooth_se), weights, steps
    )


def _envelope(
    names: tuple[str, str], y: Column, regressor: Column, resolution: Column, weights: Weights, steps: np.ndarray
) -> dict[str, Entry]:
    return envelope_rows(names, y, (constant(1.0, len(y)), regressor), resolution, weights, steps)
