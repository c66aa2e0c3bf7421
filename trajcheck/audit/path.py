"""Distances between steps, and the order along a path that they show.

All is of squared distances D(i, j) between sampled points. A trajectory, whatever the optimizer and the schedule, is a
path: leaving out a point, or some in a row, does not make the way between their neighbours much shorter than the way to
them was. With

    R = min(D(before, first), D(last, after)) / D(before, after)

of L points in a row is 1/(L + 1) of a random walk, less of a smooth path, 1 of independent points around a minimum, and
large where the points do not lie there. Oscillation (full-batch descent at the edge of stability) makes R large
everywhere, so a point is odd only beside what is usual in its run: USUAL times the 90% quantile of R elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Least R of points that do not lie where they stand, and how many times what is usual in the run.
ODD, USUAL = 2.25, 4.0
#: Cosine of consecutive steps below which a path turns back, and at how many points in a row it then oscillates.
TURN, RUN = -0.6, 5


@dataclass(frozen=True)
class Removed:
    """Points in a row that do not lie between their neighbours `before` and `after` (None: they stand at an end);
    `ratio` is R."""

    points: tuple[int, ...]
    before: int | None
    after: int | None
    ratio: float

    def jump(self, distances: np.ndarray) -> float:
        """The smaller of the squared distances to the neighbours."""
        ways = []
        if self.before is not None:
            ways.append(distances[self.before, self.points[0]])
        if self.after is not None:
            ways.append(distances[self.points[-1], self.after])
        return float(min(ways))


def squared_distances(points: np.ndarray) -> np.ndarray:
    """D of rows, by the Gram matrix of differences from the middle one; near ones, where that loses digits, anew."""
    x = points.astype(np.float64)
    x -= x[len(x) // 2].copy()
    gram = x @ x.T
    squares = np.diag(gram)
    scale = squares[:, None] + squares[None, :]
    found = np.maximum(scale - 2 * gram, 0.0)
    near = np.argwhere(np.triu(found < 1e-9 * scale, 1))
    for some in np.array_split(near, max(1, len(near) * x.shape[1] // 2**20)):
        i, j = some[:, 0], some[:, 1]
        found[i, j] = found[j, i] = ((x[i] - x[j]) ** 2).sum(axis=1)
    np.fill_diagonal(found, 0.0)
    return found


def bridges(distances: np.ndarray, path: Sequence[int], length: int) -> np.ndarray:
    """R of each `length` points in a row, from the path's second point on."""
    p = np.asarray(path)
    first = np.arange(1, len(p) - length)
    ways = np.minimum(distances[p[first - 1], p[first]], distances[p[first + length - 1], p[first + length]])
    return quotient(ways, distances[p[first - 1], p[first + length]])


def quotient(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; x / 0 is infinite, 0 / 0 is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, part / whole, np.where(part > 0, np.inf, 0.0))


def row_bridges(distances: np.ndarray, path: Sequence[int]) -> np.ndarray:
    """R of the points first..last in a row, [first, last] by their places on the path; 0 where there is no such row."""
    d = distances[np.ix_(path, path)]
    steps = np.diag(d, 1)
    into, out = np.concatenate([[0.0], steps])[:, None], np.concatenate([steps, [0.0]])[None, :]
    around = np.zeros_like(d)
    around[1:, :-1] = d[:-1, 1:]
    found = quotient(np.minimum(into, out), around)
    found[0], found[:, -1] = 0.0, 0.0
    return np.asarray(np.triu(found))


def straightened(distances: np.ndarray, path: Sequence[int]) -> tuple[list[int], list[Removed]]:
    """The path without the points that do not lie on it, and these: single ones first, then more and more in a row.
    Less than half of the points can be removed; where that is not enough there is no path, and nothing is."""
    whole, removed = list(path), []
    path, length = list(path), 1
    if len(path) < 5 or row_bridges(distances, path).max() < ODD:
        return path, []
    while length <= len(whole) // 2 and len(path) >= length + 4:
        found = bridges(distances, path, length)
        place = int(np.argmax(found))
        if not found[place] >= ODD:
            length += 1
            continue
        elsewhere = np.abs(np.arange(len(found)) - place) > length
        usual = np.quantile(found[elsewhere], 0.9) if elsewhere.sum() >= 2 else np.inf
        if not found[place] >= max(ODD, USUAL * usual):
            length += 1
            continue
        first = place + 1
        points = tuple(path[first : first + length])
        removed.append(Removed(points, path[first - 1], path[first + length], float(found[place])))
        del path[first : first + length]
        length = 1
        if len(path) < len(whole) / 2:
            return whole, []
    return path, removed


def not_a_path(distances: np.ndarray, path: Sequence[int]) -> bool:
    """Whether so many points do not lie between their neighbours that nothing can be said of single ones."""
    found = bridges(distances, path, 1)
    return len(found) > 0 and float(np.mean(found > ODD)) > 0.1


def oscillates(distances: np.ndarray, path: Sequence[int]) -> bool:
    """Whether the path turns back at RUN points in a row: the cosine of the steps before and after each is below TURN.

    It is 0 of a random walk, 1 of a straight path, -1/2 of independent points, and -1 of an oscillation from one side
    to the other, as full-batch descent has at the edge of stability. A point that stands elsewhere turns the path once,
    and two that are exchanged four times.
    """
    p = np.asarray(path)
    before, after, over = distances[p[:-2], p[1:-1]], distances[p[1:-1], p[2:]], distances[p[:-2], p[2:]]
    turns = quotient((over - before - after) / 2, np.sqrt(before * after)) < TURN
    longest = run = 0
    for each in turns:
        run = run + 1 if each else 0
        longest = max(longest, run)
    return longest >= RUN


def dimension(distances: np.ndarray, path: Sequence[int]) -> float:
    """In how many dimensions a path's second differences lie, 1 / the mean squared cosine of those that share no point.

    Independent noise of d equal directions has d. In few dimensions points come close by chance, so that distances say
    nothing of where a point belongs. Products of second differences are second differences of -D / 2.
    """
    gram = -0.5 * np.diff(np.diff(distances[np.ix_(path, path)], 2, axis=0), 2, axis=1)
    squares = np.diag(gram)
    norms = squares[:, None] * squares[None, :]
    apart = np.triu(norms > 0, 3)
    if apart.sum() < 3:
        return 1.0
    return float(1 / max(float(np.mean(gram[apart] ** 2 / norms[apart])), 1e-12))
