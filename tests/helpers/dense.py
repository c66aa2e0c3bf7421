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
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

Point = np.ndarray | Mapping[str, np.ndarray]
Vector = NDArray[np.longdouble]
Loss = Callable[[Any, Any], float]
Gradient = Callable[[Any, Any], Any]
Columns = dict[str, NDArray[np.float64]]
#: From the values of a quantity, NaN where it is empty, to what each row weighs.
Weigh = Callable[[np.ndarray], Sequence[float]]

NAN = float("nan")
BETA = 0.99

# one row at a time; the running ones follow from these
STEP_COLUMNS = (
    *("step", "prev_step", "stride", "weight", "tau", "lr", "loss", "param_norm", "grad_norm"),
    *("step_norm", "init_dist", "path_length", "update_cos", "update_corr", "descent", "loss_change"),
    *("inst_gap", "gap_resolution", "loss_change_resolution", "inst_smooth", "smooth_resolution"),
    "directional_smoothness",
)
REFERENCE_COLUMNS = (
    *("step", "weight", "ref_dist", "grad_norm", "grad_dot_ref", "rsi", "eb", "cos", "cos_floor", "cos_skip"),
    *("lo_lr", "update_dot_ref", "loss", "loss_ref", "inst_gap", "gap_resolution", "inst_smooth", "smooth_resolution"),
    *("quasar", "aiming", "pl", "qg"),
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
    pairs: Weigh
    points: Weigh
    thinned: bool  # of updates
    missed: float | np.ndarray = 0.0  # of the sum of loss_change, as far as it is known


@dataclass
class Nearest:
    """What each row weighs that carries a quantity: the counted places that lie nearer to it than to any other that
    does, looked at one by one; of two equally near the earlier."""

    positions: Sequence[float]
    counted: Sequence[float]
    per: float = 1.0
    more: Sequence[float] = ()  # counted too where the last row carries the quantity

    def __call__(self, values: np.ndarray) -> list[float]:
        carried = [i for i, value in enumerate(values) if not math.isnan(value)]
        result = [0.0] * len(values)
        last = bool(carried) and carried[-1] == len(values) - 1
        for place in (*self.counted, *(self.more if last else ())) if carried else ():
            nearest = min(carried, key=lambda i: (abs(self.positions[i] - place), self.positions[i]))
            result[nearest] += 1 / self.per
        return result


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
    closes: bool | None = None,
    fixed: bool = False,
    previous: bool = False,
    floor: float = NAN,
) -> Tables:
    """Every column of both tables that needs no probe, window, curvature or memory; nan is empty.

    With f and grad, losses and gradients are theirs at x_t on z_t; without, or on a record without z_t, they are the
    recorded ones, and whatever needs a second point on one sample is empty. `closes`: whether the last record is the
    iterate that closes the run, as one without gradient and sample is; `fixed`: the samples are no steps' own, so that
    the last chord can be measured as well; `previous`: they are those of the records before. `floor` is f_inf.
    """
    if closes is None:
        closes = records[-1].g is None and records[-1].z is None
    path = _Path(records, f, grad, skip, optimizer, eps, c, closes, fixed, previous)
    towards = {spec: _towards(path, ref, ref_gradients, floor) for spec, ref in references.items()}
    steps = _steps(path)
    return Tables(steps, towards, path.pairs, path.points, path.thinned, path.missed(steps))


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
        closes: bool,
        fixed: bool,
        previous: bool,
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
        if closes and len(chords) > 1:
            chords = chords[:-1]  # where training stopped says nothing of how it was recorded
        self.smallest = min(chords, default=1.0)
        self.is_chord = [stride == self.smallest for stride in self.stride]
        first, last = self.step[0], self.step[-1]
        end = last if closes else last + 1  # the run's T
        counted = range(first + int(self.smallest), last + 1) if previous else range(first, end)
        self.points = Nearest(self.step, counted)
        self.thinned = not set(range(first, end, int(self.smallest))) <= set(self.step)
        self.steps_thinned = not set(range(first, end)) <= set(self.step)
        self.fixed, self.on_previous = fixed, previous
        updates = range(first, last if fixed else end - 1)
        late = () if fixed else range(end - 1, last)
        middles = [s - stride / 2 for s, stride in zip(self.step, self.stride, strict=True)]
        self.pairs = Nearest(middles, [i + 0.5 for i in updates], self.smallest, [i + 0.5 for i in late])
        carried = [NAN if g is None and math.isnan(loss) else 1.0 for g, loss in zip(self.g, self.loss, strict=True)]
        self.weight = self.points(np.array(carried))

    def _gradient(self, record: Record) -> Vector | None:
        if self.grad is not None and record.z is not None:
            return flat(self.grad(record.x, record.z))
        return None if record.g is None else flat(record.g) / np.longdouble(record.clip)

    def __len__(self) -> int:
        return len(self.records)

    def missed(self, column: Columns) -> float | np.ndarray:
        """What is known of the error of loss_change_sum: all of it where the sample stands still, else of the updates
        before the first row that has one."""
        change = column["loss_change"]
        rows = np.flatnonzero(~np.isnan(change))
        if not len(rows) or self.on_previous or math.isnan(self.loss[0]):
            return 0.0
        if self.fixed:
            known = np.array(self.loss) - self.loss[0]
            known[rows[-1]] = self.loss[-1] - self.loss[0]  # that row stands for all that is left
            return known - column["loss_change_sum"]
        first = int(rows[0])
        before = (self.step[first] - self.smallest - self.step[0]) / self.smallest
        if before <= 0:
            return 0.0
        return self.loss_at(self.records[first - 1].x, first) - self.loss[0] - before * change[first]

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

    def smooth(self, g: Vector, other: Vector, distance: float) -> tuple[float, float]:
        """|g - other| / distance, empty where it is rounding, and below what it would be."""
        change = norm(g - other)
        least = self.c * self.eps * (2 * norm(g) + change)
        return (over(change, distance) if change > least else NAN), over(least, distance)


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
        column["gap_resolution"][t] = column["loss_change_resolution"][t] = resolution
        column["inst_smooth"][t], column["smooth_resolution"][t] = path.smooth(g, g_previous, norm(step))
        remainder = abs(change - dot(g_previous, step))
        if remainder > resolution:
            column["directional_smoothness"][t] = over(remainder, dot(step, step) / 2)

    share = path.pairs  # pair quantities exist where stride = smallest
    both = column["update_corr"] + 0 * column["loss_change"]
    one = column["update_corr"] if np.isnan(column["loss_change"]).all() else both  # one set of rows for both sums
    column["update_corr_sum"] = running_sum(one, share)
    column["descent_sum"] = running_sum(column["descent"], share)
    column["loss_change_sum"] = running_sum(column["loss_change"], share)
    column |= _gap_averages(column["inst_gap"], share, path.step)
    column["convexity_num"] = column["update_corr_sum"]
    column["convexity_den"] = running_sum(column["loss_change"], share)
    missed = path.missed(column)
    reach = rows_reach(column["loss_change"], share, missed) if path.thinned else np.zeros(count)
    column["convexity_ratio"] = _ratio(column, share, reach)
    column |= _smooth_averages(column["inst_smooth"], share, path.step)
    for kind in ("max", "exp"):
        promised = column["descent"] + column[f"{kind}_smooth"] * squared_step / 2
        column[f"predicted_change_{kind}"] = promised
        column[f"predicted_change_{kind}_sum"] = running_sum(promised, share)
    present = ~np.isnan(column["inst_gap"])
    squared_step = np.where(present, squared_step, NAN)
    gaps, squares = running_sum(column["inst_gap"], share), running_sum(squared_step, share)
    least = running_sum(np.where(present, column["gap_resolution"], NAN), share)
    column["smoothness_ratio"] = np.array(
        [over(-a, b / 2) if abs(a) > r else NAN for a, b, r in zip(gaps, squares, least, strict=True)]
    )
    for name, terms in {"update_corr": one, "descent": column["descent"], "loss_change": column["loss_change"]}.items():
        column[f"{name}_sum_rows_se"] = rows_error(terms, share, missed) if path.thinned else np.full(count, NAN)
    return column | _ratio_errors(column, one, column["loss_change"], share, path.thinned, missed)


