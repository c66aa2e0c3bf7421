"""The columns of steps.csv."""

from __future__ import annotations

import numpy as np

from trajcheck.metrics import convexity, curvature, geometry, progress, smoothness
from trajcheck.metrics.columns import Column, column
from trajcheck.scalars.rows import FIRST, Row
from trajcheck.tables.source import NOT_FINITE, Source
from trajcheck.tables.windows import window_step_columns

NOT_CHOSEN = "not among the rows that --curvature chooses"
NO_BEFORE = "there is no step d_{t-1}: x_{t-1} is the first recorded iterate"


def step_columns(source: Source) -> dict[str, Column]:
    """All columns of steps.csv but step and sample, in the order of the contract."""
    weights, averaging = source.rows.pair_weights, source.averaging
    loss = source.replayed("loss", source.no_pair)
    loss_previous = source.replayed("loss_previous", source.no_pair)
    grad_dot_step = source.recorded("grad_dot_step", source.no_pair, source.no_gradient)
    previous_grad_dot_step = source.replayed("previous_grad_dot_step", source.no_pair)
    grad_change = source.norm("grad_change_sq", None, source.no_pair, source.no_replay, source.failed("grad_change_sq"))
    step_sq = source.recorded("step_sq", source.no_pair)
    gaps = convexity.convexity_columns(loss, loss_previous, grad_dot_step, weights, source.epsilon or 0.0, averaging)
    no_previous = source.each(lambda row: FIRST if row.prev_step is None else "")
    return {
        "prev_step": column(source.each(lambda row: row.prev_step), no_previous),
        "stride": column(source.each(lambda row: row.stride), no_previous),
        "weight": column(source.rows.weights),
        "tau": source.per_group("tau"),
        "lr": source.per_group("lr"),
        "loss": source.loss,
        "param_norm": source.recorded("param_sq").sqrt(),
        "grad_norm": source.recorded("grad_sq", source.no_gradient).sqrt(),
        "step_norm": step_sq.sqrt(),
        "init_dist": source.recorded("init_sq").sqrt(),
        "path_length": _path_length(source),
        "update_cos": _update_cos(source, step_sq),
        **progress.progress_columns(grad_dot_step, _descent(source), loss - loss_previous, weights),
        **(_path_integral(source, loss - loss_previous) if source.path_integral else {}),
        **gaps,
        **window_step_columns(source),
        **smoothness.smoothness_columns(grad_change, source.norm("step_sq", None, source.no_pair), weights, averaging),
        "smoothness_ratio": smoothness.smoothness_ratio(gaps["inst_gap"], grad_dot_step, step_sq, weights, averaging),
        "directional_smoothness": smoothness.directional_smoothness(
            loss, loss_previous, previous_grad_dot_step, step_sq, gaps["gap_resolution"]
        ),
        **(_curvature(source) if source.curvature else {}),
        **(_fidelity(source) if source.sample == "own" else {}),
    }


def _path_integral(source: Source, loss_change: Column) -> dict[str, Column]:
    integral = source.replayed("path_integral", source.no_pair)
    return {
        "path_integral": integral,
        "path_integral_error": progress.path_integral_error(integral, loss_change),
    }


def _fidelity(source: Source) -> dict[str, Column]:
    return {"replay_loss_error": _replay_loss_error(source), "replay_grad_error": _replay_grad_error(source)}


def _curvature(source: Source) -> dict[str, Column]:
    not_asked = source.each(lambda row: "" if row.place in source.curvature else NOT_CHOSEN)
    unfinished = [
        f"Lanczos did not converge in {own.products:.0f} products" if own.converged == 0 else "" for own in source.own
    ]
    failed = [NOT_FINITE if own.converged is not None and own.lambda_max is None else "" for own in source.own]
    reasons = not_asked, source.no_replay, failed
    flat = ["the gradient is 0" if own.grad_sq == 0 else "" for own in source.own]
    return {
        "lambda_max": source.recorded("lambda_max", *reasons, unfinished),
        "lambda_max_residual": source.recorded("lambda_max_residual", *reasons),
        "lambda_min": source.recorded("lambda_min", *reasons, unfinished),
        "lambda_min_residual": source.recorded("lambda_min_residual", *reasons),
        "grad_curvature": source.recorded("grad_curvature", *reasons, flat),
        "stability_threshold": _stability_threshold(source),
    }


def _stability_threshold(source: Source) -> Column:
    info = source.trajectory.info
    group = info.groups[0] if info.groups else {}
    eta = source.per_group("lr")
    if info.optimizer is None or not info.groups:
        why = "the optimizer is unknown: run.json does not name it, or not its momentum"
    elif info.optimizer != "SGD":
        why = f"not known for {info.optimizer}: its threshold is that of the preconditioned Hessian"
    elif any(each.get("nesterov") or each.get("dampening") or each.get("maximize") for each in info.groups):
        why = "known for gradient descent and heavy-ball momentum, without Nesterov, dampening, maximize"
    elif len({each.get("momentum") or 0 for each in info.groups}) > 1:
        why = "parameter groups differ in momentum"
    else:
        why = ""
    return curvature.stability_threshold(eta.except_where(np.full(len(eta), bool(why)), why), group)


def _path_length(source: Source) -> Column:
    first = source.places == 0
    jumps = (np.diff(source.places, prepend=-1) != 1) & ~first
    chord = source.recorded("step_sq", source.each(lambda row: FIRST if row.prev_step is None else "")).sqrt()
    return geometry.path_length(chord.except_where(jumps, "the chord to the previous row is not a recorded one"), first)


def _update_cos(source: Source, step_sq: Column) -> Column:
    def missing(row: Row) -> str:
        before = source.rows.before(row)
        return "" if before is None else NO_BEFORE if before.no_pair == FIRST else before.no_pair

    reasons = source.no_pair, source.each(missing)
    before = [source.scalars[row.place - 1].own if not row.no_pair else None for row in source.rows.rows]
    dot = column((None if own is None else own.step_dot_next for own in before), *reasons)
    before_sq = column((None if own is None else own.step_sq for own in before), *reasons)
    return geometry.update_cos(dot, step_sq, before_sq)


def _descent(source: Source) -> Column:
    """On the step's own sample the gradient at x_{t-1} is the one of that step, on its own sample."""
    if source.sample != "own":
        return source.replayed("previous_grad_dot_step", source.no_pair)

    def missing(row: Row) -> str:
        before = source.rows.before(row)
        reason = "" if before is None else source.gradient_missing(before)
        return reason and f"at the step before: {reason}"

    values = (None if row.no_pair else source.scalars[row.place - 1].own.grad_dot_next for row in source.rows.rows)
    return column(values, source.no_pair, source.each(missing))


def _replay_loss_error(source: Source) -> Column:
    """|replayed - recorded| / |recorded| loss: whether the replay is the training."""
    losses = source.each(lambda row: source.trajectory.snapshots[row.place].loss)
    missing = ["" if loss is not None else "no loss was recorded at this step" for loss in losses]
    recorded = column(losses, missing)
    return abs(source.replayed("loss") - recorded).over(abs(recorded), "the recorded loss is 0")


def _replay_grad_error(source: Source) -> Column:
    """|replayed - recorded| / |recorded| gradient, the recorded one freed of its clipping factor."""
    missing = source.each(lambda row: row.no_gradient)
    recorded_sq = source.replayed("recorded_sq", missing)
    return source.replayed("disagreement_sq", missing).sqrt().over(recorded_sq.sqrt(), "the recorded gradient is 0")
