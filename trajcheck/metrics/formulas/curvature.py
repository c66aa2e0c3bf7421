"""Curvature at x_t on the step's sample (TZC, arXiv 2407.01825; EC, arXiv 2107.06608).

Letters: H the Hessian of f(.; z_t) at x_t, g_t its gradient, eta_t the learning rate. A minibatch's lambda_max is not
the full batch's sharpness: the sample stands in the row.
"""

from __future__ import annotations

from trajcheck.metrics.columns import Column, constant
from trajcheck.metrics.quantity import COUNT, CURVATURE, STEPS, given, quantity

#: The next eigenvalue is a Ritz value, and not known for sure: an estimate, where the residual is a bound.
_ERROR = (
    "min(r, 4 r^2 / gap), r the residual, gap that to the next eigenvalue found: its error, as r implies it; and what "
    "rounding adds, three times what the products lack of symmetry and 10 epsilons"
)

given(
    *("lambda_max", STEPS),
    formula="largest eigenvalue of the Hessian of f(.; z) at x_t, a minibatch's, not the full batch's",
    unit=CURVATURE,
    source="TZC",
    when="lambda_max",
    chart=(25, "largest eigenvalue of the Hessian"),
)
given(
    *("lambda_max_residual", STEPS),
    formula="|Hv - lambda v| of it, |v| = 1",
    unit=CURVATURE,
    range=">= 0",
    when="lambda_max",
)
given(
    *("lambda_max_error", STEPS),
    formula=_ERROR,
    unit=CURVATURE,
    range=">= 0",
    when="lambda_max",
)
given(
    *("lambda_min", STEPS),
    formula="smallest eigenvalue",
    unit=CURVATURE,
    source="EC",
    when="lambda_min",
    chart=(26, "smallest eigenvalue of the Hessian"),
)
given(
    *("lambda_min_residual", STEPS),
    formula="|Hv - lambda v| of it, |v| = 1",
    unit=CURVATURE,
    range=">= 0",
    when="lambda_min",
)
given(
    *("lambda_min_error", STEPS),
    formula=_ERROR,
    unit=CURVATURE,
    range=">= 0",
    when="lambda_min",
)
given(
    *("hessian_products", STEPS),
    formula="products with the Hessian that the eigenvalues of the row took",
    unit=COUNT,
    range=">= 1",
    when="curvature",
)
given(
    *("grad_curvature", STEPS),
    formula="<g_t, H g_t> / |g_t|^2",
    unit=CURVATURE,
    when="curvature",
    chart=(27, "curvature along the gradient"),
)


@quantity(
    STEPS,
    formula="2 / eta_t for gradient descent, 2 (1 + momentum) / eta_t with heavy-ball momentum",
    unit=CURVATURE,
    range="> 0",
    power=0,
    source="Cohen et al., arXiv 2103.00065",
    of_sample=False,
    when="curvature",
    chart=(28, "threshold of stability, 2/lr"),
)
def stability_threshold(threshold_lr: Column, momentum: Column) -> Column:
    """2 / eta_t for gradient descent, 2 (1 + beta) / eta_t with heavy-ball momentum beta; > 0, in loss / length^2.

    The lambda_max of a full-batch quadratic above which the iteration diverges, with the rate and momentum of the step.
    Undefined where eta_t = 0; for Nesterov's momentum, with dampening, and for Adam, whose threshold
    is that of the preconditioned Hessian. Source: Cohen et al., arXiv 2103.00065.
    """
    one = constant(1.0, len(momentum))
    return (2 * (one + momentum)).over(threshold_lr, "the learning rate is 0")
