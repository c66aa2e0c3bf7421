"""What the columns of both tables are made of beside inner products, and those of steps.csv alone."""

from __future__ import annotations

import numpy as np

from trajcheck.metrics.averaging import Averaging
from trajcheck.metrics.columns import Column, column
from trajcheck.metrics.formulas.progress import Excepted
from trajcheck.metrics.quantity import ALLOCATION, REFERENCES, STEPS
from trajcheck.metrics.weights import Weights
from trajcheck.runs.optimizer_settings import OptimizerSettings
from trajcheck.scalars.rows import FIRST, UNSEEN, Row, loss_missing
from trajcheck.scalars.values import StepScalars
from trajcheck.tables.operands import Operands, operand
from trajcheck.tables.source import NEEDS_OBJECTIVE, NO_FLOOR

NOT_CHOSEN = "not among the rows that --curvature chooses"
NO_BEFORE = "there is no step d_{t-1}: x_{t-1} is the first recorded iterate"

# -- of both tables --------------------------------------------------------------------------------------------------


@operand(STEPS, REFERENCES)
def row_weights(o: Operands) -> Column:
    """Of quantities of one point, on rows that have a loss or a gradient."""
    source = o.source
    carried = source.loss.defined | (np.array(source.no_gradient, dtype=object) == "")
    return column(source.rows.point_weights(source.sample).of(carried))


@operand(STEPS, REFERENCES, ALLOCATION)
def weights(o: Operands) -> Weights:
    """Those of sums and averages: of quantities with d_t, or of one point in references.csv."""
    rows, sample = o.source.rows, o.source.sample
    return rows.point_weights(sample) if o.table == REFERENCES else rows.pair_weights(sample)


@operand(STEPS, REFERENCES)
def loss_floor(o: Operands) -> Column:
    """f_inf, the same on every row; undefined where it is not known, or a loss is below it."""
    source = o.source
    why = source.below_floor or (NO_FLOOR if source.floor.value is None else "")
    return column([source.floor.value] * len(source.rows.rows), why)


@operand(STEPS, REFERENCES, ALLOCATION)
def thinned(o: Operands) -> bool:
    """Whether steps, or updates over chords of the stride, that are counted are no rows."""
    return o.thinned


@operand(STEPS, REFERENCES, of_rows=True)
def steps(o: Operands) -> np.ndarray:
    return np.array(o.source.each(lambda row: row.step))


@operand(STEPS, REFERENCES)
def averaging(o: Operands) -> Averaging:
    return o.source.averaging


@operand(STEPS, REFERENCES)
def recorded_lr(o: Operands) -> Column:
    return o.source.per_group("lr")


@operand(STEPS, REFERENCES)
def loss_at_row(o: Operands) -> Column:
    """f(x_t; z): replayed where the row was, else, on the step's own sample, as recorded."""
    return o.source.loss


# -- towards x_{t-1} -------------------------------------------------------------------------------------------------


@operand(STEPS)
def loss_at_x(o: Operands) -> Column:
    """f(x_t; z), replayed, on rows with a step before them."""
    return o.replayed("loss", o.source.no_pair)


@operand(STEPS, evaluations=("loss_previous",))
def loss_at_y(o: Operands) -> Column:
    """f(x_{t-1}; z)."""
    return o.replayed("loss_previous", o.source.no_pair)


@operand(STEPS, needs=("grad_dot_step",))
def grad_dot_y(o: Operands) -> Column:
    """<g_t, x_t - x_{t-1}>."""
    return o.product("grad_dot_step")


@operand(STEPS)
def fixed_sample(o: Operands) -> bool:
    """Whether every row is on the same sample."""
    return o.source.fixed


@operand(STEPS)
def same_sample(o: Operands) -> bool:
    """Whether x_t does not know the sample of its row."""
    return o.source.sample != "previous"


@operand(STEPS, evaluations=("loss_previous",))
def start_loss(o: Operands) -> Column:
    """f(x_b; z), x_b the iterate before the first update that is counted, the same on every row."""
    return _loss_at_step(o, o.source.rows.fixed_updates.start, "begin")


@operand(STEPS, evaluations=("loss_previous",))
def end_loss(o: Operands) -> Column:
    """f(x_e; z), x_e the iterate after the last update that is counted on a fixed sample, the same on every row."""
    return _loss_at_step(o, o.source.rows.fixed_updates.stop, "end")


