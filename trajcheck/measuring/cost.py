"""What an analysis would read and evaluate, from headers alone; a test holds it against what is read and evaluated."""

from __future__ import annotations

import textwrap
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from trajcheck.files.extents import Extent
from trajcheck.measuring.hessian_products import OF_ANALYSIS, in_words
from trajcheck.measuring.options import Options
from trajcheck.measuring.precision import ReplayPrecision
from trajcheck.readable import in_lines, plain
from trajcheck.replay.around import fresh_around, reference_extents
from trajcheck.replay.plan import FIXED, Plan, Reads, fixed_everywhere, replay_reads, rows_twice
from trajcheck.replay.residency import Residency, accumulated, replay_residency
from trajcheck.runs.references import Reference
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.averages import averages_of, in_groups
from trajcheck.scalars.micro_batches import first_accumulated
from trajcheck.scalars.rows import Rows, evenly
from trajcheck.stream.gram_pass import evenly_spaced, gram_bytes
from trajcheck.stream.row_pass import CHUNK


@dataclass(frozen=True)
class Cost:
    """Bytes that the stored-vector pass reads, bytes that the replay reads, and evaluations that it makes.

    `again` of the replay's bytes are references that do not fit into --memory and are read for every row; `device` is
    the most that the replay keeps on its device, the Lanczos basis without --memory excepted, and `device_minimum` the
    least that --memory can be.
    """

    rows: int
    stored_bytes: int
    replay_bytes: int
    losses: int
    gradients: int
    hessians: int = 0
    full: bool = False  # some of the evaluations are over a whole data set
    lags: int = 0  # of the memory cosines, a pass of its own
    again: int = 0
    device: int = 0
    device_minimum: int = 0
    plane_bytes: int = 0  # of the iterates and references of --pca, a pass of its own
    precision: str = ""  # of the replay, with the reason
    second: tuple[str, int, int] | None = None  # the second precision, its rows, and its evaluations among the others
    ends: str = "max"  # of the spectra of Hessians
    asked: bool = False  # what the noise between batches says of that of one example
    replayed: str = ""  # what there is to say of a loss that nobody named
    averaged: tuple[int, int] = (0, 0)  # bytes and losses of --average, a pass of its own

    def __str__(self) -> str:
        lines = [f"rows       {self.rows:,}", f"pass       {self.stored_bytes:,} bytes to read"]
        if self.lags:
            lines.append(f"memory     gradients and iterates once more, for {self.lags} lags")
        if self.plane_bytes:
            lines.append(f"plane      {self.plane_bytes:,} bytes to read")
        if any(self.averaged):
            lines.append(f"averages   {self.averaged[0]:,} bytes to read, {self.averaged[1]:,} losses to evaluate")
        if self.gradients or self.losses:
            again = f", {self.again:,} of them references that --memory does not hold" if self.again else ""
            lines += [
                f"replay     {self.replay_bytes:,} bytes to read{again}",
                f"           {self.losses:,} losses and {self.gradients:,} losses with gradients to evaluate",
            ]
        if self.second:
            dtype, rows, evaluations = self.second
            lines += [f"           {evaluations:,} of them in {dtype}, on {rows} rows, to measure the rounding"]
        if self.device:
            lines += [
                f"           {self.device:,} bytes on its device, beside the model's own forward and",
                f"           backward; --memory can be {self.device_minimum:,} or more",
            ]
        if self.full:
            lines += [
                "           those of sample full are each over the whole data set, whose",
                "           batches are first asked how much each weighs",
            ]
        if self.asked:
            lines += [
                "           besides, two batches of a row are asked whether the loss is a mean over",
                "           its examples, by three losses",
            ]
        if self.hessians:
            lines += [f"           {line}" for line in in_words(self.hessians, OF_ANALYSIS[self.ends])]
        for head, said in (("precision", self.precision), ("objective", self.replayed)):
            words = textwrap.wrap(plain(said), 69) if said else []
            lines += [f"{first:<11}{line}" for first, line in zip((head, *[""] * len(words)), words, strict=False)]
        return in_lines(lines)


