"""What an analysis would read and evaluate, from headers alone; a test holds it against what is read and evaluated."""

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
    """Bytes that the stored-vector pass reads, bytes that the replay reads, and evaluations that it makes."""

    rows: int
    stored_bytes: int
    replay_bytes: int
    losses: int
    gradients: int
    hessians: int = 0

    def __str__(self) -> str:
        lines = [f"rows       {self.rows:,}", f"pass       {self.stored_bytes:,} bytes to read"]
        if self.gradients:
            lines += [
                f"replay     {self.replay_bytes:,} bytes to read",
                f"           {self.losses:,} losses and {self.gradients:,} losses with gradients to evaluate",
            ]
        if self.hessians:
            lines.append(
                f"           {self.hessians:,} Hessians' extreme eigenvalues, of tens to hundreds of products each"
            )
        return "\n".join(lines)


def cost(
    trajectory: Trajectory,
    rows: Rows,
    references: Sequence[Reference],
    evaluations: Collection[str],
    *,
    replay: bool,
    ref_gradients: bool,
    curvature: Collection[int] = (),
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
        return Cost(len(rows.rows), total, 0, 0, 0)
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
    hessians = sum(row.place in curvature for row in sampled)
    losses = (0 if "gradient_previous" in evaluations else pairs) + (0 if ref_gradients else towards)
    return Cost(len(rows.rows), total, _replay_bytes(trajectory, rows, references), losses, gradients, hessians)


def _replay_bytes(trajectory: Trajectory, rows: Rows, references: Sequence[Reference]) -> int:
    """Iterates around each replayed step, once each; recorded gradients, samples, frozen parameters, references."""
    snapshots = trajectory.snapshots
    total = sum(_size(reference.parameters, trajectory) for reference in references)
    near: set[int] = set()
    for row in rows.work:
        snapshot = snapshots[row.place]
        source = trajectory.batch_source(snapshot)
        if row.no_sample or source is None:
            continue
        near |= {row.place - 1, row.place, row.place + 1} & set(range(len(snapshots)))
        if row.skip is not None and row.skip > row.place + 1:
            total += _size(snapshots[row.skip].parameters, trajectory)
        total += 0 if row.no_gradient else _size(snapshot.gradients, trajectory)
        for tensors in (source.batch, snapshot.buffers, snapshot.generators):
            total += sum(extent.length for extent in tensors.values())
    total += sum(extent.length for extent in snapshots[0].frozen.values())
    return total + sum(_size(snapshots[place].parameters, trajectory) for place in near)


def _known(reference: int, step: int, previous: int | None, pairs: int) -> bool:
    """Whether f(x*) was evaluated already, at x_t or x_{t-1}."""
    return reference == step or (pairs > 0 and reference == previous)


def _size(tensors: Mapping[str, Extent], trajectory: Trajectory) -> int:
    return sum(tensors[name].length for name in trajectory.shapes)
