"""Inner products between all of some iterates, in one pass.

For one block of elements all points are read, their mean is subtracted, and the block's share of the Gram matrix is
added. The blocks are as long as fits into a fixed memory, whatever the number of points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from trajcheck.errors import NotFiniteError
from trajcheck.files.extent_reader import ExtentReader, blocks, length_of
from trajcheck.files.extents import Extent
from trajcheck.runs.divergence import not_finite, not_finite_error
from trajcheck.runs.references import Reference
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.rows import Row, Rows

#: Bytes of a block of all points.
MEMORY = 32_000_000

#: Files that are open at a time, at most.
OPEN = 600


class CentredProducts(NamedTuple):
    """With c_t = x_t - mean of the n chosen iterates and p_j = x*_j - that mean: `gram` [n, n] = <c_s, c_t>, `cross`
    [m, n] = <p_j, c_t>, `squares` [m] = |p_j|^2."""

    gram: np.ndarray
    cross: np.ndarray
    squares: np.ndarray


def evenly_spaced(rows: Rows, count: int) -> list[Row]:
    """At most `count` rows, the first and the last among them, whose steps are as evenly spaced as the rows allow."""
    steps = np.array([row.step for row in rows.rows])
    wanted = np.linspace(steps[0], steps[-1], count)
    after = np.clip(np.searchsorted(steps, wanted), 1, max(1, len(steps) - 1))
    nearest = np.where(wanted - steps[after - 1] <= steps[after % len(steps)] - wanted, after - 1, after)
    return [rows.rows[place] for place in np.unique(nearest[nearest < len(steps)])]


def gather_gram(
    trajectory: Trajectory,
    rows: Sequence[Row],
    references: Sequence[Reference],
    progress: Callable[[float], object] = lambda points: None,
) -> CentredProducts:
    """The inner products of the iterates of some rows, float64 throughout. `progress` is told how many points' worth
    was done. Raises NotFiniteError, with step and tensor, at NaN or Inf."""
    numels = {name: math.prod(shape) for name, shape in trajectory.shapes.items()}
    total, n = max(1, sum(numels.values())), len(rows)
    points: list[Mapping[str, Extent]] = [trajectory.snapshots[row.place].parameters for row in rows]
    points += [reference.parameters for reference in references]
    block = np.empty((len(points), max(1, min(total, MEMORY // (8 * len(points))))))
    gram, cross, squares = np.zeros((n, n)), np.zeros((len(references), n)), np.zeros(len(references))
    with ExtentReader(min(OPEN, len(points))) as reader, np.errstate(invalid="ignore", over="ignore"):
        for pieces in blocks(numels, block.shape[1]):
            length = length_of(pieces)
            for tensors, out in zip(points, block, strict=True):
                reader.wide_block(tensors, pieces, out)
            part = block[:, :length]
            part -= part[:n].mean(axis=0)
            gram += part[:n] @ part[:n].T
            cross += part[n:] @ part[:n].T
            squares += np.einsum("ji,ji->j", part[n:], part[n:])
            progress(n * length / total)
        if not np.isfinite(gram).all():
            _raise_not_finite(reader, trajectory, rows)
    return CentredProducts(gram, cross, squares)


def _raise_not_finite(reader: ExtentReader, trajectory: Trajectory, rows: Sequence[Row]) -> None:
    for snapshot in (trajectory.snapshots[row.place] for row in rows):
        if tensor := not_finite(reader, snapshot.parameters, trajectory.shapes):
            raise not_finite_error(snapshot, f"param/{tensor}")
    raise NotFiniteError(
        f"{trajectory.path}: inner products of its iterates overflow float64; the numbers are too large."
    )


def gram_bytes(trajectory: Trajectory, rows: Sequence[Row], references: Sequence[Reference]) -> int:
    """How many bytes `gather_gram` reads."""
    points = [*(trajectory.snapshots[row.place].parameters for row in rows), *(each.parameters for each in references)]
    return sum(tensors[name].length for tensors in points for name in trajectory.shapes)
