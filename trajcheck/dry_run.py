"""What an analysis would read and evaluate, from headers alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from trajcheck.gather import CHUNK
from trajcheck.references import Reference
from trajcheck.rows import Rows
from trajcheck.snapshot import Extent
from trajcheck.trajectory import Trajectory


@dataclass(frozen=True)
class Cost:
    """Bytes that the stored-vector pass reads, and evaluations that the replay makes."""

    rows: int
    bytes_read: int
    losses: int
    gradients: int

    def __str__(self) -> str:
        replay = f"{self.losses:,} losses and {self.gradients:,} losses with gradients" if self.gradients else "nothing"
        return f"{self.rows:,} rows; would read {self.bytes_read:,} bytes in one pass, and replay {replay}"


def cost(
    trajectory: Trajectory,
    rows: Rows,
    references: Sequence[Reference],
    evaluations: Collection[str],
    *,
    replay: bool,
    ref_gradients: bool,
) -> Cost:
    """The cost of an analysis. `evaluations` are those of metrics/families.py."""
    snapshots, total = trajectory.snapshots, 0
    size = _size(snapshots[0].parameters, trajectory)
    for _, group in groupby(rows.work, key=lambda row: row.place // CHUNK):
        members = list(group)
        near = {place for row in members for place in (row.place - 1, row.place, row.place + 1, row.skip)}
        total += size * (len(near & set(range(len(snapshots)))) + len(references) + 1)
        total += sum(
            _size(snapshots[row.place].gradients, trajectory)
            for row in members
            if not row.no_gradient and not (replay and not row.no_sample)
        )
    if not replay:
        return Cost(len(rows.rows), total, 0, 0)
    sampled = [row for row in rows.rows if not row.no_sample]
    pairs = sum(not row.no_pair for row in sampled) if "loss_previous" in evaluations else 0
    towards = 0
    for reference in references if "loss_ref" in evaluations or ref_gradients else ():
        same = [
            row
            for row in sampled
            if not ref_gradients
            and reference.step is not None
            and _known(reference.step, row.step, row.prev_step, pairs)
        ]
        towards += len(sampled) - len(same)
    gradients = sum(not row.no_sample for row in rows.work)
    gradients += pairs if "gradient_previous" in evaluations else 0
    gradients += towards if ref_gradients else 0
    losses = (0 if "gradient_previous" in evaluations else pairs) + (0 if ref_gradients else towards)
    return Cost(len(rows.rows), total, losses, gradients)


def _known(reference: int, step: int, previous: int | None, pairs: int) -> bool:
    """Whether f(x*) was evaluated already, at x_t or x_{t-1}."""
    return reference == step or (pairs > 0 and reference == previous)


def _size(tensors: Mapping[str, Extent], trajectory: Trajectory) -> int:
    return sum(tensors[name].length for name in trajectory.shapes)
