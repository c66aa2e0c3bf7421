"""A folder of DeepSpeed checkpoints: `global_step100/mp_rank_00_model_states.pt`, and ZeRO's shards of the optimizer.

The iterate is that of the optimizer: the float32 masters in its shards, where they are, and the module's own weights
else. Stages 0 to 3 are read, of one model-parallel rank.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from trajcheck.errors import RunError, StepFileError
from trajcheck.files.extents import Extent
from trajcheck.files.pickles.inert import Inert
from trajcheck.files.pickles.tensors import StoredTensor
from trajcheck.files.pickles.torch_file import TorchFile, read_torch_file
from trajcheck.files.pickles.walking import number, plain, table
from trajcheck.readable import some_of
from trajcheck.runs.canonical_names import canonical
from trajcheck.runs.formats.archives.archive import Archive
from trajcheck.runs.formats.archives.checkpoint import Checkpoint
from trajcheck.runs.formats.archives.deepspeed.partitions import Flat, Shapes, in_each, in_groups, joined
from trajcheck.runs.formats.archives.optimizer_state import group_settings, optimizer_name
from trajcheck.runs.formats.archives.step_names import natural_key, step_in
from trajcheck.runs.formats.stored_run import StoredStep

_MODEL = re.compile(r"(?:zero_pp_rank_\d+_)?mp_rank_(\d+)_model_states\.pt")
_OPTIMIZER = re.compile(r"(?:\w+_)?zero_pp_rank_(\d+)_mp_rank_\d+_optim_states\.pt")
_LAYER = re.compile(r"layer_\d+-model_\d+-model_states\.pt")
#: The stages' names in DeepSpeed, 0 to 3.
_STAGES = ("disabled", "optimizer_states", "gradients", "weights")
#: Where the float32 vectors are, by ZeRO's stage.
_MASTERS = {1: "single_partition_of_fp32_groups", 2: "single_partition_of_fp32_groups", 3: "fp32_flat_groups"}


class DeepSpeedCheckpoints(Archive):
    """`global_step100/`, `global_step200/`, ..., and `latest`."""

    name = "checkpoints of DeepSpeed"
    looks = "global_step100/mp_rank_00_model_states.pt, a folder a step"

    @classmethod
    def recognise(cls, path: Path) -> bool:
        return path.is_dir() and bool(_step_folders(path))

    @cached_property
    def _folders(self) -> Mapping[int, Path]:
        found: dict[int, Path] = {}
        try:
            names = sorted(_step_folders(self.path), key=natural_key)
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read: {error.strerror}.") from error
        for name in names:
            step = self._step_of(self.path / name)
            if (other := found.setdefault(step, self.path / name)) != self.path / name:
                raise RunError(
                    f"{self.path}: {other.name} and {name} would both be step {step}. Leave one of them there."
                )
        return dict(sorted(found.items()))

    def _step_of(self, folder: Path) -> int:
        """The number of updates that it says inside; of one that cannot be read, that of its name."""
        named = step_in(folder.name)
        files = sorted(name for name in os.listdir(folder) if _MODEL.fullmatch(name))
        if files:
            try:
                inside = number(read_torch_file(str(folder / files[0])).value, "global_steps")
            except StepFileError:
                inside = None
            if isinstance(inside, int) and inside >= 0:
                return inside
        if named is None:
            raise RunError(f"{folder}: no step is said inside (global_steps) nor by the folder's name.")
        return named

    @cached_property
    def _steps(self) -> Mapping[int, StoredStep]:
        return {step: _stored(step, folder) for step, folder in self._folders.items()}

    def steps(self) -> Mapping[int, StoredStep]:
        return self._steps

    def folders(self) -> frozenset[str]:
        return frozenset(folder.name for folder in self._folders.values())

    def checkpoint(self, step: int) -> Checkpoint:
        folder = self._folders[step]
        names = sorted(os.listdir(folder), key=natural_key)
        if layers := [name for name in names if _LAYER.fullmatch(name)]:
            raise StepFileError(f"{folder / layers[0]}: of a pipeline-parallel training, which is not read. {_CONVERT}")
        models = [read_torch_file(str(folder / name)) for name in names if _MODEL.fullmatch(name)]
        if {match[1] for name in names if (match := _MODEL.fullmatch(name))} != {"00"}:
            raise StepFileError(f"{folder}: of a model-parallel training, which is not read. {_CONVERT}")
        shards = [read_torch_file(str(folder / name)) for name in names if _OPTIMIZER.fullmatch(name)]
        try:
            return _checkpoint(models, shards)
        except ValueError as error:
            raise StepFileError(f"{models[0].path}: {error}.") from error


_CONVERT = "Convert it to a universal checkpoint, or save its weights by themselves, as DeepSpeed's zero_to_fp32 does."


def _step_folders(path: Path) -> list[str]:
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return [name for name in names if _holds_states(path / name)]


def _holds_states(folder: Path) -> bool:
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return any(each.fullmatch(name) for name in names for each in (_MODEL, _OPTIMIZER, _LAYER))


def _stored(step: int, folder: Path) -> StoredStep:
    names = sorted(os.listdir(folder), key=natural_key)
    models = [name for name in names if _MODEL.fullmatch(name) or _LAYER.fullmatch(name)]
    shards = [name for name in names if _OPTIMIZER.fullmatch(name)]
    files = tuple(str(folder / name) for name in (*models, *shards))
    missing = None if models else "no mp_rank_00_model_states.pt"
    if shards and models:
        ranks = sorted(int(match[1]) for name in shards if (match := _OPTIMIZER.fullmatch(name)))
        try:
            count = _ranks(read_torch_file(str(folder / shards[0])))
        except (StepFileError, ValueError):  # which reading it says
            count = len(ranks)
        if absent := sorted(set(range(count)) - set(ranks)):
            missing = f"no optimizer states of rank {some_of([str(rank) for rank in absent])} of {count}"
    return StoredStep(step, files, missing)


def _ranks(shard: TorchFile) -> int:
    count = table(shard.find("optimizer_state_dict")).get("partition_count")
    counts = count if isinstance(count, list) else [count]
    if not counts or not all(type(each) is int and 0 < each < 1_000_000 for each in counts):
        raise ValueError("no partition_count in the optimizer's states")
    return max(counts)


def _checkpoint(models: Sequence[TorchFile], shards: Sequence[TorchFile]) -> Checkpoint:
    """Raises ValueError, StepFileError."""
    first = models[0]
    module = _tensors(first.find("module"), first.path)
    optimizers = [table(shard.find("optimizer_state_dict")) for shard in shards]
    stage = _stage(optimizers[0].get("zero_stage")) if optimizers else 0
    shapes = [_shapes(group) for group in first.find("param_shapes") or ()]
    notes: tuple[str, ...] = ()
    state: dict[str, Extent] = {}
    if stage in _MASTERS and _MASTERS[stage] in optimizers[0]:
        paddings = plain(optimizers[0].get("param_alignment_paddings")) if stage < 3 else None
        cut = partial(_cut, stage, shapes, _ranks(shards[0]), paddings)
        vectors = [
            _vectors(each.get(_MASTERS[stage]), shard.path) for each, shard in zip(optimizers, shards, strict=True)
        ]
        trained = cut(vectors)
        for slot, moments in _moments(optimizers, vectors).items():
            state |= {f"{slot}/{canonical(name)}": extent for name, extent in cut(moments).items()}
        shared = {a: trained[n] for a, n in table(first.find("shared_params")).items() if n in trained}
        tensors = {**({} if stage == 3 else module), **_frozen(models, stage), **_buffers(first, module)}
        tensors = {**tensors, **trained, **shared}
    elif stage == 3:
        raise ValueError("ZeRO-3 without fp32_flat_groups: the weights are nowhere whole")
    else:
        tensors, trained = module, {name: module[name] for group in shapes for name in group if name in module}
        if stage:
            notes = ("the optimizer's float32 weights are not there: those of the module's own dtype were taken",)
    held = _groups(optimizers, first)
    held = held if len(held) == len(shapes) else []
    group_of = {name: place for place, group in enumerate(shapes) for name in group}
    return Checkpoint(
        first.path,
        tensors,
        trained=frozenset(trained) if trained else None,
        state=state,
        optimizer=optimizer_name(held) if held else None,
        groups=tuple(map(group_settings, held)),
        group_of=group_of if held else {},
        notes=notes,
    )


def _stage(value: Any) -> int:
    """A number, or one of DeepSpeed's own class of them: stored by its number or, by some releases of Python, by its
    name there. Raises ValueError."""
    if isinstance(value, Inert) and value.arguments:
        value = value.arguments[-1]
        value = _STAGES.index(value) if value in _STAGES else value
    if type(value) is not int or not 0 <= value <= 3:
        raise ValueError(f"zero_stage is {value!r:.60}; expected 0 to 3")
    return value


def _cut(
    stage: int,
    shapes: Sequence[Shapes],
    ranks: int,
    paddings: Sequence[Sequence[int]] | None,
    vectors: Sequence[Sequence[Extent]],
) -> dict[str, Extent]:
    """The tensors within the vectors of every rank. Raises ValueError."""
    if stage == 3:
        return in_each([Flat(each) for each in vectors], {n: s for group in shapes for n, s in group.items()})
    return in_groups([Flat(pieces) for pieces in zip(*vectors, strict=True)], shapes, ranks, paddings)


def _moments(
    optimizers: Sequence[Mapping[Any, Any]], vectors: Sequence[Sequence[Extent]]
) -> dict[str, list[list[Extent]]]:
    """By slot, as exp_avg, the vectors of every rank that are laid out as the weights are."""
    found: dict[str, list[list[Extent]]] = {}
    held = [_states(each, len(weights)) for each, weights in zip(optimizers, vectors, strict=True)]
    slots = [slot for slot in held[0][0] if isinstance(slot, str)] if held and held[0] else []
    for slot in slots:
        moments = [[states.get(slot) for states in rank] for rank in held]
        pairs = [pair for m, w in zip(moments, vectors, strict=True) for pair in zip(m, w, strict=False)]
        if all(isinstance(m, StoredTensor) and m.shape == w.shape and w.shape for m, w in pairs):
            found[slot] = [[m.extent(slot) for m in rank if isinstance(m, StoredTensor)] for rank in moments]
    return found


def _states(optimizer: Mapping[Any, Any], count: int) -> list[Mapping[Any, Any]]:
    """The optimizer's state of each vector of a rank; empty ones where it is not kept so."""
    for key in ("base_optimizer_state", "optimizer_state_dict"):
        states = table(table(optimizer.get(key)).get("state"))
        if all(number in states for number in range(count)):
            return [table(states[number]) for number in range(count)]
    return [{} for _ in range(count)]


