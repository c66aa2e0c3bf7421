"""In which mode, training or evaluation, each module of a model is: read from a model, put into another.

What is kept is {module: "train" | "eval"} of the modules whose mode differs from that of the module around them
(runs/modes.py). So {} is a model that trains throughout, {"": "eval"} one that is evaluated throughout,
{"backbone.bn": "eval"} one with a frozen part. Names lose what wrappers put into them.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from trajcheck.errors import ObjectiveError
from trajcheck.runs.canonical_names import canonical
from trajcheck.runs.modes import Modes

TRAIN, EVAL = "train", "eval"


def modes_of(model: nn.Module) -> dict[str, str]:
    """The modes of a model as it is now."""
    found: dict[str, str] = {}
    for name, module, around in _modules(model):
        own = TRAIN if module.training else EVAL
        if own != around:
            found[name] = own
        else:
            found.pop(name, None)  # said of a wrapper of the same name
    return found


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Every module under every name, with the mode of the one around it; parents first. A wrapper and what is in it go
    by one name, and what is around the wrapper is around both."""
    waiting: list[tuple[str, nn.Module, str]] = [("", model, TRAIN)]
    while waiting:
        name, module, around = waiting.pop()
        yield name, module, around
        own = TRAIN if module.training else EVAL
        for child_name, child in reversed(module._modules.items()):
            if child is None:
                continue
            inner = module_name(f"{name}.{child_name}" if name else child_name)
            waiting.append((inner, child, around if inner == name else own))


def module_name(name: str) -> str:
    """The dotted name of a module without what wrappers put into it."""
    return canonical(f"{name}.weight").rpartition(".")[0]


def set_modes(model: nn.Module, modes: Modes) -> None:
    """Put every module of a model into the mode that it had where `modes` were read. Raises ObjectiveError for a module
    that the model does not have.

    The flag alone is set: train() of a class of its own may do other things.
    """
    missing = set(modes)
    absolute: dict[str, str] = {}
    for name, module, _ in _modules(model):
        if name not in absolute:
            parent = name.rpartition(".")[0]
            while parent and parent not in absolute:  # what a wrapper between them was called is gone
                parent = parent.rpartition(".")[0]
            around = absolute.get(parent, TRAIN) if name else TRAIN
            absolute[name] = modes.get(name, around)
            missing.discard(name)
        module.training = absolute[name] == TRAIN
    if missing:
        raise ObjectiveError(
            f"the run has a module {min(missing)!r} in mode {modes[min(missing)]!r}, which the objective's model does "
            "not have"
        )
