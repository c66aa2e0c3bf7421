"""A folder of checkpoints of torch.distributed.checkpoint (DCP), a folder a step, as FSDP writes them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from trajcheck.errors import RunError, StepFileError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.pickles.torch_file import read_torch_file
from trajcheck.files.pickles.walking import number, plain
from trajcheck.readable import some_of
from trajcheck.runs.formats.archives.archive import Archive
from trajcheck.runs.formats.archives.checkpoint import Checkpoint
from trajcheck.runs.formats.archives.dcp.chunks import Chunked
from trajcheck.runs.formats.archives.dcp.items import Items
from trajcheck.runs.formats.archives.dcp.metadata import NAME, ListedTensor, Metadata, MetadataFiles
from trajcheck.runs.formats.archives.optimizer_state import group_settings, optimizer_name, whole_number
from trajcheck.runs.formats.archives.step_names import natural_key, step_in
from trajcheck.runs.formats.stored_run import StoredStep
from trajcheck.runs.run_info import RunInfo

#: The folder of the model within a step's: as accelerate and the Trainer name it.
_INNER = ("pytorch_model_fsdp_0", "model")
#: What holds no weights of the model, by the first of its names.
_BESIDE = re.compile(r"^(optim|opt$|lr_|sched|data|train_state|rng|ema|loader|trainer|progress)", re.IGNORECASE)
_OPTIMIZER = re.compile(r"^opt(im\w*)?$", re.IGNORECASE)
_STEP_KEYS = ("global_step", "step", "iteration", "iter_num", "num_steps", "current_step")


class DistributedCheckpoints(Archive):
    """`step-100/.metadata`, `step-100/__0_0.distcp`, ..."""

    name = "checkpoints of torch.distributed.checkpoint"
    looks = "step-100/.metadata and step-100/__0_0.distcp, a folder a step"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._listed, self._items = MetadataFiles(), Items()

    @classmethod
    def recognise(cls, path: Path) -> bool:
        return path.is_dir() and next(_step_folders(path), None) is not None

    def _metadata(self, folder: Path) -> Metadata:
        """What a step's folder says of itself, read once. Raises StepFileError."""
        return self._listed.of(str(folder))

    @cached_property
    def _folders(self) -> Mapping[int, Path]:
        """The folder of each step: the step that it says inside, else that of its name. Raises RunError."""
        found: dict[int, Path] = {}
        try:
            folders = sorted(_step_folders(self.path), key=lambda folder: natural_key(str(folder)))
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read: {error.strerror}.") from error
        for place, folder in enumerate(folders):
            step = self._step(folder, place, len(folders))
            if (other := found.setdefault(step, folder)) != folder:
                raise RunError(
                    f"{self.path}: {other.relative_to(self.path)} and {folder.relative_to(self.path)} would both be "
                    f"step {step}. Leave one of them there."
                )
        return dict(sorted(found.items()))

    def _step(self, folder: Path, place: int, count: int) -> int:
        outer = folder.parent if folder.name in _INNER else folder
        with suppress(StepFileError):
            if (folder / NAME).is_file() and (inside := self._step_inside(folder)) is not None:
                return inside
        named = step_in(outer.name)
        if named is None and count > 1:
            raise RunError(
                f"{outer}: no step is said inside (under {', '.join(_STEP_KEYS)}) nor by the folder's name. "
                "Rename it so that it ends with its step, as step-100."
            )
        return place if named is None else named

    @cached_property
    def _steps(self) -> Mapping[int, StoredStep]:
        return {step: self._stored(step, folder) for step, folder in self._folders.items()}

    def _step_inside(self, folder: Path) -> int | None:
        beside = folder / "meta.pt"  # Lightning's
        if beside.is_file():
            with suppress(StepFileError):
                found = number(read_torch_file(str(beside)).value, "global_step")
                if isinstance(found, int) and found >= 0:
                    return found
        metadata = self._metadata(folder)
        for key in _STEP_KEYS:
            for place in metadata.objects:
                if place[-1] == key and not _OPTIMIZER.match(str(place[0])):
                    found = _value(self._items, metadata, place)
                    if type(found) is int and found >= 0:
                        return found
        return None

    def _stored(self, step: int, folder: Path) -> StoredStep:
        """Complete where .metadata, which is written last, and every file that it names are there."""
        listing = folder / NAME
        if not listing.is_file():
            files = sorted(name for name in os.listdir(folder) if name.endswith(".distcp"))
            missing = f"no {NAME}, which is written last: the checkpoint is incomplete"
            return StoredStep(step, (str(folder / files[0]),), missing)
        try:
            metadata = self._metadata(folder)
        except StepFileError:  # which reading it says
            return StoredStep(step, (str(listing),))
        items = [chunk.item for tensor in metadata.tensors.values() for chunk in tensor.chunks]
        names = sorted({item.file for item in (*items, *metadata.objects.values())})
        files = [str(folder / name) for name in names]
        absent = [os.path.basename(file) for file in files if not os.path.isfile(file)]
        missing_files = f"{some_of(absent)}, which its {NAME} names, is not there" if absent else None
        return StoredStep(step, (str(listing), *(file for file in files if os.path.isfile(file))), missing_files)

    def steps(self) -> Mapping[int, StoredStep]:
        return self._steps

    def checkpoint(self, step: int) -> Checkpoint:
        folder = self._folders[step]
        metadata = self._metadata(folder)
        model, others = _model(metadata)
        trained, state, kind, groups, group_of = _optimizer(metadata, model, self._items)
        beside = folder.with_name("optimizer_0")  # accelerate's
        if not trained and (beside / NAME).is_file():
            trained, state, kind, groups, group_of = _optimizer(self._metadata(beside), model, self._items)
        return Checkpoint(
            metadata.path,
            Chunked(metadata.folder, model, self._items),
            trained=frozenset(trained) if trained else None,
            state=Chunked(metadata.folder, state, self._items),
            optimizer=kind,
            groups=groups,
            group_of=group_of,
            notes=(f"beside the model there are {some_of(others)}, which were left out",) if others else (),
        )

    def described(self) -> RunInfo:
        """With what the optimizer of the last checkpoint counts, where that is not its step."""
        complete = [step for step, stored in self.steps().items() if stored.missing is None]
        for step in complete[-1:]:
            with suppress(StepFileError):
                made = self._updates_made(self._folders[step])
                if made is not None and made != step:
                    note = f"at step {step}, as the checkpoints say it, the optimizer counts {made} updates"
                    return RunInfo(notes=(f"{note}: times between steps are not known to be updates",))
        return RunInfo()

    def _updates_made(self, folder: Path) -> int | None:
        """What an optimizer as Adam counts of the first parameter that it has. Raises StepFileError."""
        beside = folder.with_name("optimizer_0")
        for each in (folder, *[beside] * (beside / NAME).is_file()):
            metadata = self._metadata(each)
            for place, tensor in metadata.tensors.items():
                if _slot(place)[1] == "step" and math.prod(tensor.shape) == 1:
                    with ExtentReader() as reader:
                        return whole_number(reader, Chunked(metadata.folder, {"step": tensor}, self._items)["step"])
        return None

    def folders(self) -> frozenset[str]:
        return frozenset(self._first_folders(str(folder / NAME) for folder in self._folders.values()))


