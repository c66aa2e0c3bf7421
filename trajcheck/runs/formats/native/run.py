"""A run in trajcheck's own format, version 1, as the seam of formats sees it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from trajcheck.errors import RunError
from trajcheck.runs.formats.native.description import DESCRIPTION, read_run_info
from trajcheck.runs.formats.native.every_step import EVERY_STEP, read_every_step
from trajcheck.runs.formats.native.probes import probe_files, read_probe
from trajcheck.runs.formats.native.reading import read_step
from trajcheck.runs.formats.native.step_files import SUPERSEDED, StepFiles, is_step_file, step_files
from trajcheck.runs.formats.stored_run import PROGRAM, PROGRAM_TENSORS, StoredRun, StoredStep
from trajcheck.runs.formats.verification import RunVerification
from trajcheck.runs.logs.run_log import RunLog
from trajcheck.runs.run_info import RunInfo
from trajcheck.runs.snapshot import Probe, Snapshot


class NativeRun(StoredRun):
    """A folder that a Recorder, or a plain script, wrote."""

    name = "trajcheck's own"
    looks = "step-000000120.safetensors, a file a step, and run.json"
    beside = (PROGRAM, PROGRAM_TENSORS, EVERY_STEP)

    @classmethod
    def recognise(cls, path: Path) -> bool:
        try:
            names = os.listdir(path)
        except NotADirectoryError:
            return False
        return (path / DESCRIPTION).is_file() or any(map(is_step_file, names))

    @cached_property
    def _steps(self) -> Mapping[int, StepFiles]:
        return step_files(self.path)

    @cached_property
    def _stored(self) -> Mapping[int, StoredStep]:
        return {step: files.stored for step, files in self._steps.items()}

    def steps(self) -> Mapping[int, StoredStep]:
        return self._stored

    def snapshot(self, step: int) -> Snapshot:
        return read_step(self._steps, step)

    def info(self) -> RunInfo:
        path = self.path / DESCRIPTION
        return replace(read_run_info(self.path), files=(str(path),) if path.exists() else ())

    def probes(self) -> tuple[Probe, ...]:
        return tuple(read_probe(path) for path in probe_files(self.path))

    def log(self) -> RunLog | None:
        return read_every_step(self.path)

    def files(self) -> tuple[str, ...]:
        """By their names alone, whatever is in them."""
        try:
            names = sorted(os.listdir(self.path))
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read: {error.strerror}.") from error
        return tuple(os.path.join(self.path, name) for name in names if _is_read(name))

    def folders(self) -> frozenset[str]:
        return frozenset({SUPERSEDED})

    def verify(self, pool: Executor, progress: Callable[[float], object]) -> RunVerification:
        # imports numpy, for which a batch with nothing to do has no time
        from trajcheck.runs.formats.native.verification import verify_run

        return verify_run(self.path, pool, progress)


def _is_read(name: str) -> bool:
    return name in (DESCRIPTION, PROGRAM, EVERY_STEP) or is_step_file(name) or name.startswith("probe-")
