"""From a row's vectors and samples to its numbers, still on the device: losses, and inner products of gradients with
whatever they meet.

f and grad f at x_t and, where a pair exists, at x_{t-1}; f (and, if asked for, grad f) at every reference. One
evaluator gives them all, with the same modes and the same randomness, and with buffers as around.py says, so that they
may be subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from trajcheck.errors import ObjectiveError
from trajcheck.objective.curvature.lanczos import extreme_eigenvalues
from trajcheck.replay.around import Around
from trajcheck.replay.batches.sums import BatchSums
from trajcheck.replay.batches.tails import BatchTails
from trajcheck.replay.data_set.sample import DataSet
from trajcheck.replay.evaluations import Evaluations
from trajcheck.replay.reducer import Reducer, Shares, Vector
from trajcheck.replay.row_reading import RowData, RowReading
from trajcheck.replay.row_samples import RowSamples
from trajcheck.replay.setting import Setting
from trajcheck.runs.references import Reference
from trajcheck.scalars.micro_batches import MICRO, micro_batches
from trajcheck.scalars.rows import Row

#: Names step and point, for messages.
Where = Callable[[str], str]


@dataclass
class Evaluated:
    """A row on one sample. All but `numbers`, of curvature and of the batch itself, is on the device; `losses` at x_t
    and x_{t-1}, `ref_losses` at each reference, by their names among scalars; `micro` are its micro-batches, where
    they were asked for."""

    losses: dict[str, Tensor] = field(default_factory=dict)
    ref_losses: list[dict[str, Tensor]] = field(default_factory=list)
    shares: list[Shares] = field(default_factory=list)
    numbers: dict[str, float | None] = field(default_factory=dict)
    micro: list[Evaluated] = field(default_factory=list)

    @property
    def tensors(self) -> list[Tensor]:
        """All that is to be fetched: the losses, then the shares."""
        losses = [self.losses, *self.ref_losses]
        return [value for table in losses for value in table.values()] + [each.values for each in self.shares]


class RowEvaluation:
    """Evaluates rows as they are read; `count` is the number of evaluations made."""

    def __init__(self, setting: Setting, samples: RowSamples, reading: RowReading, reducer: Reducer) -> None:
        self._setting, self._samples, self._reading, self._reducer = setting, samples, reading, reducer
        self.count = 0

    def of_row(self, data: RowData) -> dict[str, list[Evaluated]]:
        """A row by convention, over its samples, inside `Objective.several`. Raises ObjectiveError, naming step and
        point."""
        self._samples.forget(data.reads.row.place)
        kept = 0
        found: dict[str, list[Evaluated]] = {}
        for name in data.reads.samples:
            found[name] = []
            sums = self._sums() if name == "probe" and self._setting.plan.batch_sums else None
            batches: list[Evaluations] = []
            for number, on in enumerate(self._samples.of_row(name, data)):
                before = on.count
                keep = self._samples.asked_again(name) and kept < self._setting.residency.kept
                kept += keep
                found[name].append(self._on(data, on, name, number, keep, sums))
                self.count += on.count - before
                batches.append(on)
            if sums is not None:
                self._among_batches(data, batches, found[name], sums)
            if name == "own" and found[name][0].micro:
                found[MICRO] = found[name][0].micro
        return found

    def _sums(self) -> BatchSums:
        tails = BatchTails(len(self._samples.sizes.probe)) if self._setting.plan.tails else None
        return BatchSums(tails)

    def _among_batches(
        self, data: RowData, batches: Sequence[Evaluations], done: Sequence[Evaluated], sums: BatchSums
    ) -> None:
        """What each probe batch has with the sums over all of them; gradients that were not kept are evaluated once
        more."""
        place, step = data.reads.row.place, data.reads.row.step
        for number, (on, each) in enumerate(zip(batches, done, strict=True)):
            before = on.count
            where = f"step {step}, at x_t, on probe batch {number}"
            _, gradient = on.loss_and_gradient(step, data.iterates[place], on.around.places[place], where, keep=False)
            each.shares.append(sums.products(self._reducer, gradient))
            if sums.tails is not None:
                each.shares.append(sums.tails.shares(self._reducer, gradient, number))
            each.numbers |= self._samples.sizes.probe[number]
            self.count += on.count - before

    def _on(
        self, data: RowData, on: Evaluations, name: str, number: int, keep: bool, sums: BatchSums | None = None
    ) -> Evaluated:
        """One row on one sample, the `number`-th of a convention; its own one meets the recorded gradients too. With
        `keep`, the gradient at x_t stays with the sample; it is added to `sums`."""
        plan, row, is_row, own = self._setting.plan, data.reads.row, data.reads.is_row, name == "own"
        which = {"full": ", on the data set", "probe": f", on probe batch {number}"}.get(name, "")

        def where(point: str) -> str:
            return f"step {row.step}, at {point}{which}"

        references = self._setting.references if is_row else ()
        step_products, reference_products = plan.products(own, is_row)
        needed = plan.vectors(own, is_row, bool(references))
        x = data.iterates[row.place]
        vectors: dict[str, Vector] = {"x": x}
        done = Evaluated()
        try:
            at_x = x, on.around.places[row.place], where("x_t")
            done.losses["loss"], vectors["gradient"], done.micro = self._at_x(data, on, name, *at_x)
        except ObjectiveError as error:
            lacks = self._setting.trajectory.snapshots[row.place].omitted.get("targets") if own else None
            raise error if lacks is None else ObjectiveError(f"{error} The run says of this batch: {lacks}") from error
        if sums is not None:
            sums.add(vectors["gradient"])
        paired = is_row and not row.no_pair
        if paired and "loss_previous" in plan.evaluations:
            previous, around = data.iterates[row.place - 1], on.around.places[row.place - 1]
            at_previous = where("x_{t-1}")
            if plan.previous_gradient(own):
                loss, vectors["gradient_previous"] = on.loss_and_gradient(row.prev_step, previous, around, at_previous)
            else:
                loss = on.loss(row.prev_step, previous, around, at_previous)
            done.losses["loss_previous"] = loss
        for kind, place in row.iterates.items():
            if kind in needed and place is not None and place in data.iterates:
                vectors[kind] = data.iterates[place]
        divisors = {}
        if "recorded" in needed and data.recorded is not None:
            snapshot = self._setting.trajectory.snapshots[row.place]
            divisors["recorded"] = clip = snapshot.clip or 1.0
            # where the step held parameters fixed nothing was recorded that could disagree
            same = {name: vectors["gradient"][name] * clip for name in snapshot.held}
            vectors["recorded"] = {**data.recorded, **same} if same else data.recorded
        settings = self._setting.trajectory.settings
        reduce = partial(
            self._reducer.reduce,
            divisors=divisors,
            decay=settings.decay_at(row.place) if settings.has_decay else None,
        )
        self._towards(done, on, references, vectors, reduce, step_products, reference_products, where)
        vectors.clear()
        on.forget(losses=self._known(row), gradients={row.step} if keep else set())
        if plan.path_points and paired:
            done.shares += self._along_the_chord(data, on, where)
        if row.place in plan.curvature and is_row:
            done.numbers |= self._curvature(data, on)
        return done

    def _at_x(
        self, data: RowData, on: Evaluations, name: str, x: Vector, around: Around, where: str
    ) -> tuple[Tensor, Vector, list[Evaluated]]:
        """f and grad f at x_t, and what each of the step's micro-batches has with the sums over them, where that is
        asked for."""
        row, plan, micro = data.reads.row, self._setting.plan, None
        accumulated = data.reads.is_row and micro_batches(self._setting.trajectory, row.place)
        if name == "own" and plan.batch_sums and accumulated:
            micro = self._samples.sizes.micro_batches(self._setting, on.sample)
        if micro is None:
            return *on.loss_and_gradient(row.step, x, around, where), []
        loss, gradient = on.loss_and_gradient(row.step, x, around, where, each=micro.add)
        again = partial(on.loss_and_gradient, ("again", row.step), x, around, where, keep=False)
        found = micro.products(self._reducer, lambda each: again(each=each))
        return loss, gradient, [Evaluated(shares=[shares], numbers=numbers) for shares, numbers in found]

    def _known(self, row: Row) -> set[Hashable]:
        """Points at which later rows may ask for the loss again."""
        return {row.step, *(_key(number, reference) for number, reference in enumerate(self._setting.references))}

    def _towards(
        self,
        done: Evaluated,
        on: Evaluations,
        references: Sequence[Reference],
        vectors: Mapping[str, Vector],
        reduce: Callable[..., Shares],
        step_products: Sequence[str],
        reference_products: Sequence[str],
        where: Where,
    ) -> None:
        """The losses at the references, and all products: of references on the device together with the step's; of one
        whose gradient is evaluated, or that is read for this row, by itself, so that there is one of them at a time."""
        resident = min(self._reading.resident, len(references))
        together = 0 if self._setting.plan.ref_gradients else resident
        known: dict[int, dict[str, Vector]] = {}
        for number in range(together):
            with self._reading.reference(number) as point:
                known[number] = {"reference": point}
                done.ref_losses.append(self._loss_at(number, known[number], on, where))
        done.shares.append(reduce(vectors, known, step_products, reference_products))
        for number in range(together, len(references)):
            with self._reading.reference(number) as point:
                alone: dict[str, Vector] = {"reference": point}
                done.ref_losses.append(self._loss_at(number, alone, on, where))
                done.shares.append(reduce(vectors, {number: alone}, (), reference_products))

    def _loss_at(self, number: int, known: dict[str, Vector], on: Evaluations, where: Where) -> dict[str, Tensor]:
        """f(x*; z), and its gradient into `known` where asked for."""
        reference, plan = self._setting.references[number], self._setting.plan
        key, point = _key(number, reference), known["reference"]
        place, around = where(f"the reference {reference.spec}"), on.around.references[number]
        if plan.ref_gradients:
            loss, known["gradient_reference"] = on.loss_and_gradient(key, point, around, place, keep=False)
            return {"loss_ref": loss}
        return {"loss_ref": on.loss(key, point, around, place)} if "loss_ref" in plan.evaluations else {}

    def _along_the_chord(self, data: RowData, on: Evaluations, where: Where) -> list[Shares]:
        """integral_0^1 p(s) ds, p(s) = <grad f(x_{t-1} + s d_t; z), d_t>, by the Gauss-Legendre rule of N points, and
        its coefficient of the Legendre polynomial of degree N - 1, the highest that N points tell: two shares a
        node."""
        x, previous = (data.iterates[place] for place in (data.reads.row.place, data.reads.row.place - 1))
        dtypes = {name: self._setting.objective.dtype_of(name) for name in self._setting.names}
        around = on.around.places[data.reads.row.place]
        nodes, weights = np.polynomial.legendre.leggauss(self._setting.plan.path_points)
        degree = len(nodes) - 1
        highest = (2 * degree + 1) * np.polynomial.legendre.Legendre.basis(degree)(nodes)
        found = []
        for s, weight, coefficient in zip((nodes + 1) / 2, weights / 2, highest, strict=True):
            between = {
                name: torch.lerp(previous[name].to(dtype), x[name].to(dtype), float(s))
                for name, dtype in dtypes.items()
            }
            point = where(f"x_{{t-1}} + {s:.3f} (x_t - x_{{t-1}})")
            _, gradient = on.loss_and_gradient(("between", float(s)), between, around, point, keep=False)
            vectors = {"x": x, "previous": previous, "gradient_between": gradient}
            values = float(weight) * self._reducer.reduce(vectors, {}, ["path_integral"], ()).values
            found += [
                Shares([(None, "path_integral")], values),
                Shares([(None, "path_remainder")], float(coefficient) * values),
            ]
        return found

    def _curvature(self, data: RowData, on: Evaluations) -> dict[str, float | None]:
        """Extreme eigenvalues of the Hessian at x_t on the sample, those that converged; the start vector is seeded by
        the step."""
        row = data.reads.row
        point, sample = on.at(data.iterates[row.place], on.around.places[row.place])
        hessian = self._setting.objective.hessian(
            point,
            sample,
            where=f"step {row.step}, the Hessian at x_t",
            keep_graph=not isinstance(on.sample, DataSet),
        )
        found = extreme_eigenvalues(
            hessian.product,
            hessian.dimension,
            device=hessian.device,
            dtype=hessian.dtype,
            seed=row.step,
            ends=self._setting.plan.ends,
            error=self._setting.plan.curvature_tolerance,
            memory=self._setting.residency.basis,
            rounding=self._setting.objective.epsilon,
        )
        along = None if found.asymmetry else hessian.gradient_curvature()
        return {
            "lambda_max": found.lambda_max if found.max_converged else None,
            "lambda_max_residual": _finite(found.lambda_max_residual),
            "lambda_max_error": _finite(found.lambda_max_error),
            "lambda_min": found.lambda_min if found.min_converged else None,
            "lambda_min_residual": _finite(found.lambda_min_residual),
            "lambda_min_error": _finite(found.lambda_min_error),
            "grad_curvature": None if along is None else _finite(along),
            "hessian_products": float(found.products),
            "hessian_asymmetry": found.asymmetry or None,
        }


def _key(number: int, reference: Reference) -> Hashable:
    """A reference among the points of evaluations: an iterate of the run is known by its step."""
    return ("reference", number) if reference.record is None else reference.record


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
