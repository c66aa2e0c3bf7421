"""The families of metrics: which columns each gives, and which scalars and evaluations it needs.

The pass computes the union of what the asked-for families need, and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from trajcheck.errors import UsageError

_GAPS = ("inst_gap", "gap_resolution", "avg_gap", "exp_gap", "convexity_num", "convexity_den", "convexity_ratio")
DECAYED = ("rsi_wd", "eb_wd", "cos_wd")  # for runs with weight decay
_SMOOTH = ("inst_smooth", "max_smooth", "avg_smooth", "exp_smooth")


@dataclass(frozen=True)
class Family:
    """`..._columns` of steps.csv and references.csv; `..._products` by their names in products.py; `evaluations` of the
    objective beyond f and its gradient at x_t: `loss_previous`, `gradient_previous`, `loss_ref`."""

    step_columns: tuple[str, ...] = ()
    reference_columns: tuple[str, ...] = ()
    step_products: tuple[str, ...] = ()
    reference_products: tuple[str, ...] = ()
    evaluations: tuple[str, ...] = ()


FAMILIES = {
    "convexity": Family(
        step_columns=(*_GAPS, "window_loss_sum", "window_grad_sq_sum"),
        reference_columns=("grad_dot_ref", "loss_ref", *_GAPS, "window_num", "window_num_skip"),
        step_products=("grad_sq", "grad_dot_step"),
        reference_products=("grad_dot_ref", "window_dot_ref", "window_dot_skip"),
        evaluations=("loss_previous", "loss_ref"),
    ),
    "smoothness": Family(
        step_columns=(*_SMOOTH, "smoothness_ratio", "directional_smoothness"),
        reference_columns=_SMOOTH,
        step_products=("grad_sq", "grad_change_sq", "step_sq", "grad_dot_step", "previous_grad_dot_step"),
        reference_products=("ref_sq", "ref_grad_change_sq"),
        evaluations=("loss_previous", "gradient_previous"),
    ),
    "progress": Family(
        step_columns=(
            *("update_corr", "update_corr_sum", "descent", "descent_sum", "loss_change", "loss_change_sum"),
            *("path_integral", "path_integral_error"),
        ),
        step_products=("grad_sq", "grad_dot_step", "grad_dot_next", "previous_grad_dot_step", "path_integral"),
        evaluations=("loss_previous", "descent"),
    ),
    "secant": Family(
        reference_columns=(
            "ref_dist", "grad_dot_ref", "rsi", "eb", "cos", "cos_floor", "cos_skip", "lo_lr", "lo_lr_smooth", "lr",
            "implied_rate", "update_dot_ref", *DECAYED,
        ), step_products=("grad_sq", "regularised_sq"), reference_products=("ref_sq", "grad_dot_ref", "grad_dot_skip",
        "skip_sq", "next_dot_ref", "regularised_dot_ref"),
    ),
    "geometry": Family(
        step_columns=("param_norm", "step_norm", "init_dist", "path_length", "update_cos"),
        reference_columns=("ref_dist",),
        step_products=("param_sq", "step_sq", "init_sq", "step_dot_next"),
        reference_products=("ref_sq",),
    ),
}  # fmt: skip


def choose_families(names: Collection[str]) -> dict[str, Family]:
    """The families by name; all of them when none is named. Raises UsageError."""
    for name in names:
        if name not in FAMILIES:
            raise UsageError(f"--metrics {name!r}: expected some of {', '.join(FAMILIES)}.")
    return {name: family for name, family in FAMILIES.items() if not names or name in names}
