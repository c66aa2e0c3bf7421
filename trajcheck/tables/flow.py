"""The columns of flow.csv."""

from __future__ import annotations

from collections.abc import Sequence

from trajcheck.metrics.columns import Column, column
from trajcheck.metrics.formulas.other_tables.flow import EIGENVALUES
from trajcheck.metrics.quantity import FLOW
from trajcheck.scalars.values import FlowScalars
from trajcheck.tables.evaluated import Evaluated
from trajcheck.tables.step_operands import not_symmetric

NOT_CHOSEN = "not among the times that --curvature chooses"


def flow_columns(
    rows: Sequence[FlowScalars],
    taus: Column,
    missing: Sequence[str],
    curvature: Sequence[bool],
    bound: Column | None = None,
) -> dict[str, Column]:
    """The columns of flow.csv, in their order; `missing` says why a row has no flow, or is ''. `curvature` marks the
    rows at which the Hessian was asked for; where it was, `bound` is the bound on the distance, None while that is not
    known."""

    def scalar(name: str, *reasons: Sequence[str]) -> Column:
        return column((getattr(row, name) for row in rows), *reasons, [_not_finite(getattr(r, name)) for r in rows])

    chosen = ["" if each else NOT_CHOSEN for each in curvature]
    asymmetry = [not_symmetric(row.hessian_asymmetry) for row in rows]
    operands = {
        "tau": taus,
        **{name: scalar(name) for name in ("init_dist", "loss")},
        **{name: scalar(name, missing) for name in ("flow_dist", "flow_loss", "flow_error", "flow_grad_norm")},
        **{name: scalar(name, missing, chosen, asymmetry) for name in EIGENVALUES},
        "bound_estimate": column([None] * len(rows), "not known yet") if bound is None else bound,
    }
    found = Evaluated(FLOW, operands.__getitem__).columns({"curvature"} if any(curvature) else ())
    return {name: each for name, each in found.items() if name != "bound_estimate" or bound is not None}


def _not_finite(value: float | None) -> str:
    return "" if value is not None else "not finite here"
