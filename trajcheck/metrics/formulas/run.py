"""What the run itself says of a row: steps, rates, the loss."""

from __future__ import annotations

from trajcheck.metrics.quantity import COUNT, LOSS, NONE, RATE, REFERENCES, STEPS, given

given("prev_step", STEPS, formula="the previous recorded step", unit=NONE, range=">= 0", of_sample=False, integer=True)
given("stride", STEPS, formula="steps since then", unit=COUNT, range=">= 1", of_sample=False, integer=True)
given(
    *("weight", STEPS, REFERENCES),
    operand="row_weights",
    formula="how many steps the row stands for in averages: those nearer to it than to any other row",
    unit=COUNT,
    range=">= 0",
    symbol="w_t",
    of_sample=False,
    integer=True,
)
given(
    *("tau", STEPS),
    formula="sum of eta_i over all steps i < t: the time of gradient flow; where parameter groups agree",
    unit=RATE,
    range=">= 0",
    power=0,
    source="EC",
    of_sample=False,
)
given(
    *("lr", STEPS),
    operand="recorded_lr",
    formula="the learning rate of the update from x_t; where parameter groups agree",
    unit=RATE,
    range=">= 0",
    symbol="eta_t",
    power=0,
    of_sample=False,
    chart=(2, "learning rate"),
)
given(
    *("loss", STEPS),
    operand="loss_at_row",
    formula="f(x_t; z): replayed, else as recorded",
    unit=LOSS,
    symbol="f(x_t; z)",
    chart=(1, "loss on the sample"),
)