def _tensors(value: Any, path: str) -> dict[str, Extent]:
    """A table of names to tensors. Raises StepFileError."""
    named = {name: each for name, each in table(value).items() if isinstance(name, str)}
    return {name: each.extent(name) for name, each in named.items() if isinstance(each, StoredTensor) and each.numel}


def _shapes(group: Any) -> Shapes:
    found = {}
    for name, shape in table(group).items():
        if not isinstance(name, str) or not isinstance(shape, (tuple, list)):
            raise ValueError("param_shapes holds what is no shape")
        if not all(type(length) is int and 0 <= length < 2**62 for length in shape):
            raise ValueError(f"param_shapes holds of {name!r:.200} what is no shape")
        found[name] = tuple(shape)
    return found


def _vectors(value: Any, path: str) -> list[Extent]:
    """The flat vectors of a rank: one a group, or one in all."""
    several = value if isinstance(value, (list, tuple)) else [value]
    if not several or not all(isinstance(each, StoredTensor) for each in several):
        raise ValueError(f"{os.path.basename(path)} holds no flat vectors where they are expected")
    return [each.extent("flat vector") for each in several]


def _frozen(models: Sequence[TorchFile], stage: int) -> dict[str, Extent]:
    """Frozen parameters: whole, or of stage 3 a piece a rank."""
    shapes = _shapes(models[0].find("frozen_param_shapes") or {})
    held = [_tensors(model.find("frozen_param_fragments"), model.path) for model in models]
    if stage < 3:
        return {name: held[0][name] for name in shapes if name in held[0]}
    return {
        name: joined([each[name] for each in held if name in each], shape)
        for name, shape in shapes.items()
        if any(name in each for each in held)
    }


def _buffers(model: TorchFile, module: Mapping[str, Extent]) -> dict[str, Extent]:
    names = model.find("buffer_names")
    return {name: module[name] for name in names or () if isinstance(name, str) and name in module}


def _groups(optimizers: Sequence[Mapping[Any, Any]], model: TorchFile) -> list[dict[str, Any]]:
    """The parameter groups as they are stored."""
    base = optimizers[0].get("base_optimizer_state") if optimizers else table(model.find("optimizer"))
    inside = optimizers[0].get("optimizer_state_dict") if optimizers else None
    for source in (base, inside):
        groups = table(source).get("param_groups")
        if isinstance(groups, list) and all(isinstance(group, dict) for group in groups):
            return groups
    return []
