"""Losses and gradients along the run, re-evaluated on the recorded samples.

For each step, on each sample that was asked for (its own z_t, that of the step before, probe batches, a data set): f
and grad f at x_t and, where a pair exists, at x_{t-1}; f (and, if asked for, grad f) at every reference. One evaluator
gives them all, with the same buffers and the same randomness, so that they may be subtracted. The gradients meet the
recorded vectors on the device, which a row's numbers leave in one copy. The next row is read meanwhile, and references
stay on the device where they fit (replay_memory.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from trajcheck.curvature.lanczos import extreme_eigenvalues
from trajcheck.files.extents import Extent
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import Sample
from trajcheck.replay.evaluations import Evaluations
from trajcheck.replay.fitting import fit_objective, recorded_dtype
from trajcheck.replay.gpu_reducer import DeviceReducer
from trajcheck.replay.host_reducer import HostReducer
from trajcheck.replay.plan import FIXED, Plan, Reads, fixed_everywhere, replay_reads
from trajcheck.replay.read_ahead import one_ahead
from trajcheck.replay.reducer import Reducer, Shares, Vector, by_tensor, fetch
from trajcheck.replay.residency import replay_residency
from trajcheck.replay.sample_conventions import DataSet, buffers_of, data_set, probe_samples, recorded_sample
from trajcheck.replay.vector_reader import Buffers, Loaded, VectorReader
from trajcheck.runs.divergence import raise_not_finite
from trajcheck.runs.references import Reference
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.rows import Row, Rows
from trajcheck.scalars.values import ReferenceScalars, RowScalars, StepScalars, agree

#: Residual, relative to the largest |eigenvalue|, at which Lanczos stops (in float32 rounding allows ten times that).
#: On the sample runs it takes 33 to 42 products; 1e-4 takes 27 to 32, but leaves a lambda_min near 0 without a right
#: digit.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class _RowData:
    """What was read for one row: vectors on the device, small tensors on the host."""

    reads: Reads
    iterates: Mapping[int, Loaded]
    recorded: Loaded | None
    frozen: Vector | None
    small: Mapping[Extent, Tensor]


@dataclass
class _Measured:
    """A row on one sample, its numbers still on the device."""

    on: Evaluations
    losses: dict[str, Tensor] = field(default_factory=dict)
    ref_losses: list[dict[str, Tensor]] = field(default_factory=list)
    shares: list[Shares] = field(default_factory=list)
    curvature: dict[str, float | None] = field(default_factory=dict)

    @property
    def tensors(self) -> list[Tensor]:
        losses = [self.losses, *self.ref_losses]
        return [value for table in losses for value in table.values()] + [each.values for each in self.shares]


class Replay:
    """The replay of one run; `randomness` says of each place where the draws of the step's own sample came from.

    Errors: ObjectiveError for an objective of another model; UsageError where the plan's memory is too little.
    """

    def __init__(
        self,
        trajectory: Trajectory,
        rows: Rows,
        references: Sequence[Reference],
        objective: Objective,
        dtype: str,
        plan: Plan,
    ) -> None:
        fit_objective(objective, trajectory)
        self.objective = objective.prepare(dtype)
        self.trajectory, self.references, self.plan = trajectory, references, plan
        self.reads = replay_reads(trajectory, rows, plan, len(references))
        self.residency = replay_residency(
            trajectory,
            self.reads,
            references,
            plan,
            dtype,
            cuda=objective.device.type == "cuda",
            copies=objective.copies_points,
        )
        self.names, self.recorded_dtype = tuple(trajectory.shapes), recorded_dtype(trajectory)
        self.randomness: dict[int, str] = {}
        self.evaluations = 0
        self.fixed: dict[str, list[Sample]] = {}
        if "probe" in plan.samples:
            with VectorReader(Buffers(torch.device("cpu"))) as reader:
                self.fixed["probe"] = probe_samples(trajectory, objective, self.recorded_dtype, reader.tensor)
        if "full" in plan.samples:
            self.fixed["full"] = [data_set(objective, self.recorded_dtype)]

    @property
    def draws(self) -> dict[str, int]:
        """How many samples a row has, for each of the conventions that were asked for."""
        return {name: len(self.fixed.get(name, "1")) for name in self.plan.samples}

    def rows(self, progress: Callable[[float], object] = lambda steps: None) -> Iterator[dict[str, list[RowScalars]]]:
        """What the replay adds to each row of work, in order: by convention, a list over its samples.

        A convention that has no sample on a row is missing there. Raises ObjectiveError, naming step and point, when
        the objective fails.
        """
        with ExitStack() as stack:
            self.buffers = Buffers(self.objective.device)
            self.reader = stack.enter_context(VectorReader(self.buffers))
            ahead = stack.enter_context(VectorReader(self.buffers))
            self.reducer = stack.enter_context(self._reducer())
            self.resident = [self._reference(each) for each in self.references[: self.residency.references]]
            self.frozen: Vector = {}
            self.iterates: dict[int, Loaded] = {}
            self.own: dict[int, Evaluations] = {}  # on the own samples of this and the last row, by place
            self.shared: dict[tuple[str, int], Evaluations] = {}  # on samples that are the same on every row
            self.always_fixed = fixed_everywhere(self.trajectory)
            data = one_ahead(lambda each: self._read(ahead, each), self.reads, ahead=self.residency.ahead)
            stack.callback(data.close)  # first of all: its thread reads from what the others close
            for number, found in enumerate(data):
                yield self._row(found)
                following = self.reads[number + 1 : number + 2]
                self._release(found, following[0].iterates if following else frozenset())
                progress(1)

    # -- reading ------------------------------------------------------------------------------------------------------

    def _reducer(self) -> Reducer:
        shapes, decay, device = self.trajectory.shapes, self.trajectory.info.decay, self.objective.device
        return HostReducer(shapes, decay) if device.type == "cpu" else DeviceReducer(shapes, decay, device)

    def _read(self, reader: VectorReader, reads: Reads) -> _RowData:
        """All that a row needs from the run's files; a thread reads it for the next row."""
        snapshots = self.trajectory.snapshots
        snapshot = snapshots[reads.row.place]
        small = {extent: reader.tensor(extent) for extent in self._small(reads)}
        frozen = {name: reader.tensor(extent) for name, extent in snapshot.frozen.items()} if reads.frozen else None
        return _RowData(
            reads,
            {
                place: reader.vector(self._trainable(snapshots[place].parameters), snapshots[place].step)
                for place in reads.fresh
            },
            reader.vector(self._trainable(snapshot.gradients), snapshot.step) if reads.recorded else None,
            frozen,
            small,
        )

    def _small(self, reads: Reads) -> list[Extent]:
        """Batches, buffers and generator states that a row needs."""
        found: list[Extent] = []
        for place in reads.batches:
            snapshot = self.trajectory.snapshots[place]
            source = self.trajectory.batch_source(snapshot)
            assert source is not None
            found += [*source.batch.values(), *snapshot.buffers.values(), *snapshot.generators.values()]
            found += [extent for buffers in snapshot.rank_buffers.values() for extent in buffers.values()]
        if reads.buffers and reads.row.place not in reads.batches:
            found += self.trajectory.snapshots[reads.row.place].buffers.values()
        return found

    def _reference(self, reference: Reference) -> Loaded:
        return self.reader.vector(self._trainable(reference.parameters), reference.step)

    def _trainable(self, tensors: Mapping[str, Extent]) -> dict[str, Extent]:
        return {name: tensors[name] for name in self.names}

    def _release(self, data: _RowData, wanted: frozenset[int]) -> None:
        """Give back what the next row does not need."""
        for place in self.iterates.keys() - wanted:
            self.buffers.give(self.iterates.pop(place))
        if data.recorded is not None:
            self.buffers.give(data.recorded)

    # -- one row ------------------------------------------------------------------------------------------------------

    def _row(self, data: _RowData) -> dict[str, list[RowScalars]]:
        reads, row = data.reads, data.reads.row
        self.iterates.update(data.iterates)
        if data.frozen is not None:
            self.frozen = {name: tensor.to(self.objective.device) for name, tensor in data.frozen.items()}
        for passed in [place for place in self.own if place < row.place - 1]:
            del self.own[passed]
        kept = 0
        measured: dict[str, list[_Measured]] = {}
        with self.objective.several():
            for name in reads.samples:
                measured[name] = []
                for number, on in enumerate(self._evaluations(name, data)):
                    before = on.count
                    asked_again = self.always_fixed if name in FIXED else name == "own" and "previous" in self.draws
                    keep = asked_again and kept < self.residency.kept
                    kept += keep
                    measured[name].append(self._measure(data, on, name, number, keep))
                    self.evaluations += on.count - before
        numbers = iter(fetch([tensor for each in measured.values() for one in each for tensor in one.tensors]))
        found = {name: [self._filled(data, one, numbers) for one in each] for name, each in measured.items()}
        for draws in found.values():
            agree(draws)
        return found

    def _known(self, row: Row) -> set[Hashable]:
        """Points at which later rows may ask for the loss again."""
        return {row.step, *(_key(number, reference) for number, reference in enumerate(self.references))}

    def _evaluations(self, name: str, data: _RowData) -> Iterator[Evaluations]:
        """The samples of a row, ready to be evaluated on."""
        row = data.reads.row
        if name == "own":
            own = self._on(self._recorded_sample(row.place, data))
            self.randomness[row.place] = self.objective.randomness(own.sample)
            if "previous" in self.plan.samples:
                self.own[row.place] = own
            yield own
        elif name == "previous":
            known = self.own.get(row.place - 1)
            yield known or self._on(self._recorded_sample(row.place - 1, data))
        elif self.always_fixed:
            for number, sample in enumerate(self.fixed[name]):
                yield self.shared.setdefault((name, number), self._on(sample))
        else:
            snapshot = self.trajectory.snapshots[row.place]
            for sample in self.fixed[name]:
                yield self._on(replace(sample, buffers=buffers_of(snapshot, self.objective, data.small.__getitem__)))

    def _on(self, sample: Sample) -> Evaluations:
        return Evaluations(self.objective, sample, self.frozen)

    def _recorded_sample(self, place: int, data: _RowData) -> Sample:
        snapshot = self.trajectory.snapshots[place]
        load = data.small.__getitem__
        return recorded_sample(self.trajectory, snapshot, self.objective, self.recorded_dtype, load)

    def _measure(self, data: _RowData, on: Evaluations, name: str, number: int, keep: bool) -> _Measured:
        """One row on one sample, the `number`-th of a convention; its own one meets the recorded gradients too. With
        `keep`, the gradient at x_t stays with the sample."""
        plan, row, is_row, own = self.plan, data.reads.row, data.reads.is_row, name == "own"
        which = {"full": ", on the data set", "probe": f", on probe batch {number}"}.get(name, "")

        def where(point: str) -> str:
            return f"step {row.step}, at {point}{which}"

        references = self.references if is_row else ()
        step_products, reference_products = plan.products(own, is_row)
        needed = plan.vectors(own, is_row, bool(references))
        x = self.iterates[row.place].tensors
        vectors: dict[str, Vector] = {"x": x}
        done = _Measured(on)
        done.losses["loss"], vectors["gradient"] = on.loss_and_gradient(row.step, x, where("x_t"))
        paired = is_row and not row.no_pair
        if paired and "loss_previous" in plan.evaluations:
            previous = self.iterates[row.place - 1].tensors
            if plan.previous_gradient(own):
                done.losses["loss_previous"], vectors["gradient_previous"] = on.loss_and_gradient(
                    row.prev_step, previous, where("x_{t-1}")
                )
            else:
                done.losses["loss_previous"] = on.loss(row.prev_step, previous, where("x_{t-1}"))
        for kind, place in row.iterates.items():
            if kind in needed and place is not None and place in self.iterates:
                vectors[kind] = self.iterates[place].tensors
        divisors = {}
        if "recorded" in needed and data.recorded is not None:
            vectors["recorded"] = data.recorded.tensors
            divisors["recorded"] = self.trajectory.snapshots[row.place].clip or 1.0
        self._towards(done, references, vectors, divisors, step_products, reference_products, where)
        vectors.clear()
        on.forget(losses=self._known(row), gradients={row.step} if keep else set())
        if plan.path_points and paired:
            self._along_the_chord(row, on, done, where)
        if row.place in plan.curvature and is_row:
            done.curvature = self._curvature(x, on, row)
        return done

    def _towards(
        self,
        done: _Measured,
        references: Sequence[Reference],
        vectors: Mapping[str, Vector],
        divisors: Mapping[str, float],
        step_products: Sequence[str],
        reference_products: Sequence[str],
        where: Callable[[str], str],
    ) -> None:
        """The losses at the references, and all products: of references on the device together with the step's; of one
        whose gradient is evaluated, or that is read for this row, by itself, so that there is one of them at a time."""
        together: dict[int, dict[str, Vector]] = {}
        alone = range(len(references))
        if not self.plan.ref_gradients:
            alone = range(min(len(self.resident), len(references)), len(references))
            for number, reference in enumerate(references[: len(self.resident)]):
                together[number] = {"reference": self.resident[number].tensors}
                done.ref_losses.append(self._loss_at(number, reference, together[number], done.on, where))
        done.shares.append(self.reducer.reduce(vectors, together, step_products, reference_products, divisors))
        for number in alone:
            resident = number < len(self.resident)
            point = self.resident[number] if resident else self._reference(references[number])
            known: dict[str, Vector] = {"reference": point.tensors}
            done.ref_losses.append(self._loss_at(number, references[number], known, done.on, where))
            done.shares.append(self.reducer.reduce(vectors, {number: known}, (), reference_products, divisors))
            if not resident:
                self.buffers.give(point)

    def _loss_at(
        self,
        number: int,
        reference: Reference,
        known: dict[str, Vector],
        on: Evaluations,
        where: Callable[[str], str],
    ) -> dict[str, Tensor]:
        """f(x*; z), and its gradient into `known` where asked for."""
        key, point = _key(number, reference), known["reference"]
        place = where(f"the reference {reference.spec}")
        if self.plan.ref_gradients:
            loss, known["gradient_reference"] = on.loss_and_gradient(key, point, place, keep=False)
            return {"loss_ref": loss}
        return {"loss_ref": on.loss(key, point, place)} if "loss_ref" in self.plan.evaluations else {}

    def _along_the_chord(self, row: Row, on: Evaluations, done: _Measured, where: Callable[[str], str]) -> None:
        """integral_0^1 <grad f(x_{t-1} + s d_t; z), d_t> ds by the Gauss-Legendre rule."""
        x, previous = (self.iterates[place].tensors for place in (row.place, row.place - 1))
        dtype = self.objective.dtype
        nodes, weights = np.polynomial.legendre.leggauss(self.plan.path_points)
        for s, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            between = {name: torch.lerp(previous[name].to(dtype), x[name].to(dtype), float(s)) for name in self.names}
            point = where(f"x_{{t-1}} + {s:.3f} (x_t - x_{{t-1}})")
            _, gradient = on.loss_and_gradient(("between", float(s)), between, point, keep=False)
            vectors = {"x": x, "previous": previous, "gradient_between": gradient}
            shares = self.reducer.reduce(vectors, {}, ["path_integral"], ())
            done.shares.append(Shares(shares.labels, float(weight) * shares.values))

    def _curvature(self, x: Vector, on: Evaluations, row: Row) -> dict[str, float | None]:
        """Extreme eigenvalues of the Hessian at x_t on the sample; the start vector is seeded by the step."""
        hessian = self.objective.hessian(
            {**x, **self.frozen},
            on.sample,
            where=f"step {row.step}, the Hessian at x_t",
            keep_graph=not isinstance(on.sample, DataSet),
        )
        found = extreme_eigenvalues(
            hessian.product,
            hessian.dimension,
            device=hessian.device,
            dtype=hessian.dtype,
            seed=row.step,
            tolerance=TOLERANCE,
            memory=self.residency.basis,
        )
        along = hessian.gradient_curvature()
        names = ("lambda_max", "lambda_max_residual", "lambda_min", "lambda_min_residual")
        values: dict[str, float | None] = {name: _finite(getattr(found, name)) for name in names}
        values["grad_curvature"] = None if along is None else _finite(along)
        return values | {"products": float(found.products), "converged": float(found.converged)}

    # -- its numbers --------------------------------------------------------------------------------------------------

    def _filled(self, data: _RowData, measured: _Measured, numbers: Iterator[np.ndarray]) -> RowScalars:
        """The numbers as scalars; those that are not finite stay empty. A row counts as replayed if f and grad f at x_t
        are finite."""
        row = data.reads.row
        towards = len(measured.ref_losses)

        def empty() -> RowScalars:
            return RowScalars(StepScalars(row.step), [ReferenceScalars(row.step) for _ in range(towards)])

        result = empty()
        for target, losses in zip(result.all, [measured.losses, *measured.ref_losses], strict=True):
            for name in losses:
                setattr(target, name, _finite(float(next(numbers))))
        sums: dict[tuple[int | None, str], np.ndarray] = {}  # by tensor
        with np.errstate(invalid="ignore", over="ignore"):
            for shares in measured.shares:
                for label, values in zip(shares.labels, by_tensor(self.reducer, next(numbers)), strict=True):
                    sums[label] = sums[label] + values if label in sums else values
            whole = {label: float(values.sum()) for label, values in sums.items()}
        for (number, name), value in whole.items():
            setattr(result.all[0 if number is None else number + 1], name, _finite(value))
        if result.own.recorded_sq is None and (None, "recorded_sq") in sums:
            raise_not_finite(self.reader.reader, self.trajectory, row.near)
        for name, found in measured.curvature.items():
            setattr(result.own, name, found)
        own = result.own
        own.replayed = own.loss is not None and (own.grad_sq is not None or (None, "grad_sq") not in sums)
        if row.place in self.plan.by_tensor:
            result.tensors = {tensor: empty() for tensor in self.reducer.tensors}
            for place, share in enumerate(result.tensors.values()):
                for (number, name), values in sums.items():
                    setattr(share.all[0 if number is None else number + 1], name, _finite(float(values[place])))
                share.own.replayed = own.replayed
        return result


def _key(number: int, reference: Reference) -> Hashable:
    """A reference among the points of evaluations: an iterate of the run is known by its step."""
    return ("reference", number) if reference.step is None else reference.step


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
