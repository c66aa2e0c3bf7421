"""What columns are made of in the second precision, and what says how exact either of the two is."""

from __future__ import annotations

from trajcheck.files.extents import EPSILON
from trajcheck.metrics.columns import Column
from trajcheck.metrics.quantity import REFERENCES, STEPS
from trajcheck.metrics.resolution import Rounding
from trajcheck.tables.operands import Operands, operand


@operand(STEPS, REFERENCES)
def rounding(o: Operands) -> Rounding:
    """Epsilons of the replay's dtype, and of what rounding was measured in."""
    own = o.source.epsilon or 0.0
    return Rounding(own, max(own, o.source.second_epsilon))


@operand(REFERENCES, of_rows=True)
def gradient_epsilon(o: Operands) -> float:
    """That of the widest rounding in which recorded gradients are stored; 0 without any."""
    stored = (o.source.trajectory.snapshots[row.place].gradients.values() for row in o.source.rows.rows)
    return max((EPSILON.get(each.dtype, 0.0) for extents in stored for each in extents), default=0.0)


@operand(STEPS, REFERENCES)
def row_loss(o: Operands) -> Column:
    """f(x_t; z), replayed: that of the row, where the other operands are those of one tensor."""
    return (o.source.whole or o.source).replayed("loss")


@operand(STEPS, REFERENCES, needs=("grad_sq",))
def grad_size(o: Operands) -> Column:
    """|g_t|, as `averaging` has norms."""
    return o.norm("grad_sq")


@operand(STEPS, REFERENCES)
def second_row_loss(o: Operands) -> Column:
    """f(x_t; z), where it was evaluated."""
    return (o.source.whole or o.source).in_second.replayed("loss")


@operand(STEPS, REFERENCES, second=("loss_at_x",))
def second_loss_at_x(o: Operands) -> Column:
    """f(x_t; z)."""
    return o.second["loss_at_x"]


@operand(STEPS, REFERENCES, second=("loss_at_y",))
def second_loss_at_y(o: Operands) -> Column:
    """f(y; z)."""
    return o.second["loss_at_y"]


@operand(STEPS, REFERENCES, second=("grad_dot_y",))
def second_grad_dot_y(o: Operands) -> Column:
    """<g_t, x_t - y>."""
    return o.second["grad_dot_y"]


@operand(STEPS, second=("previous_grad_dot_step",))
def second_previous_grad_dot_step(o: Operands) -> Column:
    """<grad f(x_{t-1}; z), x_t - x_{t-1}>."""
    return o.second["previous_grad_dot_step"]


@operand(STEPS, REFERENCES, second=("grad_change_y",))
def second_grad_change_y(o: Operands) -> Column:
    """|grad f(x_t; z) - grad f(y; z)|."""
    return o.second["grad_change_y"]
