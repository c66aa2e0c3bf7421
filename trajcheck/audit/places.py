"""Where along its path a run's points belong that do not lie where they stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from trajcheck.audit.path import ODD, USUAL, Removed, not_a_path, oscillates, row_bridges, straightened
from trajcheck.audit.swaps import Swap, off_middle, stand, swaps

#: How many times nearer (squared) a point lies to the place where it belongs than to that where it stands.
NEARER = 4.0
#: How many times the steps around it (squared) the step at an end of the path is long, where points there are odd.
FAR = 4.0
#: The fewest points of a path of which anything is said.
FEWEST = 6

_Finder = Callable[[np.ndarray, list[int]], tuple[list[int], list[Removed]]]


@dataclass(frozen=True)
class Misplaced:
    """Points in a row that belong elsewhere: each of `points` next to that of `beside`, `times` nearer to it than to
    the neighbours that they have."""

    points: tuple[int, ...]
    beside: tuple[int, ...]
    times: float


@dataclass(frozen=True)
class Order:
    """What the distances say of the order of the points: a clean path, and what is not on it. `strangers` belong
    nowhere on it. `path` is empty where the points lie along none."""

    path: tuple[int, ...]
    misplaced: tuple[Misplaced, ...] = ()
    swapped: tuple[Swap, ...] = ()
    strangers: tuple[Removed, ...] = ()


def order_of(distances: np.ndarray) -> Order:
    """Look at all points in their order; equal points in a row count as one.

    Exchanges that are undone first may explain points in a row that stand elsewhere, and the other way round: the
    account with the fewest events is taken, and of equal ones that which leaves the shortest way.
    """
    whole = [0, *(i for i in range(1, len(distances)) if distances[i, i - 1] > 0)]
    if len(whole) < FEWEST:
        return Order(())
    finders: tuple[tuple[_Finder, ...], ...] = ((_rows, _ends), (_ends, _rows), ())
    plain = _order(distances, whole, finders[0], exchanges=False)
    if plain.path and not (plain.misplaced or plain.strangers):
        return plain
    tried = [_order(distances, whole, *how) for how in product(finders, (None, False, True))]
    return min((each for each in tried if each.path), key=lambda each: _cost(distances, each), default=Order(()))


def _cost(distances: np.ndarray, order: Order) -> tuple[int, float]:
    """How much has gone wrong by an account, and how long the way is that it leaves. What it leaves unexplained, points
    far from the middle of their neighbours, counts like what it tells."""
    steps = distances[list(order.path[:-1]), list(order.path[1:])]
    off = off_middle(distances, order.path)
    left = int((off > max(0.8, 3 * float(np.quantile(off, 0.75)))).sum())
    return len(order.swapped) + len(order.misplaced) + len(order.strangers) + left, float(steps.sum())


def _order(distances: np.ndarray, whole: Sequence[int], finders: tuple[_Finder, ...], exchanges: bool | None) -> Order:
    """One account: exchanges are looked for first (True), last (False) or not at all (None)."""
    path, swapped = swaps(distances, whole) if exchanges else (list(whole), [])
    apart: list[Removed] = []
    for find in finders:
        path, found = find(distances, path)
        apart += found
    left = set(path)
    if oscillates(distances, [point for point in whole if point in left]):
        return Order(())
    path, removed = straightened(distances, path)
    if exchanges is False:
        path, swapped = swaps(distances, path)
    if not stand(distances, path, swapped):
        return Order(()) if exchanges else _order(distances, whole, finders, None)
    if len(path) < FEWEST - 2 or not_a_path(distances, path):
        return Order(())
    told = [(each, _destination(distances, path, each)) for each in (*apart, *removed)]
    return Order(
        tuple(path),
        tuple(place for _, place in told if place is not None),
        tuple(swapped),
        tuple(each for each, place in told if place is None),
    )


def _rows(distances: np.ndarray, path: list[int]) -> tuple[list[int], list[Removed]]:
    """Points in a row, in whatever order among themselves, each of which belongs elsewhere; long rows first.

    Either R shows that they do not stand on the way, or both steps, to them and from them, are far longer than those
    around: where a run moves fast its own way is long, too.
    """
    removed: list[Removed] = []
    while len(path) >= 5:
        ratios = row_bridges(distances, path)
        usual = max(ODD, USUAL * float(np.quantile(np.diag(ratios)[1:-1], 0.9)))
        odd = np.argwhere((ratios >= usual) | _long_steps(distances, path))
        odd = odd[np.argsort(odd[:, 0] - odd[:, 1], kind="stable")]
        for first, last in odd[odd[:, 1] - odd[:, 0] < len(path) // 2]:
            rest = [*path[: max(0, first - 2)], *path[last + 3 :]]
            points, before, after = path[first : last + 1], path[first - 1], path[last + 1]
            far = np.minimum(distances[points, before], distances[points, after])
            if len(rest) > 2 and (_near(distances, points, rest) * NEARER <= far).all():
                removed.append(Removed(tuple(points), before, after, float(ratios[first, last])))
                del path[first : last + 1]
                break
        else:
            break
    return path, removed


def _long_steps(distances: np.ndarray, path: Sequence[int]) -> np.ndarray:
    """Whether the step to the first of some points in a row is FAR times the three before it, and that from the last
    the three after it: [first, last]."""
    p = np.asarray(path)
    steps = np.concatenate([[0.0] * 3, distances[p[:-1], p[1:]], [0.0] * 3])
    longest = np.lib.stride_tricks.sliding_window_view(steps, 3).max(axis=1)
    count = len(p)
    into, out = np.zeros(count, bool), np.zeros(count, bool)
    inner = np.arange(1, count - 1)
    into[inner] = steps[inner + 2] > FAR * longest[inner - 1]
    out[inner] = steps[inner + 3] > FAR * longest[inner + 4]
    return np.asarray(np.triu(into[:, None] & out[None, :]))


def _near(distances: np.ndarray, points: Sequence[int], rest: Sequence[int]) -> np.ndarray:
    """How near each point lies to the others, two of them: one alone may itself stand in a wrong place."""
    return np.asarray(np.partition(distances[np.ix_(points, rest)], 1, axis=1)[:, 1])


def _ends(distances: np.ndarray, path: list[int]) -> tuple[list[int], list[Removed]]:
    """Points at the path's beginning, or its end, a long step away from the rest, that belong elsewhere on it."""
    removed = []
    for backwards in (False, True):
        ordered = path[::-1] if backwards else path
        count = _apart_at_the_beginning(distances, ordered)
        if count:
            points = tuple(ordered[:count])
            beyond = ordered[count]
            ordered = ordered[count:]
            path = ordered[::-1] if backwards else ordered
            jump = distances[points[-1], beyond]
            usual = max(distances[a, b] for a, b in pairwise(ordered[:4]))
            ratio = float(jump / usual)
            removed.append(
                Removed(points[::-1], beyond, None, ratio) if backwards else Removed(points, None, beyond, ratio)
            )
    return path, removed


