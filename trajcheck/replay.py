"""Losses and gradients along the run, re-evaluated on the recorded samples.

For each step, on its own sample z_t: f and grad f at x_t and, where a pair exists, at x_{t-1}; f (and, if asked for,
grad f) at every reference. One evaluator gives them all, with the same buffers and the same randomness, so that they
may be subtracted. The gradients meet the recorded vectors on the device and leave it as scalars. References stay on
the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trajcheck.errors import ObjectiveError
from trajcheck.extent_reader import ExtentReader
from trajcheck.formats.tensor_bytes import CODES
from trajcheck.gather import empty_row, raise_not_finite
from trajcheck.lanczos import extreme_eigenvalues
from trajcheck.objective import DTYPES, Objective
from trajcheck.products import REFERENCE_PRODUCTS, STEP_PRODUCTS, SUPPORT_PRODUCTS, vectors_needed
from trajcheck.reduction import Vector, reduce_row, to_host
from trajcheck.references import Reference
from trajcheck.rows import Row, Rows
from trajcheck.samples import Sample, make_sample
from trajcheck.scalars import RowScalars
from trajcheck.snapshot import Extent, Snapshot
from trajcheck.trajectory import Trajectory

_TORCH = {code: dtype for dtype, code in CODES.items()}

#: Residual, relative to the largest |eigenvalue|, at which Lanczos stops (in float32 rounding allows ten times that).
#: On the sample runs it takes 33 to 42 products; 1e-4 takes 27 to 32, but leaves a lambda_min near 0 without a right
#: digit.
TOLERANCE = 1e-6

#: Products with a replayed gradient in them; the stored-vector pass gives all others.
_GRADIENTS = {"gradient", "gradient_previous", "gradient_reference", "recorded", "regularised"}
STEP_REPLAYED = frozenset(name for name, pair in STEP_PRODUCTS.items() if vectors_needed([pair]) & _GRADIENTS)
REFERENCE_REPLAYED = frozenset(name for name, pair in REFERENCE_PRODUCTS.items() if vectors_needed([pair]) & _GRADIENTS)


@dataclass(frozen=True)
class Plan:
    """What to evaluate beside f and grad f at x_t, and which products to take; names as in metrics/families.py."""

    evaluations: Collection[str]
    step_products: Collection[str]
    reference_products: Collection[str]
    ref_gradients: bool = False
    curvature: Collection[int] = ()  # places of the rows at which the Hessian's extreme eigenvalues are computed


def recorded_dtype(trajectory: Trajectory) -> torch.dtype:
    """The dtype in which the run's parameters were recorded; the widest where they differ."""
    parameters = trajectory.snapshots[0].parameters
    dtypes = [_TORCH[parameters[name].dtype] for name in trajectory.shapes]
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).bits)


def replay_dtype(trajectory: Trajectory, asked: str | None) -> str:
    """The dtype of the replay by name: as asked, else the run's own, but float32 at least."""
    if asked is not None:
        return asked
    return "float64" if recorded_dtype(trajectory) is torch.float64 else "float32"


def epsilon(dtype: str) -> float:
    return torch.finfo(DTYPES[dtype]).eps


