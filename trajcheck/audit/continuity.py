"""Steps, or single tensors of steps, that do not lie where their number says."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trajcheck.audit.findings import DAMAGE, SUSPICIOUS, Finding
from trajcheck.audit.kinship import Kept, kept, lengths_squared
from trajcheck.audit.path import Removed, bridges, dimension, squared_distances
from trajcheck.audit.places import Misplaced, Order, order_of
from trajcheck.audit.sampled import Samples

#: The fewest coordinates of a tensor of whose place something is said, and the fewest directions of noise.
COORDINATES, DIRECTIONS = 64, 3.0
#: A path whose R is at most this much nearly everywhere is smooth, in however few directions.
SMOOTH = 0.5
#: So many steps are compared with one another: of more, evenly spaced ones and those that look odd beside neighbours.
MOST_POINTS, EVEN, ODD_ONES = 400, 240, 24
#: Share of the tensors from which a step as a whole is said to be elsewhere; times nearer that a single tensor must be.
ALL, ALONE = 0.85, 3.0

MISPLACED, SWAPPED, STRANGER, ANCESTRY = "misplaced", "swapped", "not of this run", "does not descend from step 0"


@dataclass(frozen=True)
class Continuity:
    """What was found, and why nothing could be where nothing could."""

    findings: tuple[Finding, ...] = ()
    not_judged: str | None = None


def continuity(samples: Samples, left_out: Collection[int] = (), each_tensor: bool = True) -> Continuity:
    """Compare the steps whose samples are finite, without those `left_out`, of which is known that they are wrong;
    `each_tensor` by itself too."""
    good = np.array(samples.finite.all(axis=1))
    good[[row for row, step in enumerate(samples.steps) if step in left_out]] = False
    finite = np.flatnonzero(good)
    moving = np.flatnonzero(samples.moves)
    if len(finite) < 6 or not len(moving):
        return Continuity(not_judged="fewer than 6 steps differ: nothing is said of their order")
    if int(samples.coordinates[moving].sum()) < COORDINATES:
        return Continuity(
            not_judged=f"fewer than {COORDINATES} elements move: nothing is said of the order of the steps"
        )
    points = finite[_compared(samples.moved[finite])]
    whole = samples.moved[points]
    distances = squared_distances(whole)
    order = order_of(distances)
    if not order.path or not _judged(distances, order):
        return Continuity(
            not_judged="the steps lie along no path (they oscillate, jump between few places, or move in few "
            "directions): nothing is said of their order"
        )
    judge = _Judge(samples, points, distances, order, tuple(int(each) for each in moving))
    steps = judge.of_steps()
    tensors = judge.of_tensors() if each_tensor else []  # of what the steps as a whole do not say
    return Continuity((*steps, *tensors, *judge.of_ancestry()))


def _compared(moved: np.ndarray) -> np.ndarray:
    """The places of the steps that are compared with one another."""
    if len(moved) <= MOST_POINTS:
        return np.arange(len(moved))
    x = moved.astype(float)
    one = ((x[1:] - x[:-1]) ** 2).sum(axis=1)
    two = ((x[2:] - x[:-2]) ** 2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(np.minimum(one[:-1], one[1:]) / two)
    steps = np.nan_to_num(one[1:-1] / np.maximum(np.maximum(one[:-2], one[2:]), 1e-300))
    odd = {int(i) + 1 for i in np.argsort(ratio)[-ODD_ONES:]} | {int(i) + 1 for i in np.argsort(steps)[-ODD_ONES:]}
    around = {i + d for i in odd for d in (-2, -1, 0, 1, 2, 3) if 0 <= i + d < len(moved)}
    return np.array(sorted(around | set(np.linspace(0, len(moved) - 1, EVEN).astype(int).tolist())))


def _judged(distances: np.ndarray, order: Order) -> bool:
    """Whether points are in so many directions, or so smooth a path, that none is near another by chance."""
    found = bridges(distances, order.path, 1)
    return bool(np.quantile(found, 0.9) <= SMOOTH) or dimension(distances, order.path) >= DIRECTIONS


class _Judge:
    """The order of all steps, and of each tensor's, as findings."""

    def __init__(
        self, samples: Samples, points: np.ndarray, distances: np.ndarray, order: Order, moving: tuple[int, ...]
    ) -> None:
        self._samples, self._points, self._distances = samples, points, distances
        self._order, self._moving = order, moving
        self._told: set[int] = set()

    @cached_property
    def _tensors(self) -> dict[int, np.ndarray]:
        """The squared distances of each tensor that moves."""
        moved = self._samples.moved[self._points]
        return {tensor: squared_distances(moved[:, self._samples.columns(tensor)]) for tensor in self._moving}

    def _step(self, point: int) -> int:
        return self._samples.steps[self._points[point]]

    def _steps(self, points: Iterable[int]) -> tuple[int, ...]:
        return tuple(sorted(self._step(point) for point in points))

    def of_steps(self) -> list[Finding]:
        """What holds of steps as they are, most of their tensors agreeing."""
        found = []
        for swap in self._order.swapped:
            first, second = self._step(swap.first), self._step(swap.second)
            self._told |= {swap.first, swap.second}
            for here, there in ((first, second), (second, first)):
                words = f"its weights belong where step {there} stands, and those of step {there} here"
                found.append(Finding((here,), SWAPPED, words, DAMAGE, belongs_to=there))
        for each in self._order.misplaced:
            found += self._misplaced(each)
        for stranger in self._order.strangers:
            found += self._stranger(stranger)
        return found

    def _misplaced(self, each: Misplaced) -> list[Finding]:
        """One finding a step: different steps of a row may belong next to different ones."""
        agree = self._agreeing(each)
        if not agree:
            return []
        self._told |= set(each.points)
        names = () if len(agree) >= ALL * len(self._tensors) else tuple(self._samples.names[t] for t in agree)
        return [
            Finding(
                (self._step(point),),
                MISPLACED,
                f"{_times(each.times)} nearer to step {self._step(beside)} than to the steps beside it"
                + (f", {len(agree)} of {len(self._tensors)} tensors" if names else ""),
                DAMAGE,
                names,
                self._step(beside),
            )
            for point, beside in zip(each.points, each.beside, strict=True)
        ]

    def _agreeing(self, each: Misplaced) -> list[int]:
        """The tensors that are nearer to where the points belong than to the points around them."""
        ends = self._around(each.points)
        agree = []
        for tensor, d in self._tensors.items():
            nearer = [
                d[point, beside] < min(d[point, end] for end in ends) or d[point, beside] == 0
                for point, beside in zip(each.points, each.beside, strict=True)
            ]
            if sum(nearer) >= 0.75 * len(nearer):
                agree.append(tensor)
        return agree

    def _around(self, points: Sequence[int]) -> list[int]:
        """The points of the clean path before and after some in a row."""
        path = np.sort(self._order.path)
        before, after = path[path < min(points)], path[path > max(points)]
        return [int(each[place]) for each, place in ((before, -1), (after, 0)) if len(each)]

    def _stranger(self, stranger: Removed) -> list[Finding]:
        """Points that belong nowhere: of another run where nothing of the neighbours is left in them."""
        ends = self._around(stranger.points)
        if len(ends) < 2:
            return []
        before, after = ends
        off = [
            min(d[before, stranger.points[0]], d[stranger.points[-1], after]) > 2 * d[before, after]
            for tensor, d in self._tensors.items()
        ]
        bridge = self._kept(before, after)
        within = self._kept(before, stranger.points[0])
        steps = self._steps(stranger.points)
        words = (
            f"the steps around it, {self._step(before)} and {self._step(after)}, lie "
            f"{_times(np.sqrt(stranger.ratio))} nearer to each other than to it, and no other step is near"
        )
        if bridge.cosine >= 0.2 and within.cosine <= 0.5 * bridge.cosine:
            words += f" (cosine with the step before {within.cosine:.2f}, theirs {bridge.cosine:.2f})"
            self._told |= set(stranger.points)
            return [Finding(steps, STRANGER, words, DAMAGE)]
        if np.mean(off) >= 0.9:
            self._told |= set(stranger.points)
            return [Finding(steps, STRANGER, words, SUSPICIOUS)]
        return []

    def _kept(self, a: int, b: int) -> Kept:
        return kept(self._samples, int(self._points[a]), int(self._points[b]))

    def of_tensors(self) -> list[Finding]:
        """Tensors of a step that belong to another one, where the step itself does not."""
        found: dict[tuple[int, int], list[tuple[int, float]]] = {}
        for tensor, d in self._tensors.items():
            if self._samples.coordinates[tensor] < COORDINATES:
                continue
            order = order_of(d)
            if not order.path or not _judged(d, order):
                continue
            for each in order.misplaced:
                for point, beside in zip(each.points, each.beside, strict=True):
                    if point not in self._told and each.times >= ALONE:
                        found.setdefault((point, beside), []).append((tensor, each.times))
            for swap in order.swapped:
                if swap.first not in self._told and swap.second not in self._told:
                    found.setdefault((swap.first, swap.second), []).append((tensor, 2.0))
                    found.setdefault((swap.second, swap.first), []).append((tensor, 2.0))
        # an exchange in one tensor alone is an oscillation of that one
        found = {pair: tensors for pair, tensors in found.items() if len(tensors) > 1 or tensors[0][1] >= ALONE}
        by_step: dict[int, list[tuple[int, float, int]]] = {}
        for (point, beside), tensors in found.items():
            by_step.setdefault(point, []).extend((tensor, times, beside) for tensor, times in tensors)
        return [self._of_tensors(point, tensors) for point, tensors in sorted(by_step.items())]

    def _of_tensors(self, point: int, tensors: Sequence[tuple[int, float, int]]) -> Finding:
        beside = max({b for _, _, b in tensors}, key=lambda b: sum(each[2] == b for each in tensors))
        together = self._with_small(point, beside, {tensor for tensor, _, _ in tensors})
        names = tuple(self._samples.names[tensor] for tensor in together)
        times = min(times for _, times, _ in tensors)
        words = (
            f"{_times(times)} nearer to step {self._step(beside)} than to the steps beside it, the other "
            f"{len(self._tensors) - len(names)} tensors are in their place"
        )
        return Finding((self._step(point),), MISPLACED, words, DAMAGE, names, self._step(beside))

    def _with_small(self, point: int, beside: int, sure: set[int]) -> list[int]:
        """With tensors too small to be judged alone that agree: as near to the place as the others are."""
        ends = self._around([point])
        return [
            tensor
            for tensor, d in self._tensors.items()
            if tensor in sure
            or (
                self._samples.coordinates[tensor] < COORDINATES
                and d[point, beside] * ALONE**2 <= min(d[point, end] for end in ends)
            )
        ]

    def of_ancestry(self) -> list[Finding]:
        """Where the path breaks: nothing of the points before is left in those after, and both sides hold together."""
        path = list(self._order.path)
        if path != sorted(path):
            return []
        steps = [self._step(point) for point in path]
        lengths = lengths_squared(self._samples)[self._points[path]]
        for gap in range(len(path) - 1):
            if self._distances[path[gap], path[gap + 1]] < 0.5 * lengths[gap]:
                continue  # nothing left of the one in the other is a way of its own length at least
            if not self._kept(path[gap], path[gap + 1]).none:
                continue
            sides = [
                (steps[a + 1] - steps[a], self._kept(path[a], path[a + 1]))
                for a in (gap - 1, gap + 1)
                if 0 <= a < len(path) - 1
            ]
            width = steps[gap + 1] - steps[gap]
            if not sides or not all(side.most and width <= 3 * length for length, side in sides):
                continue
            head = gap + 1 <= len(path) / 2
            apart = path[: gap + 1] if head else path[gap + 1 :]
            part = self._kept(path[gap], path[gap + 1])
            what = "the other steps hold" if head else "they hold"
            words = (
                f"{what} {max(part.part, 0):.2f} +- {part.width:.2f} of {'these' if head else 'the steps before'}, "
                f"where neighbours hold {sides[-1][1].part:.2f} of one another"
            )
            return [Finding(self._steps(apart), ANCESTRY, words, DAMAGE)]
        return []


def _times(times: float) -> str:
    return "wholly" if np.isinf(times) else f"{times:.3g} times" if times < 1000 else "over 1000 times"
