"""The state of a torch optimizer in a checkpoint: which tensors it trains, its settings, its moments, by names.

A state dict of an optimizer numbers parameters in the order of its groups, and of most says nothing but the shape of
their moments. A group lists parameters in the order in which the model has them, so a group is matched to names where
only one choice of names has its shapes in its order; where there are several, or none, what is trained is told by
shapes alone (by_shapes.py), and moments are not matched. Settings with weight decay of which nobody knows what decays
are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import Extent
from trajcheck.files.pickles.tensors import StoredTensor
from trajcheck.files.pickles.walking import find, plain, table
from trajcheck.runs.formats.archives.by_shapes import by_shapes

KEYS = (
    *("optimizer", "optimizer_state_dict", "optimizer_state", "optim", "opt", "optimizer_states", "optimizers"),
    *("last_optimizer_state", "optimizer_dict", "optim_state", "optim_state_dict", "opt_state_dict", "optG", "optD"),
)
#: What stands in a group beside settings.
_NO_SETTINGS = ("params", "param_names", "lr", "initial_lr", "max_lr", "min_lr")
MOST_GROUPS, LONGEST_LIST, LONGEST_WORD = 2**16, 64, 200

Shape = tuple[int, ...]


@dataclass(frozen=True)
class OptimizerState:
    """`lr` are the rates that the groups hold: of the update before or after x_t, as the training loop would have it.
    `trained`, `group_of` and `state`, {"slot/name": tensor}, are by the names of the model's state dict; `trained` is
    None where it is not known. `notes` say what could not be matched."""

    name: str | None = None
    groups: tuple[Mapping[str, Any], ...] = ()
    lr: tuple[float, ...] | None = None
    scheduled: bool = False  # whether a scheduler of torch has the rates
    trained: frozenset[str] | None = None
    group_of: Mapping[str, int] = field(default_factory=dict)
    state: Mapping[str, StoredTensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_optimizer(checkpoint: Any) -> Mapping[Any, Any] | None:
    """The state dict of the one optimizer that a checkpoint holds; None where there is none, or several."""
    if _is_one(checkpoint):
        return checkpoint
    found: dict[int, Mapping[Any, Any]] = {}
    for key in KEYS:
        value = find(checkpoint, key)
        for each in value if isinstance(value, (list, tuple)) else (value, *table(value).values()):
            if _is_one(each):
                found.setdefault(id(each), each)
    return next(iter(found.values())) if len(found) == 1 else None


def _is_one(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("param_groups"), list):
        return False
    groups = value["param_groups"]
    if not isinstance(value.get("state"), dict) or not 0 < len(groups) <= MOST_GROUPS:
        return False
    return all(isinstance(group, dict) and isinstance(group.get("params"), list) for group in groups)


def match_optimizer(
    optimizer: Mapping[Any, Any],
    parameters: Mapping[str, StoredTensor | Extent],
    *,
    ordered: bool = True,
    name: str | None = None,
) -> OptimizerState:
    """What the state dict of an optimizer says of a model's `parameters`, which are those that it may train, tied ones
    once; `ordered`: in the order of the model. `name` is its class where something else says it."""
    groups = optimizer["param_groups"]
    settings, notes = [], []
    for group in groups:
        settings.append(group_settings(group))
        if name in ("Adam", "AdamW"):
            settings[-1].setdefault("decoupled", name == "AdamW")
        if (decay := settings[-1].get("weight_decay")) and "amsgrad" in group and "decoupled" not in settings[-1]:
            del settings[-1]["weight_decay"]  # of Adam or of AdamW, which mean another thing by it
            notes.append(f"whether the weight decay of {decay:g} is Adam's or AdamW's is not said: left out")
    rates = [plain(group.get("lr")) for group in groups]
    known = all(type(rate) in (int, float) and math.isfinite(rate) and rate >= 0 for rate in rates)
    names = _names(groups, optimizer["state"], parameters, ordered)
    listed = sum(len(group["params"]) for group in groups)
    trained: frozenset[str] | None = None
    group_of: dict[str, int] = {}
    state: dict[str, StoredTensor] = {}
    if names is not None:
        trained = frozenset(name for group in names for name in group)
        for number, (group, of_group) in enumerate(zip(groups, names, strict=True)):
            for key, name in zip(group["params"], of_group, strict=True):
                group_of[name] = number
                for slot, value in table(_at(optimizer["state"], key)).items():
                    if isinstance(slot, str) and _is_moment(value, parameters[name].shape):
                        state[f"{slot}/{name}"] = value
    else:
        shapes = [[_shape(_at(optimizer["state"], key)) for key in group["params"]] for group in groups]
        decays = [bool(group.get("weight_decay")) for group in settings]
        trained, group_of = by_shapes(shapes, decays, {name: tensor.shape for name, tensor in parameters.items()})
    if trained is None:
        notes.append(
            f"the optimizer's state is of {listed} tensors, and which of the {len(parameters)} those are does not "
            "follow from their order and shapes"
        )
    if any(group.get("weight_decay") for group in settings) and (trained is None or trained != group_of.keys()):
        settings = []
        notes.append("the optimizer's settings were left out: which tensors its weight decay is for is not known")
    return OptimizerState(
        optimizer_name(groups) or name,
        tuple(settings),
        tuple(float(rate) for rate in rates) if known else None,
        any("initial_lr" in group for group in groups),
        trained,
        group_of,
        state,
        tuple(dict.fromkeys(notes)),
    )


def _is_moment(value: Any, shape: Shape) -> bool:
    """Whether it has a number for each of the parameter's, and not one for all, as a count of steps."""
    if not isinstance(value, StoredTensor) or value.shape != shape or not shape:
        return False
    return value.in_place or (value.channels_last and not value.said)


