"""A plain, slow reference for every column that is a formula of parameters, gradients and losses.

Whole vectors in memory, one loop over the records, products and sums in long double. Nothing here is shared
with the package: the formulas are written a second time from the definitions, so that a misreading on one side
shows.

Letters: x_t parameters before update t, g_t gradient on the sample z_t, d_t = x_t - x_{t-1} (last record),
e_t = x_t - x* for a reference x*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Point = np.ndarray | Mapping[str, np.ndarray]
Vector = NDArray[np.longdouble]
Loss = Callable[[Any, Any], float]
Gradient = Callable[[Any, Any], Any]
Columns = dict[str, NDArray[np.float64]]

NAN = float("nan")
BETA = 0.99

# one row at a time; the running ones follow from these
STEP_COLUMNS = (
    *("step", "prev_step", "stride", "weight", "tau", "lr", "loss", "param_norm", "grad_norm"),
    *("step_norm", "init_dist", "path_length", "update_cos", "update_corr", "descent", "loss_change"),
    *("inst_gap", "gap_resolution", "inst_smooth", "directional_smoothness"),
)
REFERENCE_COLUMNS = (
    *("step", "weight", "ref_dist", "grad_norm", "grad_dot_ref", "rsi", "eb", "cos", "cos_floor", "cos_skip"),
    *("lo_lr", "update_dot_ref", "loss", "loss_ref", "inst_gap", "gap_resolution", "inst_smooth"),
)


@dataclass
class Record:
    """One recorded step: x before the update, the update's gradient and rate, and the sample z they came from."""

    step: int
    x: Point
    g: Point | None = None
    lr: float | None = None
    tau: float | None = None
    z: Any = None
    loss: float | None = None
    clip: float = 1.0


@dataclass
class Reference:
    """A point x*, and where it lies in the same run.

    `step` only where it is one recorded iterate; `since` the earliest of several, averaged. From elsewhere: neither.
    """

    x: Point
    step: int | None = None
    since: int | None = None

    def is_after(self, step: int) -> bool:
        """Whether x* was made from the update of this step, so that x_t - x* holds the step's own gradient."""
        first = self.step if self.since is None else self.since
        return first is not None and step < first


@dataclass
class Tables:
    steps: Columns
    references: dict[str, Columns]


def flat(point: Point) -> Vector:
    """All tensors of a point in one vector, by name."""
    if isinstance(point, np.ndarray):
        return point.astype(np.longdouble).reshape(-1)
    return np.concatenate([np.asarray(point[name], dtype=np.longdouble).reshape(-1) for name in sorted(point)])


def dot(a: Vector, b: Vector) -> float:
    return float((a * b).sum())


def norm(a: Vector) -> float:
    return float(np.sqrt((a * a).sum()))


def over(a: float, b: float) -> float:
    """a / b; empty where b vanishes."""
    return NAN if b == 0 else a / b


def cosine(a: Vector, b: Vector) -> float:
    return over(dot(a, b), norm(a) * norm(b))


def dense(
    records: Sequence[Record],
    references: Mapping[str, Reference],
    f: Loss | None = None,
    grad: Gradient | None = None,
    *,
    skip: int = 1,
    optimizer: str = "plain-sgd",
    eps: float = float(np.finfo(np.float64).eps),
    c: float,
    ref_gradients: bool = False,
) -> Tables:
    """Every column of both tables that needs no probe, window, curvature or memory; nan is empty.

    With f and grad, losses and gradients are theirs at x_t on z_t; without, or on a record without z_t, they are the
    recorded ones, and whatever needs a second point on one sample is empty.
    """
    path = _Path(records, f, grad, skip, optimizer, eps, c)
    return Tables(_steps(path), {spec: _towards(path, ref, ref_gradients) for spec, ref in references.items()})


