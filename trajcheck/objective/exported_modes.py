"""In which modes the program of a run was exported, read without torch: steps of other modes are not its own."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

from trajcheck.files.plain_json import parse_json
from trajcheck.runs.formats.stored_run import PROGRAM
from trajcheck.runs.modes import Modes
from trajcheck.runs.trajectory import Trajectory

#: `--objective run`: the program that the Recorder exported with the run.
EXPORTED = "run"


def exported_modes(program: Path) -> Modes | None:
    """The modes of the modules in an exported program; None where they cannot be read, which loading it will say."""
    try:
        with zipfile.ZipFile(program) as archive:
            name = next(name for name in archive.namelist() if name.rpartition("/")[2] == "trajcheck.json")
            modes = parse_json(archive.read(name).decode()).get("modes", {})
    except (OSError, ValueError, StopIteration, zipfile.BadZipFile, AttributeError, RuntimeError, NotImplementedError):
        return None
    return modes if isinstance(modes, dict) else None


def with_program(trajectory: Trajectory) -> Trajectory:
    """The run as its own exported program sees it: steps of other modes have no sample, for that reason."""
    return replace(trajectory, program_modes=exported_modes(trajectory.path / PROGRAM))
