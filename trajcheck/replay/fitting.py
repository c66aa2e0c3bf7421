"""The objective of a replay and its run: whether they fit, in which precision, and what the numbers depend on."""

from __future__ import annotations

import json
import os

import torch

from trajcheck.errors import ObjectiveError
from trajcheck.files.extents import EPSILON
from trajcheck.files.torch_tensors import TORCH_DTYPES
from trajcheck.objective.dtype_names import AS_IS
from trajcheck.objective.objective import Objective
from trajcheck.objective.precision import DTYPES
from trajcheck.replay.plan import Plan, own_dtypes, stored_dtypes
from trajcheck.runs.trajectory import Trajectory


def recorded_dtype(trajectory: Trajectory) -> torch.dtype | None:
    """The dtype in which the run's parameters, frozen ones included, were recorded; None where there are several."""
    stored = set(stored_dtypes(trajectory).values())
    return TORCH_DTYPES[stored.pop()] if len(stored) == 1 else None


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


def prepared(objective: Objective, trajectory: Trajectory, dtype: str) -> Objective:
    """The objective, fitted to the run, in the dtype of the replay."""
    return objective.prepare(dtype, trained_dtypes(trajectory))


def trained_dtypes(trajectory: Trajectory) -> dict[str, torch.dtype]:
    """Those of the parameters in the model that was trained, by the run's names."""
    return {name: TORCH_DTYPES[code] for name, code in own_dtypes(trajectory).items()}


def epsilon(dtype: str, trajectory: Trajectory) -> float:
    """The machine epsilon of the replay: that of the lowest precision in use."""
    if dtype == AS_IS:
        return max(EPSILON.get(code, 0.0) for code in own_dtypes(trajectory).values())
    return torch.finfo(DTYPES[dtype]).eps


def identity_of(objective: Objective, dtype: str, device: str, plan: Plan) -> str:
    """What the numbers of a replay depend on, beside the run's files: torch, the objective's own files, dtype, the kind
    of device where one was asked for, and the settings that round differently. Data that the objective loads is not
    seen."""
    settings: tuple[object, ...] = (torch.__version__, dtype, device.partition(":")[0], plan.path_points, plan.memory)
    if objective.facts:  # without the places of files, which are known by their content
        known = {name: value for name, value in objective.facts.items() if name not in ("config", "data", "files")}
        settings = (*settings, json.dumps(known, sort_keys=True))
    if objective.path is None:
        return repr((objective.title if objective.facts else "", list(objective.sources.values()), settings))
    sources = sorted((os.path.relpath(file, objective.path.parent), known) for file, known in objective.sources.items())
    return repr((objective.title.rpartition(":")[2], sources, settings))
