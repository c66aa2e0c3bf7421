"""A folder of safetensors files, each of them the weights of one step, which its name says."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from trajcheck.errors import RunError, StepFileError
from trajcheck.files.trees.tree import Tree
from trajcheck.readable import some_of
from trajcheck.runs.formats.archives.checkpoint import Checkpoint
from trajcheck.runs.formats.archives.model_files import check_pointer
from trajcheck.runs.formats.archives.step_names import SHARD, natural_key, step_in
from trajcheck.runs.formats.archives.tree_archive import TreeArchive
from trajcheck.runs.formats.stored_run import StoredStep
from trajcheck.runs.run_info import RunInfo

SUFFIX = ".safetensors"
PICKLED = (".pt", ".pth", ".ckpt", ".bin")
_BATCHES = "probe-"  # what a Recorder sets aside, and no weights


class NumberedFiles(TreeArchive):
    """Files that save_file wrote. One without a step in its name is left out, and named."""

    name = "a folder of weights"
    looks = "step_100.safetensors, step_200.safetensors, ..., a file a step"

    @classmethod
    def found_in(cls, tree: Tree) -> bool:
        return any(step_in(name[: -len(SUFFIX)]) is not None for name in _weights_in(tree))

    @cached_property
    def _sorted(self) -> tuple[Mapping[int, str], tuple[str, ...]]:
        """The file of each step, and those that are of none."""
        found: dict[int, str] = {}
        others = []
        for name in sorted(_weights_in(self.tree), key=natural_key):
            step = step_in(name[: -len(SUFFIX)])
            if step is None:
                others.append(name)
            elif found.setdefault(step, name) != name:
                raise RunError(
                    f"{self.tree.root}: {found[step]} and {name} would both be step {step}. Leave one of them in the "
                    "folder, or name them so that each says its step."
                )
        return dict(sorted(found.items())), tuple(others)

    @cached_property
    def _stored(self) -> Mapping[int, StoredStep]:
        return {step: StoredStep(step, (self._path(name),)) for step, name in self._sorted[0].items()}

    def _path(self, name: str) -> str:
        try:
            return self.tree.member(name).path
        except StepFileError:  # which reading it says
            return self.tree.shown(name)

    def steps(self) -> Mapping[int, StoredStep]:
        return self._stored

    def checkpoint(self, step: int) -> Checkpoint:
        name = self._sorted[0][step]
        check_pointer(self.tree, name)
        file = self.tree.safetensors(name)
        if "trajcheck" in file.metadata:
            raise StepFileError(
                f"{self.tree.shown(name)}: a step of a run that trajcheck recorded, which is read in a folder alone: "
                "unpack it."
            )
        return Checkpoint(self.tree.shown(name), file.extents({each: each for each in file.layout.specs}))

    def described(self) -> RunInfo:
        others = self._sorted[1]
        notes = [f"left out, as no step is in their names: {some_of(others)}"] if others else []
        if pickled := sorted((name for name in self.tree.files() if _is_pickled_step(name)), key=natural_key):
            notes.append(
                f"beside the safetensors files lie {len(pickled)} of torch.save with a number ({some_of(pickled)}), "
                "which are not read: give them a folder of their own where they are steps"
            )
        return RunInfo(notes=tuple(notes))


def _is_pickled_step(name: str) -> bool:
    beginning, dot, ending = name.rpartition(".")
    return bool(dot) and f".{ending.lower()}" in PICKLED and step_in(beginning) is not None


def _weights_in(tree: Tree) -> list[str]:
    """The names of files of weights that are whole checkpoints by themselves."""
    names = [name for name in tree.files() if name.endswith(SUFFIX)]
    return [name for name in names if not (SHARD.search(name) or name.startswith(_BATCHES))]