class _Path:
    """The run, unpacked: vectors, losses and gradients on their own samples, strides and weights."""

    def __init__(
        self,
        records: Sequence[Record],
        f: Loss | None,
        grad: Gradient | None,
        skip: int,
        optimizer: str,
        eps: float,
        c: float,
    ) -> None:
        self.records, self.skip, self.plain_sgd = records, skip, optimizer == "plain-sgd"
        self.clipped = any(record.clip != 1.0 for record in records)
        self.f, self.grad, self.eps, self.c = f, grad, eps, c
        self.step = [record.step for record in records]
        self.x = [flat(record.x) for record in records]
        self.lr = [NAN if record.lr is None else record.lr for record in records]
        self.tau = [NAN if record.tau is None else record.tau for record in records]
        self.loss: list[float] = []
        self.g: list[Vector | None] = []
        for record in records:
            if f is not None and record.z is not None:
                self.loss.append(f(record.x, record.z))
            else:
                self.loss.append(NAN if record.loss is None else record.loss)
            self.g.append(self._gradient(record))

        count = len(records)
        self.stride = [NAN] + [float(self.step[t] - self.step[t - 1]) for t in range(1, count)]
        chords = self.stride[1:]
        if records[-1].g is None and records[-1].z is None and len(chords) > 1:
            chords = chords[:-1]  # where training stopped says nothing of how it was recorded
        self.smallest = min(chords, default=1.0)
        self.is_chord = [stride == self.smallest for stride in self.stride]
        self.weight = [*self.stride[1:], self.smallest]

    def _gradient(self, record: Record) -> Vector | None:
        if self.grad is not None and record.z is not None:
            return flat(self.grad(record.x, record.z))
        return None if record.g is None else flat(record.g) / np.longdouble(record.clip)

    def __len__(self) -> int:
        return len(self.records)

    def loss_at(self, point: Point, t: int) -> float:
        """f(point; z_t)."""
        z = self.records[t].z
        return NAN if self.f is None or z is None else self.f(point, z)

    def gradient_at(self, point: Point, t: int) -> Vector | None:
        """grad f(point; z_t)."""
        z = self.records[t].z
        return None if self.grad is None or z is None else flat(self.grad(point, z))

    def resolution(self, one: float, other: float) -> float:
        return self.c * self.eps * (abs(one) + abs(other))


def _steps(path: _Path) -> Columns:
    count = len(path)
    column = {name: np.full(count, NAN) for name in STEP_COLUMNS}
    squared_step = np.full(count, NAN)
    path_length = 0.0
    d: list[Vector | None] = [None]
    for t in range(count):
        x, g = path.x[t], path.g[t]
        column["step"][t] = path.step[t]
        column["weight"][t] = path.weight[t]
        column["tau"][t] = path.tau[t]
        column["lr"][t] = path.lr[t]
        column["loss"][t] = path.loss[t]
        column["param_norm"][t] = norm(x)
        column["init_dist"][t] = norm(x - path.x[0])
        if g is not None:
            column["grad_norm"][t] = norm(g)
        if t > 0:
            path_length += norm(x - path.x[t - 1])
            column["prev_step"][t] = path.step[t - 1]
            column["stride"][t] = path.stride[t]
            d.append(x - path.x[t - 1])
        column["path_length"][t] = path_length
        step = d[t]
        if step is None or not path.is_chord[t]:
            continue

        column["step_norm"][t] = norm(step)
        squared_step[t] = dot(step, step)
        before = d[t - 1]
        if before is not None and path.is_chord[t - 1]:
            column["update_cos"][t] = cosine(step, before)
        g_before = path.g[t - 1]
        if g_before is not None:
            column["descent"][t] = dot(g_before, step)
        if g is not None:
            column["update_corr"][t] = dot(g, step)

        # from here on the same sample z_t at x_t and at x_{t-1}
        previous = path.records[t - 1].x
        loss_previous, g_previous = path.loss_at(previous, t), path.gradient_at(previous, t)
        if g is None or g_previous is None:
            continue
        change = path.loss[t] - loss_previous
        resolution = path.resolution(path.loss[t], loss_previous)
        column["loss_change"][t] = change
        column["inst_gap"][t] = change - dot(g, step)
        column["gap_resolution"][t] = resolution
        column["inst_smooth"][t] = over(norm(g - g_previous), norm(step))
        remainder = abs(change - dot(g_previous, step))
        if remainder >= resolution:
            column["directional_smoothness"][t] = over(remainder, dot(step, step) / 2)

    share = np.array(path.weight) / path.smallest  # pair quantities exist where stride = smallest
    both = column["update_corr"] + 0 * column["loss_change"]
    one = column["update_corr"] if np.isnan(column["loss_change"]).all() else both  # one set of rows for both sums
    column["update_corr_sum"] = running_sum(one, share)
    column["descent_sum"] = running_sum(column["descent"], share)
    column["loss_change_sum"] = running_sum(column["loss_change"], share)
    column |= _gap_averages(column["inst_gap"], share)
    column["convexity_num"] = column["update_corr_sum"]
    column["convexity_den"] = running_sum(column["loss_change"], share)
    column["convexity_ratio"] = _ratio(column, share)
    column |= _smooth_averages(column["inst_smooth"], share)
    present = ~np.isnan(column["inst_gap"])
    squared_step = np.where(present, squared_step, NAN)
    gaps, squares = running_sum(column["inst_gap"], share), running_sum(squared_step, share)
    column["smoothness_ratio"] = np.array([over(-a, b / 2) for a, b in zip(gaps, squares, strict=True)])
    return column


