"""Whether the steps of a run are those of the subgradient method, x_{t+1} = x_t - eta_t g_t with g_t of f, of which
theorems of convex optimisation speak; and whether f is one function, the same at every step."""

from __future__ import annotations

import numpy as np

from trajcheck.runs.independence.shared_batches import full_batch
from trajcheck.runs.logs.all_losses import arrays
from trajcheck.runs.logs.run_log import RunLog
from trajcheck.runs.optimizer_settings import OptimizerSettings
from trajcheck.runs.trajectory import Trajectory

#: Share of sum eta^2 |g|^2 by which the squares of the updates may differ from it altogether.
SAME = 0.01


def one_function(trajectory: Trajectory) -> bool:
    """Whether every record that has a batch has the same one, stored once, and no step drew random numbers: then f is
    one function, and each g_t its gradient."""
    return full_batch(trajectory) and not any(snapshot.generators for snapshot in trajectory.snapshots)


def other_steps(trajectory: Trajectory, last: int) -> list[str]:
    """Why the steps up to `last` are not, or not known to be, those of the subgradient method, as far as records tell:
    nothing where they are."""
    places = [place for place, step in enumerate(trajectory.steps) if step <= last]
    snapshots = [trajectory.snapshots[place] for place in places]
    settings = list({id(each): each for each in map(trajectory.settings.at, places)}.values())
    found = [why for each in settings if (why := _other_settings(each))]
    clipped = [snapshot.step for snapshot in snapshots if snapshot.clip != 1.0]
    if clipped:
        found.append(f"gradients were clipped ({len(clipped)} of {len(snapshots)} records, first step {clipped[0]})")
    if elsewhere := [snapshot for snapshot in snapshots if "gradient" in snapshot.omitted]:
        found.append(f"no gradient of step {elsewhere[0].step}: {elsewhere[0].omitted['gradient']}")
    if moved := [snapshot.unseen for snapshot in snapshots if snapshot.unseen is not None]:
        found.append(f"something else than the optimizer changed parameters, last before step {moved[-1].last}")
    if held := [snapshot.step for snapshot in snapshots if snapshot.held]:
        found.append(f"some parameters are not trained at every step (step {held[0]})")
    return list(dict.fromkeys(found))


def _other_settings(settings: OptimizerSettings) -> str:
    if settings.plain_sgd is None:
        return "the optimizer is not known: run.json does not name it, or not its momentum"
    if not settings.plain_sgd:
        return f"the optimizer is {settings.words}"
    if settings.decoupled:
        return "the optimizer is SGD with decoupled weight decay, whose steps are along no gradient of f"
    if settings.weight_decay:
        return "weight decay makes the steps those of f + lambda |x|^2 / 2, of whose gradients these are a part"
    return ""


def update_lengths(log: RunLog | None, first: int, last: int) -> str:
    """Why the updates of the steps from `first` to `last` are not along their gradients, as far as their lengths tell:
    sum | |x_{t+1} - x_t|^2 - eta_t^2 |g_t|^2 | above 1% of sum eta_t^2 |g_t|^2; '' where they may be."""
    if log is None or not (log.update_sq and log.grad_sq and log.lr):
        return ""
    steps, made = arrays(log.update_sq)
    known, squares = arrays(log.grad_sq)
    rated, rates = rate_arrays(log)
    common = np.intersect1d(np.intersect1d(steps, known), rated)
    common = common[(common >= first) & (common <= last)]
    expected = rates[np.searchsorted(rated, common)] ** 2 * squares[np.searchsorted(known, common)]
    off = np.abs(made[np.searchsorted(steps, common)] - expected)
    share = float(off.sum() / expected.sum()) if expected.sum() > 0 else 0.0
    if share <= SAME:
        return ""
    return (
        f"the updates' lengths are not eta_t |g_t| (their squares differ by {100 * share:.2g}% in sum, most at step "
        f"{int(common[np.argmax(off)])})"
    )


def rate_arrays(log: RunLog) -> tuple[np.ndarray, np.ndarray]:
    """The steps of which a log has one rate, that of all parameter groups, in order, and the rates."""
    if (made := getattr(log.lr, "arrays", None)) is not None:
        steps, rates = made()
        return steps, rates
    one = {step: rates[0] for step, rates in log.lr.items() if rates and len(set(rates)) == 1}
    return arrays(one)