def _apart_at_the_beginning(distances: np.ndarray, path: Sequence[int]) -> int:
    """How many points at the beginning belong elsewhere on the rest of the path; 0: none."""
    steps = np.array([distances[a, b] for a, b in pairwise(path)])
    far = np.flatnonzero(steps[:-1] >= FAR * steps[1:]) + 1
    for count in (int(each) for each in far if each < len(path) - 3):
        around = [*steps[max(0, count - 4) : count - 1], *steps[count : count + 3]]
        if steps[count - 1] < FAR * max(around):
            continue
        points, rest = path[:count], path[count:]
        near = _near(distances, points, rest[2:]) if len(rest) > 3 else np.array([np.inf])
        if near.max() * NEARER <= steps[count - 1] and _extent(distances, points) <= _extent(distances, rest):
            return count
    return 0


def _extent(distances: np.ndarray, points: Sequence[int]) -> float:
    return float(distances[np.ix_(points, points)].max())


def _destination(distances: np.ndarray, path: Sequence[int], removed: Removed) -> Misplaced | None:
    beside = tuple(int(path[int(np.argmin(distances[point, path]))]) for point in removed.points)
    far = max(float(distances[point, there]) for point, there in zip(removed.points, beside, strict=True))
    jump = removed.jump(distances)
    if far * NEARER > jump:
        return None
    return Misplaced(removed.points, beside, float(np.sqrt(jump / far)) if far else np.inf)
