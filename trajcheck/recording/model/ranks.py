"""The ranks of a job whose training is recorded: which one this is, and what the first of them decides for all.

Every rank writes its own files and none waits for another in training. What must be the same on all (the run's id, the
free disk and the records that the plan of steps is made from) the first rank says once, when the Recorder is made,
through the key-value store that the process group was made with: a rank that makes no Recorder keeps no other waiting
in a collective.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from trajcheck.errors import HeldRunError, RecorderError

#: Seconds that a rank waits for what the first one says.
PATIENCE = 300.0

_RECORDERS = itertools.count()  # made by this process; all ranks make theirs in the same order


@dataclass(frozen=True)
class Ranks:
    """This rank's number, and how many there are; a process by itself is rank 0 of 1."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    @contextmanager
    def agreed(self, path: str, terms: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What the first rank has put into the table by the end of the block; the others have it from the beginning.

        An OSError or RecorderError of the first rank is raised on all. Raises RecorderError where it says nothing, or
        records into another folder than `path`, or on other `terms`.
        """
        if self.count == 1:
            yield {}
        elif self.first:
            yield from _said(path, terms)
        else:
            yield _heard(path, terms, self.rank)


#: The errors of the first rank that are told apart on the others, besides RecorderError.
_RAISED: tuple[type[Exception], ...] = (OSError, HeldRunError)

#: A process by itself.
ALONE = Ranks()


def _said(path: str, terms: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    agreed: dict[str, Any] = {"path": path, "terms": dict(terms)}
    key = _key()
    try:
        yield agreed
    except BaseException as error:
        kind = next((each.__name__ for each in _RAISED if isinstance(error, each)), "RecorderError")
        _store().set(key, json.dumps({"path": path, "error": f"rank 0: {error}", "kind": kind}))
        raise
    _store().set(key, json.dumps(agreed))


def _heard(path: str, terms: Mapping[str, Any], rank: int) -> dict[str, Any]:
    key = _key()
    try:
        _store().wait([key], timedelta(seconds=PATIENCE))
    except RuntimeError as error:
        raise RecorderError(
            f"rank {rank} has waited {PATIENCE:.0f} s for rank 0 to begin recording ({error}). Make the Recorder on "
            "every rank, as often and in the same order."
        ) from error
    agreed: dict[str, Any] = json.loads(_store().get(key))
    if "error" in agreed:
        raise next((each for each in _RAISED if each.__name__ == agreed["kind"]), RecorderError)(agreed["error"])
    if agreed["path"] != path:
        raise RecorderError(
            f"rank {rank} records into {path}, and rank 0 into {agreed['path']}; expected one folder for all ranks: "
            "each writes files of its own into it."
        )
    for name, mine in terms.items():
        if agreed["terms"][name] != mine:
            raise RecorderError(
                f"rank {rank} records with {name} {mine}, and rank 0 with {agreed['terms'][name]}; expected the same "
                "on all ranks: a step counts when all of them have written it."
            )
    return agreed


def _key() -> str:
    return f"trajcheck/recorder-{next(_RECORDERS)}"


def _store() -> Any:
    return torch.distributed.distributed_c10d._get_default_store()


def current_ranks() -> Ranks:
    """Those of torch.distributed's default group, where it is in use."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return Ranks()
    return Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())


def without_wrapper(model: torch.nn.Module) -> torch.nn.Module:
    """The module inside a DistributedDataParallel, whose forward begins when buffers have been broadcast."""
    return model.module if isinstance(model, DistributedDataParallel) else model
