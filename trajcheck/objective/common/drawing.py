"""Probe batches that are drawn from an objective's data, and what is written down of them: --probe N."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from trajcheck.errors import ObjectiveError, TrajcheckError
from trajcheck.files.torch_tensors import as_bytes
from trajcheck.objective.common.seeded import choose
from trajcheck.objective.objective import Objective
from trajcheck.runs.batch_flattening import flatten


def draw_probes(objective: Objective, count: int, seed: int) -> None:
    """Give the objective `count` batches of its data as probe batches, drawn by `seed`, each at most once; its `facts`
    say which they are, and the hash of their bytes. Raises ObjectiveError."""
    if objective.data is None:
        raise ObjectiveError(
            f"objective {objective.title}: --probe {count} draws batches from the objective's data, and it gives none: "
            "let NAME() return (model, loss, batches), batches being iterable again and again"
        )
    drawn = getattr(objective.data, "drawn", None)
    batches, places = drawn(count, seed) if drawn is not None else _some_of(objective, objective.data, count, seed)
    objective.probes = tuple(batches)
    facts = {"seed": seed, "batches": count, "places": places, "hash": _hash(objective, batches)}
    objective.facts = {**objective.facts, "probe": facts}


def _some_of(objective: Objective, data: Iterable[Any], count: int, seed: int) -> tuple[Sequence[Any], Sequence[int]]:
    """Whole batches of a user's data set, and their numbers in it; walked twice, and never held."""
    try:
        there = sum(1 for _ in data)
        if count > there:
            raise ObjectiveError(
                f"objective {objective.title}: --probe {count}: its data set has {there} batches, iterable again and "
                "again"
            )
        places = choose(count, there, seed)
        wanted = set(places)
        found = {number: batch for number, batch in enumerate(data) if number in wanted}
        return [found[number] for number in places], places
    except TrajcheckError:
        raise
    except Exception as error:
        raise ObjectiveError(
            f"objective {objective.title}: its data set raised {type(error).__name__}: {error}"
        ) from error


def _hash(objective: Objective, batches: Sequence[Any]) -> str:
    """sha256:... of the names, dtypes, shapes and bytes of the tensors of some batches."""
    digest = hashlib.sha256()
    for batch in batches:
        try:
            tensors, _ = flatten(batch)
        except TrajcheckError as error:
            raise ObjectiveError(f"objective {objective.title}: its data set: {error}") from error
        for name, tensor in tensors.items():
            digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
            digest.update(as_bytes(tensor.detach().cpu().contiguous()))
    return f"sha256:{digest.hexdigest()}"
