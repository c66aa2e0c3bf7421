"""What a Recorder can be made of; anything else is refused before training begins."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from typing import Any, Literal

import torch

from trajcheck.errors import RecorderError
from trajcheck.recording.model.optimizers import Optimizers
from trajcheck.recording.schedule.schedules import Budget, Every, Schedule

DEFAULT_OVERHEAD = 0.05


def one_schedule(schedule: Schedule | Budget | None, every: int | None) -> Schedule | Budget:
    """The schedule that `schedule=` and `every=` ask for. Raises RecorderError."""
    if schedule is not None and every is not None:
        raise RecorderError("schedule= and every= were both given; give one of them.")
    if schedule is None:
        return Budget() if every is None else Every(every)
    if not isinstance(schedule, Budget) and not callable(getattr(schedule, "wants", None)):
        raise RecorderError(
            f"schedule={schedule!r} has no method wants(step); use every={schedule!r}, or Budget, Every, "
            "Pairs, Logarithmic, First, Listed of trajcheck."
        )
    return schedule


def one_overhead(overhead: float | Literal["auto"] | None, schedule: Schedule | Budget, ranks: int = 1) -> float | None:
    """The limit that `overhead=` asks for; "auto": DEFAULT_OVERHEAD under a Budget, none under an explicit schedule.
    There is none on several ranks: each has its own times, and all must record the same steps. Raises RecorderError."""
    if overhead == "auto":
        return DEFAULT_OVERHEAD if isinstance(schedule, Budget) and ranks == 1 else None
    if overhead is None:
        return None
    if isinstance(overhead, bool) or not isinstance(overhead, int | float) or not 0 < overhead < math.inf:
        raise RecorderError(
            f"overhead={overhead!r}: expected the share of the training time that recording may take, above 0, as in "
            'overhead=0.05; None for no limit; or "auto".'
        )
    if ranks > 1:
        raise RecorderError(
            f"overhead={overhead!r} on {ranks} ranks: each has its own times, and all must record the same steps. "
            "Leave overhead= out, and record fewer steps (every=, schedule=Budget(bytes=...))."
        )
    return float(overhead)


def check_windows(schedule: Schedule | Budget, total_steps: int | None) -> None:
    """Raise RecorderError for a schedule that deletes records: the windows between them would be lost."""
    if isinstance(schedule, Budget) and (schedule.total_steps or total_steps) is None:
        raise RecorderError(
            "windows=True sums from one record to the next, but the default schedule deletes records when it does not "
            "know how long the run is. Give total_steps=, every=, or a schedule that lists its steps."
        )


def check_arguments(
    model: Any,
    optimizers: Optimizers,
    start_step: int,
    total_steps: int | None,
    grad_dtype: torch.dtype | None,
    user: Mapping[str, Any] | None,
) -> None:
    """Raise RecorderError for a training loop that cannot be recorded."""
    if not isinstance(model, torch.nn.Module):
        raise RecorderError(f"model: expected a torch.nn.Module, got {type(model).__name__}.")
    for module in model.modules():
        if any(kind.__name__ == "FullyShardedDataParallel" for kind in type(module).__mro__):
            raise RecorderError(
                "the model is a FullyShardedDataParallel, whose parameters are flattened together and cannot be told "
                "apart. Shard it with torch.distributed.fsdp.fully_shard, which keeps them."
            )
    if start_step < 0 or (total_steps is not None and total_steps < 1):
        raise RecorderError(f"start_step={start_step}, total_steps={total_steps}: expected numbers of updates.")
    if grad_dtype not in (None, torch.float32, torch.bfloat16):
        raise RecorderError(f"grad_dtype={grad_dtype}: expected None, torch.float32 or torch.bfloat16.")
    try:
        json.dumps(user, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RecorderError(f"user={user!r:.80} cannot be written as JSON: {error}.") from error


def check_options(recorder: type, name: str, options: Mapping[str, Any]) -> None:
    """Raise RecorderError for options that no Recorder takes, or a schedule that it cannot have."""
    known = inspect.signature(recorder).parameters.keys() - {"path", "model", "optimizer"}
    if unknown := sorted(options.keys() - known):
        raise RecorderError(f"{name} takes no {', '.join(unknown)}=; it takes {', '.join(sorted(known))}.")
    one_schedule(options.get("schedule"), options.get("every"))