def cost(
    trajectory: Trajectory,
    rows: Rows,
    references: Sequence[Reference],
    plan: Plan,
    options: Options,
    *,
    precision: ReplayPrecision,
    second: tuple[str, Plan, Rows] | None = None,
    windows: bool = False,
    neighbours: bool = True,
) -> Cost:
    """The cost of an analysis. `plan` is that of its replay, `precision` its dtype, `second` the dtype, the plan and
    the rows of what is replayed in a second one, `windows` whether window sums are read, `neighbours` whether any
    iterate beside x_t and x*. Errors: UsageError for less memory than the replay needs."""
    stored = _stored_bytes(trajectory, rows, references, options, windows, neighbours)
    plane = gram_bytes(trajectory, evenly_spaced(rows, options.pca), references) if options.pca else 0
    if options.objective is None:
        return Cost(len(rows.rows), stored, 0, 0, 0, lags=len(options.lags), plane_bytes=plane)
    replays = [_Replayed.of(trajectory, rows, references, plan, precision.dtype, options)]
    if second and second[2].rows:
        dtype, second_plan, some = second
        replays.append(_Replayed.of(trajectory, some, references, second_plan, dtype, options))
    first, *others = replays
    tried = sum(extent.length for extent in precision.trial.extents) if precision.trial else 0
    return Cost(
        len(rows.rows),
        stored,
        sum(each.once + each.again for each in replays) + tried,
        sum(each.losses for each in replays),
        sum(each.gradients for each in replays) + precision.evaluations,
        first.hessians,
        "full" in plan.samples,
        len(options.lags),
        sum(each.again for each in replays),
        max(each.residency.bytes for each in replays),
        max(each.residency.minimum for each in replays),
        plane,
        f"{precision.dtype}: {precision.why}",
        (second[0], len(second[2].rows), others[0].losses + others[0].gradients) if second and others else None,
        ends=plan.ends,
        asked=plan.batch_sums and ("probe" in plan.samples or first_accumulated(trajectory) is not None),
        averaged=_averaged(trajectory, rows, options, second[0] if second else None, precision.dtype),
    )


def _averaged(trajectory: Trajectory, rows: Rows, options: Options, second: str | None, dtype: str) -> tuple[int, int]:
    """The bytes that the averages take, and their losses; batch statistics that are computed anew come on top."""
    averages, places = averages_of(options.average), [row.place for row in rows.rows if not row.no_evaluation]
    if not averages or not places:
        return 0, 0
    size = _size(trajectory.snapshots[0].parameters, trajectory)
    probes = sum(probe.batches for probe in trajectory.probes)
    draws = sum({"probe": probes, "full": 1}.get(name, 0) for name in options.samples)
    again = {row.place for row in evenly([row for row in rows.rows if not row.no_evaluation], rows_twice(dtype))}
    read = losses = 0
    for group in in_groups(averages, trajectory.numel, options.memory_bytes):
        begin = min(average.first(places[0]) for average in group)
        for average in group:
            read += max(0, places[-1] + 1 - average.count - begin) if average.count else 0
        read += places[-1] + 1 - begin + len(places)
        for place in places:
            times = 1 + (second is not None and place in again)
            losses += times * draws * (1 + sum(not average.missing(place) for average in group))
            read += times - 1
    return size * read, losses


@dataclass(frozen=True)
class _Replayed:
    """What one replay reads once and again, and evaluates."""

    once: int
    again: int
    losses: int
    gradients: int
    hessians: int
    residency: Residency

    @classmethod
    def of(
        cls,
        trajectory: Trajectory,
        rows: Rows,
        references: Sequence[Reference],
        plan: Plan,
        dtype: str,
        options: Options,
    ) -> _Replayed:
        reads = replay_reads(trajectory, rows, plan, len(references))
        residency = replay_residency(trajectory, reads, references, plan, dtype, cuda=_cuda(options))
        count = _Count(trajectory, reads, references, plan, residency)
        once, again = _replay_bytes(trajectory, reads, references, plan, residency)
        hessians = sum(len(draws) for read in reads if read.row.place in plan.curvature for draws in count.draws(read))
        return cls(once, again, count.losses, count.gradients, hessians, residency)


def _cuda(options: Options) -> bool:
    """Whether the replay would be on a GPU, as far as that can be said without making the objective."""
    if options.device != "auto" or options.memory is None:
        return options.device.startswith("cuda")
    import torch

    return torch.cuda.is_available()


def _stored_bytes(
    trajectory: Trajectory,
    rows: Rows,
    references: Sequence[Reference],
    options: Options,
    windows: bool,
    neighbours: bool,
) -> int:
    """What the pass over recorded vectors reads."""
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
    return total


@dataclass
class _Known:
    """What is known on one sample, as evaluations.Evaluations knows it: the points with a loss, those with a gradient,
    and how many of each were evaluated."""

    losses: set[Hashable] = field(default_factory=set)
    gradients: set[Hashable] = field(default_factory=set)
    made: list[int] = field(default_factory=lambda: [0, 0])

    def loss(self, key: Hashable) -> None:
        self.made[0] += key not in self.losses
        self.losses.add(key)

    def gradient(self, key: Hashable, keep: bool = True) -> None:
        self.made[1] += key not in self.gradients
        self.losses.add(key)
        if keep:
            self.gradients.add(key)


