"""From a row's numbers on the device to scalars: fetched in one copy, summed over the parts of tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from trajcheck.replay.reducer import Label, Reducer, by_tensor, fetch
from trajcheck.replay.row_evaluation import Evaluated
from trajcheck.scalars.rows import Row
from trajcheck.scalars.values import ReferenceScalars, RowScalars, StepScalars, agree


class RowNumbers:
    """Makes rows of scalars, with the shares of single tensors at the places `split`.

    `spoilt` is called for a row whose recorded gradient is not finite, and raises.
    """

    def __init__(self, reducer: Reducer, split: Collection[int], spoilt: Callable[[Row], object]) -> None:
        self._reducer, self._split, self._spoilt = reducer, frozenset(split), spoilt

    def of_row(self, row: Row, evaluated: Mapping[str, Sequence[Evaluated]]) -> dict[str, list[RowScalars]]:
        """A row by convention, over its samples. What one sample lacks, none of its convention has."""
        numbers = iter(fetch([tensor for each in evaluated.values() for one in each for tensor in one.tensors]))
        found = {name: [self._filled(row, one, numbers) for one in each] for name, each in evaluated.items()}
        for draws in found.values():
            agree(draws)
        return found

    def _filled(self, row: Row, evaluated: Evaluated, numbers: Iterator[np.ndarray]) -> RowScalars:
        """The numbers as scalars; those that are not finite stay empty. A row counts as replayed if f and grad f at x_t
        are finite."""
        towards = len(evaluated.ref_losses)

        def empty() -> RowScalars:
            return RowScalars(StepScalars(row.step), [ReferenceScalars(row.step) for _ in range(towards)])

        result = empty()
        for target, losses in zip(result.all, [evaluated.losses, *evaluated.ref_losses], strict=True):
            for name in losses:
                setattr(target, name, _finite(float(next(numbers))))
        sums = self._sums(evaluated, numbers)
        with np.errstate(invalid="ignore", over="ignore"):
            whole = {label: float(values.sum()) for label, values in sums.items()}
        for (number, name), value in whole.items():
            setattr(result.all[0 if number is None else number + 1], name, _finite(value))
        if result.own.recorded_sq is None and (None, "recorded_sq") in sums:
            self._spoilt(row)
        for name, found in evaluated.numbers.items():
            setattr(result.own, name, found)
        own = result.own
        own.replayed = own.loss is not None and (own.grad_sq is not None or (None, "grad_sq") not in sums)
        if row.place in self._split:
            result.tensors = {tensor: empty() for tensor in self._reducer.tensors}
            for place, share in enumerate(result.tensors.values()):
                for (number, name), values in sums.items():
                    setattr(share.all[0 if number is None else number + 1], name, _finite(float(values[place])))
                share.own.replayed = own.replayed
        return result

    def _sums(self, evaluated: Evaluated, numbers: Iterator[np.ndarray]) -> dict[Label, np.ndarray]:
        """Each product by tensor."""
        sums: dict[Label, np.ndarray] = {}
        with np.errstate(invalid="ignore", over="ignore"):
            for shares in evaluated.shares:
                for label, values in zip(shares.labels, by_tensor(self._reducer, next(numbers)), strict=True):
                    sums[label] = sums[label] + values if label in sums else values
        return sums


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
