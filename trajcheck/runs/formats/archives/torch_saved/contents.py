"""What a file of torch.save is a checkpoint of: the model's state dict, step numbers, optimizer, rate."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from trajcheck.errors import StepFileError
from trajcheck.files.extents import Extent, Extents, Spec
from trajcheck.files.pickles.tensors import CODES, StoredTensor
from trajcheck.files.pickles.torch_file import TorchFile
from trajcheck.files.pickles.walking import find, number, plain, table
from trajcheck.readable import some_of
from trajcheck.runs.canonical_names import canonical
from trajcheck.runs.formats.archives.checkpoint import Checkpoint
from trajcheck.runs.formats.archives.optimizer_state import (
    OptimizerState,
    find_optimizer,
    match_optimizer,
    updates_counted,
)
from trajcheck.runs.formats.archives.roles import is_buffer
from trajcheck.runs.formats.archives.step_names import step_in
from trajcheck.runs.user_fields import Plain, user_fields

#: Where the number of updates stands, the first first; then that of epochs.
UPDATES = (
    *("iter_num", "global_step", "num_updates", "extra_state.num_updates", "step", "steps", "iteration", "iterations"),
    *("iter", "meta.iter", "n_iter", "num_steps", "global_iter", "current_step", "step_num", "it"),
)
EPOCHS = ("epoch", "meta.epoch", "extra_state.epoch", "extra_state.train_iterator.epoch", "epochs", "epoch_num")
#: Under which the updates stand that the optimizer's state counts, of a file that says no number of them.
COUNTED = "the optimizer's own count"
#: fairseq's: a list of what each run of the job did.
HISTORY = "optimizer_history"
#: Where the model stands, by the last of the keys.
MODELS = (
    *("model", "state_dict", "model_state_dict", "model_state", "net", "network", "model_dict", "weights", "params"),
    *("module", "state", "net_state_dict"),
)
#: Averages of iterates, and what is no model.
AVERAGES = frozenset({"ema", "average", "averaged", "shadow", "swa", "polyak", "teacher"})
_BESIDE = (
    *("opt", "sched", "lr_", "scaler", "rng", "random", "amp", "loader", "sampler", "metric", "criterion", "callbacks"),
    *("loops", "message_hub"),
)
_SCHEDULERS = (
    *("lr_scheduler", "scheduler", "lr_schedulers", "schedulers", "sched", "lr_sched", "scheduler_state_dict"),
    *("lr_scheduler_state_dict", "scheduler_state", "param_schedulers"),
)
_SETTINGS = ("config", "cfg", "args", "hyper_parameters", "model_args", "train_args", "hparams", "opts")
LIGHTNING = "pytorch-lightning_version"
#: Where Lightning's WeightAveraging puts x_t; `state_dict` of such a file is the average.
_CURRENT = "current_model_state"


@dataclass(frozen=True)
class Contents:
    """`numbers` are the whole numbers in it that may be its step, by their keys; `rate_of_next` whether the rates in
    the optimizer's state are known to be those of the update from x_t on, `scheduled` whether anything moves them, and
    `stepped` how often its one scheduler has.
    `in_parts`: of Lightning, whether an update is of another number of batches than one."""

    name: str
    checkpoint: Checkpoint
    numbers: Mapping[str, int]
    rates: tuple[float, ...] | None = None
    rate_of_next: bool = False
    scheduled: bool = False
    stepped: int | None = None
    lightning: bool = False
    in_parts: bool = False
    settings: Mapping[str, Plain] | None = None


def read_contents(name: str, file: TorchFile, fixed: Collection[str] = ()) -> Contents | str:
    """What the file `name` of an archive holds; in words, why it is no checkpoint. `fixed`: names of tensors that are
    known not to be trained. Raises StepFileError where it should be one and cannot be read."""
    try:
        found = file.state_dicts()
    except StepFileError as error:
        return str(error).removeprefix(f"{file.path}: ")
    models = {place: each for place, each in found.items() if not _is_beside(place)}
    if any(_is_large(each) for each in models.values()):  # and not a loss, or a best score
        models = {place: each for place, each in models.items() if _is_large(each)}
    averages = {place: each for place, each in models.items() if is_average(place)}
    if _CURRENT in models:
        averages |= {place: models[place] for place in ("state_dict",) if place in models}
    raw = {place: each for place, each in models.items() if place not in averages}
    if not models:
        return f"holds nothing but {some_of([place or 'tensors' for place in found])}"
    place = _chosen(file.path, raw or averages)
    tensors, notes = _readable(models[place])
    if averages and raw:
        notes.append(f"averages of iterates, which are no iterates, were left out ({some_of(sorted(averages))})")
    elif averages:
        notes.append(f"{place!r} is an average of iterates, and there is no other state dict")
    value = file.value
    optimizer = _optimizer(value, tensors, fixed)
    flat = [name for name, tensor in tensors.items() if _is_flat(tensor)]
    if flat:
        notes.append(
            f"the numbers of {some_of(flat)} lie in the order of channels last, and are compared in that order, flat: "
            "norms and distances are the same; a loss cannot be replayed, nor a reference be a file in another order. "
            "Save tensor.contiguous() for those"
        )
    extents = shared_extents(file.path, {name: _extent(name, tensor) for name, tensor in tensors.items()})
    numbers = _numbers(value)
    held = find_optimizer(value)
    if held is not None and not numbers.keys() & {*UPDATES} and (counted := updates_counted(held)) is not None:
        numbers[COUNTED] = counted
    if _is_behind(value, step_in(name.rpartition("/")[2])):
        numbers["meta.iter"] += 1
    checkpoint = Checkpoint(
        file.path,
        extents,
        trained=optimizer.trained,
        state=_state(optimizer.state),
        optimizer=optimizer.name,
        groups=optimizer.groups,
        group_of=optimizer.group_of,
        epoch=next((float(numbers[key]) for key in EPOCHS if key in numbers), None),
        notes=(*notes, *optimizer.notes),
    )
    scheduled = optimizer.scheduled or any(find(value, key) for key in _SCHEDULERS)
    settings = {key: plain(found) for key in _SETTINGS if (found := find(value, key)) is not None}
    return Contents(
        name,
        checkpoint,
        numbers,
        optimizer.lr,
        _rate_of_next(value, numbers),
        scheduled,
        _stepped(value),
        find(value, LIGHTNING) is not None,
        _in_parts(value),
        user_fields(settings),
    )


def with_prefix(contents: Contents, prefix: str) -> Contents:
    """Names of the model begin behind a prefix, those of moments as well."""
    held = contents.checkpoint
    state = {}
    for key, extent in held.state.items():
        slot, _, name = key.partition("/")
        state[f"{slot}/{canonical(name.removeprefix(prefix))}"] = extent
    return replace(contents, checkpoint=replace(held, prefix=prefix, state=state))


def shared_extents(path: str, extents: Mapping[str, Extent]) -> Mapping[str, Extent]:
    """The tensors of a file of which many are laid out alike: what all of those share is held once."""
    if any(extent.parts for extent in extents.values()):
        return extents
    specs = ((name, Spec(e.dtype, e.shape, e.offset, e.offset + e.length)) for name, e in extents.items())
    return Extents(path, 0, *_layout(tuple(specs)))


@lru_cache(maxsize=256)
def _layout(specs: tuple[tuple[str, Spec], ...]) -> tuple[dict[str, Spec], dict[str, str]]:
    return dict(specs), {name: name for name, _ in specs}


def _is_beside(place: str) -> bool:
    return any(part.lower().startswith(_BESIDE) for part in place.split("."))


def _is_large(tensors: Mapping[str, StoredTensor]) -> bool:
    return any(tensor.numel > 1 for tensor in tensors.values())


def is_average(place: str) -> bool:
    """Whether a key, or the name of a file, is that of an average of iterates."""
    return not AVERAGES.isdisjoint(re.split(r"[._-]", place.lower()))


def _chosen(path: str, models: Mapping[str, object]) -> str:
    """The place of the model. Raises StepFileError where several could be."""
    if len(models) == 1:
        return next(iter(models))
    for key in MODELS:
        found = [place for place in models if place.rpartition(".")[2] == key]
        if len(found) == 1:
            return found[0]
    places = ", ".join(repr(place) for place in list(models)[:8])
    raise StepFileError(
        f"{path}: holds several state dicts, under {places}, and which of them is the model that is trained is not "
        "known. Save the one that is meant under 'model', or each into files of its own."
    )


def _readable(tensors: Mapping[str, StoredTensor]) -> tuple[dict[str, StoredTensor], list[str]]:
    odd = [name for name, tensor in tensors.items() if tensor.dtype not in CODES]
    notes = [f"left out, as of a dtype that is not read: {some_of(odd)}"] if odd else []
    return {name: tensor for name, tensor in tensors.items() if name not in odd}, notes


def _state(state: Mapping[str, StoredTensor]) -> Mapping[str, Extent]:
    return {key: _extent(key, tensor) for key, tensor in state.items()}


def _is_flat(tensor: StoredTensor) -> bool:
    return not tensor.in_place and tensor.channels_last and not tensor.said


def _extent(name: str, tensor: StoredTensor) -> Extent:
    return tensor.as_it_lies() if _is_flat(tensor) else tensor.extent(name)


def _optimizer(value: Any, tensors: Mapping[str, StoredTensor], fixed: Collection[str]) -> OptimizerState:
    held = find_optimizer(value)
    if held is None:
        return OptimizerState()
    places: dict[object, str] = {}
    for name, tensor in tensors.items():
        floating = tensor.code in ("F64", "F32", "F16", "BF16")
        if name not in fixed and floating and not is_buffer(canonical(name), tensor.shape):
            places.setdefault(tensor.place if tensor.numel else name, name)
    return match_optimizer(held, {name: tensors[name] for name in places.values()})


def _numbers(value: Any) -> dict[str, int]:
    found = {}
    for key in (*UPDATES, *EPOCHS):
        each = number(value, key)
        if isinstance(each, int) and 0 <= each < 2**62:
            found[key] = each
    history = find(value, HISTORY)
    if isinstance(history, list) and history:
        each = number(history[-1], "num_updates")
        if isinstance(each, int) and 0 <= each < 2**62:
            found = {"num_updates": each, **found}
    return found


def _is_behind(value: Any, named: int | None) -> bool:
    """Whether a file is mmcv's, before mmengine, whose runner by iterations counts an update after it is saved."""
    meta = table(find(value, "meta"))
    return "mmcv_version" in meta and "mmengine_version" not in meta and named == (number(meta, "iter") or 0) + 1


