"""Geometry of the path, from weights alone. Letters: d_t = x_t - x_{t-1}."""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.columns import Column


def update_cos(step_dot_previous: Column, step_sq: Column, previous_step_sq: Column) -> Column:
    """cos(d_t, d_{t-1}) = <d_t, d_{t-1}> / (|d_t| |d_{t-1}|), in [-1, 1].

    -1: the iterates oscillate; 1: they go straight on. Undefined where either step is 0.
    """
    return step_dot_previous.over(
        step_sq.sqrt() * previous_step_sq.sqrt(), "x_t equals x_{t-1}, or x_{t-1} its previous"
    )


def radial_cos(grad_dot_param: Column, grad_sq: Column, param_sq: Column) -> Column:
    """<g_w, w> / (|g_w| |w|) of one tensor w, in [-1, 1].

    0 for a tensor that a normalisation follows: the loss does not change with its length, and its distance to anything
    means little. Undefined where g_w or w is 0. Source: NWT, arXiv 2306.11922.
    """
    norms = grad_sq.sqrt().except_where(grad_sq.values == 0, "the gradient is 0") * param_sq.sqrt()
    return grad_dot_param.over(norms, "the tensor is 0")


def path_length(chord: Column, first: np.ndarray) -> Column:
    """sum_{i<=t} |d_i| over all recorded chords up to t, >= 0: the chords' length where the recording is strided.

    `chord` is |x_t - x_{t-1}| on every row, of any stride; `first` is true on the run's first record, where the path
    has length 0. Undefined from the first chord on that is missing (--steps left its row out).
    """
    values = np.cumsum(np.where(first, 0.0, chord.values))
    missing = "needs every recorded step up to this one as a row; --steps left some out"
    return Column(values, np.where(np.isnan(values), missing, "").astype(object))
