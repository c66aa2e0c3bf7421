"""optimizer.pt and scheduler.pt beside weights (.bin, as accelerate calls them): settings, what trains, next rates."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from trajcheck.errors import StepFileError
from trajcheck.files.pickles.walking import find
from trajcheck.files.trees.tree import Tree, join
from trajcheck.runs.canonical_names import canonical
from trajcheck.runs.formats.archives.checkpoint import Checkpoint
from trajcheck.runs.formats.archives.model_files import ModelFiles
from trajcheck.runs.formats.archives.optimizer_state import (
    OptimizerState,
    find_optimizer,
    match_optimizer,
    updates_counted,
)
from trajcheck.runs.formats.archives.roles import may_be_trained

#: Classes of torch by the Trainer's `optim`.
_BY_WORD = {"adamw": "AdamW", "sgd": "SGD", "adagrad": "Adagrad", "rmsprop": "RMSprop", "adafactor": "Adafactor"}


@lru_cache(maxsize=4)
def _held(tree: Tree, name: str) -> Any:
    """What a file of torch.save holds, which several ask for. Raises StepFileError."""
    return tree.torch_file(name).value


def optimizer_beside(tree: Tree, folder: str, file: str, model: ModelFiles) -> OptimizerState:
    """What an optimizer's file says of the weights beside it, by their names there; nothing where there is none, and
    what cannot be read is said in its notes."""
    if not tree.holds(join(folder, file)):
        return OptimizerState()
    try:
        found = find_optimizer(_held(tree, join(folder, file)))
    except StepFileError as error:
        return OptimizerState(notes=(f"left out: {str(error).removesuffix('.')}",))
    if found is None:
        return OptimizerState(notes=(f"{tree.shown(join(folder, file))} was left out: no state of one optimizer",))
    trainable = {name: model.tensors[name] for name in may_be_trained(model.tensors)}
    return match_optimizer(found, trainable, ordered=model.ordered, name=_named_in_arguments(tree, folder))


def with_optimizer(held: Checkpoint, optimizer: OptimizerState) -> Checkpoint:
    """A checkpoint with what its optimizer says."""
    shown = {name: canonical(name.removeprefix(held.prefix)) for name in held.tensors}
    state = {}
    for key, tensor in optimizer.state.items():
        slot, _, name = key.partition("/")
        state[f"{slot}/{shown[name]}"] = tensor.extent(key)
    return replace(
        held,
        optimizer=optimizer.name,
        groups=optimizer.groups,
        trained=optimizer.trained,
        group_of=optimizer.group_of,
        state=state,
        notes=(*held.notes, *optimizer.notes),
    )


def _named_in_arguments(tree: Tree, folder: str) -> str | None:
    """The class that the Trainer's arguments name."""
    try:
        optim = find(tree.torch_file(join(folder, "training_args.bin")).value, "optim")
    except StepFileError:
        return None
    word = optim if isinstance(optim, str) else next(iter(getattr(optim, "arguments", ())), None)
    return _BY_WORD.get(word.partition("_")[0]) if isinstance(word, str) else None


def next_rates(tree: Tree, folder: str, scheduler: str, optimizer: str) -> tuple[float, ...] | None:
    """The rates of the update that would have followed, one a group; None where they are not there."""
    try:
        found = find(tree.torch_file(join(folder, scheduler)).value, "_last_lr")
        rates = [rate for rate in found if isinstance(rate, (int, float)) and 0 <= rate < float("inf")]
        if rates and len(rates) == len(found):
            return tuple(map(float, rates))
    except (StepFileError, TypeError):
        pass
    try:
        state = find_optimizer(_held(tree, join(folder, optimizer)))
    except StepFileError:
        return None
    return match_optimizer(state, {}).lr if state is not None else None


def updates_made(tree: Tree, folder: str, file: str) -> int | None:
    """How many updates the optimizer counts, of the parameter that had most; None where it counts none."""
    try:
        state = find_optimizer(_held(tree, join(folder, file)))
        return None if state is None else updates_counted(state)
    except StepFileError:
        return None
