"""Curvature at x_t on the step's sample (TZC, arXiv 2407.01825; EC, arXiv 2107.06608).

Letters: H the Hessian of f(.; z_t) at x_t, g_t its gradient, eta_t the learning rate. A minibatch's lambda_max is not
the full batch's sharpness: the sample stands in the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trajcheck.metrics.columns import Column


def stability_threshold(eta: Column, group: Mapping[str, Any]) -> Column:
    """2 / eta_t for gradient descent, 2 (1 + beta) / eta_t with heavy-ball momentum beta; > 0, in loss / length^2.

    The lambda_max of a full-batch quadratic above which the iteration diverges. `group` is the optimizer's parameter
    group. Undefined where eta_t = 0; for Nesterov's momentum, with dampening, and for Adam, whose threshold is that of
    the preconditioned Hessian. Source: Cohen et al., arXiv 2103.00065.
    """
    top = Column(0 * eta.values + 2 * (1 + float(group.get("momentum") or 0)), eta.reasons)
    return top.over(eta, "the learning rate is 0")
