"""Weight matching: the order of hidden units in which one network lies nearest to another.

    P minimises |a - P b|, over all orders of the units of every group (declared.py); since |P b| = |b|, it
    maximises <a, P b>

For one group this is a linear assignment, solved exactly. Several groups share parameters, and the joint problem is
hard: it is solved by coordinate descent, one group after another in the order of the spec, until none changes
(Ainsworth, Hayase, Srinivasa, "Git Re-Basin", arXiv 2209.04836). A group changes only where that is a gain beyond
rounding, so the descent ends, and a point is matched to itself by the identity. It starts from the order given, and
also from one that is made group by group from parameters on which no unmatched group lies, by which a network that
differs in nothing but order is found again; the better end is kept, the first where they are equal. Everything in
float64 and in a fixed order: the same points give the same P.

Signs and scales of units (odd or homogeneous activations) are other symmetries, and are left alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.permutations.declared import Found, Group, Permutations, apply

#: A change of order must gain this much of |a| |b|: below is rounding.
RESOLUTION = 1e-12


class Point(Protocol):
    """Parameters by name; a dict of arrays is one."""

    def __getitem__(self, name: str, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Matched:
    """Orders that align a point b to a point a: `found[group][i]` is the unit of b that becomes unit i."""

    permutations: Permutations
    found: Found
    sweeps: int  # through the groups, the last of which changed nothing

    def permute(self, name: str, array: np.ndarray) -> np.ndarray:
        """P b of one parameter, given whole; the gradient of a permuted network is permuted alike."""
        return apply(self.permutations, self.found, name, array)

    @property
    def inverse(self) -> Matched:
        """The orders that bring a, or what belongs to it, into the order of b."""
        return Matched(
            self.permutations, {group: np.argsort(order) for group, order in self.found.items()}, self.sweeps
        )

    @property
    def moved(self) -> int:
        """How many units are not where they were."""
        return sum(int((order != np.arange(len(order))).sum()) for order in self.found.values())

    @property
    def key(self) -> str:
        """A hash of the orders; the same for the same permutation of the same axes."""
        digest = hashlib.sha256()
        for group in self.permutations.groups:
            digest.update(repr((group.axes, self.found[group.name].tolist())).encode())
        return digest.hexdigest()[:16]


class _Stored:
    """A point on disk, read one parameter at a time."""

    def __init__(self, reader: ExtentReader, extents: Mapping[str, Extent]) -> None:
        self._reader, self._extents = reader, extents

    def __getitem__(self, name: str) -> np.ndarray:
        return wide_tensor(self._reader, self._extents[name])


def wide_tensor(reader: ExtentReader, extent: Extent) -> np.ndarray:
    """A whole tensor in float64, in its shape."""
    values = np.empty(extent.numel)
    reader.widen(extent, 0, values)
    return values.reshape(extent.shape)


def match_points(permutations: Permutations, a: Mapping[str, Extent], b: Mapping[str, Extent]) -> Matched:
    """The orders that align the recorded point b to the recorded point a; holds a few tensors in memory."""
    with ExtentReader() as reader:
        return match(permutations, _Stored(reader, a), _Stored(reader, b))


def match(permutations: Permutations, a: Point, b: Point) -> Matched:
    """The orders, by group, that align b to a. Both hold the parameters that the groups name, of equal shapes."""
    descent = _Descent(permutations, a, b)
    ends = [descent.descend(start) for start in (permutations.identity, descent.built_up())]
    gain = descent.inner(ends[1].found, permutations.by_parameter) - descent.inner(
        ends[0].found, permutations.by_parameter
    )
    return ends[1] if gain > RESOLUTION * descent.scale(permutations.by_parameter) else ends[0]


class _Descent:
    def __init__(self, permutations: Permutations, a: Point, b: Point) -> None:
        self.permutations, self.a, self.b = permutations, a, b

    def descend(self, start: Found) -> Matched:
        """Coordinate descent from `start` until no group changes."""
        found, sweeps, changed = dict(start), 0, True
        while changed:
            sweeps, changed = sweeps + 1, False
            for group in self.permutations.groups:
                order = self._better(group, found)
                if order is not None:
                    found[group.name], changed = order, True
        return Matched(self.permutations, found, sweeps)

    def built_up(self) -> Found:
        """A start: each group by those of its parameters on which no other group lies, or only such as are matched
        already; that group next which has the largest share of its elements there."""
        found, left = dict(self.permutations.identity), list(self.permutations.groups)
        while left:
            shares = [self._settled_share(group, left) for group in left]
            group = left.pop(int(np.argmax(shares)))  # the first of equals
            among = self._settled(group, left) or {axis.parameter for axis in group.axes}
            found[group.name] = _assignment(self._similarity(group, found, among))
        return found

    def inner(self, found: Found, names: Collection[str]) -> float:
        """<a, P b> over some parameters."""
        return math.fsum(
            float(np.vdot(_wide(self.a[name]), apply(self.permutations, found, name, _wide(self.b[name]))))
            for name in names
        )

    def scale(self, names: Collection[str]) -> float:
        """What bounds |<a, P b>|: the sum of |a| |b| over some parameters."""
        return math.fsum(float(np.linalg.norm(self.a[name]) * np.linalg.norm(self.b[name])) for name in names)

    def _better(self, group: Group, found: Found) -> NDArray[np.intp] | None:
        """The best order of one group, the others being as they are; None where it is no better than the present one.

        Where the group permutes a parameter on two axes <a, P b> is quadratic in P. The assignment then maximises its
        linear part at the present order, and what it finds is taken if <a, P b> has truly grown.
        """
        names = {axis.parameter: None for axis in group.axes}
        similarity = self._similarity(group, found, names)
        order = _assignment(similarity)
        if group.twice:
            gain = self.inner({**found, group.name: order}, names) - self.inner(found, names)
        else:
            units = np.arange(group.size)
            gain = math.fsum(similarity[units, order] - similarity[units, found[group.name]])
        return order if gain > RESOLUTION * self.scale(names) else None

    def _similarity(self, group: Group, found: Found, among: Collection[str]) -> np.ndarray:
        """[units, units]: <unit i of a, unit j of b>, the other axes of b in their present order."""
        total = np.zeros((group.size, group.size))
        for axis in group.axes:
            if axis.parameter in among:
                other = apply(self.permutations, found, axis.parameter, _wide(self.b[axis.parameter]), but=axis)
                total += axis.units(_wide(self.a[axis.parameter]), group.size) @ axis.units(other, group.size).T
        return total

    def _settled(self, group: Group, left: Collection[Group]) -> set[str]:
        """Its parameters that it permutes once and on which no group of `left` lies."""
        open_groups = {each.name for each in left if each is not group}
        return {
            axis.parameter
            for axis in group.axes
            if axis.parameter not in group.twice
            and not any(name in open_groups for _, name in self.permutations.by_parameter[axis.parameter])
        }

    def _settled_share(self, group: Group, left: Collection[Group]) -> float:
        sizes = {axis.parameter: self.a[axis.parameter].size for axis in group.axes}
        settled = self._settled(group, left)
        return sum(sizes[name] for name in settled) / max(1, sum(sizes.values()))


def _assignment(similarity: np.ndarray) -> NDArray[np.intp]:
    return np.asarray(linear_sum_assignment(similarity, maximize=True)[1])


def _wide(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, dtype=np.float64)
