"""What lives in this process: the optimizers, modules and loss scalers that a script has made and passed to nobody."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from trajcheck.recording.model.updates_by_hand import UpdatesByHand

Kind = TypeVar("Kind")


#: What is ever asked for; one walk over all objects finds all of it.
KINDS = (torch.optim.Optimizer, nn.Module, torch.amp.GradScaler)
_block = threading.local()


@contextmanager
def one_walk() -> Iterator[None]:
    """All questions in this block have one answer, that of the first: a walk over the objects of a large process takes
    tenths of a second. What is made in the block does not count."""
    if hasattr(_block, "found"):
        yield
        return
    _block.found = None
    try:
        yield
    finally:
        del _block.found


def live(kind: type[Kind]) -> list[Kind]:
    """The objects of one of KINDS and its subclasses."""
    found = getattr(_block, "found", None)
    if found is None:
        found = _walk()
        if hasattr(_block, "found"):
            _block.found = found
    return list(found[kind])


def _walk() -> dict[type, list[Any]]:
    found: dict[type, list[Any]] = {kind: [] for kind in KINDS}
    lists: dict[type, list[Any] | None] = {}  # by class
    for thing in gc.get_objects():
        # type(), since isinstance() asks some objects for their __class__, and lazy modules then import half the world.
        own = type(thing)
        if own not in lists:
            lists[own] = next((found[kind] for kind in KINDS if issubclass(own, kind)), None)
        if (among := lists[own]) is not None:
            among.append(thing)
    return found


def live_optimizers() -> list[torch.optim.Optimizer]:
    """Without those that only wrap another (Accelerate's, Lightning's), or stand for updates by hand."""
    optimizers = [
        optimizer
        for optimizer in live(torch.optim.Optimizer)
        if hasattr(optimizer, "param_groups") and not isinstance(optimizer, UpdatesByHand)
    ]
    return [o for o in optimizers if not any(isinstance(value, torch.optim.Optimizer) for value in vars(o).values())]


def parameters_of(optimizer: torch.optim.Optimizer) -> dict[int, torch.Tensor]:
    """What the optimizer holds, by identity."""
    return {id(tensor): tensor for group in optimizer.param_groups for tensor in group["params"]}


def what_is_called(model: nn.Module) -> nn.Module:
    """The wrapper around a model that training calls in its place, where there is one: torch.compile's,
    DistributedDataParallel, DataParallel; of several, the outermost."""
    modules = live(nn.Module)
    while (outer := next((wrapper for wrapper in modules if _wraps(wrapper, model)), None)) is not None:
        model = outer
    return model


def _wraps(wrapper: nn.Module, model: nn.Module) -> bool:
    name = "module" if isinstance(wrapper, nn.DataParallel | nn.parallel.DistributedDataParallel) else "_orig_mod"
    return vars(wrapper).get("_modules", {}).get(name) is model


def owner_of(wanted: Iterable[int], preferred: Iterable[nn.Module]) -> nn.Module | None:
    """The module that has all these parameters; None: no module has.

    The first of the preferred ones that has, else of all live ones that with the fewest others, and of a wrapper and
    what it wraps the wrapper.
    """
    wanted = set(wanted)
    for module in preferred:
        if wanted <= _owned(module):
            return module
    found = [module for module in live(nn.Module) if "_parameters" in vars(module) and wanted <= _owned(module)]
    return min(found, key=lambda module: (len(_owned(module)), -sum(1 for _ in module.modules())), default=None)


def _owned(module: nn.Module) -> set[int]:
    return {id(parameter) for parameter in module.parameters()}


def loss_modules() -> list[nn.Module]:
    """Modules without parameters or modules inside them, such as nn.CrossEntropyLoss, that are part of no other."""
    modules = [module for module in live(nn.Module) if "_modules" in vars(module)]
    inside = {id(child) for module in modules for child in module.children()}
    return [m for m in modules if id(m) not in inside and not m._modules and not m._parameters]