def _towards(path: _Path, ref: Reference, ref_gradients: bool, floor: float) -> Columns:
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
        above = path.loss[t] - loss_ref
        column["qg"][t] = over(2 * above, dot(e, e))
        if above > path.resolution(path.loss[t], loss_ref):
            column["quasar"][t] = dot(g, e) / above
            column["pl"][t] = dot(g, g) / (2 * above)
        if path.loss[t] - floor > path.resolution(path.loss[t], 0.0):
            column["aiming"][t] = dot(g, e) / (path.loss[t] - floor)
        if ref_gradients:
            g_ref = path.gradient_at(ref.x, t)
            assert g_ref is not None
            column["inst_smooth"][t], column["smooth_resolution"][t] = path.smooth(g, g_ref, distance)

    weight = path.points
    column |= _gap_averages(column["inst_gap"], weight, path.step)
    both = column["grad_dot_ref"] + 0 * column["loss_ref"]
    one = column["grad_dot_ref"] if np.isnan(column["loss_ref"]).all() else both  # one set of rows for num and den
    column["convexity_num"] = running_sum(one, weight)
    column["convexity_den"] = running_sum(column["loss"] - column["loss_ref"], weight)
    den = column["loss"] - column["loss_ref"] + 0 * column["grad_dot_ref"]
    reach = rows_reach(den, weight) if path.steps_thinned else np.zeros(len(den))
    column["convexity_ratio"] = _ratio(column, weight, reach)
    column |= _smooth_averages(column["inst_smooth"], weight, path.step)
    return column | _ratio_errors(column, one, den, weight, path.steps_thinned)