class _Count:
    """What the replay evaluates, walked through as it does."""

    def __init__(
        self,
        trajectory: Trajectory,
        reads: Sequence[Reads],
        references: Sequence[Reference],
        plan: Plan,
        residency: Residency,
    ) -> None:
        self.plan, self.always_fixed = plan, fixed_everywhere(trajectory)
        self.probes = sum(probe.batches for probe in trajectory.probes)
        self.keys: list[Hashable] = [
            ("reference", number) if reference.record is None else reference.record
            for number, reference in enumerate(references)
        ]
        self.losses = self.gradients = 0
        known: dict[tuple[str, int], _Known] = {}
        before = -1
        for read in reads:
            kept = 0
            # what the row before was evaluated on, where that is the record before, is this one's previous sample
            own_before = known.get(("own", 0)) if read.row.place == before + 1 else None
            before = read.row.place
            for name, numbers in zip(read.samples, self.draws(read), strict=True):
                for number in numbers:
                    shared = name in FIXED and self.always_fixed
                    on = known.get((name, number)) if shared else own_before if name == "previous" else None
                    on = known[name, number] = _Known(on.losses, on.gradients) if on else _Known()
                    keep = plan.gradient_again(name, self.always_fixed) and kept < residency.kept
                    kept += keep
                    self._row(read, name, on, keep)
                    on.made[1] += name == "probe" and plan.batch_sums and not keep
                    if name == "own" and accumulated(trajectory, read, plan):
                        on.made[1] += not residency.micro
                    self.losses, self.gradients = self.losses + on.made[0], self.gradients + on.made[1]

    def draws(self, read: Reads) -> list[range]:
        """The numbers of the samples of each convention of a row."""
        return [range(self.probes if name == "probe" else 1) for name in read.samples]

    def _row(self, read: Reads, name: str, on: _Known, keep: bool) -> None:
        row, plan = read.row, self.plan
        on.gradient(row.step)
        if read.is_row and not row.no_pair and "loss_previous" in plan.evaluations:
            (on.gradient if plan.previous_gradient(name == "own") else on.loss)(row.prev_step)
        for key in self.keys if read.is_row else ():
            if plan.ref_gradients:
                on.gradient(key, keep=False)
            elif "loss_ref" in plan.evaluations:
                on.loss(key)
        on.losses = on.losses & {row.step, *self.keys}
        on.gradients = {row.step} if keep else set()
        if read.is_row and not row.no_pair:
            on.made[1] += plan.path_points


def _replay_bytes(
    trajectory: Trajectory, reads: Sequence[Reads], references: Sequence[Reference], plan: Plan, residency: Residency
) -> tuple[int, int]:
    """What is read once: iterates, recorded gradients, samples, frozen parameters, references; and what is read again
    for every row and sample, the references that do not stay on the device."""
    snapshots = trajectory.snapshots
    sizes = [_size(reference.parameters, trajectory) for reference in references]
    once, again = sum(sizes[: residency.references]), 0
    probes = sum(probe.batches for probe in trajectory.probes)
    if "probe" in plan.samples:
        once += sum(extent_bytes(probe.batch) for probe in trajectory.probes)
    if plan.batch_sums and "own" in plan.samples and (place := first_accumulated(trajectory)) is not None:
        source = trajectory.batch_source(snapshots[place])
        assert source is not None
        read_first = [snapshots[place].buffers, *snapshots[place].rank_buffers.values()]
        once += extent_bytes(source.batch, snapshots[place].generators, *read_first)
    around = {e for each in references for table in reference_extents(each, snapshots[-1]) for e in table.values()}
    once += sum(extent.length for extent in around)
    there: Sequence[int] = ()
    for read in reads:
        snapshot = snapshots[read.row.place]
        once += sum(_size(snapshots[place].parameters, trajectory) for place in read.fresh)
        once += _size(snapshot.gradients, trajectory) if read.recorded else 0
        once += sum(extent.length for extent in fresh_around(snapshots, read.around, there))
        there = read.around
        for place in read.batches:
            source = trajectory.batch_source(snapshots[place])
            assert source is not None
            once += extent_bytes(source.batch, snapshots[place].generators)
        if read.is_row:
            again += sum(probes if name == "probe" else 1 for name in read.samples) * sum(sizes[residency.references :])
    return once, again


def extent_bytes(*tables: Mapping[str, Extent]) -> int:
    """How many bytes some tensors take."""
    return sum(extent.length for tensors in tables for extent in tensors.values())


def _size(tensors: Mapping[str, Extent], trajectory: Trajectory) -> int:
    return sum(tensors[name].length for name in trajectory.shapes)
