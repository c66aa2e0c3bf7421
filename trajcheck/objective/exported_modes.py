"""In which modes the program of a run was exported, read without torch: steps of other modes are not its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trajcheck.errors import ObjectiveError
from trajcheck.runs.formats.stored_run import PROGRAM
from trajcheck.runs.modes import Modes
from trajcheck.runs.trajectory import Trajectory

#: `--objective run`: the program that the Recorder exported with the run.
EXPORTED = "run"


def exported_modes(program: Path) -> Modes | None:
    """The modes of the modules in an exported program; None where they cannot be read, which loading it will say."""
    from trajcheck.objective.program.stored import read_facts  # whatever a program may hold is known there

    try:
        modes: Modes = read_facts(program)["modes"]
    except ObjectiveError:
        return None
    return modes


def with_program(trajectory: Trajectory) -> Trajectory:
    """The run as its own exported program sees it: steps of other modes have no sample, for that reason."""
    return replace(trajectory, program_modes=exported_modes(trajectory.path / PROGRAM))
