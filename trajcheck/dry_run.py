"""What an analysis would read and evaluate, from headers alone; a test holds it against what is read and evaluated."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from trajcheck.gather import CHUNK
from trajcheck.options import Options
from trajcheck.references import Reference
from trajcheck.rows import Row, Rows
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
    full: bool = False  # some of the evaluations are over a whole data set
    lags: int = 0  # of the memory cosines, a pass of its own

    def __str__(self) -> str:
        lines = [f"rows       {self.rows:,}", f"pass       {self.stored_bytes:,} bytes to read"]
        if self.lags:
            lines.append(f"memory     gradients and iterates once more, for {self.lags} lags")
        if self.gradients or self.losses:
            lines += [
                f"replay     {self.replay_bytes:,} bytes to read",
                f"           {self.losses:,} losses and {self.gradients:,} losses with gradients to evaluate",
            ]
        if self.full:
            lines.append("           those of sample full are each over the whole data set")
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
    options: Options,
    curvature: Collection[int] = (),
    *,
    windows: bool = False,
    neighbours: bool = True,
) -> Cost:
    """The cost of an analysis. `evaluations` are those of metrics/families.py, `curvature` the places of rows,
    `windows` whether window sums are read, `neighbours` whether any iterate beside x_t and x*."""
    snapshots, total, replay = trajectory.snapshots, 0, options.objective is not None
    size = _size(snapshots[0].parameters, trajectory)
    for _, group in groupby(rows.work, key=lambda row: row.place // CHUNK):
        members = list(group)
        near = {place for row in members for place in (row.place - 1, row.place, row.place + 1, row.skip)}
        own = near & set(range(len(snapshots))) if neighbours else members
        total += size * (len(own) + len(references) + neighbours)
        if windows and references:
            total += sum(
                _size(snapshots[row.place].window_gradient, trajectory) for row in members if not row.no_window
            )
        total += sum(
            _size(snapshots[row.place].gradients, trajectory)
            for row in members
            if not row.no_gradient and (not replay or ("own" in options.samples and row.no_sample))
        )
    if not replay:
        return Cost(len(rows.rows), total, 0, 0, 0, lags=len(options.lags))
    probes = sum(probe.batches for probe in trajectory.probes)
    losses = gradients = hessians = 0
    for sample in options.samples:
        times = probes if sample == "probe" else 1
        count = _Count(rows, references, evaluations, options, sample)
        losses, gradients = losses + times * count.losses, gradients + times * count.gradients
        hessians += times * sum(row.place in curvature and not row.no_sample_of(sample) for row in rows.rows)
    bytes_read = _replay_bytes(trajectory, rows, references, options.samples, neighbours)
    full = "full" in options.samples
    return Cost(len(rows.rows), total, bytes_read, losses, gradients, hessians, full, len(options.lags))


class _Count:
    """What the replay evaluates on one kind of sample, walked through as the replay does; see evaluations.py."""

    def __init__(
        self,
        rows: Rows,
        references: Sequence[Reference],
        evaluations: Collection[str],
        options: Options,
        sample: str,
    ) -> None:
        self.losses = self.gradients = 0
        self.ref_gradients, self.points, own = options.ref_gradients, options.path_integral or 0, sample == "own"
        self.with_gradient = "gradient_previous" in evaluations or ("descent" in evaluations and not own)
        self.evaluations = evaluations
        self.keys: list[Hashable] = [
            ("reference", number) if reference.step is None else reference.step
            for number, reference in enumerate(references)
        ]
        for row in rows.work:
            is_row = row.place in rows.places
            if row.no_sample_of(sample) or not (is_row or own):
                continue
            known: set[Hashable] = set()
            if sample == "previous" and "own" in options.samples:
                before = rows.before(row)
                assert before is not None
                known = self._known(before, before.place in rows.places)
            self._row(row, is_row, known, kept=row.prev_step if sample == "previous" else row.step)

    def _known(self, row: Row, is_row: bool) -> set[Hashable]:
        """The points whose losses an own sample knows when its row is done."""
        known: set[Hashable] = {row.step}
        if is_row and not row.no_pair and "loss_previous" in self.evaluations:
            known.add(row.prev_step)
        if is_row and ("loss_ref" in self.evaluations or self.ref_gradients):
            known.update(self.keys)
        return known

    def _row(self, row: Row, is_row: bool, known: set[Hashable], kept: int | None) -> None:
        gradient_kept = kept in known
        self.gradients += 1
        known.add(row.step)
        gradient_kept = gradient_kept or kept == row.step
        if not is_row:
            return
        if not row.no_pair and "loss_previous" in self.evaluations:
            if self.with_gradient:
                self.gradients += not (gradient_kept and kept == row.prev_step)
                gradient_kept = gradient_kept or kept == row.prev_step
            else:
                self.losses += row.prev_step not in known
            known.add(row.prev_step)
        if self.ref_gradients:
            self.gradients += sum(not (gradient_kept and key == kept) for key in self.keys)
        elif "loss_ref" in self.evaluations:
            self.losses += len(set(self.keys) - known)
        if not row.no_pair:
            self.gradients += self.points


def _replay_bytes(
    trajectory: Trajectory,
    rows: Rows,
    references: Sequence[Reference],
    samples: Collection[str],
    neighbours: bool,
) -> int:
    """Iterates around each replayed step, once each; recorded gradients, samples, frozen parameters, references."""
    snapshots = trajectory.snapshots
    total = sum(_size(reference.parameters, trajectory) for reference in references)
    near: set[int] = set()
    for row in rows.work:
        asked = [name for name in samples if not row.no_sample_of(name) and (name == "own" or row.place in rows.places)]
        if not asked:
            continue
        around = {row.place - 1, row.place, row.place + 1 if "own" in asked else row.place} & set(range(len(snapshots)))
        near |= around if neighbours else {row.place}
        if "own" in asked:
            if neighbours and row.skip is not None and row.skip > row.place + 1:
                total += _size(snapshots[row.skip].parameters, trajectory)
            total += 0 if row.no_gradient else _size(snapshots[row.place].gradients, trajectory)
        recorded = [row.place] * ("own" in asked) + [row.place - 1] * ("previous" in asked and "own" not in samples)
        for place in recorded:
            source = trajectory.batch_source(snapshots[place])
            assert source is not None
            total += extent_bytes(source.batch, snapshots[place].buffers, snapshots[place].generators)
        probes = sum(probe.batches for probe in trajectory.probes) if "probe" in asked else 0
        total += (probes + ("full" in asked)) * extent_bytes(snapshots[row.place].buffers)
    if "probe" in samples:
        total += sum(extent_bytes(probe.batch) for probe in trajectory.probes)
    total += extent_bytes(snapshots[0].frozen)
    return total + sum(_size(snapshots[place].parameters, trajectory) for place in near)


def extent_bytes(*tables: Mapping[str, Extent]) -> int:
    """How many bytes some tensors take."""
    return sum(extent.length for tensors in tables for extent in tensors.values())


def _size(tensors: Mapping[str, Extent], trajectory: Trajectory) -> int:
    return sum(tensors[name].length for name in trajectory.shapes)
