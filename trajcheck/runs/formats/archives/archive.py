"""What archives of others have in common: checkpoints that list tensors, of which some are the trained parameters.

A format of this kind is a subclass in a file of its own, and a row in formats.ARCHIVES. Beside `recognise` it answers

    steps        which checkpoints there are, by step, and in which files each lies
    checkpoint   one of them, from its headers: tensors as extents, what the optimizer says, rate, loss

and, where it knows more, `described`: the run's id, its optimizer's name. Which tensors are parameters, under which
names, is decided here for all steps alike (roles.py).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from trajcheck.errors import StepFileError
from trajcheck.files.extents import Extent, Extents
from trajcheck.files.remote.file import HASHES, remote_file
from trajcheck.runs.formats.archives.checkpoint import Checkpoint
from trajcheck.runs.formats.archives.identity import identity
from trajcheck.runs.formats.archives.roles import Roles, find_roles, model_names
from trajcheck.runs.formats.stored_run import StoredRun
from trajcheck.runs.run_info import RunInfo
from trajcheck.runs.snapshot import Snapshot


class Archive(StoredRun):
    """One training, as checkpoints of a library. Errors: as StoredRun."""

    closed = False  # checkpoints often lie in the folder that people work in

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._read: dict[int, Checkpoint] = {}

    @abstractmethod
    def checkpoint(self, step: int) -> Checkpoint:
        """One of `steps` of which nothing is missing, from its headers. Raises StepFileError."""

    def described(self) -> RunInfo:
        """What is known of the run as a whole, but for what `roles` and the checkpoints say."""
        return RunInfo()

    def held(self, step: int) -> Checkpoint:
        """`checkpoint`, read once."""
        if step not in self._read:
            self._read[step] = self.checkpoint(step)
        return self._read[step]

    @cached_property
    def readable(self) -> list[Checkpoint]:
        """The checkpoints that can be read, in the order of their steps."""
        found = []
        for step, stored in sorted(self.steps().items()):
            if stored.missing is None:
                with suppress(StepFileError):  # which reading the step says
                    found.append(self.held(step))
        return found

    @cached_property
    def roles(self) -> Roles:
        """Which of the tensors are trained."""
        return find_roles(self.readable)

    @cached_property
    def identity(self) -> str | None:
        """What stands for an id that nothing says."""
        return identity(self.readable)

    def listed_hashes(self) -> Mapping[int, str]:
        """Of remote files; a text file beside the weights, as an index, has a hash of git's."""
        found = {}
        for step, stored in self.steps().items():
            with suppress(FileNotFoundError):
                files = [remote_file(path) for path in stored.files]
                hashes = [file.print for file in files if file is not None and file.print.startswith(HASHES)]
                if hashes and len(hashes) == len(files):
                    found[step] = " ".join(hashes)
        return found

    def snapshot(self, step: int) -> Snapshot:
        held, roles = self.held(step), self.roles
        names = model_names(held)
        parameters = {s: n for s, n in names.items() if s not in roles.buffers and s not in roles.tied}
        state = {key: extent for key, extent in held.state.items() if key.partition("/")[2] not in roles.tied}
        return Snapshot(
            step=step,
            path=held.path,
            parameters=_named(held, parameters),
            buffers=_named(held, {s: n for s, n in names.items() if s in roles.buffers}),
            state=state,
            loss=held.loss,
            epoch=held.epoch,
            lr=held.lr,
            groups=held.groups,
        )

    def info(self) -> RunInfo:
        described, roles = self.described(), self.roles
        frozen: dict[str, tuple[int, ...]] = {}
        group_of: dict[str, int] = {}
        for each in self.readable:
            for shown, name in model_names(each).items():
                if shown in roles.frozen:
                    frozen.setdefault(shown, each.tensors[name].shape)
                if name in each.group_of:
                    group_of.setdefault(roles.tied.get(shown, shown), each.group_of[name])
        optimizer = described.optimizer or next((c.optimizer for c in self.readable if c.optimizer), None)
        groups = described.groups or next((c.groups for c in self.readable if c.groups), ())
        notes = dict.fromkeys([*described.notes, *roles.notes, *(n for c in self.readable for n in c.notes)])
        return replace(
            described,
            id=described.id or self.identity,
            frozen=frozen,
            tied=roles.tied,
            optimizer=optimizer,
            groups=groups,
            group_of=group_of,
            notes=tuple(notes),
        )


def _named(held: Checkpoint, names: dict[str, str]) -> dict[str, Extent] | Extents:
    """Some tensors of a checkpoint, {name in the model: name in the file}."""
    tensors = held.tensors
    if isinstance(tensors, Extents):
        return tensors.renamed(names)
    return {shown: tensors[name] for shown, name in names.items()}
