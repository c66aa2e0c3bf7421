"""Strong growth of the gradient noise (Vaswani et al., arXiv 1810.07288)."""

from __future__ import annotations

from trajcheck.metrics.assumptions.assumption import assumption
from trajcheck.metrics.assumptions.entries import Judged
from trajcheck.metrics.assumptions.growth import MINIBATCH, least
from trajcheck.metrics.assumptions.noise import NO_NOISE
from trajcheck.metrics.columns import Column
from trajcheck.metrics.quantity import STEPS

PURE = "noise alone has no gradient, and so no constant"
NOT_MEASURED = "the batches' gradients were not multiplied with one another: --metrics noise does"


@assumption(
    STEPS,
    name="growth",
    title="strong growth",
    formula="E |g|^2 <= rho |grad f(x_t)|^2",
    constants={"rho": "E |g|^2 / |grad f(x_t)|^2, of batches of the row's size"},
    extreme="largest",
    source="Vaswani et al., arXiv 1810.07288",
)
def strong_growth(
    grad_norm: Column,
    sample: str,
    one_batch: bool,
    growth: Column | None = None,
    grad_true_sq: Column | None = None,
    grad_true_sq_se: Column | None = None,
) -> Judged:
    """Of several batches of a row: on the others undetermined, as |grad f|^2 is, and never violated. One batch a row
    tells nothing, but where it is the same in all records and rho is 1."""
    if growth is not None and grad_true_sq is not None and grad_true_sq_se is not None:
        return Judged(growth, least(grad_true_sq), grad_true_sq_se, PURE)
    why = NOT_MEASURED if sample == "probe" else f"{NO_NOISE}, and rho is 1" if one_batch else MINIBATCH
    return Judged(why, noise=why, unjudged=why)
