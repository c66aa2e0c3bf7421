"""One evaluation in each of two dtypes, before anything long begins: what it takes, and whether it is the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.flop_counter import flop_registry

from trajcheck.errors import ObjectiveError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.files.torch_tensors import read_tensor
from trajcheck.objective.another_dtype import in_another_dtype
from trajcheck.objective.dispatch.mode import Mode
from trajcheck.objective.objective import Objective
from trajcheck.replay.data_set.sample import first_of_data_set
from trajcheck.replay.fitting import fit_objective, recorded_dtype, trained_dtypes
from trajcheck.replay.sample_conventions import probe_samples, recorded_sample
from trajcheck.replay.two_precisions.trial_reads import TrialReads
from trajcheck.runs.trajectory import Trajectory

#: Losses in two dtypes are of one function where they differ by no more than this share, or this much.
SHARE, LEAST = 1e-2, 1e-5


@dataclass(frozen=True)
class Trial:
    """`operations` of one loss with its gradient, as torch counts those of products and convolutions; `differs`: why
    the wider dtype is not to be used, or ''."""

    operations: int
    differs: str


def trial(objective: Objective, trajectory: Trajectory, reads: TrialReads, dtype: str, wider: str) -> Trial:
    """f and grad f on the sample of one row in both dtypes. Raises ObjectiveError where the objective fails in
    `dtype`."""
    fit_objective(objective, trajectory)
    with ExtentReader() as reader:
        tensors = {extent: read_tensor(reader, extent) for extent in reads.extents}
    loss, operations = _evaluated(objective, trajectory, reads, tensors, dtype)
    try:
        wide, _ = _evaluated(objective, trajectory, reads, tensors, wider)
    except ObjectiveError as error:
        return Trial(operations, f"it fails there: {error}")
    if abs(wide - loss) > SHARE * abs(loss) + LEAST or math.isfinite(wide) != math.isfinite(loss):
        found = f"{wide:.6g} at step {trajectory.steps[reads.place]}, where {dtype} gives {loss:.6g}"
        return Trial(operations, f"the loss is another one there: {found}")
    return Trial(operations, "")


def _evaluated(
    objective: Objective, trajectory: Trajectory, reads: TrialReads, tensors: Mapping[Extent, Tensor], dtype: str
) -> tuple[float, int]:
    """The loss, and the operations that it took with its gradient."""
    snapshot, load = trajectory.snapshots[reads.place], tensors.__getitem__
    with in_another_dtype(objective, dtype, trained_dtypes(trajectory)):
        recorded = recorded_dtype(trajectory)
        if reads.sample == "own":
            sample = recorded_sample(trajectory, snapshot, objective, recorded, load)
        elif reads.sample == "probe":
            sample = probe_samples(trajectory, objective, recorded, load)[0]
        else:
            sample = first_of_data_set(objective, recorded)
        point = {name: load(extent).to(objective.device) for name, extent in reads.point.items()}
        with _Operations() as counted:
            loss, _ = objective.loss_and_gradient(point, sample, where=f"step {snapshot.step}, at x_t")
    return float(loss), counted.count


class _Operations(Mode):
    """Counts the floating-point operations of matrix products and convolutions while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = function(*args, **kwargs)
        packet = getattr(function, "_overloadpacket", None)
        if packet in flop_registry:
            self.count += int(flop_registry[packet](*args, **kwargs, out_val=found))
        return found
