"""Parameters and buffers by name, and which of the objective's are which of the run's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from trajcheck.errors import ObjectiveError
from trajcheck.runs.canonical_names import canonical
from trajcheck.runs.trajectory import Shapes


def parameter_aliases(model: nn.Module, title: str) -> dict[str, str]:
    """Every canonical name in the model -> the first canonical name of the same parameter.

    Errors: ObjectiveError, beginning with `title`, for parameters without a shape, or two with one name.
    """
    first: dict[int, str] = {}
    owner: dict[str, int] = {}
    for raw, parameter in model.named_parameters(remove_duplicate=False):
        name = canonical(raw)
        if isinstance(parameter, nn.UninitializedParameter):
            raise ObjectiveError(
                f"{title}: the lazy parameter {name} has no shape yet; let NAME() run the model on one batch"
            )
        if owner.setdefault(name, id(parameter)) != id(parameter):
            raise ObjectiveError(
                f"{title}: two parameters of the model are called {name} once what wrappers put into names "
                "(`module.`, `_orig_mod.`) is removed; rename one"
            )
        first.setdefault(id(parameter), name)
    return {name: first[parameter] for name, parameter in owner.items()}


def buffer_names(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Every canonical name of a buffer -> all names that the model has for it. Some may be None as yet."""
    names: dict[object, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, buffer in module._buffers.items():
            identity = (id(module), name) if buffer is None else id(buffer)
            names.setdefault(identity, []).append(f"{path}.{name}" if path else name)
    return {canonical(name): tuple(same) for same in names.values() for name in same}


def attribute_around(run: Iterable[str], here: Iterable[str]) -> str:
    """Of an objective whose model holds the run's in one attribute, as a LightningModule does: that attribute with its
    dot, `net.`, which all names here, tied ones once, begin with, and none of the run's. Else ''."""
    known = set(here)
    first = {name.partition(".")[0] for name in known}
    if len(first) != 1:
        return ""
    prefix = f"{first.pop()}."
    inner = {name.removeprefix(prefix) for name in known if name.startswith(prefix)}
    return prefix if len(inner) == len(known) and not known & set(run) and inner & set(run) else ""


def match_parameters(
    run: Shapes, run_aliases: Mapping[str, str], here: Shapes, here_aliases: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """({the run's name: the objective's name}, what does not fit, in words).

    `*_aliases` map alias -> name; a parameter tied under several names matches by any of them.
    """
    also: dict[str, list[str]] = {name: [name] for name in run}
    for alias, name in run_aliases.items():
        if name in also:
            also[name].append(alias)
    matched: dict[str, str] = {}
    taken: dict[str, str] = {}
    only_run, ties = [], []
    for name in run:
        own = next((here_aliases[known] for known in also[name] if known in here_aliases), None)
        if own is None:
            only_run.append(name)
        elif own in taken:
            ties.append(f"{taken[own]} and {name} are two parameters in the run, and one, tied, in the objective")
        else:
            matched[name] = own
            taken[own] = name
    untied = [name for name in here if name not in taken and run_aliases.get(name) in matched]
    ties += [f"{name} is tied to {run_aliases[name]} in the run, and not in the objective" for name in untied]
    only_here = [name for name in here if name not in taken and name not in untied]
    shapes = [
        f"{name} {tuple(run[name])} in the run and {tuple(here[own])} in the objective"
        for name, own in matched.items()
        if tuple(run[name]) != tuple(here[own])
    ]
    kinds = {
        "only in the run: ": only_run,
        "only in the objective: ": only_here,
        "": ties,
        "of another shape: ": shapes,
    }
    return matched, [text + _shortened(names) for text, names in kinds.items() if names]


def _shortened(items: Iterable[str], limit: int = 3) -> str:
    names = list(items)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
