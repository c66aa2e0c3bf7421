"""Arguments of operators as JSON holds them, checked against what the operator takes; torch is not needed for it.

A value is null, true, false, a number, a list, or an object of one key:

    {"node": name}            what an earlier node has given
    {"float": "inf"}          a number that JSON has no word for: inf, -inf or nan
    {"complex": [re, im]}     a complex number

Text stands only where a fixed set of words is possible: dtypes, memory formats, and what CHOICES lists. Sizes are
integers or nodes; einsum's equation is lists of integers. Nothing is parsed or looked up by a name from the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trajcheck.objective.program.schema import Argument, Kind, Operator


class Misfit(ValueError):
    """What is wrong with a program, in words."""


@dataclass(frozen=True)
class Reference:
    """The value of an earlier node, by its place."""

    place: int


@dataclass(frozen=True)
class Dtype:
    """A dtype by torch's name."""

    name: str


@dataclass(frozen=True)
class Format:
    """A memory format by torch's name."""

    name: str


@dataclass(frozen=True)
class Here:
    """The device on which the program runs."""


DTYPES = frozenset(
    [
        *("float64", "float32", "float16", "bfloat16", "complex128", "complex64", "complex32", "bool"),
        *("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64"),
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"),
    ]
)
FORMATS = frozenset(["contiguous_format", "preserve_format", "channels_last", "channels_last_3d"])

#: The words that an argument of text may be, by its name.
CHOICES: dict[str, frozenset[str]] = {
    "approximate": frozenset(["none", "tanh"]),
    "rounding_mode": frozenset(["floor", "trunc"]),
    "padding": frozenset(["same", "valid"]),
    "mode": frozenset(["constant", "reflect", "replicate", "circular"]),
    "reduce": frozenset(["sum", "prod", "mean", "amax", "amin", "add", "multiply"]),
    "indexing": frozenset(["ij", "xy"]),
    "side": frozenset(["left", "right"]),
    "norm": frozenset(["forward", "backward", "ortho"]),
    "UPLO": frozenset(["L", "U"]),
    "linalg_qr.mode": frozenset(["reduced", "complete", "r"]),
}

_LARGE = 2**63 - 1
_DIMENSION = (-64, 63)
_SIZE = (-1, 2**48)
_WINDOW = (1, 2**16)
_COUNT = (1, 2**20)
_CHOICE = (0, 2)
#: What an integer may be, by the argument's name: zero strides and the like crash kernels that do not look.
RANGES: dict[str, tuple[int, int]] = {
    **dict.fromkeys(["dim", "dim0", "dim1", "dim2", "axis0", "axis1", "dims", "start_dim", "end_dim"], _DIMENSION),
    **dict.fromkeys(["source", "destination", "dims_self", "dims_other", "dimension"], _DIMENSION),
    **dict.fromkeys(["stride", "dilation", "kernel_size", "step"], _WINDOW),
    **dict.fromkeys(["groups", "num_groups", "group", "upscale_factor", "downscale_factor"], _COUNT),
    **dict.fromkeys(["chunks", "sections", "num_layers"], _COUNT),
    **dict.fromkeys(["padding", "output_padding"], (0, 2**20)),
    **dict.fromkeys(["reduction", "interpolation_mode", "padding_mode", "compute_mode"], _CHOICE),
    **dict.fromkeys(["size", "shape", "sizes", "output_size", "normalized_shape", "s", "n", "m"], _SIZE),
    **dict.fromkeys(
        ["N", "C", "HxW", "k", "steps", "row", "col", "repeats", "split_size", "split_sizes", "tile.dims"], (0, 2**48)
    ),
    "num_classes": (1, 2**40),
    "decimals": (-32, 32),
    "slice.step": (1, _LARGE),
}

#: Lists are no longer than this: dimensions, tensors of a `cat`, pieces of a split.
MOST_ITEMS = 1 << 16

Lookup = Callable[[str], tuple[Reference, Kind]]


