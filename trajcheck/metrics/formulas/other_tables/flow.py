"""The distance of a run from its gradient flow, and the bound on it (EC, arXiv 2107.06608).

Letters: x_t the run's iterate at tau_t, theta(tau) the flow theta' = -grad f(theta) on one fixed sample with
theta(tau_s) = x_s, s the step where it starts; eta the learning rate; m <= lambda_min, beta >= |Hessian|,
gamma >= |grad f|.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trajcheck.metrics.columns import Column, column, lift
from trajcheck.metrics.quantity import CURVATURE, FLOW, LENGTH, LOSS, NONE, RATE, Unit, given, quantity

AFTER_LAST = "after the last time at which the Hessian's eigenvalues are known"

#: Relative difference up to which two learning rates, or the rates of two stretches of tau, count as one.
SAME_RATE = 1e-9


AT_START = "x_t is where the flow starts"

given("tau", FLOW, formula="sum of eta_i over the steps up to x_t", unit=RATE, range=">= 0", power=0, source="EC")
given(
    *("flow_dist", FLOW),
    formula="|x_t - theta(tau_t)|",
    unit=LENGTH,
    range=">= 0",
    source="EC",
    chart=(1, "distance to the flow"),
)
given(
    *("init_dist", FLOW),
    formula="|x_t - x_s|, x_s where the flow starts",
    unit=LENGTH,
    range=">= 0",
    source="EC",
    chart=(4, "distance from the start"),
)


@quantity(
    FLOW,
    formula="flow_dist / init_dist",
    unit=NONE,
    range=">= 0",
    source="EC",
    chart=(2, "relative to the distance from the start"),
)
def relative_flow_dist(flow_dist: Column, init_dist: Column) -> Column:
    """|x_t - theta(tau_t)| / |x_t - x_s|, >= 0; undefined where x_t is x_s, as where the flow starts."""
    return flow_dist.over(init_dist, AT_START)


given("loss", FLOW, formula="f(x_t) on the flow's sample", unit=LOSS, chart=(5, "loss of the run"))
given("flow_loss", FLOW, formula="f(theta(tau_t))", unit=LOSS, chart=(6, "loss of the flow"))
given(
    *("flow_error", FLOW),
    formula="|theta - theta of a solution at twice the tolerance|: the integration's own error",
    unit=LENGTH,
    range=">= 0",
    chart=(3, "error of the integration"),
)
given(
    *("flow_grad_norm", FLOW),
    formula="|grad f(theta(tau_t))|",
    unit=Unit(loss=1, length=-1),
    range=">= 0",
    source="EC",
    chart=(7, "norm of the flow's gradient"),
)
#: What --curvature adds: the Hessian's extreme eigenvalues on the flow, each with |Hv - lambda v|.
EIGENVALUES = ("lambda_min", "lambda_min_residual", "lambda_max", "lambda_max_residual")

for _end, _word, _rank in (("min", "smallest", 10), ("max", "largest", 9)):
    given(
        *(f"lambda_{_end}", FLOW),
        formula=f"{_word} eigenvalue of the Hessian at theta(tau_t)",
        unit=CURVATURE,
        source="EC",
        when="curvature",
        chart=(_rank, f"{_word} eigenvalue on the flow"),
    )
    given(
        *(f"lambda_{_end}_residual", FLOW),
        formula="|Hv - lambda v| of it, |v| = 1",
        unit=CURVATURE,
        range=">= 0",
        when="curvature",
    )
given(
    *("bound_estimate", FLOW),
    formula="eta beta gamma max over s <= tau of the integral from 0 to s of exp(- integral from u to s of m) du, with "
    "m <= lambda_min, beta >= |Hessian|, gamma >= |grad f| as sampled on the path; constant rate",
    unit=LENGTH,
    range=">= 0",
    source="EC",
    when="curvature",
    chart=(8, "estimated bound"),
)


@dataclass(frozen=True)
class Bound:
    """The bound on |x_t - theta(tau_t)| for each row: `per_rate` times eta, for rates up to `largest_rate`.

    See `bound`. Both are undefined after the last row with eigenvalues.
    """

    per_rate: Column
    largest_rate: Column

    def at(self, eta: float) -> Column:
        """bound_estimate = eta per_rate; undefined where eta is above largest_rate."""
        limit = self.largest_rate
        return (
            (eta * self.per_rate)
            .along(limit)
            .except_where(
                eta > limit.values * (1 + SAME_RATE),
                f"the rate {eta:g} is above 2 / (beta + m): steps of that size need not stay near the flow",
            )
        )


def bound(times: np.ndarray, columns: Mapping[str, Column]) -> Bound:
    """An estimate of how far gradient descent at a constant rate eta is from the flow, at each time tau:

        eta beta gamma max_{s <= tau} integral_0^s exp( -integral_u^s m(r) dr ) du      >= 0, linear in eta

    for rates up to 2 / (beta + m), for which |1 - eta lambda| <= exp(-eta m) for all lambda in [m, beta].

    `times` [k] are counted from where the flow starts. lambda_min and lambda_max are known at some rows, |grad f| at
    all; what is not known is taken from its neighbours, on the safe side. m between two rows with eigenvalues is the
    smaller lambda_min of the two, each less its residual. beta is the largest max(|lambda_min|, |lambda_max|) plus
    residual, gamma the largest |grad f|, of all rows up to tau and of the first one after it. That they hold on the
    whole path, and in the tube around it that the theorem asks for, is not known: hence an estimate.

    Undefined after the last row with eigenvalues, and on rows without a flow.
    """
    norm = columns["flow_grad_norm"]
    low = lift(np.subtract, columns["lambda_min"], columns["lambda_min_residual"])
    extreme = lift(
        lambda a, b, c, d: np.maximum(np.abs(a) + b, np.abs(c) + d),
        *(columns[name] for name in EIGENVALUES),
    )
    rows = np.flatnonzero(norm.defined)
    known = np.flatnonzero(norm.defined & low.defined & extreme.defined)
    reasons = np.where(norm.defined, AFTER_LAST, norm.reasons)
    per_rate, largest_rate = np.full((2, len(times)), np.nan)
    if len(known) and known[0] == rows[0]:
        rows = rows[rows <= known[-1]]
        ahead = np.searchsorted(known, rows)  # of the rows with eigenvalues, the first at or after each row
        beta, top = (np.maximum.accumulate(each.values[known])[ahead] for each in (extreme, low))
        gamma = np.maximum.accumulate(norm.values[rows])
        gamma = np.append(gamma[1:], gamma[-1])
        integral = np.zeros(len(rows))
        for i in range(1, len(rows)):
            m = min(low.values[known[ahead[i] - 1]], low.values[known[ahead[i]]])
            integral[i] = _grown(integral[i - 1], m, times[rows[i]] - times[rows[i - 1]])
        reasons[rows] = ""
        with np.errstate(all="ignore"):
            per_rate[rows] = beta * gamma * np.maximum.accumulate(integral)
            largest_rate[rows] = 2 / np.maximum(beta + top, 0)
    overflow = "not finite: the flow is so unstable that the bound overflows float64"
    return Bound(
        column(per_rate, np.where((reasons == "") & ~np.isfinite(per_rate), overflow, reasons)),
        column(largest_rate, reasons),
    )


def _grown(integral: float, m: float, h: float) -> float:
    """I(s + h) of I' = 1 - m I: I(s) exp(-m h) + (1 - exp(-m h)) / m, whatever the sign of m."""
    with np.errstate(all="ignore"):
        fresh = h if m * h == 0 else -np.expm1(-m * h) / m
        return float(integral * np.exp(-m * h) + fresh)


