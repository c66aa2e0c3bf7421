"""A folder of safetensors files, each of them the weights of one step, which its name says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from trajcheck.errors import RunError
from trajcheck.files.safetensors_header import read_header
from trajcheck.readable import some_of
from trajcheck.runs.formats.archives.archive import Archive
from trajcheck.runs.formats.archives.checkpoint import Checkpoint
from trajcheck.runs.formats.archives.step_names import SHARD, natural_key, step_in
from trajcheck.runs.formats.stored_run import StoredStep
from trajcheck.runs.run_info import RunInfo

SUFFIX = ".safetensors"
_BATCHES = "probe-"  # what a Recorder sets aside, and no weights


class NumberedFiles(Archive):
    """Files that save_file wrote. One without a step in its name is left out, and named."""

    name = "a folder of weights"
    looks = "step_100.safetensors, step_200.safetensors, ..., a file a step"

    @classmethod
    def recognise(cls, path: Path) -> bool:
        return path.is_dir() and any(step_in(name[: -len(SUFFIX)]) is not None for name in _weights_in(path))

    @cached_property
    def _sorted(self) -> tuple[Mapping[int, StoredStep], tuple[str, ...]]:
        """The steps, and the names of files that are none."""
        found: dict[int, str] = {}
        others = []
        try:
            names = sorted(_weights_in(self.path), key=natural_key)
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read: {error.strerror}.") from error
        for name in names:
            step = step_in(name[: -len(SUFFIX)])
            if step is None:
                others.append(name)
            elif found.setdefault(step, name) != name:
                raise RunError(
                    f"{self.path}: {found[step]} and {name} would both be step {step}. Leave one of them in the "
                    "folder, or name them so that each says its step."
                )
        steps = {step: StoredStep(step, (str(self.path / found[step]),)) for step in sorted(found)}
        return steps, tuple(others)

    def steps(self) -> Mapping[int, StoredStep]:
        return self._sorted[0]

    def checkpoint(self, step: int) -> Checkpoint:
        file = read_header(self.steps()[step].files[0])
        return Checkpoint(file.path, file.extents({name: name for name in file.layout.specs}))

    def described(self) -> RunInfo:
        others = self._sorted[1]
        return RunInfo(notes=(f"left out, as no step is in their names: {some_of(others)}",) if others else ())


def _weights_in(folder: Path) -> list[str]:
    """The names of files of weights that are whole checkpoints by themselves."""
    names = [name for name in os.listdir(folder) if name.endswith(SUFFIX)]
    return [name for name in names if not (SHARD.search(name) or name.startswith(_BATCHES))]
