"""What `trajcheck schedule` found in a log: the last-iterate bound, term by term."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field, fields
from typing import Any

from trajcheck.metrics.last_iterate import LastIterate, best_factor

#: Marks a file as one of these.
KIND = "last-iterate bound"


@dataclass(frozen=True)
class ScheduleBound:
    """f(x_T) - f(x*) <= distance_term + gradient_term + last_term = bound (metrics/last_iterate.py), of the steps from
    `first_step`, whose iterate is x_1, to `step`, whose is x_T: `steps` of them.

    `gap` is f(x_T) - f(x*), `held` whether it is no more than the bound. `rate_factor` is the factor on all rates at
    which the bound is least, `best_bound` what it is there; `matched_distance` the distance at which that factor is 1,
    `least_distance` the least one at which a convex f may have this gap. What is not known is None, and `missing` says
    why, by name. `theorem`: whether the steps are known to be those that the theorem speaks of; None: a log does not
    say; `not_theorem` says why they are not. `estimate`: whether some steps took rate or gradient from another one.
    """

    log: str
    form: str
    first_step: int
    step: int
    steps: int
    rate_sum: float | None
    distance: float | None
    distance_term: float | None
    gradient_term: float | None
    last_term: float | None
    bound: float | None
    loss: float | None
    loss_ref: float | None
    gap: float | None
    held: bool | None
    rate_factor: float | None
    best_bound: float | None
    matched_distance: float | None
    least_distance: float | None
    theorem: bool | None
    not_theorem: tuple[str, ...] = ()
    estimate: bool = False
    missing: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def as_json(self) -> dict[str, Any]:
        """With stable keys, as docs/schedule.md names them; numbers with all their digits."""
        return {"format": 1, "kind": KIND, **{each.name: _plain(getattr(self, each.name)) for each in fields(self)}}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


BEYOND = "beyond the largest number"
NO_DISTANCE = "|x_1 - x*| is not known: give --distance"
NO_LOSS = "the log has no loss of step {step}: give --loss-last"
NO_LOSS_REF = "f(x*) is not known: give --loss-ref"


def bound_of(
    terms: LastIterate, distance: float | None, loss: float | None, loss_ref: float | None, **about: Any
) -> ScheduleBound:
    """From the terms; `about` are the fields that say whose it is."""
    missing: dict[str, str] = {}

    def known(name: str, value: float | None, why: str = BEYOND) -> float | None:
        if value is None or not math.isfinite(value):
            missing[name] = why
            return None
        return value

    gradients, last = known("gradient_term", terms.gradients), known("last_term", terms.last)
    first = known("distance_term", *_of(terms.distance_term, distance, NO_DISTANCE))
    others = None if gradients is None or last is None else gradients + last
    why = next((missing[name] for name in ("gradient_term", "last_term", "distance_term") if name in missing), BEYOND)
    bound = known("bound", None if first is None or others is None else first + others, why)
    no_loss = NO_LOSS.format(step=about["step"]) if loss is None else NO_LOSS_REF if loss_ref is None else BEYOND
    gap = known("gap", None if loss is None or loss_ref is None else loss - loss_ref, no_loss)
    why_open = missing.get("bound") or missing.get("gap", BEYOND)
    factor = None if first is None or others is None else best_factor(first, others)
    nothing = why if first is None or others is None else "all gradients are 0: the larger the rates, the less it is"
    found = ScheduleBound(
        rate_sum=known("rate_sum", terms.rate_sum),
        distance=distance,
        distance_term=first,
        gradient_term=gradients,
        last_term=last,
        bound=bound,
        loss=loss,
        loss_ref=loss_ref,
        gap=gap,
        held=None if bound is None or gap is None else _held(bound, loss or 0.0, loss_ref or 0.0),
        rate_factor=known("rate_factor", factor, nothing),
        best_bound=known(
            "best_bound", None if first is None or others is None else 2 * math.sqrt(first) * math.sqrt(others), why
        ),
        matched_distance=known("matched_distance", None if others is None else terms.matched_distance()),
        least_distance=known(
            "least_distance",
            None if gap is None or others is None else terms.least_distance(gap),
            missing.get("gap", BEYOND),
        ),
        missing=missing,
        **about,
    )
    if found.held is None:
        missing["held"] = why_open
    return found


def _held(bound: float, loss: float, loss_ref: float) -> bool:
    """Whether the gap is no more than the bound, but for the rounding of float64."""
    return loss - loss_ref - bound <= 4 * sys.float_info.epsilon * (abs(loss) + abs(loss_ref) + bound)


def _of(function: Any, value: float | None, why: str) -> tuple[float | None, str]:
    return (None, why) if value is None else (function(value), BEYOND)
