"""Elkabetz and Cohen, arXiv 2107.06608: gradient descent beside its gradient flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.claims.claim import Cell, Claim, Numbers, differs, every, is_below
from experiments.measured import Measured, Value, last

RANDOM_POINTS = "random-points"
MEDIAN, SHARE = "median of lambda_min", "median of lambda_min / lambda_max"


def _near(run: Measured) -> Numbers:
    """Relative distances: from the flow that was integrated, and at equal time from the run at the smallest rate."""
    flow = run.sibling("-flow")
    if flow is None:
        return {}
    apart, gone = flow.column("flow", "flow_dist"), flow.column("flow", "init_dist")
    bound = flow.column("flow", "bound_estimate")
    return {
        "largest distance from the flow / from the init": float(flow.column("flow", "relative_flow_dist").max()),
        "error of the flow there / from the init": _error_there(flow),
        "the same distance, end": last(flow.column("flow", "relative_flow_dist")),
        "bound_estimate / distance, end": last(bound) / last(apart) if last(apart) > 0 else np.nan,
        "distance from the init, end": last(gone),
        "from the smallest rate's run, end": _from_slowest(run),
        "last loss": last(run.steps("loss")),
    }


def _error_there(flow: Measured) -> float:
    """The integration's error where the distance is largest."""
    apart, error = flow.column("flow", "relative_flow_dist"), flow.column("flow", "flow_error")
    share = error / flow.column("flow", "init_dist")
    return float(share.to_numpy()[share.index == apart.idxmax()].max()) if len(apart) else np.nan


def _from_slowest(run: Measured) -> float:
    compared = run.sibling("-compared")
    others = compared.words("compare", "run_b") if compared else []
    return last(compared.column("compare", "relative_dist", run_b=others[-1])) if compared and others else np.nan


def _lowest(run: Measured) -> Numbers:
    """Along the flow, which is one for all rates, and at random points."""
    flow = run.sibling("-flow")
    if run.training.divisor > 1 or (flow is None and run.training.optimizer != RANDOM_POINTS):
        return {}
    low, high = (
        flow.column("flow", name) if flow else run.steps(name)[lambda column: column.index > 0]
        for name in ("lambda_min", "lambda_max")
    )
    both = low.index.intersection(high.index)
    if not len(both):
        return {}
    return {
        "first lambda_min": float(low.iloc[0]) if flow else np.nan,
        "smallest": float(low.min()),
        MEDIAN: float(low.median()),
        "last": last(low) if flow else np.nan,
        "median of lambda_max": float(high.median()),
        SHARE: float((low[both] / high[both]).median()),
    }


def _nearer_zero(found: Sequence[Cell]) -> Mapping[str, list[str]]:
    """Of each flow: whether it lies less than half as low as the random points of its network at either distance."""
    elsewhere = [cell for cell in found if cell.training.optimizer == RANDOM_POINTS]
    return {
        words: [
            every(
                *(
                    differs(flow.values[words], _half(other.values[words]))
                    for other in elsewhere
                    if other.training.model == flow.training.model
                )
            )
            for flow in found
            if flow.training.optimizer != RANDOM_POINTS
        ]
        for words in (MEDIAN, SHARE)
        if elsewhere
    }


def _half(value: Value) -> Value:
    return value._replace(mean=value.mean / 2, error=value.error / 2)


CLAIMS = (
    Claim(
        "EC-1",
        "Gradient descent stays near its gradient flow",
        ("gradient-flow",),
        "full batch; distances between runs at eta and eta/20 at equal time stand for the flow",
        _near,
        {"": is_below("largest distance from the flow / from the init", 0.1)},
        "the distance from the flow is less than a tenth of that from the init at every record",
        why="The distance falls with the rate as it should, down to the error of the integration, within which it "
        "lies for the ReLU and the convolutional network at eta/10 and eta/20; the distance at equal time from the "
        "run at eta/20, the authors' own measure, is that from the flow. The bound estimated from the curvature "
        "along the flow is a thousand times too large.",
    ),
    Claim(
        "EC-2",
        "The smallest eigenvalue of the Hessian is near zero along the flow, though very negative elsewhere",
        ("gradient-flow",),
        "full batch; that it is very negative elsewhere is proven for deep linear networks with large weights",
        _lowest,
        {},
        "the median along the flow, of lambda_min and of lambda_min / lambda_max, is less than half as negative as at "
        "random points of either distance from the init, by two errors",
        across=_nearer_zero,
        why="Their theorem is on deep linear networks; here it is the linear one alone whose lambda_min goes to "
        "-0.09, while its lambda_max grows to 5. In the ReLU and the convolutional network it stays near -0.3 as at "
        "the init, 0.7 to 0.8 of what it is at random points as far from the init. What makes random points very "
        "negative is large weights: from distance 4 to 8 it grows 1.5 to 2.4 times there. In float64, on all data: "
        "no sample or rounding enters.",
        figures=(
            (
                "gradient-flow-flow",
                "The ReLU network at the largest rate: distance from its flow, both losses, and the extreme "
                "eigenvalues along the flow",
            ),
        ),
    ),
)