def _noise_floor(path: _Path, t: int, end: int) -> float:
    """eta_t / sqrt( sum_{t <= i < end} eta_i^2 ), the rate standing still from one record to the next."""
    inside = [i for i in range(t, len(path)) if path.step[i] < end]
    until = [*path.step[1:], path.step[-1] + path.smallest]
    squares = ((until[i] - path.step[i]) * path.lr[i] ** 2 for i in inside)
    return over(path.lr[t], math.sqrt(math.fsum(squares)))


def running_sum(values: np.ndarray, weigh: Weigh) -> NDArray[np.float64]:
    """sum of weight * value over the defined rows so far; empty on the undefined ones."""
    terms: list[float] = []
    weights = weigh(values)
    result = np.full(len(values), NAN)
    for t, value in enumerate(values):
        if not math.isnan(value):
            terms.append(weights[t] * value)
            result[t] = math.fsum(terms)
    return result


def rows_error(values: np.ndarray, weigh: Weigh, missed: float | np.ndarray = 0.0) -> NDArray[np.float64]:
    """sqrt( sum_j d_j^2 (m_j^2 + (m_{j-1}^2 + m_{j+1}^2) / 2) / 2 + missed^2 ), the gaps j between the defined rows so
    far, d_j the difference across a gap and m_j the mean weight of its two rows."""
    weights, result = weigh(values), np.full(len(values), NAN)
    known = np.broadcast_to(missed, (len(values),))
    seen: list[int] = []
    for t, value in enumerate(values):
        if math.isnan(value):
            continue
        seen.append(t)
        m = [0.0, *((weights[i] + weights[j]) / 2 for i, j in pairwise(seen)), 0.0]
        d = [float(values[j] - values[i]) for i, j in pairwise(seen)]
        squares = [d[j] ** 2 * (m[j + 1] ** 2 + (m[j] ** 2 + m[j + 2] ** 2) / 2) for j in range(len(d))]
        square = 0.0 if math.isnan(known[t]) else float(known[t]) ** 2
        result[t] = math.sqrt(math.fsum(squares) / 2 + square)
    return result


def rows_quantile(values: np.ndarray, weigh: Weigh) -> NDArray[np.float64]:
    """t of Student's law that covers what three standard deviations of a normal law do, with the degrees of freedom
    of `rows_error` where the values are independent; infinite on the first row."""
    weights, result = weigh(values), np.full(len(values), NAN)
    seen: list[int] = []
    for t, value in enumerate(values):
        if math.isnan(value):
            continue
        seen.append(t)
        m = [0.0, *((weights[i] + weights[j]) / 2 for i, j in pairwise(seen)), 0.0]
        c = [m[j] ** 2 + (m[j - 1] ** 2 + m[j + 1] ** 2) / 2 for j in range(1, len(m) - 1)]
        square = math.fsum(each**2 for each in c) + math.fsum(a * b for a, b in pairwise(c)) / 2
        freedom = max(1.0, math.fsum(c) ** 2 / square) if square else 1.0
        result[t] = stdtrit(freedom, ndtr(3.0)) if len(seen) > 1 else math.inf
    return result


