"""A plain, slow reference for what a sample convention, windows, tensors, memory and TZC's own code change.

It builds on dense.py, the reference on one sample a record, and shares nothing with the package. Points are
mappings from tensors' names to arrays; products and sums are in long double.

Letters as in dense.py; z the sample that a row is measured on, B the number of probe batches, G the sum of the
gradients of a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from dense import (
    BETA,
    NAN,
    Columns,
    Gradient,
    Loss,
    Point,
    Record,
    Reference,
    Tables,
    Vector,
    Weigh,
    cosine,
    dense,
    dot,
    flat,
    norm,
    over,
    reach_of,
    rows_error,
    rows_quantile,
    running_sum,
)
from numpy.typing import NDArray
from run_files import Program

from trajcheck.metrics.catalogue import quantities

#: Columns that know nothing of the sample.
GEOMETRY = {"step"} | {
    name for table in ("steps", "references") for name, one in quantities(table).items() if not one.of_sample
}
#: Columns that exist on the own sample alone: on any other, cos holds no term of the step's own.
OWN_ONLY = ("cos_floor", "cos_skip")


@dataclass
class Task:
    """A run, where to look from, and how: the options of an analysis that the reference has to know."""

    records: Sequence[Record]
    references: Mapping[str, Reference]
    program: Program
    c: float
    probe: Sequence[Any] = ()
    ref_gradients: bool = False
    points: int | None = None  # of the path integral
    optimizer: str = "plain-sgd"


# -- samples ------------------------------------------------------------------------------------------------------


def on_own(task: Task) -> Tables:
    return _on(task, [record.z for record in task.records], task.program.f, task.program.grad, own=True)


def on_previous(task: Task) -> Tables:
    """z = z_{t-1}, on the rows of pairs."""
    return _on(task, previous_samples(task.records), task.program.f, task.program.grad, previous=True)


def on_full(task: Task) -> Tables:
    """f and grad f are means over the data set, a batch weighing its number of examples."""
    data = task.program.data
    sizes = [len(batch[0] if isinstance(batch, tuple) else batch) for batch in data]

    def f(x: Any, _: Any) -> float:
        terms = [size * task.program.f(x, batch) for size, batch in zip(sizes, data, strict=True)]
        return math.fsum(terms) / sum(sizes)

    def grad(x: Any, _: Any) -> Vector:
        return weighted([flat(task.program.grad(x, batch)) for batch in data], sizes)

    return _on(task, ["all"] * len(task.records), f, grad, fixed=True)


def on_probe(task: Task) -> Tables:
    """Means over the probe batches of what each gives, and their standard errors as `<column>_se`."""
    each = on_each_batch(task)
    pairs, points = each[0].pairs, each[0].points
    missed = np.mean([np.broadcast_to(tables.missed, (len(task.records),)) for tables in each], axis=0)
    steps = mean_with_errors([tables.steps for tables in each], pairs, missed)
    towards = {spec: mean_with_errors([t.references[spec] for t in each], points) for spec in task.references}
    return Tables(steps, towards, pairs, points, each[0].thinned)


def on_each_batch(task: Task) -> list[Tables]:
    f, grad = task.program.f, task.program.grad
    return [_on(task, [batch] * len(task.records), f, grad, fixed=True) for batch in task.probe]


SAMPLES: dict[str, Callable[[Task], Tables]] = {
    "own": on_own,
    "previous": on_previous,
    "probe": on_probe,
    "full": on_full,
}


def _on(task: Task, zs: Sequence[Any], f: Loss, grad: Gradient, own: bool = False, **where: bool) -> Tables:
    """Both tables, row t on the sample zs[t]; nothing that was recorded enters but on the own sample."""
    records = list(task.records) if own else replaced(task.records, zs)
    closes = task.records[-1].g is None and task.records[-1].z is None
    options = {"optimizer": task.optimizer, "c": task.c, "ref_gradients": task.ref_gradients, "closes": closes}
    tables = dense(records, task.references, f, grad, **options, **where)  # type: ignore[arg-type]
    if not own:
        _descent_on_the_same_sample(tables, records, grad)
        for name in OWN_ONLY:
            for columns in tables.references.values():
                del columns[name]
    if task.points is not None:
        path = path_integral(records, grad, task.points)
        tables.steps["path_integral"] = np.where(is_pair(tables.steps), path, NAN)
    return tables


def replaced(records: Sequence[Record], zs: Sequence[Any]) -> list[Record]:
    return [replace(record, z=z, g=None, loss=None, clip=1.0) for record, z in zip(records, zs, strict=True)]


def previous_samples(records: Sequence[Record]) -> list[Any]:
    """z of the record before, where it is as near as two records of the run are."""
    strides = np.diff([record.step for record in records])
    chords = zip(strides, records, strict=False)
    return [None, *(before.z if stride == strides.min() else None for stride, before in chords)]


def is_pair(steps: Columns) -> NDArray[np.bool_]:
    return np.asarray(steps["stride"] == np.nanmin(steps["stride"]))


def _descent_on_the_same_sample(tables: Tables, records: Sequence[Record], grad: Gradient) -> None:
    """<grad f(x_{t-1}; z), d_t>, z being the sample of row t, and what it enters."""
    steps = tables.steps
    descent = np.full(len(records), NAN)
    for t in np.flatnonzero(is_pair(steps)).tolist():
        before, here = records[t - 1], records[t]
        if here.z is not None:
            descent[t] = dot(flat(grad(before.x, here.z)), flat(here.x) - flat(before.x))
    steps["descent"] = descent
    steps["descent_sum"] = running_sum(descent, tables.pairs)
    if tables.thinned:
        steps["descent_sum_rows_se"] = rows_error(descent, tables.pairs, tables.missed)
    _promises(tables)


def _promises(tables: Tables) -> None:
    """descent + L |d|^2 / 2, and their sums."""
    steps = tables.steps
    for kind in ("max", "exp"):
        promised = steps["descent"] + steps[f"{kind}_smooth"] * steps["step_norm"] ** 2 / 2
        steps[f"predicted_change_{kind}"] = promised
        steps[f"predicted_change_{kind}_sum"] = running_sum(promised, tables.pairs)


def mean_with_errors(each: Sequence[Columns], weigh: Weigh, missed: float | np.ndarray = 0.0) -> Columns:
    """Mean over the batches, and sample standard deviation / sqrt(B); ratios of means for convexity_ratio."""
    result: Columns = {}
    for name in each[0]:
        values = np.array([columns[name] for columns in each])
        result[name] = values.mean(axis=0)
        if name not in GEOMETRY and not name.endswith("_resolution") and not name.endswith("_rows_se"):
            result[f"{name}_se"] = values.std(axis=0, ddof=1) / math.sqrt(len(each))
    num, den = (np.array([columns[f"convexity_{part}"] for columns in each]) for part in ("num", "den"))
    resolution = running_sum(result["gap_resolution"], weigh)
    resolution = np.fmax(resolution, reach_of(rows_quantile(den.mean(axis=0), weigh), result["convexity_den_rows_se"]))
    error = result["convexity_den_se"]
    clear = (np.abs(den.mean(axis=0)) > resolution) & (np.abs(den.mean(axis=0)) > error)
    for t in range(num.shape[1]):
        ratio, ratio_error = jackknife_of_ratio(num[:, t], den[:, t]) if clear[t] else (NAN, NAN)
        result["convexity_ratio"][t], result["convexity_ratio_se"][t] = ratio, ratio_error
    if "quasar" in result:  # of the mean function; pl takes gradients, and has a test of its own
        num, den = (np.array([each_of(columns) for columns in each]) for each_of in (_slope, _above))
        error = den.std(axis=0, ddof=1) / math.sqrt(len(each))
        clear = den.mean(axis=0) > np.fmax(result["gap_resolution"], error)
        for t in range(num.shape[1]):
            found = jackknife_of_ratio(num[:, t], den[:, t]) if clear[t] else (NAN, NAN)
            result["quasar"][t], result["quasar_se"][t] = found
        for name in ("pl", "pl_se"):
            del result[name]
    if not np.isnan(result["convexity_num_rows_se"]).all():
        result["convexity_ratio_rows_se"] = _ratio_error_of_means(result, weigh, missed)
    return result


def _slope(columns: Columns) -> NDArray[np.float64]:
    return columns["grad_dot_ref"]


def _above(columns: Columns) -> NDArray[np.float64]:
    return columns["loss"] - columns["loss_ref"]


def _ratio_error_of_means(mean: Columns, weigh: Weigh, missed: float | np.ndarray) -> NDArray[np.float64]:
    """rows_se of the ratio of means: that of the mean terms."""
    of_steps = "loss_change" in mean
    den = mean["loss_change"] if of_steps else mean["loss"] - mean["loss_ref"]
    num = (mean["update_corr"] if of_steps else mean["grad_dot_ref"]) + 0 * den
    quantile = rows_quantile(den + 0 * num, weigh)
    size = np.abs(mean["convexity_den"]) - reach_of(quantile, mean["convexity_den_rows_se"])
    result = np.full(len(num), NAN)
    for t, ratio in enumerate(mean["convexity_ratio"]):
        if not math.isnan(ratio):
            left = (1 - ratio) * missed
            result[t] = quantile[t] / 3 * rows_error(num - ratio * (den + 0 * num), weigh, left)[t] / size[t]
    return result


def jackknife_of_ratio(num: np.ndarray, den: np.ndarray) -> tuple[float, float]:
    """mean num / mean den, and sqrt( (B-1)/B sum (r_without_b - their mean)^2 )."""
    count = len(num)
    without = [np.delete(num, b).sum() / np.delete(den, b).sum() for b in range(count)]
    spread = math.fsum((r - math.fsum(without) / count) ** 2 for r in without)
    return num.sum() / den.sum(), math.sqrt((count - 1) / count * spread)


# -- progress -----------------------------------------------------------------------------------------------------


def path_integral(records: Sequence[Record], grad: Gradient, points: int) -> NDArray[np.float64]:
    """integral_0^1 <grad f(x_{t-1} + s d_t; z_t), d_t> ds by Gauss-Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    result = np.full(len(records), NAN)
    for t in range(1, len(records)):
        before, here = records[t - 1].x, records[t].x
        if records[t].z is None:
            continue
        d = flat(here) - flat(before)
        slopes = [dot(flat(grad(_between(before, here, (1 + s) / 2), records[t].z)), d) for s in nodes]
        result[t] = math.fsum(w / 2 * slope for w, slope in zip(weights, slopes, strict=True))
    return result


