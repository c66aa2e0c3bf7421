"""What an inspection found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Inspection:
    """A run, or an archive of checkpoints, as its headers show it.

    `left_out` says which steps cannot be used, and why. `losses` to `batches` count the records that hold one,
    `update_pairs` those that follow the record before by one step; `probes` are batches set aside, `logged` steps of
    which a log beside the records says something, `program` is whether the loss program was exported with the run.
    `state` names the tensors of the optimizer's state, as exp_avg.
    """

    path: Path
    format: str
    steps: tuple[int, ...]
    files: int
    bytes: int
    parameters: int
    tensors: int
    dtypes: tuple[str, ...]
    left_out: Mapping[int, str] = field(default_factory=dict)
    frozen: int = 0
    buffers: int = 0
    tied: int = 0
    optimizer: str | None = None
    state: tuple[str, ...] = ()
    losses: int = 0
    rates: int = 0
    times: int = 0
    gradients: int = 0
    batches: int = 0
    probes: int = 0
    update_pairs: int = 0
    program: bool = False
    logged: int = 0
    notes: tuple[str, ...] = ()