def _loss_at_step(o: Operands, step: int, what: str) -> Column:
    """Of the step's own row, else as x_{t-1} of the next."""
    source, value = o.source, None
    for row, own, loss in zip(source.rows.rows, source.own, source.loss.values, strict=True):
        if row.step == step and not np.isnan(loss):
            value = float(loss)
        elif value is None and row.prev_step == step and not row.no_pair:
            value = own.loss_previous
    moved = any(row.no_update for row in source.rows.rows)
    missing = f"no row has the loss at step {step}, where sums over updates {what}"
    why = NEEDS_OBJECTIVE if source.epsilon is None else UNSEEN if moved else missing if value is None else ""
    return column([value] * len(source.rows.rows), why)


@operand(STEPS, needs=("grad_change_sq",))
def grad_change_y(o: Operands) -> Column:
    """|grad f(x_t; z) - grad f(x_{t-1}; z)|."""
    return o.norm("grad_change_sq")


@operand(STEPS, needs=("step_sq",))
def distance_y(o: Operands) -> Column:
    """|x_t - x_{t-1}|."""
    return o.norm("step_sq")


# -- of the path -----------------------------------------------------------------------------------------------------


def _no_previous(o: Operands) -> list[str]:
    return o.source.each(lambda row: FIRST if row.prev_step is None else "")


@operand(STEPS, of_rows=True)
def prev_step(o: Operands) -> Column:
    return column(o.source.each(lambda row: row.prev_step), _no_previous(o))


@operand(STEPS, of_rows=True)
def stride(o: Operands) -> Column:
    return column(o.source.each(lambda row: row.stride), _no_previous(o))


@operand(STEPS)
def tau(o: Operands) -> Column:
    return o.source.per_group("tau")


@operand(STEPS)
def first(o: Operands) -> np.ndarray:
    """Whether a row is of the run's first record."""
    return o.source.places == 0


@operand(STEPS, products=("step_sq",))
def chord(o: Operands) -> Column:
    """|x_t - x_{t-1}| of any stride, where the row before is the record before."""
    jumps = (np.diff(o.source.places, prepend=-1) != 1) & ~o["first"]
    length = o.source.recorded("step_sq", _no_previous(o)).sqrt()
    return length.except_where(jumps, "the chord to the previous row is not a recorded one")


def _from_before(o: Operands, name: str) -> Column:
    """A product of the record before."""
    source = o.source

    def missing(row: Row) -> str:
        before = source.rows.before(row)
        return "" if before is None else NO_BEFORE if before.no_pair == FIRST else before.no_pair

    before = [source.scalars[row.place - 1].own if not row.no_pair else None for row in source.rows.rows]
    values = (None if own is None else getattr(own, name) for own in before)
    return column(values, source.no_pair, source.each(missing))


@operand(STEPS, products=("step_dot_next",))
def step_dot_previous(o: Operands) -> Column:
    """<d_t, d_{t-1}>."""
    return _from_before(o, "step_dot_next")


@operand(STEPS, products=("step_sq",))
def previous_step_sq(o: Operands) -> Column:
    """|d_{t-1}|^2."""
    return _from_before(o, "step_sq")


@operand(STEPS, products=("grad_dot_next", "previous_grad_dot_step"), evaluations=("descent",))
def descent(o: Operands) -> Column:
    """<grad f(x_{t-1}), d_t>: on the step's own sample that gradient is the one of the step before, on its own."""
    source = o.source
    if source.sample != "own":
        return o.replayed("previous_grad_dot_step", source.no_pair, source.each(lambda row: row.no_update))

    def missing(row: Row) -> str:
        before = source.rows.before(row)
        reason = "" if before is None else source.gradient_missing(before)
        return reason and f"at the step before: {reason}"

    values = (None if row.no_pair else source.scalars[row.place - 1].own.grad_dot_next for row in source.rows.rows)
    return column(values, source.no_pair, source.each(lambda row: row.no_update), source.each(missing))


@operand(STEPS, of_rows=True)
def not_an_update(o: Operands) -> Excepted:
    """Where d_t is not what the optimizer did."""
    return np.array(o.source.each(lambda row: bool(row.no_update))), UNSEEN


# -- of the Hessian --------------------------------------------------------------------------------------------------