def constant_rate(
    steps: Sequence[int], taus: Sequence[float | None], rates: Sequence[float | None]
) -> tuple[float | None, str]:
    """eta, the learning rate of all steps, or None and why there is no such number.

    The rate is constant where tau grows by eta a step between all records, and every recorded rate is eta.
    """
    known = [(step, tau) for step, tau in zip(steps, taus, strict=True) if tau is not None]
    if len(known) < 2:
        return None, "one record alone has no learning rate"
    eta = (known[-1][1] - known[0][1]) / (known[-1][0] - known[0][0])
    rounding = 8 * np.finfo(np.float64).eps * abs(known[-1][1]) * len(known)
    grown = [
        abs((tau - known[0][1]) - eta * (step - known[0][0])) <= SAME_RATE * eta * (step - known[0][0]) + rounding
        for step, tau in known
    ]
    same = [rate is None or abs(rate - eta) <= SAME_RATE * eta + rounding for rate in rates]
    if eta <= 0 or not all(grown) or not all(same):
        return None, "the learning rate is not constant, and the bound is for a constant one"
    recorded = next((rate for rate in rates if rate is not None), None)
    return (eta if recorded is None else recorded), ""


def wanted_rate(limit: Bound, distance: float) -> dict[str, float | str | None]:
    """The largest constant eta for which the bound at the last time that has one is at most `distance`.

    `eta` = min(distance / (beta gamma max integral), 2 / (beta + m)), and which of the two limits it: `limited_by`
    "distance" or "stability". None where there is no bound, or where nothing limits the rate (no gradient).
    """
    places = np.flatnonzero(limit.per_rate.defined)
    if not len(places):
        return {"distance": distance, "eta": None, "limited_by": None}
    per_rate, largest = float(limit.per_rate.values[places[-1]]), float(limit.largest_rate.values[places[-1]])
    allowed = distance / per_rate if per_rate > 0 else np.inf
    eta = min(allowed, largest)
    if not np.isfinite(eta):
        return {"distance": distance, "eta": None, "limited_by": None}
    return {"distance": distance, "eta": eta, "limited_by": "distance" if allowed <= largest else "stability"}