def bound(operator: Operator, args: Any, kwargs: Any, look_up: Lookup) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of one call, ready to be resolved. Raises Misfit for more, fewer, or other ones than it takes."""
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise Misfit("its arguments are no list and object")
    positional = operator.positional
    if len(args) > len(positional):
        raise Misfit(f"it has {len(args)} arguments, and takes {len(positional)}")
    given = dict(zip((each.name for each in positional), args, strict=False))
    if twice := given.keys() & kwargs.keys():
        raise Misfit(f"its argument {min(twice)} is given twice")
    known = {each.name: each for each in operator.arguments}
    if unknown := kwargs.keys() - known.keys():
        raise Misfit(f"it takes no argument {min(unknown):.40}")
    given |= kwargs
    if missing := [each.name for each in operator.arguments if each.needed and each.name not in given]:
        raise Misfit(f"its argument {missing[0]} is missing")
    checked = {name: _value(known[name], value, operator, look_up) for name, value in given.items()}
    return [checked[each.name] for each in positional[: len(args)]], {name: checked[name] for name in kwargs}


def _value(argument: Argument, value: Any, operator: Operator, look_up: Lookup) -> Any:
    try:
        if value is None:
            if not argument.optional:
                raise Misfit("is null")
            return None
        if argument.name == "equation":
            return equation(value)
        if argument.type == "str":
            own = f"{operator.name.partition('.')[0]}.{argument.name}"
            return _word(value, CHOICES.get(own, CHOICES.get(argument.name, frozenset())))
        return _typed(argument, value, limits_of(operator, argument), look_up)
    except Misfit as error:
        raise Misfit(f"its argument {argument.name} {error}") from None


def limits_of(operator: Operator, argument: Argument) -> tuple[int, int]:
    """What an integer may be there."""
    own = f"{operator.name.partition('.')[0]}.{argument.name}"
    return RANGES.get(own, RANGES.get(argument.name, (-_LARGE, _LARGE)))


def _typed(argument: Argument, value: Any, limits: tuple[int, int], look_up: Lookup) -> Any:
    kind, _, several = argument.type.partition("[")
    if several:
        if kind in ("int", "SymInt") and not isinstance(value, list) and several != "]":
            return _integer(value, limits, look_up)
        if kind == "Tensor" and isinstance(value, dict):
            return _reference(value, look_up, ("tensors",))
        if not isinstance(value, list) or len(value) > MOST_ITEMS:
            raise Misfit("is no list")
        return [_one(kind, each, limits, look_up) for each in value]
    return _one(kind, value, limits, look_up)


def _one(kind: str, value: Any, limits: tuple[int, int], look_up: Lookup) -> Any:
    match kind:
        case "Tensor":
            if isinstance(value, dict) and "node" in value:
                return _reference(value, look_up, ("tensor", "number"))
            return scalar(value)
        case "Tensor?":
            return None if value is None else _reference(value, look_up, ("tensor",))
        case "int" | "SymInt":
            return _integer(value, limits, look_up)
        case "float" | "Scalar":
            if isinstance(value, dict) and "node" in value:
                return _reference(value, look_up, ("number",))
            return scalar(value)
        case "bool":
            if not isinstance(value, bool):
                raise Misfit("is neither true nor false")
            return value
        case "ScalarType":
            return Dtype(_word(value, DTYPES))
        case "MemoryFormat":
            return Format(_word(value, FORMATS))
        case "Device":
            _word(value, frozenset(["here"]))
            return Here()
    raise Misfit("must be left out")  # layouts, generators: only torch's own default


def _word(value: Any, words: frozenset[str]) -> str:
    if not isinstance(value, str) or value not in words:
        raise Misfit(f"is {value!r:.40}; expected one of {', '.join(sorted(words))}")
    return value


def _integer(value: Any, limits: tuple[int, int], look_up: Lookup) -> Any:
    if isinstance(value, dict):
        return _reference(value, look_up, ("number",))
    if isinstance(value, bool) or not isinstance(value, int):
        raise Misfit(f"is {value!r:.40}; expected an integer")
    within(value, limits)
    return value


def within(value: int, limits: tuple[int, int]) -> None:
    """Raises Misfit for an integer out of its limits."""
    if not limits[0] <= value <= limits[1]:
        shown = value if abs(value) < 2**64 else "a number of more than 64 bits"
        raise Misfit(f"is {shown}; expected {limits[0]} to {limits[1]}")


def _reference(value: Any, look_up: Lookup, kinds: tuple[Kind, ...]) -> Reference:
    if not isinstance(value, dict) or value.keys() != {"node"} or not isinstance(value["node"], str):
        raise Misfit(f"is {value!r:.40}; expected a node")
    found, kind = look_up(value["node"])
    if kind not in kinds:
        raise Misfit(f"is of the wrong kind: {value['node']} gives {in_words(kind)}")
    return found


def scalar(value: Any) -> bool | int | float | complex:
    """A number. Raises Misfit for anything else."""
    if isinstance(value, dict) and len(value) == 1:
        match value:
            case {"float": "inf" | "-inf" | "nan" as word}:
                return float(word)
            case {"complex": [float() | int() as real, float() | int() as imaginary]}:
                return complex(real, imaginary)
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        within(value, (-_LARGE, _LARGE))
        return value
    raise Misfit(f"is {value!r:.40}; expected a number")


def equation(value: Any) -> str:
    """einsum's text of lists of axes: [[0, 1], [1, 2], [0, 2]] for ij,jk->ik, the last the result's; -1 is "..."."""
    if not isinstance(value, list) or not 2 <= len(value) <= 32:
        raise Misfit("is no list of lists of axes")
    words = []
    for axes in value:
        if not isinstance(axes, list) or len(axes) > 64:
            raise Misfit("is no list of lists of axes")
        if not all(type(axis) is int and -1 <= axis < 52 for axis in axes):
            raise Misfit("names an axis that is no integer from -1 to 51")
        words.append("".join("..." if axis < 0 else LETTERS[axis] for axis in axes))
    return f"{','.join(words[:-1])}->{words[-1]}"


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def in_words(kind: Kind) -> str:
    """What a node gives."""
    words = {"tensor": "a tensor", "number": "a number", "tensors": "a list of tensors"}
    return words[kind] if isinstance(kind, str) else "several values"


def finite_or_word(value: float) -> Any:
    """A float as JSON holds it."""
    return value if math.isfinite(value) else {"float": repr(value)}