def _between(a: Point, b: Point, s: float) -> Point:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a + s * (b - a)
    assert isinstance(a, Mapping) and isinstance(b, Mapping)
    return {name: a[name] + s * (b[name] - a[name]) for name in a}


# -- all steps from few records -----------------------------------------------------------------------------------


@dataclass
class WindowSums:
    """What the Recorder writes with record `stop` of the steps [start, stop)."""

    start: int
    stop: int
    gradient: Vector
    offset: float
    loss: float
    grad_sq: float

    def meta(self) -> dict[str, Any]:
        return {
            "from": self.start,
            "steps": self.stop - self.start,
            "grad_dot_offset": self.offset,
            "loss_sum": self.loss,
            "grad_sq_sum": self.grad_sq,
        }


def windows(every: Sequence[Record], recorded: Sequence[int]) -> list[WindowSums]:
    """G = sum g_t and s = sum <g_t, x_t - x_k> over the steps from each record k to the next; `every` step is there."""
    result = []
    for start, stop in pairwise(recorded):
        inside, x = every[start:stop], flat(every[start].x)
        gradients = [freed(record) for record in inside]
        offsets = [dot(g, flat(record.x) - x) for g, record in zip(gradients, inside, strict=True)]
        losses = [NAN if record.loss is None else record.loss for record in inside]
        squares = [dot(g, g) for g in gradients]
        total = np.sum(gradients, axis=0)
        result.append(WindowSums(start, stop, total, math.fsum(offsets), math.fsum(losses), math.fsum(squares)))
    return result