def not_symmetric(asymmetry: float | None) -> str:
    """Why there is nothing of the Hessian, as its products by themselves show; '' where they do not."""
    if asymmetry is None:
        return ""
    return (
        f"products with the Hessian are not symmetric: <u, Hv> and <v, Hu> differ by {asymmetry:.2g} of |H|. The "
        "second derivative of an operation of the loss is not right (a torch.autograd.Function, the former "
        "weight_norm), or the Hessian is rounding alone"
    )


def _of_hessian(o: Operands, name: str, *reasons: list[str]) -> Column:
    source = o.source
    not_asked = source.each(lambda row: "" if row.place in source.curvature else NOT_CHOSEN)
    asymmetry = [not_symmetric(own.hessian_asymmetry) if name != "hessian_products" else "" for own in source.own]
    return source.recorded(name, not_asked, source.no_replay, asymmetry, *reasons, o.source.failed(name))


def _eigenvalue(o: Operands, name: str) -> Column:
    """One end of the spectrum, given or withheld on its own residual."""

    def unfinished(own: StepScalars) -> str:
        residual = getattr(own, f"{name}_residual")
        if residual is None or getattr(own, name) is not None or own.hessian_asymmetry is not None:
            return ""
        return f"Lanczos did not converge in {own.hessian_products:.0f} products: |Hv - lambda v| is {residual:.2g} yet"

    return _of_hessian(o, name, list(map(unfinished, o.source.own)))


@operand(STEPS)
def lambda_max(o: Operands) -> Column:
    return _eigenvalue(o, "lambda_max")


@operand(STEPS)
def lambda_max_residual(o: Operands) -> Column:
    return _of_hessian(o, "lambda_max_residual")


@operand(STEPS)
def lambda_min(o: Operands) -> Column:
    return _eigenvalue(o, "lambda_min")


@operand(STEPS)
def lambda_min_residual(o: Operands) -> Column:
    return _of_hessian(o, "lambda_min_residual")


@operand(STEPS)
def lambda_max_error(o: Operands) -> Column:
    return _of_hessian(o, "lambda_max_error")


@operand(STEPS)
def lambda_min_error(o: Operands) -> Column:
    return _of_hessian(o, "lambda_min_error")


@operand(STEPS)
def hessian_products(o: Operands) -> Column:
    return _of_hessian(o, "hessian_products")


@operand(STEPS)
def grad_curvature(o: Operands) -> Column:
    return _of_hessian(o, "grad_curvature", ["the gradient is 0" if own.grad_sq == 0 else "" for own in o.source.own])


def _settings(o: Operands, row: Row) -> OptimizerSettings:
    return o.source.trajectory.settings.at(row.place)


@operand(STEPS, of_rows=True)
def momentum(o: Operands) -> Column:
    """That of the row's update: of the first parameter group, where a threshold of stability is known, of all."""
    return column(o.source.each(lambda row: next(iter(_momenta(_settings(o, row))), 0.0)))


def _momenta(settings: OptimizerSettings) -> list[float]:
    """The momentum of each parameter group."""
    return [float(group.get("momentum") or 0) for group in settings.groups]


@operand(STEPS, of_rows=True)
def threshold_lr(o: Operands) -> Column:
    """eta_t where a threshold of stability is known for the optimizer as it was set for the row's update."""
    why = np.array(o.source.each(lambda row: _no_threshold(_settings(o, row))), dtype=object)
    return o.source.per_group("lr").except_where(why != "", why)


def _no_threshold(settings: OptimizerSettings) -> str:
    if settings.name is None or not settings.groups:
        return "the optimizer is unknown: run.json does not name it, or not its momentum"
    if settings.name != "SGD":
        return f"not known for {settings.name}: its threshold is that of the preconditioned Hessian"
    apart = ("nesterov", "dampening")  # without momentum they act on nothing
    if any(each.get("maximize") or (each.get("momentum") and any(map(each.get, apart))) for each in settings.groups):
        return "known for gradient descent and heavy-ball momentum, without Nesterov, dampening, maximize"
    return "parameter groups differ in momentum" if len(set(_momenta(settings))) > 1 else ""


# -- of the replay ---------------------------------------------------------------------------------------------------


@operand(STEPS)
def replayed_loss(o: Operands) -> Column:
    return o.replayed("loss")


@operand(STEPS, of_rows=True)
def recorded_loss(o: Operands) -> Column:
    """The loss of the step as it was recorded."""
    trajectory = o.source.trajectory
    losses = o.source.each(lambda row: trajectory.snapshots[row.place].loss)
    return column(losses, o.source.each(lambda row: loss_missing(trajectory, row.place)))