def _step_folders(path: Path) -> Iterator[Path]:
    """Folders in it that hold a checkpoint, or what is left of one; itself, where it is one."""
    if _is_checkpoint(path):
        yield path
        return
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    for name in names:
        for folder in (path / name, *(path / name / inner for inner in _INNER)):
            if folder.is_dir() and not folder.is_symlink() and _is_checkpoint(folder):
                yield folder
                break


def _is_checkpoint(folder: Path) -> bool:
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return any(name.endswith(".distcp") for name in names)


def _value(items: Items, metadata: Metadata, place: tuple[object, ...]) -> Any:
    """A pickled value, or a small tensor's place; None where it cannot be read."""
    item = metadata.objects.get(place)
    if item is None:
        return None
    with suppress(StepFileError):
        return items.value(metadata.folder, item)
    return None


def _model(metadata: Metadata) -> tuple[dict[str, ListedTensor], list[str]]:
    """The model's tensors by name, and what else holds tensors. Raises StepFileError where it is not known which are
    the model's."""
    groups: dict[str, dict[str, ListedTensor]] = {}
    for place, tensor in metadata.tensors.items():
        *outer, name = map(str, place)
        first = str(place[0]) if outer else name.partition(".")[0]
        if not _OPTIMIZER.match(first):
            groups.setdefault(".".join(outer), {})[name] = tensor
    models = [key for key in groups if not _BESIDE.match(key)] if len(groups) > 1 else list(groups)
    if len(models) > 1:
        usual = [key for key in models if key.rpartition(".")[2] in ("model", "module", "state_dict", "model_state")]
        models = usual or models
    if len(models) != 1:
        found = some_of(sorted(map(repr, models))) if models else "none"
        raise StepFileError(f"{metadata.path}: which of its tensors are the model's is not known; found {found}.")
    return groups[models[0]], sorted(key or "tensors without a name around them" for key in groups if key != models[0])


_Optimizer = tuple[set[str], dict[str, ListedTensor], str | None, tuple[Mapping[str, Any], ...], dict[str, int]]


def _optimizer(metadata: Metadata, model: Mapping[str, ListedTensor], items: Items) -> _Optimizer:
    """What the optimizer trains, its tensors "slot/name", its class, its groups' settings, each name's group."""
    trained: set[str] = set()
    state: dict[str, ListedTensor] = {}
    settings: dict[int, dict[str, Any]] = {}
    for place, tensor in metadata.tensors.items():
        name, slot = _slot(place)
        if name in model:
            trained.add(name)
            if tensor.shape == model[name].shape:
                state[f"{slot}/{name}"] = tensor
    group_of: dict[str, int] = {}
    for place in metadata.objects:
        if len(place) >= 3 and place[-3] == "param_groups" and type(place[-2]) is int:
            value = plain(_value(items, metadata, place))
            settings.setdefault(place[-2], {})[str(place[-1])] = value
            if place[-1] == "params":
                group_of.update((name, place[-2]) for name in value or () if isinstance(name, str) and name in model)
    trained |= group_of.keys()
    whole = [settings.get(number, {}) for number in range(max(settings, default=-1) + 1)]
    kind = optimizer_name(whole) if whole else None
    return trained, state, kind, tuple(map(group_settings, whole)), group_of


def _slot(place: tuple[object, ...]) -> tuple[str, str]:
    """The name and the slot of a tensor of the optimizer's state, whether tables within tables were saved, or names
    joined with dots; ("", "") for any other."""
    if not _OPTIMIZER.match(str(place[0]).partition(".")[0]) and place[0] != "state":
        return "", ""
    if len(place) >= 3 and "state" in place[:-2]:
        return str(place[-2]), str(place[-1])
    whole = ".".join(map(str, place))
    _, found, rest = whole.partition("state.")
    name, _, slot = rest.rpartition(".")
    return (name, slot) if found else ("", "")
