"""Inner products of gradients and iterates k steps apart, for --memory-lags.

A pass of its own over the recorded gradients and iterates: it looks further ahead than the row pass (row_pass.py), and
is made only when asked for. Block by block, as there; per step it keeps inner products alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from trajcheck.files.extent_reader import BlockPiece, ExtentReader, blocks, length_of
from trajcheck.files.extents import EPSILON, Extent
from trajcheck.runs.references import Reference
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.rows import Row, Rows
from trajcheck.scalars.values import LagScalars
from trajcheck.stream.row_pass import CHUNK

#: Elements per block, and records ahead of a row whose vectors are held: some 20 MB for one reference.
BLOCK, HELD = 16384, 64

#: The products of a row and the step k on, or why there are none.
Lagged = LagScalars | str


@dataclass
class _Sums:
    """<g, g>, <x, x>, <e, e> and <g, e> of one step, growing block by block."""

    gg: float = 0.0
    xx: float = 0.0
    ee: list[float] = field(default_factory=list)  # of each reference
    ge: list[float] = field(default_factory=list)


def gather_lags(
    trajectory: Trajectory,
    rows: Rows,
    references: Sequence[Reference],
    lags: Sequence[int],
    progress: Callable[[float], object] = lambda steps: None,
    *,
    chunk: int = CHUNK,
    block: int = BLOCK,
) -> dict[int, list[list[Lagged]]]:
    """For each lag and each reference, the products on each of `rows.rows`, or the reason for which there are none."""
    found: dict[int, list[list[Lagged]]] = {lag: [[] for _ in references] for lag in lags}
    numels = {name: math.prod(shape) for name, shape in trajectory.shapes.items()}
    total = sum(numels.values())
    for _, group in groupby(rows.rows, key=lambda row: row.place // chunk):
        members = list(group)
        pairs = {(row.place, lag): _partner(trajectory, row, lag) for row in members for lag in lags}
        work = _ChunkPass(trajectory, references, pairs)
        with ExtentReader() as reader:
            for pieces in blocks(numels, block):
                work.block(reader, pieces)
                progress(len(members) * length_of(pieces) / total)
        for row in members:
            for lag in lags:
                for number in range(len(references)):
                    found[lag][number].append(work.lagged(row.place, lag, number))
    return found


def _partner(trajectory: Trajectory, row: Row, lag: int) -> int | str:
    """The place of step t + k, or why there is no gradient at one of the two."""
    place = trajectory.index(row.step + lag)
    if missing := _no_direction(trajectory.snapshots[row.place]):
        return missing
    if place is None:
        return f"step t + {lag} was not recorded"
    missing = _no_direction(trajectory.snapshots[place])
    return f"at step t + {lag}: {missing}" if missing else place


def _no_direction(snapshot: Snapshot) -> str:
    """Why a step has no direction of its gradient; a factor that it was clipped by does not matter."""
    if not snapshot.gradients:
        return "no gradient was recorded at this step"
    if snapshot.skipped:
        return "the loss scaler skipped this step: its gradient was not finite and not used"
    return "the gradient was clipped to nothing" if snapshot.clip is not None and snapshot.clip <= 0 else ""


def _epsilon(tensors: Mapping[str, Extent]) -> float:
    return max(EPSILON[extent.dtype] for extent in tensors.values())


class _ChunkPass:
    """The rows of one chunk and the steps that lie `lag` ahead of them; `pairs` as `_partner` gives them."""

    def __init__(
        self, trajectory: Trajectory, references: Sequence[Reference], pairs: Mapping[tuple[int, int], int | str]
    ) -> None:
        self.snapshots, self.references, self.pairs = trajectory.snapshots, references, pairs
        self.ahead: dict[int, list[int]] = {}  # the partners of each row, by place
        for (place, _), partner in pairs.items():
            if isinstance(partner, int):
                self.ahead.setdefault(place, []).append(partner)
        count = len(references)
        steps = {place for row, partners in self.ahead.items() for place in (row, *partners)}
        self.alone = {place: _Sums(ee=[0.0] * count, ge=[0.0] * count) for place in steps}
        self.across: dict[tuple[int, int], tuple[float, np.ndarray]] = {
            (place, partner): (0.0, np.zeros((3, count)))
            for place, partners in self.ahead.items()
            for partner in partners
        }

    def block(self, reader: ExtentReader, pieces: list[BlockPiece]) -> None:
        """Add one block's share of every inner product."""
        points = [self._read(reader, reference.parameters, pieces) for reference in self.references]
        held: dict[int, tuple[np.ndarray, list[np.ndarray]]] = {}
        counted: set[int] = set()

        def vectors(place: int) -> tuple[np.ndarray, list[np.ndarray]]:
            if place not in held:
                snapshot = self.snapshots[place]
                g = self._read(reader, snapshot.gradients, pieces)
                x = self._read(reader, snapshot.parameters, pieces)
                held[place] = g, [x - point for point in points]
                if place not in counted:
                    counted.add(place)
                    sums = self.alone[place]
                    sums.gg, sums.xx = sums.gg + float(g @ g), sums.xx + float(x @ x)
                    for number, e in enumerate(held[place][1]):
                        sums.ee[number] += float(e @ e)
                        sums.ge[number] += float(g @ e)
            return held[place]

        for place in sorted(self.ahead):
            for other in [known for known in held if not place <= known <= place + HELD]:
                del held[other]  # passed, or so far ahead that it is read again when it is near
            g, es = vectors(place)
            for partner in self.ahead[place]:
                later, errors = vectors(partner)
                dot, crossed = self.across[place, partner]
                for number, (e, error) in enumerate(zip(es, errors, strict=True)):
                    crossed[:, number] += (g @ error, e @ later, e @ error)
                self.across[place, partner] = dot + float(g @ later), crossed

    def lagged(self, place: int, lag: int, number: int) -> Lagged:
        """The products on a row towards a reference."""
        partner = self.pairs[place, lag]
        if isinstance(partner, str):
            return partner
        one, other = self.alone[place], self.alone[partner]
        dot, crossed = self.across[place, partner]
        return LagScalars(
            grad_sq=one.gg,
            grad_dot_ref=one.ge[number],
            ref_sq=one.ee[number],
            later_grad_sq=other.gg,
            later_grad_dot_ref=other.ge[number],
            later_ref_sq=other.ee[number],
            grad_dot_later_grad=dot,
            grad_dot_later_ref=float(crossed[0, number]),
            ref_dot_later_grad=float(crossed[1, number]),
            ref_dot_later_ref=float(crossed[2, number]),
            rounding=max(self._rounding(place, one, number), self._rounding(partner, other, number)),
        )

    def _rounding(self, place: int, sums: _Sums, number: int) -> float:
        """|p|^2 / |g|^2 that the rounding of recorded gradients and iterates can make of nothing."""
        snapshot = self.snapshots[place]
        of_gradient, of_iterate = _epsilon(snapshot.gradients), _epsilon(snapshot.parameters)
        distance = sums.ee[number]
        return of_gradient**2 + (of_iterate**2 * sums.xx / distance if distance else 0.0)

    @staticmethod
    def _read(reader: ExtentReader, tensors: Mapping[str, Extent], pieces: list[BlockPiece]) -> np.ndarray:
        return reader.wide_block(tensors, pieces, np.empty(length_of(pieces)))