def freed(record: Record) -> Vector:
    """The recorded gradient, free of clipping."""
    assert record.g is not None
    return flat(record.g) / np.longdouble(record.clip)


def every_step_num(every: Sequence[Record], star: Vector, at: Sequence[int]) -> NDArray[np.float64]:
    """sum_{i<t} <g_i, x_i - x*> for the steps t in `at`."""
    terms = [dot(freed(record), flat(record.x) - star) for record in every if record.g is not None]
    return np.array([math.fsum(terms[:t]) for t in at])


def skipped_num(sums: Sequence[WindowSums], every: Sequence[Record], star: Vector) -> NDArray[np.float64]:
    """sum over the windows [k, k') up to t of <G, x_k' - x*>, at the first record and every k'."""
    terms = [dot(window.gradient, flat(every[window.stop].x) - star) for window in sums]
    return np.array([math.fsum(terms[:n]) for n in range(len(terms) + 1)])


# -- secant -------------------------------------------------------------------------------------------------------


def orthogonal_part(g: Vector, e: Vector) -> Vector:
    return g - e * (np.dot(g, e) / np.dot(e, e))


def memory(records: Sequence[Record], star: Vector, lag: int) -> NDArray[np.float64]:
    """Cosine between the part of g_t orthogonal to e_t and the part of g_{t+lag} orthogonal to e_{t+lag}, on row t.

    Empty where g lies along e but for rounding, as the last gradient of plain SGD does towards the last iterate.
    """
    at = {record.step: record for record in records}
    result = np.full(len(records), NAN)
    for row, here in enumerate(records):
        later = at.get(here.step + lag)
        if here.g is None or later is None or later.g is None:
            continue
        parts = [(freed(record), flat(record.x) - star) for record in (here, later)]
        if not all(norm(e) for _, e in parts):
            continue
        beside = [orthogonal_part(g, e) for g, e in parts]
        if all(norm(part) > 1e-10 * norm(g) for part, (g, _) in zip(beside, parts, strict=True)):
            result[row] = cosine(*beside)
    return result


