"""accelerate's save_state: model.safetensors, optimizer.bin, scheduler.bin, random_states_0.pkl, a folder a save.

Its automatic names count the saves, checkpoint_0, checkpoint_1, ..., so the step is what the optimizer counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from trajcheck.files.trees.tree import Tree, join
from trajcheck.runs.formats.archives.checkpoint import Checkpoint
from trajcheck.runs.formats.archives.hf.folders import Place, WeightFolders
from trajcheck.runs.formats.archives.hf.optimizer_files import (
    next_rates,
    optimizer_beside,
    updates_made,
    with_optimizer,
)
from trajcheck.runs.formats.archives.model_files import model_files
from trajcheck.runs.formats.archives.step_names import step_said
from trajcheck.runs.run_info import RunInfo

OPTIMIZER, SCHEDULER, STATES = "optimizer.bin", "scheduler.bin", "random_states_0.pkl"
_COUNTED = re.compile(r"checkpoint_\d+")


class AcceleratedStates(WeightFolders):
    """Folders of a project, or its `checkpoints` folder."""

    name = "states that accelerate saved"
    looks = "checkpoint_3/model.safetensors and checkpoint_3/random_states_0.pkl"

    @classmethod
    def found_in(cls, tree: Tree) -> bool:
        return any(tree.holds(join(p.folder, STATES)) and model_files(tree, p.folder) for p in cls.places(tree))

    @classmethod
    def places(cls, tree: Tree) -> Iterable[Place]:
        yield from super().places(tree)
        yield from (Place(join("checkpoints", name), name) for name in tree.folders("checkpoints"))

    def incomplete(self, place: Place, others: Iterable[Place]) -> str | None:
        if (missing := super().incomplete(place, others)) is not None:
            return missing
        return None if self.tree.holds(join(place.folder, STATES)) else f"no {STATES}, which is written last"

    def step_of(self, place: Place) -> int | None:
        counted = updates_made(self.tree, place.folder, OPTIMIZER)
        return step_said(place.label) if counted is None else counted

    def again(self, place: Place, other: Place) -> bool:
        return True  # the state was saved twice without an update in between

    def checkpoint(self, step: int) -> Checkpoint:
        held, place = super().checkpoint(step), self.place(step)
        held = with_optimizer(held, optimizer_beside(self.tree, place.folder, OPTIMIZER, self.model(step)))
        others = [name for name in self.tree.files(place.folder) if re.fullmatch(r"model_\d+\.safetensors", name)]
        more = (f"{len(others)} more models in {place.label} were left out ({others[0]})",) if others else ()
        rates = next_rates(self.tree, place.folder, SCHEDULER, OPTIMIZER)
        return replace(held, lr=rates, notes=(*held.notes, *more))

    def described(self) -> RunInfo:
        info = super().described()
        labels = [self.place(step).label for step in self.steps()]
        unknown = any(updates_made(self.tree, self.place(step).folder, OPTIMIZER) is None for step in self.steps())
        if unknown and any(map(_COUNTED.fullmatch, labels)):
            note = "its optimizer counts no updates: steps are the numbers of the saves, and times between them unknown"
            return replace(info, notes=(*info.notes, note))
        return info
