"""Folders of weights, one a step: what the Trainer's, accelerate's and all others have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import ClassVar, NamedTuple

from trajcheck.errors import RunError, StepFileError
from trajcheck.files.trees.tree import Tree, join
from trajcheck.readable import some_of
from trajcheck.runs.formats.archives.checkpoint import Checkpoint
from trajcheck.runs.formats.archives.hf.tied_names import tied_by_config
from trajcheck.runs.formats.archives.model_files import ModelFiles, model_files, read_model
from trajcheck.runs.formats.archives.step_names import natural_key
from trajcheck.runs.formats.archives.tree_archive import TreeArchive
from trajcheck.runs.formats.stored_run import StoredStep
from trajcheck.runs.run_info import RunInfo


class Place(NamedTuple):
    """A folder that may hold the weights of a step, and the name by which people know it."""

    folder: str
    label: str


class WeightFolders(TreeArchive):
    """A format of this kind says which folders there are, and the step of each. `cause`: how a step may have come to
    lack its weights."""

    cause: ClassVar[str] = "the job ended before it was written, or it was lost"

    @classmethod
    def places(cls, tree: Tree) -> Iterable[Place]:
        """The folders that may be steps, in any order."""
        return (Place(name, name) for name in tree.folders())

    @abstractmethod
    def step_of(self, place: Place) -> int | None:
        """The step of a folder; None where nothing says one."""

    def incomplete(self, place: Place, others: Iterable[Place]) -> str | None:
        """What of a step is not there, in words; `others` are all places."""
        return None if model_files(self.tree, place.folder) else "no file of weights"

    def is_place(self, place: Place) -> bool:
        """Whether a folder is one of the archive's steps, or what is left of one."""
        return bool(model_files(self.tree, place.folder))

    @cached_property
    def _sorted(self) -> tuple[Mapping[int, Place], tuple[str, ...]]:
        """The places by their steps, and what is left out and why, in words."""
        found: dict[int, Place] = {}
        nameless: list[str] = []
        notes = []
        places = sorted(filter(self.is_place, self.places(self.tree)), key=lambda place: natural_key(place.label))
        for place in places:
            step = self.step_of(place)
            if step is None:
                nameless.append(place.label)
            elif step not in found:
                found[step] = place
            elif found[step].folder == place.folder or self.again(place, found[step]):
                notes.append(f"{place.label} holds step {step} again, as {found[step].label} does: left out")
            else:
                raise RunError(
                    f"{self.tree.root}: {found[step].label} and {place.label} would both be step {step}. Leave one of "
                    "them there; those of several trainings or stages need a folder for each."
                )
        if nameless:
            notes.append(f"left out, as nothing says their step: {some_of(nameless)}")
        return dict(sorted(found.items())), tuple(notes)

    def again(self, place: Place, other: Place) -> bool:
        """Whether two folders of one step may be copies of one another, the first named without a step."""
        return False

    @cached_property
    def _stored(self) -> Mapping[int, StoredStep]:
        found, _ = self._sorted
        return {step: self._stored_step(step, place, found.values()) for step, place in found.items()}

    def _stored_step(self, step: int, place: Place, others: Iterable[Place]) -> StoredStep:
        missing = self.incomplete(place, others)
        files: dict[str, None] = {}
        for name in model_files(self.tree, place.folder) or self.tree.files(place.folder):
            with suppress(StepFileError):  # which reading it says
                files.setdefault(self.tree.member(join(place.folder, name)).path)
        return StoredStep(step, tuple(files) or (str(self.path),), missing and f"{place.label}: {missing}", self.cause)

    def steps(self) -> Mapping[int, StoredStep]:
        return self._stored

    def model(self, step: int) -> ModelFiles:
        """The weights of a step. Raises StepFileError."""
        return read_model(self.tree, self.place(step).folder)

    def place(self, step: int) -> Place:
        """The folder of a step."""
        return self._sorted[0][step]

    def checkpoint(self, step: int) -> Checkpoint:
        found = self.model(step)
        tied = {**found.tied, **tied_by_config(self.tree, self.place(step).folder, found.tensors)}
        path = self.tree.shown(found.first)
        return Checkpoint(path, found.tensors, found.prefix, tied, notes=found.notes)

    def described(self) -> RunInfo:
        return RunInfo(notes=self._sorted[1])

    def folders(self) -> frozenset[str]:
        return frozenset(place.folder.partition("/")[0] for place in self._sorted[0].values())
