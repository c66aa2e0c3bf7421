"""tables.flow"""

from __future__ import annotations

from collections.abc import Sequence

from trajcheck.metrics.columns import Column, column
from trajcheck.metrics.flow import FLOW_CURVATURE
from trajcheck.scalars.values import FlowScalars


def flow_columns(
    rows: Sequence[FlowScalars], taus: Sequence[float | None], missing: Sequence[str], curvature: Sequence[bool]
) -> dict[str, Column]:
    """The columns of flow.csv but the bound, in their order; `missing` says why a row has no flow, or is ''.

    relative_flow_dist = flow_dist / init_dist; undefined where the flow starts, and wherever x_t came back to there.
    `curvature` marks the rows at which the Hessian was asked for.
    """

    def scalar(name: str, *reasons: Sequence[str]) -> Column:
        return column((getattr(row, name) for row in rows), *reasons, [_not_finite(getattr(r, name)) for r in rows])

    chosen = ["" if each else NOT_CHOSEN for each in curvature]
    distance, away = scalar("flow_dist", missing), scalar("init_dist")
    return {
        "tau": column(taus, ["" if tau is not None else "no tau was recorded at this step" for tau in taus]),
        "flow_dist": distance,
        "init_dist": away,
        "relative_flow_dist": distance.over(away, AT_START),
        "loss": scalar("loss"),
        "flow_loss": scalar("flow_loss", missing),
        "flow_error": scalar("flow_error", missing),
        "flow_grad_norm": scalar("flow_grad_norm", missing),
        **({name: scalar(name, missing, chosen) for name in FLOW_CURVATURE[:-1]} if any(curvature) else {}),
    }


def _not_finite(value: float | None) -> str:
    return "" if value is not None else "not finite here"


AT_START = "x_t is where the flow starts"


NOT_CHOSEN = "not among the times that --curvature chooses"
