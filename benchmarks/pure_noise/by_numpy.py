"""What is free of noise, of many seeds at a time: the columns by plain numpy, their means and errors by the package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.pure_noise.walks import LAST, TRAININGS, Walks, walks
from trajcheck.metrics.columns import column
from trajcheck.metrics.uncertainty import draw_error, weighted_mean

#: Reference, quantity, and of every seed its value and its error, None where it has none.
Values = tuple[str, str, list[tuple[float, float | None]]]

#: Seeds of the runs that "other" is the end of are so much higher.
OTHER = 100_000


def by_numpy(name: str, seeds: Sequence[int]) -> Iterator[Values]:
    """Of a training: towards points that no gradient entered, without the steps' own terms towards later iterates, and
    towards x_{t-1}."""
    made, skip = walks(name, seeds), TRAININGS[name].skip
    other = walks(name, [seed + OTHER for seed in seeds]).x[-1]
    yield from _towards(made, "init", made.x[0], 0, "", name)
    yield from _towards(made, "other", other, 0, "", name)
    if skip is not None:
        yield from _towards(made, "final", made.x[-1], skip, "_skip", name)
        yield from _towards(made, f"mean:{LAST}", made.x[-LAST:].mean(axis=0), skip, "_skip", name)
    moved = np.einsum("tsi,tsi->st", made.g[1:], made.x[1:-1] - made.x[:-2])
    yield "x_(t-1)", "convexity_num", [_sum(terms, np.ones(len(terms))) for terms in moved]


def _towards(made: Walks, ref: str, point: np.ndarray, skip: int, ending: str, name: str) -> Iterator[Values]:
    """From the rows whose x_s, `skip` steps on, is not behind the reference: a mean of iterates begins with its first.
    Where x_s is the reference itself there is no cosine and no rsi."""
    rows = len(made.g)
    if skip:
        rows -= skip - 1 if ref == "final" else skip + LAST - 2
    g, apart = made.g[:rows], made.x[skip : skip + rows] - point
    product, square, size = (np.einsum("tsi,tsi->st", a, b) for a, b in ((g, apart), (g, g), (apart, apart)))
    with np.errstate(all="ignore"):
        yield ref, f"cos{ending}", [_mean(each) for each in product / np.sqrt(square * size)]
        yield ref, f"rsi{ending}", [_mean(each) for each in product / size]
        if name.startswith("SGD"):
            yield ref, f"lo_lr{ending}", [_mean(each) for each in product / square]
    weights = np.ones(rows)
    weights[-1] = float(ref != "final")  # whose x_s is the end
    yield ref, f"convexity_num{ending}", [_sum(each, weights) for each in product]
    if skip:
        fell = np.einsum("tsi,tsi->st", g, made.x[:rows] - point)
        yield ref, f"convexity_ratio{ending}", [_ratio(*each, weights) for each in zip(product, fell, strict=True)]


def _mean(values: np.ndarray) -> tuple[float, float | None]:
    found = weighted_mean(column(values), np.ones(len(values)))  # NaN counts for nothing
    assert found is not None
    return found


def _sum(terms: np.ndarray, weights: np.ndarray) -> tuple[float, float | None]:
    return float((weights * terms).sum()), draw_error(terms, weights)


def _ratio(num: np.ndarray, den: np.ndarray, weights: np.ndarray) -> tuple[float, float | None]:
    bottom = float((weights * den).sum())
    ratio = float((weights * num).sum()) / bottom
    return ratio, draw_error(num - ratio * den, weights) / abs(bottom)
