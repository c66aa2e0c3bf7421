"""From what --objective names to an Objective: a file's function, the run's exported program, or that of a common
model."""

from __future__ import annotations

from pathlib import Path

import torch

from trajcheck.errors import ObjectiveError, UsageError
from trajcheck.files.prints import hash_file
from trajcheck.objective.common.drawing import draw_probes
from trajcheck.objective.common.names import DataChoice, common_objective
from trajcheck.objective.devices import resolve_device
from trajcheck.objective.dtype_names import AS_IS, ONE_DTYPE
from trajcheck.objective.exported import load_exported
from trajcheck.objective.exported_modes import EXPORTED
from trajcheck.objective.file import load_program
from trajcheck.objective.objective import Objective
from trajcheck.objective.program.stored import CONSTANTS, FILE
from trajcheck.objective.sample import process_generators_untouched, seed_generators
from trajcheck.runs.trajectory import Trajectory


def load_objective(
    spec: str,
    *,
    run: Path | None = None,
    device: str = "auto",
    dtype: str | None = None,
    trajectory: Trajectory | None = None,
    choice: DataChoice | None = None,
) -> Objective:
    """The objective FILE.py:NAME on a device, or "run": the program in the folder `run`, checked first; or that of a
    common model (common/), made for a `trajectory`. `choice` says on which data, and whether probe batches are drawn
    from it.

    `dtype` None keeps the dtypes that NAME() gave its model, or that were exported.
    Errors: ObjectiveError for a file that cannot be used, or a program that no longer gives its golden value;
    UsageError for a device or a dtype that does not exist.
    """
    place = resolve_device(device)
    if dtype is not None and dtype not in (*ONE_DTYPE, AS_IS):
        raise UsageError(f"replay dtype {dtype!r} is unknown; expected one of {', '.join((*ONE_DTYPE, AS_IS))}")
    choice = choice or DataChoice()
    objective = _loaded(spec, run, place, dtype, trajectory, choice)
    if choice.probe is not None:
        with process_generators_untouched(place):
            seed_generators(0, place)
            draw_probes(objective, choice.probe, choice.data_seed)
    return objective if dtype is None or spec == EXPORTED else objective.prepare(dtype)


def _loaded(
    spec: str,
    run: Path | None,
    place: torch.device,
    dtype: str | None,
    trajectory: Trajectory | None,
    choice: DataChoice,
) -> Objective:
    """In the dtypes that it was made in; an exported program, which is checked, in the one that is asked for."""
    if spec == EXPORTED:
        return _load_exported(run, place, dtype)
    if (common := common_objective(spec)) is not None:
        if trajectory is None:
            raise ObjectiveError(f"objective {spec!r} is made for a run; say which")
        from trajcheck.objective.common.making import make_common

        return make_common(*common, trajectory, place, choice)
    program = load_program(spec, place)
    objective = Objective(
        program.model, program.loss, device=place, title=spec, path=program.path, data=program.batches
    )
    objective.permutations, objective.sources = program.permutations, program.sources
    objective.weight = program.weight
    return objective


def _load_exported(run: Path | None, place: torch.device, dtype: str | None) -> Objective:
    """The program, checked in the dtype that is asked for; one whose random numbers are others there, before."""
    from trajcheck.objective.exported_check import check_golden_value

    if run is None:
        raise ObjectiveError("objective 'run' is the program exported with a run; say which run, or give FILE.py:NAME")
    path = run / FILE
    program, facts = load_exported(path)
    objective = Objective(program.model, program.loss, device=place, title=str(path))
    golden = facts["reference"]
    first = golden is not None and bool(golden["random"])
    if first:
        objective.note = check_golden_value(objective, run, facts, path)
    if dtype is not None:
        objective.prepare(dtype)
    if not first:
        objective.note = check_golden_value(objective, run, facts, path)
    files = [path] if facts["constants"] is None else [path, path.with_name(CONSTANTS)]
    objective.sources = {str(file): hash_file(file) for file in files}
    return objective
