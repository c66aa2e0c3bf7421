"""Geometry of the path, from weights alone, and the norm of the gradient. Letters: d_t = x_t - x_{t-1}."""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.columns import Column
from trajcheck.metrics.quantity import LENGTH, NONE, REFERENCES, STEPS, Unit, quantity


@quantity(
    *(STEPS, REFERENCES),
    formula="<g_w, w> / (|g_w| |w|) of one tensor w; 0 where a normalisation follows it",
    unit=NONE,
    range="[-1, 1]",
    source="NWT",
    only_of_tensor=True,
)
def radial_cos(grad_dot_param: Column, grad_sq: Column, param_sq: Column) -> Column:
    """<g_w, w> / (|g_w| |w|) of one tensor w, in [-1, 1].

    0 for a tensor that a normalisation follows: the loss does not change with its length, and its distance to anything
    means little. Undefined where g_w or w is 0. Source: NWT, arXiv 2306.11922.
    """
    norms = grad_sq.sqrt().except_where(grad_sq.values == 0, "the gradient is 0") * param_sq.sqrt()
    return grad_dot_param.over(norms, "the tensor is 0")


@quantity(
    STEPS,
    formula="|x_t|",
    unit=LENGTH,
    range=">= 0",
    symbol="|x_t|",
    family="geometry",
    of_tensor=True,
    of_sample=False,
    chart=(31, "norm of the parameters"),
)
def param_norm(param_sq: Column) -> Column:
    """|x_t|, >= 0."""
    return param_sq.sqrt()


@quantity(
    REFERENCES,
    formula="|e_t|",
    unit=LENGTH,
    range=">= 0",
    symbol="|e_t|",
    source="NWT",
    family=("secant", "geometry"),
    of_tensor=True,
    of_sample=False,
    chart=(10, "distance to x*"),
)
def ref_dist(ref_sq: Column) -> Column:
    """|x_t - x*|, >= 0."""
    return ref_sq.sqrt()


@quantity(
    *(STEPS, REFERENCES),
    formula="|g_t|",
    unit=Unit(loss=1, length=-1),
    range=">= 0",
    symbol="|g_t|",
    family=("convexity", "smoothness", "progress", "secant"),
    of_tensor=True,
    chart={STEPS: (3, "norm of the gradient")},
)
def grad_norm(grad_sq: Column) -> Column:
    """|g_t|, >= 0: of the loss's own gradient, freed of clipping."""
    return grad_sq.sqrt()


@quantity(
    STEPS,
    formula="|d_t|",
    unit=LENGTH,
    range=">= 0",
    symbol="|d_t|",
    family="geometry",
    of_tensor=True,
    of_sample=False,
    chart=(4, "length of the step"),
)
def step_norm(step_sq: Column) -> Column:
    """|x_t - x_{t-1}|, >= 0."""
    return step_sq.sqrt()


@quantity(
    STEPS,
    formula="|x_t - x_0|",
    unit=LENGTH,
    range=">= 0",
    source="EC",
    family="geometry",
    of_tensor=True,
    of_sample=False,
    chart=(5, "distance from the start"),
)
def init_dist(init_sq: Column) -> Column:
    """|x_t - x_0|, >= 0, x_0 the first recorded iterate."""
    return init_sq.sqrt()


@quantity(
    STEPS,
    formula="sum of |d_i| up to t, over recorded chords",
    unit=LENGTH,
    range=">= 0",
    family="geometry",
    of_tensor=True,
    of_sample=False,
    chart=(6, "length of the path"),
)
def path_length(chord: Column, first: np.ndarray) -> Column:
    """sum_{i<=t} |d_i| over all recorded chords up to t, >= 0: the chords' length where the recording is strided.

    `chord` is |x_t - x_{t-1}| on every row, of any stride; `first` is true on the run's first record, where the path
    has length 0. Undefined from the first chord on that is missing (--steps left its row out).
    """
    values = np.cumsum(np.where(first, 0.0, chord.values))
    missing = "needs every recorded step up to this one as a row; --steps left some out"
    return Column(values, np.where(np.isnan(values), missing, "").astype(object))


@quantity(
    STEPS,
    formula="cos(d_t, d_{t-1})",
    unit=NONE,
    range="[-1, 1]",
    family="geometry",
    of_tensor=True,
    of_sample=False,
    chart=(7, "cosine of consecutive steps"),
)
def update_cos(step_dot_previous: Column, step_sq: Column, previous_step_sq: Column) -> Column:
    """cos(d_t, d_{t-1}) = <d_t, d_{t-1}> / (|d_t| |d_{t-1}|), in [-1, 1].

    -1: the iterates oscillate; 1: they go straight on. Undefined where either step is 0.
    """
    return step_dot_previous.over(
        step_sq.sqrt() * previous_step_sq.sqrt(), "x_t equals x_{t-1}, or x_{t-1} its previous"
    )
