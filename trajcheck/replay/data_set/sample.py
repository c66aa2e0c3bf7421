"""The objective file's data set as one sample: --sample full."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trajcheck.errors import ObjectiveError, TrajcheckError
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import Sample, cast, make_sample, process_generators_untouched, seed_generators
from trajcheck.replay.data_set.weights import weigh
from trajcheck.runs.batch_flattening import flatten
from trajcheck.runs.batch_restoring import unflatten


@dataclass(frozen=True)
class DataSet(Sample):
    """All of a data set as one sample: f is the mean over it, by the weights of its batches; `randomness` says how they
    were found.

    `walk` goes through it anew for every evaluation, so that only one batch is on the device at a time.
    """

    walk: Callable[[], Iterable[Any]] = tuple
    apart: bool = True

    def batches(self, where: str = "") -> Iterable[Any]:
        return self.walk()


def data_set(objective: Objective, recorded_dtype: torch.dtype | None) -> DataSet:
    """The objective file's data set, walked once for the weights of its batches.

    Errors: ObjectiveError where the objective has none, it is empty, it gives other batches the second time, or what it
    says of their weights is no number.
    """
    if objective.data is None:
        raise ObjectiveError(
            f"objective {objective.title}: --sample full needs the data set: let NAME() return (model, loss, batches), "
            "batches being iterable again and again"
        )

    def flat(batch: Any) -> Sample:
        tensors, tree = _flatten(objective, batch)
        placed = {
            path: cast(tensor, objective.device, objective.dtype, recorded_dtype, copy=True)
            for path, tensor in tensors.items()
        }
        return Sample(placed, tree)

    with process_generators_untouched(objective.device):
        seed_generators(0, objective.device)
        first = next(iter(_walk(objective)), None)
    with process_generators_untouched(objective.device):
        seed_generators(1, objective.device)  # one that shuffles gives others now
        again = next(iter(_walk(objective)), None)
    if first is None:
        raise ObjectiveError(f"objective {objective.title}: its data set has no batches")
    if again is None or not _equal(_flatten(objective, first)[0], _flatten(objective, again)[0]):
        raise ObjectiveError(
            f"objective {objective.title}: its data set gives other batches the second time; return a list of batches, "
            "or a DataLoader without shuffling and augmentation, not a generator"
        )
    found = weigh(objective, lambda: map(flat, _walk(objective)))

    def walk() -> Iterator[Any]:
        count = 0
        for count, batch in enumerate(_walk(objective), start=1):
            if count > len(found.shares):
                break
            sample = flat(batch)
            yield unflatten(sample.tensors, sample.tree)
        if count != len(found.shares):
            raise ObjectiveError(
                f"objective {objective.title}: its data set had {len(found.shares)} batches the first time, and now "
                "another number"
            )

    return DataSet(tensors={}, weights=found.shares, randomness=found.words, walk=walk)


def first_of_data_set(objective: Objective, recorded_dtype: torch.dtype | None) -> Sample:
    """The first batch as a sample of its own. Raises ObjectiveError where there is none."""
    with process_generators_untouched(objective.device):
        seed_generators(0, objective.device)
        for batch in _walk(objective):
            tensors, tree = _flatten(objective, batch)
            return make_sample(
                tensors, device=objective.device, tree=tree, dtype=objective.dtype, recorded_dtype=recorded_dtype
            )
    raise ObjectiveError(f"objective {objective.title}: its data set has no batches")


def _walk(objective: Objective) -> Iterator[Any]:
    try:
        yield from objective.data or ()
    except TrajcheckError:
        raise
    except Exception as error:
        raise ObjectiveError(
            f"objective {objective.title}: its data set raised {type(error).__name__}: {error}"
        ) from error


def _flatten(objective: Objective, batch: Any) -> tuple[dict[str, Tensor], Any]:
    try:
        return flatten(batch)
    except TrajcheckError as error:
        raise ObjectiveError(f"objective {objective.title}: its data set: {error}") from error


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].shape == b[name].shape and torch.equal(a[name], b[name]) for name in a)