def implied_rate(rsi: np.ndarray, eb: np.ndarray) -> NDArray[np.float64]:
    """1 - mu^2/L^2, mu the smallest rsi so far and L the largest eb; empty where mu <= 0."""
    result = np.full(len(rsi), NAN)
    mu, largest = math.inf, 0.0
    for t in np.flatnonzero(~np.isnan(rsi)):
        mu, largest = min(mu, rsi[t]), max(largest, eb[t])
        if mu > 0:
            result[t] = 1 - mu**2 / largest**2
    return result


def smoothed_lo_lr(dots: np.ndarray, squares: np.ndarray, half: int) -> NDArray[np.float64]:
    """sum <g, e> / sum |g|^2 over the rows t - half ... t + half; nan where they do not all exist."""
    result = np.full(len(dots), NAN)
    for t in range(half, len(dots) - half):
        rows = slice(t - half, t + half + 1)
        result[t] = dots[rows].sum() / squares[rows].sum()
    return result


# -- tensors ------------------------------------------------------------------------------------------------------


def restricted(point: Any, names: Sequence[str]) -> Any:
    return {name: point[name] for name in names}


def of_tensors(task: Task, names: Sequence[str]) -> Tables:
    """The columns that make sense for some of the tensors, on the own sample; and radial_cos in `steps`."""
    records = []
    for record in task.records:
        g = record.g if record.z is None else task.program.grad(record.x, record.z)
        part = None if g is None else restricted(g, names)
        records.append(replace(record, x=restricted(record.x, names), g=part, z=None, loss=None))
    references = {
        spec: Reference(restricted(ref.x, names), ref.step, ref.since) for spec, ref in task.references.items()
    }
    tables = dense(records, references, c=task.c, optimizer=task.optimizer)
    pairs = [(flat(record.x), None if record.g is None else flat(record.g)) for record in records]
    tables.steps["radial_cos"] = np.array([NAN if g is None else cosine(g, x) for x, g in pairs])
    tables.steps["inst_smooth"], tables.steps["smooth_resolution"] = (np.full(len(records), NAN) for _ in range(2))
    for t in np.flatnonzero(is_pair(tables.steps)).tolist():
        before, here, z = task.records[t - 1], task.records[t], task.records[t].z
        if z is not None:
            found = smooth_of(before.x, here.x, z, task.program.grad, [names], task.c)
            tables.steps["inst_smooth"][t], tables.steps["smooth_resolution"][t] = found
    return tables


def smooth_of(y: Any, x: Any, z: Any, grad: Gradient, groups: Sequence[Sequence[str]], c: float) -> tuple[float, float]:
    """|grad f(x; z) - grad f(y; z)| / |x - y|, norms being sums over groups of tensors, empty where it is below what
    rounding can make, which is the other number."""
    here, there = grad(x, z), grad(y, z)
    changes, sizes, distances = [], [], []
    for names in groups:
        g, g_there = flat(restricted(here, names)), flat(restricted(there, names))
        changes.append(norm(g - g_there))
        sizes.append(norm(g))
        distances.append(norm(flat(restricted(x, names)) - flat(restricted(y, names))))
    change, size, distance = map(math.fsum, (changes, sizes, distances))
    least = c * float(np.finfo(np.float64).eps) * (2 * size + change)
    return (over(change, distance) if change > least else NAN), over(least, distance)


# -- TZC's own code -----------------------------------------------------------------------------------------------


