"""Losses and gradients along the run, re-evaluated on the recorded samples.

For each step, on each sample that was asked for (its own z_t, that of the step before, probe batches, a data set): f
and grad f at x_t and, where a pair exists, at x_{t-1}; f (and, if asked for, grad f) at every reference. One evaluator
gives them all, with the same buffers and the same randomness, so that they may be subtracted. The gradients meet the
recorded vectors on the device and leave it as scalars. References stay on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from trajcheck.errors import ObjectiveError
from trajcheck.evaluations import Evaluations
from trajcheck.extent_reader import ExtentReader
from trajcheck.gather import raise_not_finite
from trajcheck.lanczos import extreme_eigenvalues
from trajcheck.objective import DTYPES, Objective
from trajcheck.products import REFERENCE_PRODUCTS, STEP_PRODUCTS, SUPPORT_PRODUCTS, vectors_needed
from trajcheck.reduction import Products, Vector, reduce_row, to_host, total
from trajcheck.references import Reference
from trajcheck.rows import Row, Rows
from trajcheck.samples import Sample
from trajcheck.sampling import DataSet, buffers_of, data_set, probe_samples, recorded_sample
from trajcheck.scalars import ReferenceScalars, RowScalars, StepScalars, agree
from trajcheck.snapshot import Extent, Snapshot
from trajcheck.tensor_reader import TORCH_DTYPES, read_tensor
from trajcheck.trajectory import Trajectory

#: Residual, relative to the largest |eigenvalue|, at which Lanczos stops (in float32 rounding allows ten times that).
#: On the sample runs it takes 33 to 42 products; 1e-4 takes 27 to 32, but leaves a lambda_min near 0 without a right
#: digit.
TOLERANCE = 1e-6

#: Products with a replayed gradient in them; the stored-vector pass gives all others.
_GRADIENTS = {
    *("gradient", "gradient_previous", "gradient_reference", "gradient_between", "recorded", "regularised"),
}
#: Those that only the step's own sample has.
OWN_PRODUCTS = {"recorded_sq", "disagreement_sq", "grad_dot_skip", "grad_dot_next", "step_dot_next"}
STEP_REPLAYED = frozenset(name for name, pair in STEP_PRODUCTS.items() if vectors_needed([pair]) & _GRADIENTS)
REFERENCE_REPLAYED = frozenset(name for name, pair in REFERENCE_PRODUCTS.items() if vectors_needed([pair]) & _GRADIENTS)


@dataclass(frozen=True)
class Plan:
    """What to evaluate beside f and grad f at x_t, and which products to take; names as in metrics/families.py."""

    samples: Sequence[str]
    evaluations: Collection[str]
    step_products: Collection[str]
    reference_products: Collection[str]
    ref_gradients: bool = False
    curvature: Collection[int] = ()  # places of the rows at which the Hessian's extreme eigenvalues are computed
    by_tensor: Collection[int] = ()  # places of the rows whose products are also kept tensor by tensor
    memory: int | None = None  # bytes for the basis of Lanczos vectors
    path_points: int = 0  # of the Gauss-Legendre rule for the path integral; 0: none


def recorded_dtype(trajectory: Trajectory) -> torch.dtype:
    """The dtype in which the run's parameters were recorded; the widest where they differ."""
    parameters = trajectory.snapshots[0].parameters
    dtypes = [TORCH_DTYPES[parameters[name].dtype] for name in trajectory.shapes]
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).bits)


def replay_dtype(trajectory: Trajectory, asked: str | None) -> str:
    """The dtype of the replay by name: as asked, else the run's own, but float32 at least."""
    if asked is not None:
        return asked
    return "float64" if recorded_dtype(trajectory) is torch.float64 else "float32"


def epsilon(dtype: str) -> float:
    return torch.finfo(DTYPES[dtype]).eps