def _towards(path: _Path, ref: Reference, ref_gradients: bool) -> Columns:
    count = len(path)
    column = {name: np.full(count, NAN) for name in REFERENCE_COLUMNS}
    star = flat(ref.x)
    for t in range(count):
        g, e = path.g[t], path.x[t] - star
        distance = norm(e)
        column["step"][t] = path.step[t]
        column["weight"][t] = path.weight[t]
        column["ref_dist"][t] = distance
        column["loss"][t] = path.loss[t]
        if t + 1 < count and path.is_chord[t + 1]:
            column["update_dot_ref"][t] = dot(path.x[t + 1] - path.x[t], e)
        if path.plain_sgd and not path.clipped and ref.step is not None and path.step[t] < ref.step:
            column["cos_floor"][t] = _noise_floor(path, t, ref.step)
        if g is None:
            continue

        column["grad_norm"][t] = norm(g)
        column["grad_dot_ref"][t] = dot(g, e)
        column["rsi"][t] = over(dot(g, e), dot(e, e))
        column["eb"][t] = over(norm(g), distance)
        column["cos"][t] = cosine(g, e)
        if path.plain_sgd:
            column["lo_lr"][t] = over(dot(g, e), dot(g, g))
        # else cos holds no term of the step's own, and x_s would bring one in
        later = [s for s in range(count) if path.step[s] >= path.step[t] + path.skip]
        if later and ref.is_after(path.step[t]):
            column["cos_skip"][t] = cosine(g, path.x[later[0]] - star)

        loss_ref = path.loss_at(ref.x, t)
        if math.isnan(loss_ref):
            continue
        column["loss_ref"][t] = loss_ref
        column["inst_gap"][t] = path.loss[t] - loss_ref - dot(g, e)
        column["gap_resolution"][t] = path.resolution(path.loss[t], loss_ref)
        if ref_gradients:
            g_ref = path.gradient_at(ref.x, t)
            assert g_ref is not None
            column["inst_smooth"][t] = over(norm(g - g_ref), distance)

    weight = np.array(path.weight)
    column |= _gap_averages(column["inst_gap"], weight)
    both = column["grad_dot_ref"] + 0 * column["loss_ref"]
    one = column["grad_dot_ref"] if np.isnan(column["loss_ref"]).all() else both  # one set of rows for num and den
    column["convexity_num"] = running_sum(one, weight)
    column["convexity_den"] = running_sum(column["loss"] - column["loss_ref"], weight)
    column["convexity_ratio"] = _ratio(column, weight)
    column |= _smooth_averages(column["inst_smooth"], weight)
    return column


def _noise_floor(path: _Path, t: int, end: int) -> float:
    """eta_t / sqrt( sum_{t <= i < end} eta_i^2 ), a record standing for the `weight` steps until the next."""
    inside = [i for i in range(t, len(path)) if path.step[i] < end]
    return over(path.lr[t], math.sqrt(math.fsum(path.weight[i] * path.lr[i] ** 2 for i in inside)))


def running_sum(values: np.ndarray, weights: np.ndarray) -> NDArray[np.float64]:
    """sum of weight * value over the defined rows so far; empty on the undefined ones."""
    terms: list[float] = []
    result = np.full(len(values), NAN)
    for t, value in enumerate(values):
        if not math.isnan(value):
            terms.append(weights[t] * value)
            result[t] = math.fsum(terms)
    return result


def _running_mean(values: np.ndarray, weights: np.ndarray) -> NDArray[np.float64]:
    total, weight = running_sum(values, weights), running_sum(np.where(np.isnan(values), NAN, 1.0), weights)
    return total / weight


def _running_max(values: np.ndarray) -> NDArray[np.float64]:
    return np.array([NAN if math.isnan(v) else np.nanmax(values[: t + 1]) for t, v in enumerate(values)])


def _exponential(values: np.ndarray) -> NDArray[np.float64]:
    """(1 - beta) sum beta^(n-k) v_k / (1 - beta^n) over the n defined rows so far, unweighted."""
    seen: list[float] = []
    result = np.full(len(values), NAN)
    for t, value in enumerate(values):
        if not math.isnan(value):
            seen.append(value)
            powers = [BETA ** (len(seen) - 1 - k) for k in range(len(seen))]
            result[t] = math.fsum(p * v for p, v in zip(powers, seen, strict=True)) / math.fsum(powers)
    return result


def _gap_averages(gap: np.ndarray, weights: np.ndarray) -> Columns:
    return {"avg_gap": _running_mean(gap, weights), "exp_gap": _exponential(gap)}


def _smooth_averages(smooth: np.ndarray, weights: np.ndarray) -> Columns:
    return {
        "max_smooth": _running_max(smooth),
        "avg_smooth": _running_mean(smooth, weights),
        "exp_smooth": _exponential(smooth),
    }


def _ratio(column: Columns, weights: np.ndarray) -> NDArray[np.float64]:
    """num / den, empty where |den| does not exceed the resolution of its sum."""
    num, den = column["convexity_num"], column["convexity_den"]
    resolution = running_sum(column["gap_resolution"], weights)
    return np.array([over(n, d) if abs(d) > r else NAN for n, d, r in zip(num, den, resolution, strict=True)])