def tzc_v1(task: Task, epochs: Sequence[int]) -> Tables:
    """Both tables by the conventions of TZC's code, version 1; with every step recorded."""
    tables = on_previous(task)
    steps, zs = tables.steps, previous_samples(task.records)
    points = [(a.x, b.x) for a, b in _pairs(task.records)]
    steps["inst_smooth"], steps["smooth_resolution"] = per_tensor_smooth(points, zs, task)
    steps["smoothness_ratio"] = lagging_smoothness_ratio(
        steps["update_corr"], steps["loss_change"], steps["step_norm"] ** 2
    )
    for spec, columns in tables.references.items():
        if task.ref_gradients:
            star = task.references[spec].x
            points = [(star, record.x) for record in task.records]
            columns["inst_smooth"], columns["smooth_resolution"] = per_tensor_smooth(points, zs, task)
    for columns in (steps, *tables.references.values()):
        for what, values in (("gap", columns["inst_gap"]), ("smooth", columns["inst_smooth"])):
            weigh = tables.pairs if columns is steps else tables.points
            columns[f"avg_{what}"] = mean_within_epoch(values, epochs, weigh(values))
            columns[f"exp_{what}"] = exponential_from_zero(values, BETA)
            columns[f"exp_{what}_9999"] = exponential_from_zero(values, 0.9999)
        smooth = columns["inst_smooth"]
        columns["max_smooth"] = np.array(
            [NAN if np.isnan(v) else np.nanmax(smooth[: t + 1]) for t, v in enumerate(smooth)]
        )
    _promises(tables)
    return tables


def _pairs(records: Sequence[Record]) -> list[tuple[Record, Record]]:
    return [(records[max(t - 1, 0)], records[t]) for t in range(len(records))]


def per_tensor_smooth(points: Sequence[tuple[Any, Any]], zs: Sequence[Any], task: Task) -> list[NDArray[np.float64]]:
    """sum_w |grad_w f(x_t; z) - grad_w f(y; z)| / sum_w |x_t,w - y_w|, for pairs (y, x_t), and what rounding can make
    of it."""
    found = [
        (NAN, NAN) if z is None else smooth_of(y, x, z, task.program.grad, [[name] for name in x], task.c)
        for (y, x), z in zip(points, zs, strict=True)
    ]
    return [np.array(values) for values in zip(*found, strict=True)]


def running_max(values: np.ndarray) -> NDArray[np.float64]:
    return np.array([NAN if math.isnan(v) else np.nanmax(values[: t + 1]) for t, v in enumerate(values)])


def mean_within_epoch(values: np.ndarray, epochs: Sequence[int], weights: Sequence[float]) -> NDArray[np.float64]:
    result, seen = np.full(len(values), NAN), list[int]()
    for t, value in enumerate(values):
        if t and epochs[t] != epochs[t - 1]:
            seen = []
        if not math.isnan(value):
            seen.append(t)
            result[t] = np.average(values[seen], weights=np.asarray(weights)[seen])
    return result


def exponential_from_zero(values: np.ndarray, beta: float) -> NDArray[np.float64]:
    """m = beta m + (1 - beta) a from m = 0, once for every step since the row before that has a value."""
    result, m, last = np.full(len(values), NAN), 0.0, None
    for t, value in enumerate(values):
        if not math.isnan(value):
            for _ in range(1 if last is None else t - last):
                m = beta * m + (1 - beta) * value
            result[t], last = m, t
    return result


def lagging_smoothness_ratio(
    update_corr: np.ndarray, loss_change: np.ndarray, step_sq: np.ndarray
) -> NDArray[np.float64]:
    """( sum_{i<t} <grad f(x_i), d_i> - sum_{i<=t} loss_change_i ) / ( 1/2 sum_{i<=t} |d_i|^2 )."""
    result = np.full(len(update_corr), NAN)
    for t in range(len(update_corr)):
        if math.isnan(update_corr[t]):
            continue
        before, so_far = update_corr[:t], slice(0, t + 1)
        top = np.nansum(before) - np.nansum(loss_change[so_far])
        result[t] = over(float(top), float(np.nansum(step_sq[so_far])) / 2)
    return result


def weighted(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector:
    total = sum(np.longdouble(weight) * vector for weight, vector in zip(weights, vectors, strict=True))
    return np.asarray(total / np.longdouble(math.fsum(weights)), dtype=np.longdouble)