def group_settings(group: Mapping[Any, Any]) -> dict[str, Any]:
    """Numbers, flags, words and short lists of numbers; `decoupled` as trajcheck calls it."""
    found: dict[str, Any] = {}
    for name, value in group.items():
        if not isinstance(name, str) or name in _NO_SETTINGS:
            continue
        value = plain(value)
        items = value if isinstance(value, list) and len(value) <= LONGEST_LIST else [value]
        if all(isinstance(item, (bool, int, float)) and math.isfinite(item) for item in items) or (
            isinstance(value, str) and len(value) <= LONGEST_WORD
        ):
            found[name] = value
    if isinstance(found.get("decoupled_weight_decay"), bool):
        found["decoupled"] = found["decoupled_weight_decay"]
    elif _is_sgd(group):
        found["decoupled"] = False
    return found


def _is_sgd(group: Mapping[Any, Any]) -> bool:
    return {"momentum", "dampening", "nesterov"} <= group.keys()


def optimizer_name(groups: Sequence[Mapping[Any, Any]]) -> str | None:
    """The class of the optimizer, where its settings are those of one alone."""
    first = groups[0]
    if all(map(_is_sgd, groups)):
        return "SGD"
    decoupled = first.get("decoupled_weight_decay")
    if {"betas", "amsgrad"} <= first.keys() and "momentum_decay" not in first and isinstance(decoupled, bool):
        return "AdamW" if decoupled else "Adam"
    return None


def _at(state: Mapping[Any, Any], key: Any) -> Any:
    return state.get(key) if isinstance(key, (int, str)) else None


def _names(
    groups: Sequence[Mapping[Any, Any]],
    state: Mapping[Any, Any],
    parameters: Mapping[str, StoredTensor | Extent],
    ordered: bool,
) -> list[list[str]] | None:
    """The names of each group's parameters; None where they do not follow."""
    said = [group.get("param_names") for group in groups]
    if all(isinstance(names, list) for names in said):
        given = [[name for name in names or () if isinstance(name, str) and name in parameters] for names in said]
        if all(len(names) == len(group["params"]) for names, group in zip(given, groups, strict=True)):
            return given
    if not ordered:
        return None
    shapes = [[_shape(_at(state, key)) for key in group["params"]] for group in groups]
    known = [{shape for shape in group if shape is not None} for group in shapes]
    apart = sum(map(len, known)) == len(set().union(*known)) and all(None not in group for group in shapes)
    if len(groups) > 1 and not apart:
        return None
    found = [_only_choice(group, parameters) for group in shapes]
    return None if None in found else [names for names in found if names is not None]


def _shape(state: Any) -> Shape | None:
    """Of the moments of a parameter, which is its own; None where they do not say."""
    shapes = {value.shape for value in table(state).values() if isinstance(value, StoredTensor) and value.shape}
    return shapes.pop() if len(shapes) == 1 else None


def _only_choice(shapes: Sequence[Shape | None], parameters: Mapping[str, StoredTensor | Extent]) -> list[str] | None:
    """The only names, in their order, that have these shapes in theirs; None where there are none or several.

    There is one alone where taking each as early as possible and as late as possible gives the same."""
    names = list(parameters)
    early = _taken(shapes, names, parameters)
    late = _taken(shapes[::-1], names[::-1], parameters)
    return early if early is not None and late is not None and early == late[::-1] else None


def _taken(
    shapes: Sequence[Shape | None], names: Sequence[str], parameters: Mapping[str, StoredTensor | Extent]
) -> list[str] | None:
    found: list[str] = []
    for name in names:
        if len(found) < len(shapes) and shapes[len(found)] in (None, parameters[name].shape):
            found.append(name)
    return found if len(found) == len(shapes) else None


def updates_counted(optimizer: Mapping[Any, Any]) -> int | None:
    """How many updates an optimizer, as Adam, counts of the parameter that had most; None where it counts none. Raises
    StepFileError."""
    counts = [table(slots).get("step") for slots in optimizer["state"].values()]
    with ExtentReader() as reader:
        numbers = [
            whole_number(reader, each.extent("step")) if isinstance(each, StoredTensor) else each for each in counts
        ]
    known = [each for each in numbers if isinstance(each, (int, float)) and 0 <= each < 2**53 and each == each // 1]
    return int(max(known)) if known else None


def whole_number(reader: ExtentReader, extent: Extent) -> int | None:
    """The value of a tensor of one number; None where that is no whole one from 0 on. Raises StepFileError."""
    if extent.numel != 1:
        return None
    if extent.dtype in ("I64", "I32"):
        found: float = int.from_bytes(bytes(reader.raw(extent, 0, extent.length)), "little", signed=True)
    elif extent.dtype in ("F32", "F64"):
        import numpy as np  # here, so that formats are recognised without it

        out = np.empty(1)
        reader.widen(extent, 0, out)
        found = float(out[0])
    else:
        return None
    return int(found) if 0 <= found < 2**53 and found == found // 1 else None
