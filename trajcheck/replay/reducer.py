"""Inner products of whole vectors on the replay's device: the same scalar rows as the streaming pass.

A vector is a dictionary of tensors. Differences, products and sums are in float64, a part of the elements at a time, so
that no float64 copy of a model is ever made; the borders of the parts are fixed. What comes out stays on the device
until it is fetched together with the losses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

Vector = Mapping[str, Tensor]


class Widened(dict[str, Tensor]):
    """A vector as it was recorded, for products, and the same numbers in the replay's dtype, for evaluations."""

    def __init__(self, recorded: Vector) -> None:
        super().__init__(recorded)
        self.wide: dict[str, Tensor] = {}


#: A product and whose it is: the number of its reference, or None for the step's own.
Label = tuple[int | None, str]


@dataclass(frozen=True)
class Shares:
    """The shares that parts of the elements have in some products: `values` [labels, parts] float64."""

    labels: Sequence[Label]
    values: Tensor


class Reducer(Protocol):
    """Takes inner products of vectors that hold the same tensors.

    `tensors` are the names of those that are not empty, `starts` the first part of each, and `parts` how many there
    are.
    """

    @property
    def tensors(self) -> Sequence[str]: ...

    @property
    def starts(self) -> Sequence[int]: ...

    @property
    def parts(self) -> int: ...

    def reduce(
        self,
        vectors: Mapping[str, Vector],
        references: Mapping[int, Mapping[str, Vector]],
        step_products: Collection[str],
        reference_products: Collection[str],
        divisors: Mapping[str, float] | None = None,
        decay: Mapping[str, float] | None = None,
    ) -> Shares:
        """The products (catalogue.py) whose vectors are all there, of the step and of each reference, by number.

        A vector is divided by its divisor, where it has one. `regularised` is made here, of `gradient` and `x` and the
        weight decay of the tensors, 0 for those that are not in `decay`; without a `decay` it is not there.
        """
        ...

    def __enter__(self) -> Reducer: ...

    def __exit__(self, *_: object) -> None: ...


def by_tensor(reducer: Reducer, values: np.ndarray) -> np.ndarray:
    """[labels, parts] to [labels, tensors]."""
    if not len(reducer.starts):
        return np.zeros((len(values), 0))
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite becomes an empty cell
        return np.add.reduceat(values, np.asarray(reducer.starts), axis=1)


def fetch(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """Float64 tensors of one device as arrays, in one copy."""
    if not tensors:
        return []
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors]).cpu().numpy()
    ends = np.cumsum([tensor.numel() for tensor in tensors])
    return [part.reshape(tensor.shape) for part, tensor in zip(np.split(flat, ends[:-1]), tensors, strict=True)]