def fit_objective(objective: Objective, trajectory: Trajectory) -> None:
    """Fit the objective to the run, by whose names it goes from here on. Raises ObjectiveError where it cannot."""
    frozen = trajectory.snapshots[0].frozen
    shapes = {**trajectory.shapes, **{name: extent.shape for name, extent in frozen.items()}}
    if trajectory.info.unrecorded:
        raise ObjectiveError(
            f"{trajectory.path}: parameters were left out of the recording "
            f"({', '.join(trajectory.info.unrecorded[:4])}); a loss can be replayed only where all were recorded."
        )
    objective.check(shapes, trajectory.info.tied, trainable=trajectory.shapes)


class Replay:
    """The replay of one run; `randomness` collects where the draws of the steps' own samples came from."""

    def __init__(
        self, trajectory: Trajectory, references: Sequence[Reference], objective: Objective, dtype: str, plan: Plan
    ) -> None:
        fit_objective(objective, trajectory)
        self.objective = objective.prepare(dtype)
        self.trajectory, self.references, self.plan = trajectory, references, plan
        self.names, self.recorded_dtype = tuple(trajectory.shapes), recorded_dtype(trajectory)
        self.randomness: dict[str, int] = {}
        self.evaluations = 0
        with ExtentReader() as reader:
            self.reader = reader
            wanted = "probe" in plan.samples
            self.probe = probe_samples(trajectory, objective, self.recorded_dtype, self._tensor) if wanted else []
        self.full = [data_set(objective, self.recorded_dtype)] if "full" in plan.samples else []

    @property
    def draws(self) -> dict[str, int]:
        """How many samples a row has, for each of the conventions that were asked for."""
        return {name: len(self.probe) if name == "probe" else 1 for name in self.plan.samples}

    def rows(
        self, rows: Rows, progress: Callable[[float], object] = lambda steps: None
    ) -> Iterator[dict[str, list[RowScalars]]]:
        """What the replay adds to each of `rows.work`, in order: by convention, a list over its samples.

        A convention that has no sample on a row is missing there. Raises ObjectiveError, naming step and point, when
        the objective fails.
        """
        with ExtentReader() as reader:
            self.reader = reader
            self.frozen: Vector = {}
            self.frozen_extents: Mapping[str, Extent] = {}
            self.points = [self._load(self._trainable(reference.parameters)) for reference in self.references]
            self.iterates: dict[int, Vector] = {}
            self.own: dict[int, Evaluations] = {}  # on the own samples of this and the last row, by place
            for row in rows.work:
                for known in (self.iterates, self.own):
                    for passed in [place for place in known if place < row.place - 1]:
                        del known[passed]
                yield self._row(row, row.place in rows.places)
                progress(1)

    def _row(self, row: Row, is_row: bool) -> dict[str, list[RowScalars]]:
        snapshot = self.trajectory.snapshots[row.place]
        if snapshot.frozen is not self.frozen_extents:
            self.frozen, self.frozen_extents = self._load(snapshot.frozen), snapshot.frozen
        found = {}
        for name in self.plan.samples:
            if row.no_sample_of(name) or not (is_row or name == "own"):
                continue
            draws = [
                self._measure(row, is_row, evaluations, own=name == "own")
                for evaluations in self._evaluations(name, row, snapshot)
            ]
            agree(draws)
            found[name] = draws
        return found

    def _evaluations(self, name: str, row: Row, snapshot: Snapshot) -> Iterator[Evaluations]:
        """The samples of a row, ready to be evaluated on."""
        if name == "own":
            own = self._on(self._recorded_sample(row.place), row.step, row.step)
            words = self.objective.randomness(own.sample)
            self.randomness[words] = self.randomness.get(words, 0) + 1
            if "previous" in self.plan.samples:
                self.own[row.place] = own
            yield own
        elif name == "previous":
            known = self.own.get(row.place - 1)
            yield known or self._on(self._recorded_sample(row.place - 1), row.step, row.prev_step)
        else:
            for number, sample in enumerate(self.full if name == "full" else self.probe):
                buffers = buffers_of(snapshot, self.objective, self._tensor)
                which = ", on the data set" if name == "full" else f", on probe batch {number}"
                yield self._on(replace(sample, buffers=buffers), row.step, row.step, which)

    def _on(self, sample: Sample, step: int, kept: int | None, which: str = "") -> Evaluations:
        return Evaluations(self.objective, sample, self.frozen, step, kept, which)

    def _measure(self, row: Row, is_row: bool, on: Evaluations, *, own: bool) -> RowScalars:
        """One row on one sample; `own` where it is the step's own, which meets the recorded gradients too."""
        plan, before = self.plan, on.count
        references = self.references if is_row else ()
        towards: list[dict[str, Vector]] = [{"reference": point} for point in self.points[: len(references)]]
        step_products = [
            name for name in plan.step_products if (own or name not in OWN_PRODUCTS) and name != "path_integral"
        ]
        if not is_row:
            step_products = [name for name in step_products if name in SUPPORT_PRODUCTS]
        reference_products = [name for name in plan.reference_products if own or name not in OWN_PRODUCTS]
        needed = vectors_needed(
            [STEP_PRODUCTS[name] for name in step_products]
            + [REFERENCE_PRODUCTS[name] for name in reference_products if references]
        )
        x = self._iterate(row, row.place)
        assert x is not None
        vectors: dict[str, Vector] = {"x": x}
        losses: dict[str, Tensor] = {}
        losses["loss"], vectors["gradient"] = on.loss_and_gradient(row.step, x, "x_t")
        if is_row and not row.no_pair and "loss_previous" in plan.evaluations:
            previous = self._iterate(row, row.place - 1)
            assert previous is not None
            if "gradient_previous" in plan.evaluations or ("descent" in plan.evaluations and not own):
                losses["loss_previous"], vectors["gradient_previous"] = on.loss_and_gradient(
                    row.prev_step, previous, "x_{t-1}"
                )
            else:
                losses["loss_previous"] = on.loss(row.prev_step, previous, "x_{t-1}")
        at_references = [
            self._at_reference(number, reference, known, on)
            for number, (reference, known) in enumerate(zip(references, towards, strict=True))
        ]
        for name, place in (("previous", row.place - 1), ("next", row.place + 1), ("skip", row.skip)):
            if name in needed and (found := self._iterate(row, place)) is not None:
                vectors[name] = found
        if "regularised" in needed and (decay := self.trajectory.info.decay):
            vectors["regularised"] = {
                name: gradient + decay.get(name, 0.0) * x[name] for name, gradient in vectors["gradient"].items()
            }
        if "recorded" in needed and not row.no_gradient:
            vectors["recorded"] = self._recorded(self.trajectory.snapshots[row.place])
        shares = reduce_row(self.names, vectors, towards, step_products, reference_products)
        if plan.path_points and is_row and not row.no_pair:
            self._along_the_chord(row, x, on, shares)
        scalars = self._filled(row, losses, at_references, shares)
        if row.place in plan.curvature and is_row:
            self._curvature(scalars, x, on, row)
        self.evaluations += on.count - before
        return scalars

    def _at_reference(
        self, number: int, reference: Reference, known: dict[str, Vector], on: Evaluations
    ) -> dict[str, Tensor]:
        """f(x*; z), and its gradient into `known` where asked for."""
        key = ("reference", number) if reference.step is None else reference.step
        where = f"the reference {reference.spec}"
        if self.plan.ref_gradients:
            loss, known["gradient_reference"] = on.loss_and_gradient(key, known["reference"], where)
            return {"loss_ref": loss}
        if "loss_ref" not in self.plan.evaluations:
            return {}
        return {"loss_ref": on.loss(key, known["reference"], where)}

    def _along_the_chord(self, row: Row, x: Vector, on: Evaluations, shares: Mapping[str, Products]) -> None:
        """integral_0^1 <grad f(x_{t-1} + s d_t; z), d_t> ds by the Gauss-Legendre rule, into the shares of each
        tensor."""
        previous = self._iterate(row, row.place - 1)
        assert previous is not None
        nodes, weights = np.polynomial.legendre.leggauss(self.plan.path_points)
        for s, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            between = {
                name: torch.lerp(previous[name].to(self.objective.dtype), x[name].to(self.objective.dtype), float(s))
                for name in self.names
            }
            where = f"x_{{t-1}} + {s:.3f} (x_t - x_{{t-1}})"
            _, gradient = on.loss_and_gradient(("between", row.step, float(s)), between, where)
            vectors = {"x": x, "previous": previous, "gradient_between": gradient}
            for name, (found, _) in reduce_row(self.names, vectors, (), ["path_integral"], ()).items():
                if "path_integral" in found:
                    own = shares[name][0]
                    own["path_integral"] = own.get("path_integral", 0.0) + float(weight) * found["path_integral"]

    def _curvature(self, scalars: RowScalars, x: Vector, on: Evaluations, row: Row) -> None:
        """Extreme eigenvalues of the Hessian at x_t on the sample; the start vector is seeded by the step."""
        own = scalars.own
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
            memory=self.plan.memory,
        )
        along = hessian.gradient_curvature()
        for name in ("lambda_max", "lambda_max_residual", "lambda_min", "lambda_min_residual"):
            value = getattr(found, name)
            setattr(own, name, value if math.isfinite(value) else None)
        own.grad_curvature = along if along is not None and math.isfinite(along) else None
        own.products, own.converged = float(found.products), float(found.converged)

    def _filled(
        self,
        row: Row,
        losses: Mapping[str, Tensor],
        at_references: Sequence[Mapping[str, Tensor]],
        shares: Mapping[str, Products],
    ) -> RowScalars:
        """The numbers as scalars; those that are not finite stay empty. A row counts as replayed if f and grad f at x_t
        are finite."""
        whole = total(shares)
        parts = {"": whole, **(shares if row.place in self.plan.by_tensor else {})}
        count = len(at_references)
        numbers = iter(
            to_host([losses, *at_references, *(table for own, each in parts.values() for table in (own, *each))])
        )
        at_x, at_points = next(numbers), [next(numbers) for _ in range(count)]
        rows = {}
        for name in parts:
            scalars = RowScalars(StepScalars(row.step), [ReferenceScalars(row.step) for _ in range(count)])
            for target in scalars.all:
                _fill(target, next(numbers))
            rows[name] = scalars
        result = rows.pop("")
        if result.own.recorded_sq is None and "recorded_sq" in whole[0]:
            raise_not_finite(self.reader, self.trajectory, row)
        _fill(result.own, at_x)
        for target, values in zip(result.references, at_points, strict=True):
            _fill(target, values)
        result.own.replayed = result.own.loss is not None and (
            result.own.grad_sq is not None or "grad_sq" not in whole[0]
        )
        for scalars in rows.values():
            scalars.own.replayed = result.own.replayed
        result.tensors = rows
        return result

    def _iterate(self, row: Row, place: int | None) -> Vector | None:
        if place is None or not 0 <= place < len(self.trajectory.snapshots):
            return None
        if place not in self.iterates:
            loaded = self._load(self._trainable(self.trajectory.snapshots[place].parameters))
            if place > row.place + 1:  # x_s of cos_skip: keeping all up to it would fill the device
                return loaded
            self.iterates[place] = loaded
        return self.iterates[place]

    def _recorded_sample(self, place: int) -> Sample:
        snapshot = self.trajectory.snapshots[place]
        return recorded_sample(self.trajectory, snapshot, self.objective, self.recorded_dtype, self._tensor)

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
        return read_tensor(self.reader, extent)


def _fill(target: StepScalars | ReferenceScalars, values: Mapping[str, float]) -> None:
    for name, value in values.items():
        setattr(target, name, value if math.isfinite(value) else None)