class Replay:
    """The replay of one run; `randomness` collects where the draws of the evaluations came from."""

    def __init__(
        self, trajectory: Trajectory, references: Sequence[Reference], objective: Objective, dtype: str, plan: Plan
    ) -> None:
        frozen = trajectory.snapshots[0].frozen
        shapes = {**trajectory.shapes, **{name: extent.shape for name, extent in frozen.items()}}
        if trajectory.info.unrecorded:
            raise ObjectiveError(
                f"{trajectory.path}: parameters were left out of the recording "
                f"({', '.join(trajectory.info.unrecorded[:4])}); a loss can be replayed only where all were recorded."
            )
        objective.check(shapes, trajectory.info.tied, trainable=trajectory.shapes)
        self.objective = objective.prepare(dtype)
        self.trajectory, self.references, self.plan = trajectory, references, plan
        self.names, self.recorded_dtype = tuple(trajectory.shapes), recorded_dtype(trajectory)
        self.randomness: dict[str, int] = {}
        self.evaluations = 0

    def rows(self, rows: Rows, progress: Callable[[float], object] = lambda steps: None) -> Iterator[RowScalars | None]:
        """What the replay adds to each of `rows.work`, in order; None for a step without a recorded sample.

        Raises ObjectiveError, naming step and point, when the objective fails.
        """
        with ExtentReader() as reader:
            self.reader = reader
            self.frozen: Vector = {}
            self.frozen_extents: Mapping[str, Extent] = {}
            self.points = [self._load(self._trainable(reference.parameters)) for reference in self.references]
            iterates: dict[int, Vector] = {}
            for row in rows.work:
                for passed in [place for place in iterates if place < row.place - 1]:
                    del iterates[passed]
                yield None if row.no_sample else self._row(row, rows, iterates)
                progress(1)

    def _row(self, row: Row, rows: Rows, iterates: dict[int, Vector]) -> RowScalars:
        snapshots, is_row = self.trajectory.snapshots, row.place in rows.places

        def iterate(place: int | None) -> Vector | None:
            if place is None or not 0 <= place < len(snapshots):
                return None
            if place not in iterates:
                loaded = self._load(self._trainable(snapshots[place].parameters))
                if place > row.place + 1:  # x_s of cos_skip: keeping all up to it would fill the device
                    return loaded
                iterates[place] = loaded
            return iterates[place]

        snapshot, scalars = snapshots[row.place], empty_row(row, rows, self.references)
        if snapshot.frozen is not self.frozen_extents:
            self.frozen, self.frozen_extents = self._load(snapshot.frozen), snapshot.frozen
        sample = self._sample(snapshot)
        step_products = [name for name in self.plan.step_products if is_row or name in SUPPORT_PRODUCTS]
        needed = vectors_needed(
            [STEP_PRODUCTS[name] for name in step_products]
            + [REFERENCE_PRODUCTS[name] for name in self.plan.reference_products if scalars.references]
        )
        x = iterate(row.place)
        assert x is not None
        vectors: dict[str, Vector] = {"x": x}
        losses: dict[str, Tensor] = {}
        losses["loss"], vectors["gradient"] = self._evaluate(x, sample, row, "x_t", gradient=True)
        if is_row and not row.no_pair and "loss_previous" in self.plan.evaluations:
            previous = iterate(row.place - 1)
            assert previous is not None
            with_gradient = "gradient_previous" in self.plan.evaluations
            losses["loss_previous"], gradient = self._evaluate(previous, sample, row, "x_{t-1}", gradient=with_gradient)
            if with_gradient:
                vectors["gradient_previous"] = gradient
        towards: list[dict[str, Vector]] = [{"reference": point} for point in self.points[: len(scalars.references)]]
        at_references: list[dict[str, Tensor]] = [{} for _ in towards]
        for number, (reference, known) in enumerate(zip(self.references, towards, strict=False)):
            at_references[number] = self._at_reference(reference, known, sample, row, losses)
        for name, place in (("previous", row.place - 1), ("next", row.place + 1), ("skip", row.skip)):
            if name in needed and (found := iterate(place)) is not None:
                vectors[name] = found
        if "regularised" in needed and (decay := self.trajectory.info.decay):
            vectors["regularised"] = {
                name: gradient + decay.get(name, 0.0) * x[name] for name, gradient in vectors["gradient"].items()
            }
        if "recorded" in needed and not row.no_gradient:
            vectors["recorded"] = self._recorded(snapshot)
        own, each = reduce_row(self.names, vectors, towards, step_products, self.plan.reference_products)
        tables = to_host([losses, own, *at_references, *each])
        self._fill(scalars, row, tables)
        if row.place in self.plan.curvature:
            self._curvature(scalars, x, sample, row)
        return scalars

    def _curvature(self, scalars: RowScalars, x: Vector, sample: Sample, row: Row) -> None:
        """Extreme eigenvalues of the Hessian at x_t on z_t; the start vector is seeded by the step."""
        own = scalars.own
        hessian = self.objective.hessian({**x, **self.frozen}, sample, where=f"step {row.step}, the Hessian at x_t")
        found = extreme_eigenvalues(
            hessian.product,
            hessian.dimension,
            device=hessian.device,
            dtype=hessian.dtype,
            seed=row.step,
            tolerance=TOLERANCE,
        )
        along = hessian.gradient_curvature()
        for name in ("lambda_max", "lambda_max_residual", "lambda_min", "lambda_min_residual"):
            value = getattr(found, name)
            setattr(own, name, value if math.isfinite(value) else None)
        own.grad_curvature = along if along is not None and math.isfinite(along) else None
        own.products, own.converged = float(found.products), float(found.converged)

    def _at_reference(
        self,
        reference: Reference,
        known: dict[str, Vector],
        sample: Sample,
        row: Row,
        losses: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """f(x*; z_t), and its gradient into `known` where asked for; nothing is evaluated twice."""
        if self.plan.ref_gradients:
            loss, known["gradient_reference"] = self._evaluate(
                known["reference"], sample, row, f"the reference {reference.spec}", gradient=True
            )
            return {"loss_ref": loss}
        if "loss_ref" not in self.plan.evaluations:
            return {}
        if reference.step == row.step:
            return {"loss_ref": losses["loss"]}
        if reference.step is not None and reference.step == row.prev_step and "loss_previous" in losses:
            return {"loss_ref": losses["loss_previous"]}
        return {"loss_ref": self._evaluate(known["reference"], sample, row, f"the reference {reference.spec}")[0]}

    def _evaluate(
        self, x: Vector, sample: Sample, row: Row, point: str, *, gradient: bool = False
    ) -> tuple[Tensor, Vector]:
        self.evaluations += 1
        where, parameters = f"step {row.step}, at {point}", {**x, **self.frozen}
        if gradient:
            return self.objective.loss_and_gradient(parameters, sample, where=where)
        return self.objective.loss(parameters, sample, where=where), {}

    def _fill(self, scalars: RowScalars, row: Row, tables: Sequence[Mapping[str, float]]) -> None:
        """Enter the numbers; those that are not finite stay empty. The row counts as replayed if f and grad f at x_t
        are."""
        losses, own, *rest = tables
        if not math.isfinite(own.get("recorded_sq", 0.0)):
            raise_not_finite(self.reader, self.trajectory, row)
        for name, value in {**losses, **own}.items():
            setattr(scalars.own, name, value if math.isfinite(value) else None)
        scalars.own.replayed = all(math.isfinite(value) for value in (losses["loss"], own.get("grad_sq", 0.0)))
        count = len(scalars.references)
        for target, *parts in zip(scalars.references, rest[:count], rest[count:], strict=True):
            for part in parts:
                for name, value in part.items():
                    setattr(target, name, value if math.isfinite(value) else None)

    def _sample(self, snapshot: Snapshot) -> Sample:
        source = self.trajectory.batch_source(snapshot)
        assert source is not None
        sample = make_sample(
            {path: self._tensor(extent) for path, extent in source.batch.items()},
            device=self.objective.device,
            tree=source.batch_tree,
            micro_batches=source.micro_batches,
            weights=snapshot.micro_weights or source.micro_weights,
            buffers={name: self._tensor(extent) for name, extent in snapshot.buffers.items()},
            generators={name: self._tensor(extent) for name, extent in snapshot.generators.items()},
            seed=snapshot.step,
            dtype=self.objective.dtype,
            recorded_dtype=self.recorded_dtype,
            recorded_torch=self.trajectory.info.versions.get("torch"),
        )
        words = self.objective.randomness(sample)
        self.randomness[words] = self.randomness.get(words, 0) + 1
        return sample

    def _recorded(self, snapshot: Snapshot) -> Vector:
        gradient = self._load(self._trainable(snapshot.gradients))
        if snapshot.clip is None or snapshot.clip == 1.0:
            return gradient
        return {name: tensor.double() / snapshot.clip for name, tensor in gradient.items()}

    def _trainable(self, tensors: Mapping[str, Extent]) -> dict[str, Extent]:
        return {name: tensors[name] for name in self.names}

    def _load(self, tensors: Mapping[str, Extent]) -> dict[str, Tensor]:
        return {name: self._tensor(extent).to(self.objective.device) for name, extent in tensors.items()}

    def _tensor(self, extent: Extent) -> Tensor:
        if not extent.length:
            return torch.empty(extent.shape, dtype=_TORCH[extent.dtype])
        data = np.empty(extent.length, dtype=np.uint8)
        self.reader.into(extent, 0, data.data)
        return torch.from_numpy(data).view(_TORCH[extent.dtype]).reshape(extent.shape)