def rows_reach(values: np.ndarray, weigh: Weigh, missed: float | np.ndarray = 0.0) -> NDArray[np.float64]:
    """What three errors of a sum for the choice of rows reach, widened by Student's t."""
    return reach_of(rows_quantile(values, weigh), rows_error(values, weigh, missed))


def reach_of(quantile: np.ndarray, error: np.ndarray) -> NDArray[np.float64]:
    """quantile * error, infinite where the quantile is, whatever the error."""
    finite = np.where(np.isinf(quantile), NAN, quantile) * error
    return np.where(np.isinf(quantile) & ~np.isnan(error), math.inf, finite)


def _ratio_errors(
    column: Columns,
    num: np.ndarray,
    den: np.ndarray,
    weigh: Weigh,
    thinned: bool,
    missed: float | np.ndarray = 0.0,
) -> Columns:
    """Of num, den and ratio, whose terms are num and den: for the ratio R at a row that of num - R den, with the part
    (1 - R) missed that is left, widened by Student's t, over |den| less what its own errors reach."""
    ratio = np.full(len(num), NAN)
    if not thinned:
        return {f"convexity_{name}_rows_se": ratio for name in ("num", "den", "ratio")}
    den_error, quantile = rows_error(den, weigh, missed), rows_quantile(den, weigh)
    for t, value in enumerate(column["convexity_ratio"]):
        if not math.isnan(value):
            left = (1 - value) * np.broadcast_to(missed, (len(num),))
            size = abs(column["convexity_den"][t]) - quantile[t] * den_error[t]
            ratio[t] = quantile[t] / 3 * rows_error(num - value * den, weigh, left)[t] / size
    return {
        "convexity_num_rows_se": rows_error(num, weigh, missed),
        "convexity_den_rows_se": den_error,
        "convexity_ratio_rows_se": ratio,
    }


def _running_mean(values: np.ndarray, weigh: Weigh) -> NDArray[np.float64]:
    total, weights = running_sum(values, weigh), weigh(values)
    return np.array([over(total[t], math.fsum(weights[: t + 1])) for t in range(len(values))])


def _running_max(values: np.ndarray) -> NDArray[np.float64]:
    return np.array([NAN if math.isnan(v) else np.nanmax(values[: t + 1]) for t, v in enumerate(values)])


def _exponential(values: np.ndarray, steps: Sequence[int]) -> NDArray[np.float64]:
    """sum beta^(t-s) v over the steps s so far, over the sum of those powers: every step since the row before has the
    value of the row, the first row one step."""
    seen: list[float] = []
    result, before = np.full(len(values), NAN), None
    for t, value in enumerate(values):
        if not math.isnan(value):
            seen += [value] * (1 if before is None else steps[t] - before)
            before = steps[t]
            powers = [BETA ** (len(seen) - 1 - k) for k in range(len(seen))]
            result[t] = math.fsum(p * v for p, v in zip(powers, seen, strict=True)) / math.fsum(powers)
    return result


def _gap_averages(gap: np.ndarray, weigh: Weigh, steps: Sequence[int]) -> Columns:
    return {"avg_gap": _running_mean(gap, weigh), "exp_gap": _exponential(gap, steps)}


def _smooth_averages(smooth: np.ndarray, weigh: Weigh, steps: Sequence[int]) -> Columns:
    return {
        "max_smooth": _running_max(smooth),
        "avg_smooth": _running_mean(smooth, weigh),
        "exp_smooth": _exponential(smooth, steps),
    }


def _ratio(column: Columns, weigh: Weigh, reach: np.ndarray) -> NDArray[np.float64]:
    """num / den, empty where |den| does not exceed the resolution of its sum, or what its errors for the choice of
    rows reach."""
    num, den = column["convexity_num"], column["convexity_den"]
    resolution = np.fmax(running_sum(column["gap_resolution"], weigh), reach)
    return np.array([over(n, d) if abs(d) > r else NAN for n, d, r in zip(num, den, resolution, strict=True)])
