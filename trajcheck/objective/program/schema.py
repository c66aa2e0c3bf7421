"""What an operator takes and gives, read from torch's notation of schemas; torch itself is not needed for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from trajcheck.objective.program.operators import in_place, layers, numbers_of, pointwise, products, reductions, shapes

#: What a value of a program is: a tensor, a number (of Python: int, float, bool), as many tensors as it happens to
#: give, or several values, each of its kind.
Kind = Literal["tensor", "number", "tensors"] | tuple[Literal["tensor", "number", "tensors"], ...]

#: Operators that may hand out the tensor that they were given, or a view of it, though their schema does not say so.
ALIASING = frozenset(
    [
        *("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "conj_physical", "type_as", "pad"),
        *("atleast_1d", "atleast_2d", "atleast_3d", "broadcast_tensors", "pixel_shuffle", "pixel_unshuffle"),
        *("channel_shuffle", "meshgrid", "einsum", "_unsafe_view"),
        *("unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes"),
    ]
)


@dataclass(frozen=True)
class Argument:
    """One argument: its type in torch's words (`Tensor`, `SymInt[2]`, ...), and what it is where it is not given."""

    name: str
    type: str
    optional: bool  # may be None
    needed: bool
    default: Any
    keyword: bool  # by name only
    written: bool  # changed in place
    shared: bool  # the result may be a view of it


@dataclass(frozen=True)
class Operator:
    """aten.NAME: its arguments in order, what it gives, and the rule for the elements that it makes."""

    name: str  # as "add.Tensor"
    arguments: tuple[Argument, ...]
    result: Kind
    rule: str

    @property
    def positional(self) -> tuple[Argument, ...]:
        return tuple(argument for argument in self.arguments if not argument.keyword)

    @property
    def aliases(self) -> bool:
        """Whether the result may lie in the memory of an argument."""
        return any(each.shared or each.written for each in self.arguments) or self.name.partition(".")[0] in ALIASING


@cache
def operators() -> dict[str, Operator]:
    """All that a program may use, by name and overload."""
    families = (pointwise, in_place, reductions, shapes, products, layers, numbers_of)
    found = (_operator(line) for family in families for line in _lines(family.SCHEMAS))
    return {operator.name: operator for operator in found}


def _lines(text: str) -> Iterator[str]:
    """The lines of a table; an indented one continues the one before."""
    line = ""
    for part in text.strip("\n").split("\n"):
        if part.startswith(" "):
            line = f"{line} {part.strip()}"
        else:
            if line:
                yield line
            line = part
    yield line


_SCHEMA = re.compile(r"(?P<name>[\w.]+)\((?P<arguments>.*)\) -> (?P<result>.+)")
_ARGUMENT = re.compile(r"(?P<type>\S+) (?P<name>\w+)(=(?P<default>.+))?")
_WORDS: dict[str, Any] = {"None": None, "True": True, "False": False, "Mean": 1, "contiguous_format": None}


def _operator(line: str) -> Operator:
    rule, _, schema = line.partition(" ")
    match = _SCHEMA.fullmatch(schema.strip())
    assert match is not None, line
    arguments, keyword = [], False
    for part in re.split(r", (?![^\[]*\])", match["arguments"]):
        if part == "*":
            keyword = True
        elif part:
            arguments.append(_argument(part, keyword))
    name = match["name"] if "." in match["name"] else f"{match['name']}.default"
    return Operator(name, tuple(arguments), _result(match["result"]), rule)


def _argument(text: str, keyword: bool) -> Argument:
    match = _ARGUMENT.fullmatch(text)
    assert match is not None, text
    alias = re.search(r"\((\w!?)[^)]*\)", match["type"])
    plain = re.sub(r"\([^)]*\)", "", match["type"])
    default = None if match["default"] is None else _default(match["default"])
    written = alias is not None and alias[1].endswith("!")
    return Argument(
        match["name"],
        plain.removesuffix("?"),
        plain.endswith("?"),
        match["default"] is None,
        default,
        keyword,
        written,
        alias is not None and not written,
    )


def _default(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if text.startswith("["):
        return [int(each) for each in text.strip("[]").split(", ") if each]
    if text.startswith(('"', "'")):
        return text.strip("\"'")
    return float(text) if "." in text or "e" in text else int(text)


def _result(text: str) -> Kind:
    plain = re.sub(r"\(\w[^)]*\)", "", text) if not text.startswith("(") else text
    if text.startswith("(") and "," in text:
        one: Literal["tensor"] = "tensor"
        return (one,) * len(text.split(", "))
    if plain == "Tensor":
        return "tensor"
    return "tensors" if plain == "Tensor[]" else "number"
