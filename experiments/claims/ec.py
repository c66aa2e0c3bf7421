"""Elkabetz and Cohen, arXiv 2107.06608: gradient descent beside its gradient flow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.claims.claim import AGREES, NOT, PARTLY, UNDECIDED, Cell, Claim, Numbers, below
from experiments.measured import Measured, last


def _near(run: Measured) -> Numbers:
    """Relative distances: from the flow that was integrated, and at equal time from the run at the smallest rate."""
    flow = run.sibling("-flow")
    if flow is None:
        return {}
    apart, gone = flow.column("flow", "flow_dist"), flow.column("flow", "init_dist")
    bound = flow.column("flow", "bound_estimate")
    return {
        "largest distance from the flow / from the init": float(flow.column("flow", "relative_flow_dist").max()),
        "the same, end": last(flow.column("flow", "relative_flow_dist")),
        "bound_estimate / distance, end": last(bound) / last(apart) if last(apart) > 0 else np.nan,
        "distance from the init, end": last(gone),
        "from the smallest rate's run, end": _from_slowest(run),
        "last loss": last(run.steps("loss")),
    }


def _from_slowest(run: Measured) -> float:
    compared = run.sibling("-compared")
    others = compared.words("compare", "run_b") if compared else []
    return last(compared.column("compare", "relative_dist", run_b=others[-1])) if compared and others else np.nan


def _lowest(run: Measured) -> Numbers:
    flow = run.sibling("-flow")
    low, high = (
        flow.column("flow", name) if flow else run.steps(name)[lambda column: column.index > 0]
        for name in ("lambda_min", "lambda_max")
    )
    both = low.index.intersection(high.index)
    if not len(both):
        return {}
    return {
        "smallest lambda_min": float(low.min()),
        "median of lambda_min": float(low.median()),
        "last lambda_min": last(low),
        "median of lambda_min / lambda_max": float((low[both] / high[both]).median()),
    }


def _nearer_zero(found: Sequence[Cell]) -> str:
    """How many flows have a median of lambda_min / lambda_max less than half as negative as the random points."""
    words = "median of lambda_min / lambda_max"
    elsewhere = [cell for cell in found if cell.training.optimizer == "random-points"]
    flows = [cell for cell in found if cell.training.optimizer != "random-points"]
    if not flows or not elsewhere:
        return UNDECIDED
    nearer = [
        all(
            abs(flow.values[words].mean) < 0.5 * abs(other.values[words].mean)
            for other in elsewhere
            if other.training.model == flow.training.model
        )
        for flow in flows
    ]
    return AGREES if all(nearer) else NOT if not any(nearer) else f"{PARTLY}: {sum(nearer)} of {len(nearer)}"


CLAIMS = (
    Claim(
        "EC-1",
        "Gradient descent stays near its gradient flow",
        ("gradient-flow",),
        "full batch; distances between runs at eta and eta/20 at equal time stand for the flow",
        _near,
        lambda values: below(values.get("largest distance from the flow / from the init"), 0.1),
        "the distance from the flow is less than a tenth of that from the init at every record",
        why="The distance falls with the rate as it should, and the distance at equal time from the run at "
        "eta/20 is that from the flow. The bound estimated from the curvature along the flow is a thousand "
        "times too large.",
    ),
    Claim(
        "EC-2",
        "The smallest eigenvalue of the Hessian is near zero along the flow, though very negative elsewhere",
        ("gradient-flow",),
        "full batch; that it is very negative elsewhere is proven for deep linear networks with large weights",
        _lowest,
        lambda values: None,
        "lambda_min / lambda_max along the flow is in the median less than half as negative as at random points of "
        "either distance from the init",
        across=_nearer_zero,
        why="Along the flow lambda_min is not near 0 at first, where lambda_max is small as well: it is as "
        "negative as at random points around. What falls is its share of lambda_max, as lambda_max grows, "
        "most in the linear network.",
    ),
)
