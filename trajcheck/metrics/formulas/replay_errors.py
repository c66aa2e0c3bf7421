"""Whether the replay is the training: replayed losses and gradients beside the recorded ones."""

from __future__ import annotations

from trajcheck.metrics.columns import Column
from trajcheck.metrics.quantity import NONE, STEPS, quantity


@quantity(
    STEPS,
    formula="|replayed - recorded| / |recorded| loss",
    unit=NONE,
    range=">= 0",
    power=None,
    when=("own", "replay"),
    chart=(29, "replayed against recorded loss"),
)
def replay_loss_error(replayed_loss: Column, recorded_loss: Column) -> Column:
    """|replayed - recorded| / |recorded| loss of the step, >= 0; undefined where the recorded one is 0."""
    return abs(replayed_loss - recorded_loss).over(abs(recorded_loss), "the recorded loss is 0")


@quantity(
    STEPS,
    formula="|replayed - recorded| / |recorded| gradient",
    unit=NONE,
    range=">= 0",
    power=None,
    when=("own", "replay"),
    chart=(30, "replayed against recorded gradient"),
)
def replay_grad_error(disagreement_sq: Column, recorded_sq: Column) -> Column:
    """|replayed - recorded| / |recorded| gradient, the recorded one freed of its clipping factor; >= 0, undefined
    where that is 0."""
    return disagreement_sq.sqrt().over(recorded_sq.sqrt(), "the recorded gradient is 0")
