"""Two points of a path that stand in one another's place.

Of points a, b, ..., c, d in a row, of which b and c are exchanged, b would be nearer to d and c nearer to a:

    q = (D(a, c) + D(b, d) - D(a, b) - D(c, d)) / (the sum of the four)

is -(L - 1)/(L + 1) of an exchange over L points of a random walk, at most -0.6 of a straight path, 0 of independent
points, positive of any path in its order, and -1 of an oscillation from one side to the other. So an exchange is told
where q is low, both points are further from the middle of their neighbours than is usual in the run, and with the two
exchanged neither they nor their neighbours are: an oscillation fails that, as every point of it is
alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trajcheck.audit.path import quotient

#: The largest q of an exchange; how many times what is usual (the 75% quantile) both points are off before it, how many
#: times the 90% quantile at most after it, and how much better the worst is for it.
LOW, OFF, AFTER, BETTER = -0.2, 2.0, 1.5, 1.8
#: How many times further off than every point of the repaired path both were.
FURTHER = 1.25
#: So many exchanges are looked for, and so many candidates for each tried.
MOST, TRIED = 8, 32


class Swap(NamedTuple):
    """Points `first` and `second`, each of which belongs where the other stands; `score` is q, and `off` how far they
    were from the middle of their neighbours."""

    first: int
    second: int
    score: float
    off: float


def off_middle(distances: np.ndarray, path: Sequence[int]) -> np.ndarray:
    """|x - the mean of its neighbours|^2 / D(neighbours) of each point of a path; 0 at its ends."""
    p = np.asarray(path)
    way = distances[p[:-2], p[2:]]
    found = quotient((distances[p[:-2], p[1:-1]] + distances[p[1:-1], p[2:]]) / 2 - way / 4, way)
    return np.concatenate([[0.0], found, [0.0]])


def swaps(distances: np.ndarray, path: Sequence[int]) -> tuple[list[int], list[Swap]]:
    """The path with its exchanges undone, and these. They hold where `stand` says so of the path that is left when all
    else that is wrong has been taken away."""
    path = list(path)
    found: list[Swap] = []
    while len(path) >= 7 and len(found) < MOST:
        best = _best(distances, path)
        if best is None:
            break
        i, j, score, off = best
        found.append(Swap(path[i], path[j], score, off))
        path[i], path[j] = path[j], path[i]
    return path, found


def stand(distances: np.ndarray, path: Sequence[int], found: Sequence[Swap]) -> bool:
    """Whether all exchanged points were further off than any point of the repaired path is."""
    most = float(off_middle(distances, path).max()) if found else 0.0
    return all(swap.off >= FURTHER * most for swap in found)


def _best(distances: np.ndarray, path: list[int]) -> tuple[int, int, float, float] | None:
    d = distances[np.ix_(path, path)]
    inner = np.arange(1, len(path) - 1)
    before, after = np.diag(d, 1)[:-1], np.diag(d, 1)[1:]
    now = before[:, None] + after[None, :]
    then = d[inner - 1][:, inner] + d[inner][:, inner + 1]
    score = np.where(inner[:, None] < inner[None, :], quotient(then - now, then + now), 1.0)
    off = off_middle(distances, path)
    for flat in np.argsort(score, axis=None)[:TRIED]:
        i, j = (int(each) + 1 for each in np.unravel_index(flat, score.shape))
        q = float(score[i - 1, j - 1])
        if q > LOW:
            return None
        other = list(path)
        other[i], other[j] = other[j], other[i]
        undone = off_middle(distances, other)
        apart = [k for k in range(1, len(path) - 1) if min(abs(k - i), abs(k - j)) > 1]
        if len(apart) < 3:
            continue
        usual, most = np.quantile(undone[apart], [0.75, 0.9])
        around = [k for k in {i - 1, i, i + 1, j - 1, j, j + 1} if 0 < k < len(path) - 1]
        was, will = min(off[i], off[j]), max(undone[k] for k in around)
        if was >= OFF * usual and will <= AFTER * most and was >= BETTER * will:
            return i, j, q, float(was)
    return None