def _in_parts(value: Any) -> bool:
    """Whether Lightning has gone through more batches, or fewer, than it has made updates."""
    progress = table(find(value, "loops.fit_loop")).get("epoch_loop.batch_progress")
    batches = number(progress, "total.processed")
    return batches is not None and batches != number(value, "global_step")


def _rate_of_next(value: Any, numbers: Mapping[str, int]) -> bool:
    """nanoGPT sets the rate of an iteration before it saves; elsewhere a scheduler that has stepped as often as the
    optimizer, or once for each epoch that is over, has moved on before the file was written."""
    if "iter_num" in numbers and find(value, "model_args") is not None:
        return True
    updates = [numbers[key] for key in (*UPDATES, COUNTED) if key in numbers][:1]
    epochs = [numbers[key] + 1 for key in EPOCHS if key in numbers][:1] if LIGHTNING not in table(value) else []
    return _stepped(value) in (*updates, *epochs)


def _stepped(value: Any) -> int | None:
    """How often the scheduler has stepped; None where there is none that says so."""
    for key in _SCHEDULERS:
        held = find(value, key)
        held = held[0] if isinstance(held, list) and len(held) == 1 else held
        steps = number(held, "last_epoch")
        if isinstance(steps, int):
            return steps
    return None


def updates_made(file: TorchFile) -> int | None:
    """How many updates were made, as the optimizer counts them. Raises StepFileError."""
    held = find_optimizer(file.value)
    return None if held is None else updates_counted(held)
