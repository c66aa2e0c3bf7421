"""The columns of references.csv, towards one reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from trajcheck.metrics import convexity, secant, smoothness
from trajcheck.metrics.columns import Column, column
from trajcheck.runs.references import Reference
from trajcheck.runs.snapshot import Snapshot
from trajcheck.scalars.rows import Row
from trajcheck.scalars.values import ReferenceScalars
from trajcheck.tables.source import NEEDS_OBJECTIVE, NOT_FINITE, Source
from trajcheck.tables.windows import window_reference_columns

NEEDS_REF_GRADIENTS = "needs the gradient at the reference: give --ref-gradients"
NO_SKIP = "no recorded step lies that far ahead (--skip)"
SKIPPED = "the loss scaler skipped this step: its gradient is not in x_t - x*"
NOT_LATER = "the reference is not a later iterate of this run"


def reference_columns(source: Source, number: int, reference: Reference) -> dict[str, Column]:
    """All columns of references.csv but step, ref and sample, towards the reference of that number, in order."""
    towards: list[ReferenceScalars] = source.each(lambda row: source.scalars[row.place].references[number])

    def scalar(name: str, *reasons: list[str]) -> Column:
        return column((getattr(each, name) for each in towards), *reasons)

    def failed(name: str) -> list[str]:
        return [NOT_FINITE if getattr(each, name) is None else "" for each in towards]

    weights = source.rows.weights
    no_next = source.each(lambda row: row.no_next)
    ref_sq = scalar("ref_sq")
    grad_sq = source.recorded("grad_sq", source.no_gradient)
    grad_dot_ref = scalar("grad_dot_ref", source.no_gradient)
    loss_ref = scalar("loss_ref", source.no_replay, failed("loss_ref"))
    no_ref_gradient = source.each(
        lambda row: NEEDS_OBJECTIVE if source.epsilon is None else "" if source.ref_gradients else NEEDS_REF_GRADIENTS
    )
    ref_change = source.norm(
        "ref_grad_change_sq", number, no_ref_gradient, source.no_replay, failed("ref_grad_change_sq")
    )
    return {
        "weight": column(weights),
        "ref_dist": ref_sq.sqrt(),
        "grad_norm": grad_sq.sqrt(),
        "grad_dot_ref": grad_dot_ref,
        "rsi": secant.rsi(grad_dot_ref, ref_sq),
        "eb": secant.eb(grad_sq, ref_sq),
        "cos": secant.cos(grad_dot_ref, grad_sq, ref_sq),
        **(_without_own_term(source, reference, scalar, grad_sq) if source.sample == "own" else {}),
        "lo_lr": secant.lo_lr(grad_dot_ref, grad_sq).except_where(*_not_plain_steps(source)),
        "lo_lr_smooth": secant.lo_lr_smooth(grad_dot_ref, grad_sq, weights, source.smoothing).except_where(
            *_not_plain_steps(source)
        ),
        "lr": source.per_group("lr").except_where(*_not_plain_steps(source)),
        **(_on_own_samples(source, number, grad_dot_ref, grad_sq, ref_sq) if source.sample == "own" else {}),
        "update_dot_ref": scalar("next_dot_ref", no_next),
        "loss": source.loss,
        "loss_ref": loss_ref,
        **convexity.convexity_columns(
            source.replayed("loss"), loss_ref, grad_dot_ref, weights, source.epsilon or 0.0, source.averaging
        ),
        **window_reference_columns(source, towards),
        **smoothness.smoothness_columns(ref_change, source.norm("ref_sq", number), weights, source.averaging),
        **(_decayed(source, scalar, ref_sq) if source.trajectory.info.decay else {}),
    }


def _on_own_samples(
    source: Source, number: int, grad_dot_ref: Column, grad_sq: Column, ref_sq: Column
) -> dict[str, Column]:
    """What speaks of the steps that were made, and so of their own samples."""
    rate = secant.implied_rate(secant.rsi(grad_dot_ref, ref_sq), secant.eb(grad_sq, ref_sq))
    memory = {f"memory_{lag}": cells[number] for lag, cells in source.memory.items()}
    return {
        "implied_rate": rate.except_where(*_not_plain_steps(source)),
        **{
            name: column(
                (cell if isinstance(cell, float) else None for cell in cells),
                [cell if isinstance(cell, str) else "" for cell in cells],
            )
            for name, cells in memory.items()
        },
    }


def _without_own_term(
    source: Source, reference: Reference, scalar: Callable[..., Column], grad_sq: Column
) -> dict[str, Column]:
    no_skip = source.each(lambda row: _own_term(row, reference) or (NO_SKIP if row.skip is None else ""))
    dot = scalar("grad_dot_skip", source.no_gradient, no_skip)
    return {
        "cos_floor": _cos_floor(source, reference),
        "cos_skip": secant.cos(dot, grad_sq, scalar("skip_sq", no_skip), "x_s is the reference itself"),
    }


def _decayed(source: Source, scalar: Callable[..., Column], ref_sq: Column) -> dict[str, Column]:
    """rsi, eb and cos of g_t + lambda x_t, lambda the weight decay: of the regularised objective, if the decay is
    coupled."""
    regularised_sq = source.recorded("regularised_sq", source.no_gradient)
    dot = scalar("regularised_dot_ref", source.no_gradient)
    return {
        "rsi_wd": secant.rsi(dot, ref_sq),
        "eb_wd": secant.eb(regularised_sq, ref_sq),
        "cos_wd": secant.cos(dot, regularised_sq, ref_sq),
    }


def _own_term(row: Row, reference: Reference) -> str:
    """Why cos_skip is not what frees a cosine of the step's own term; '' where it does.

    Towards a later iterate, x_t - x_T holds the term of z_t, and x_s - x_T does not. But where x* lies behind, or
    elsewhere, cos(g_t, x_t - x*) is free of it already, and x_s - x* would bring it in, with the other sign.
    """
    if not reference.own_steps or row.step >= max(reference.own_steps):
        return "x* does not depend on this step's sample: cos holds no term of the step's own"
    return "" if row.step < min(reference.own_steps) else "x* averages iterates before and after this step"


def _not_plain_steps(source: Source) -> tuple[np.ndarray, str]:
    """Where lo_lr promises nothing: a step that is known not to be along -g_t."""
    info = source.trajectory.info
    known = info.plain_sgd is False or (info.plain_sgd is True and info.weight_decay)
    name = f"{info.optimizer} with momentum" if info.heavy_ball else info.optimizer
    if info.weight_decay and not info.heavy_ball and info.optimizer == "SGD":
        name = "SGD with weight decay"
    reason = f"promises nothing for {name}, whose steps are not along -g_t"
    return np.full(len(source.rows.rows), known), reason


def _cos_floor(source: Source, reference: Reference) -> Column:
    trajectory, info = source.trajectory, source.trajectory.info
    if info.plain_sgd is None:
        why = "the optimizer is unknown: run.json does not name it, or not its momentum"
    elif not info.plain_sgd or info.weight_decay:
        why = (
            f"known for plain SGD only; the run used {info.optimizer}, with momentum or weight decay or of another kind"
        )
    elif any(snapshot.clip != 1.0 for snapshot in trajectory.snapshots):
        why = "known for plain SGD only; the run's gradients were clipped"
    elif reference.step is None:
        why = "the reference is an average, another run or a file"
    else:
        why = ""
    if why:
        return column([None] * len(source.rows.rows), why)

    assert reference.step is not None
    end = trajectory.steps.index(reference.step)
    sums = dict(enumerate(eta_squares(trajectory.snapshots[: end + 1])))
    later = source.each(
        lambda row: NOT_LATER if row.place >= end else SKIPPED if trajectory.snapshots[row.place].skipped else ""
    )
    unknown = source.each(
        lambda row: "the rates of steps that were not recorded are unknown" if sums.get(row.place) is None else ""
    )
    eta_sq = column(source.each(lambda row: sums.get(row.place)), later, unknown)
    return secant.cos_floor(source.per_group("lr"), eta_sq)


def eta_squares(snapshots: Sequence[Snapshot]) -> list[float | None]:
    """For each snapshot, sum of eta_i^2 over ALL steps i from its own up to the last one's; None where it is not known.

    Between two records the sum is the one step's rate, or the recorder's own (`tau_squares`), or in closed form when
    the rate stood still (both records and the elapsed tau agree on it). It is never guessed for steps that nobody
    recorded.
    """
    sums: list[float | None] = [0.0]
    for before, after in pairwise(reversed(snapshots)):
        part = _eta_squares_between(after, before)
        sums.append(None if part is None or sums[-1] is None else sums[-1] + part)
    return sums[::-1]


def _eta_squares_between(first: Snapshot, last: Snapshot) -> float | None:
    steps, rate, later_rate = last.step - first.step, _agreed(first.lr), _agreed(last.lr)
    if steps == 1 and rate is not None:
        return 0.0 if first.skipped else rate**2
    squares = _agreed(first.tau_squares), _agreed(last.tau_squares)
    if squares[0] is not None and squares[1] is not None:
        return squares[1] - squares[0]
    start, stop = _agreed(first.tau), _agreed(last.tau)
    if rate is None or start is None or stop is None or (later_rate is not None and later_rate != rate):
        return None
    return steps * rate**2 if abs(stop - start - steps * rate) <= 1e-9 * abs(stop) else None


def _agreed(groups: tuple[float, ...] | None) -> float | None:
    return groups[0] if groups and len(set(groups)) == 1 else None
