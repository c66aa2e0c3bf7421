"""checkpoint-N of Hugging Face's Trainer: weights or an adapter, trainer_state.json, optimizer.pt, scheduler.pt.

The step is that of trainer_state.json, which must be the folder's. The Trainer saves no x_0: a folder beside, step-0 or
checkpoint-0 with weights alone, may hold it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from itertools import pairwise

from trajcheck.errors import StepFileError
from trajcheck.files.trees.tree import Tree, join
from trajcheck.runs.formats.archives.checkpoint import Checkpoint
from trajcheck.runs.formats.archives.hf.folders import Place, WeightFolders
from trajcheck.runs.formats.archives.hf.optimizer_files import (
    next_rates,
    optimizer_beside,
    updates_made,
    with_optimizer,
)
from trajcheck.runs.formats.archives.hf.trainer_state import (
    STATE,
    TrainerState,
    contradictions,
    losses_of_steps,
    rates_of_updates,
    read_step,
    read_trainer_state,
)
from trajcheck.runs.formats.archives.model_files import model_files
from trajcheck.runs.formats.archives.roles import spread
from trajcheck.runs.formats.archives.step_names import step_said
from trajcheck.runs.logs.run_log import RunLog
from trajcheck.runs.run_info import RunInfo

#: Bytes of all logs together up to which all of them are read and compared.
MOST_LOGS = 5_000_000
OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"
_NUMBERED = re.compile(r"checkpoint-(\d{1,15})")


class TrainerCheckpoints(WeightFolders):
    """What the Trainer left in its output_dir."""

    name = "checkpoints of Hugging Face's Trainer"
    looks = "checkpoint-500/model.safetensors (or an adapter, shards, .bin) and checkpoint-500/trainer_state.json"

    @classmethod
    def found_in(cls, tree: Tree) -> bool:
        return any(tree.holds(join(p.folder, STATE)) and model_files(tree, p.folder) for p in cls.places(tree))

    def is_place(self, place: Place) -> bool:
        return super().is_place(place) or self.tree.holds(join(place.folder, STATE)) or _number(place) is not None

    def step_of(self, place: Place) -> int | None:
        """The folder's number, which reading it compares; else what is said inside."""
        if (number := _number(place)) is not None:
            return number
        said = self._said(place)
        return said[0] if isinstance(said, tuple) else step_said(place.label)

    def again(self, place: Place, other: Place) -> bool:
        return _number(place) is None or _number(other) is None  # checkpoint-best is one of the others

    def incomplete(self, place: Place, others: Iterable[Place]) -> str | None:
        if (missing := super().incomplete(place, others)) is not None:
            return missing
        if self.tree.holds(join(place.folder, STATE)) or not _number(place):
            return None
        return f"no {STATE}, which is written last"

    @cached_property
    def _steps_said(self) -> dict[str, tuple[int, float | None] | StepFileError | None]:
        return {}

    def _said(self, place: Place) -> tuple[int, float | None] | StepFileError | None:
        """The step that is said inside, and the epoch; None where there is nothing, or why it cannot be read."""
        if place.folder not in self._steps_said:
            name = join(place.folder, STATE)
            try:
                self._steps_said[place.folder] = read_step(self.tree, name) if self.tree.holds(name) else None
            except StepFileError as error:
                self._steps_said[place.folder] = error
        return self._steps_said[place.folder]

    @cached_property
    def _complete(self) -> list[int]:
        return [step for step, stored in self.steps().items() if stored.missing is None]

    @cached_property
    def _unread(self) -> list[str]:
        """What could not be read of logs."""
        return []

    @cached_property
    def _logs(self) -> list[TrainerState]:
        """Of the checkpoints, of some where they are long, the first and the last among them, and of the folder as a
        whole where the Trainer left one there, in order: a log holds those before it."""
        said = [step for step in self._complete if isinstance(self._said(self.place(step)), tuple)]
        names = {step: join(self.place(step).folder, STATE) for step in said}
        if sum(self.tree.member(name).size for name in names.values()) > MOST_LOGS:
            names = {step: names[step] for step in spread(said)}
        found = []
        for name in [*names.values(), *[STATE] * self.tree.holds(STATE)]:
            try:
                found.append(read_trainer_state(self.tree, name))
            except StepFileError as error:
                self._unread.append(f"a log was left out: {str(error).removesuffix('.')}")
        return sorted(found, key=lambda state: state.step)

    @cached_property
    def _next(self) -> dict[int, tuple[float, ...]]:
        """The rates with which the optimizer was to go on, by step."""
        found = {}
        for step in self._complete:
            rates = next_rates(self.tree, self.place(step).folder, SCHEDULER, OPTIMIZER)
            if rates is not None:
                found[step] = rates
        return found

    @cached_property
    def _log(self) -> tuple[RunLog | None, tuple[str, ...]]:
        """The longest of the logs, and what there is to say of it."""
        if not self._logs:
            return None, ()
        last = self._logs[-1]
        versions = filter(
            None, (self._version(self.place(step)) for step in (*self._complete[:1], *self._complete[-1:]))
        )
        rates, why = rates_of_updates(last.entries, {s: r[0] for s, r in self._next.items()}, versions)
        if rates and any(len(set(each)) > 1 for each in self._next.values()):
            rates, why = {}, "the log's rates were left out: they are those of the first group, and others differ"
        losses, kind, told = losses_of_steps(last.entries)
        notes = tuple(filter(None, (why, told, contradictions(self._logs))))
        if not rates and not losses:
            return None, notes
        file = self.tree.member(last.name).path
        each = {step: (rate,) for step, rate in rates.items()}
        return RunLog(self.tree.shown(last.name), each, losses, kind, files=(file,)), notes

    def _version(self, place: Place) -> str | None:
        try:
            said = self.tree.json(join(place.folder, "config.json"), 10_000_000)
        except StepFileError:
            return None
        version = said.get("transformers_version") if isinstance(said, dict) else None
        return version if isinstance(version, str) else None

    def log(self) -> RunLog | None:
        return self._log[0]

    def checkpoint(self, step: int) -> Checkpoint:
        place = self.place(step)
        said = self._said(place)
        if isinstance(said, StepFileError):
            raise said
        if said is None:
            return super().checkpoint(step)
        if said[0] != step:
            raise StepFileError(
                f"{self.tree.shown(place.folder)}: its {STATE} says step {said[0]}, its name {step}: of which of "
                "them its weights are cannot be told. Rename the folder, or copy it again."
            )
        held = super().checkpoint(step)
        log = self.log()
        logged = log.lr.get(step) if log is not None else None
        planned = self._logs[-1].planned if self._logs else None
        rates = self._next.get(step) if planned is None or step < planned else None
        if logged is not None:
            rates = logged * len(rates or logged)
        held = replace(held, lr=rates, epoch=said[1])
        if step not in (self._complete[0], self._complete[-1]):  # settings seldom change, and take time to read
            return held
        return with_optimizer(held, optimizer_beside(self.tree, place.folder, OPTIMIZER, self.model(step)))

    def described(self) -> RunInfo:
        info = super().described()
        names = [state.name for state in self._logs]
        files = tuple(dict.fromkeys(self.tree.member(name).path for name in names))
        return replace(
            info,
            files=files,
            notes=(*info.notes, *self._log[1], *self._unread, *self._skipped(), *self._other_settings()),
        )

    def _skipped(self) -> list[str]:
        """How many updates the optimizer counts fewer than the Trainer."""
        if not self._complete:
            return []
        step = self._complete[-1]
        made = updates_made(self.tree, self.place(step).folder, OPTIMIZER)
        if made is None or made == step:
            return []
        fewer = f"{step - made} fewer, as a loss scaler skips some" if made < step else "more"
        return [f"at step {step} the optimizer counts {made} updates, {fewer}: times tau count all of them"]

    def _other_settings(self) -> list[str]:
        ends = [self.held(step) for step in dict.fromkeys((*self._complete[:1], *self._complete[-1:]))]
        for one, other in pairwise(ends):
            if one.groups and other.groups and one.groups != other.groups:
                return [
                    f"the optimizer's settings differ between {one.path} and {other.path}: when they changed is unknown"
                ]
        return []


def _number(place: Place) -> int | None:
    match = _NUMBERED.fullmatch(place.label)
    return int(match[1]) if match else None
