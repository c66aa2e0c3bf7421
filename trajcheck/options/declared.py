"""A declared option: a field of a dataclass, annotated with its help, its flag and what its value must be.

    skip: Annotated[int, Option("cos_skip takes ...", "N", check=at_least(1, "a number of steps"))] = 1

The field has its name, type and default, as for any dataclass; type checkers see nothing else.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, TypeVar, cast

from trajcheck.errors import UsageError
from trajcheck.options.checks import Check

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """`help` is what the command line says of it, `python` what Python's help says where other words fit there.

    `flag` is the flag of the command line where it is not the field's name; `after` the option after which --help shows
    it, where that is not the one declared before. Of a sequence each item is a flag of its own; with `commas` one flag
    may hold several. `reads` makes the value of a text. `check` is what the value, or each item, must be. `replays`:
    without an objective it makes no sense.
    """

    help: str
    metavar: str | None = None
    python: str = ""
    flag: str = ""
    after: str = ""
    commas: bool = False
    reads: Callable[[str], Any] | None = None
    check: Check | None = None
    replays: bool = False


@dataclass(frozen=True)
class Declaration:
    """A field that is an option: its `type` is without the annotations."""

    name: str
    type: Any
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        return self.option.flag or f"--{self.name.replace('_', '-')}"

    @property
    def word(self) -> str:
        """Its name in a file: that of the flag."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def several(self) -> bool:
        """Whether it is a sequence of items."""
        return is_sequence(self.type)

    def check(self, value: Any) -> None:
        """Raise UsageError for a value that it cannot have; None is no value."""
        check = self.option.check
        if check is None or value is None:
            return
        for each in value if self.several else (value,):
            if wrong := check(each):
                raise UsageError(f"{self.flag} {_shown(each)}: {wrong}.")


def is_sequence(kind: Any) -> bool:
    return typing.get_origin(kind) is Sequence


def _shown(value: Any) -> str:
    return f"{value!r}" if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def declarations(kind: type) -> tuple[Declaration, ...]:
    """The options of a dataclass, in the order of its fields."""
    return _declarations(cast(Hashable, kind))


@cache
def _declarations(kind: Any) -> tuple[Declaration, ...]:
    found = []
    for name, (plain, notes) in annotations_of(kind).items():
        for option in notes:
            if isinstance(option, Option):
                [default] = (field.default for field in fields(kind) if field.name == name)
                found.append(Declaration(name, plain, default, option))
    return tuple(found)


def annotations_of(kind: type) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """The type of each field of a dataclass, and what stands beside it."""
    hints: dict[str, Any] = {}
    for base in reversed(kind.__mro__):  # one by one, so that functions in them see the names of their module
        hints |= inspect.get_annotations(base, eval_str=True)
    found: dict[str, tuple[Any, tuple[Any, ...]]] = {}
    for field in fields(cast(Any, kind)):
        hint = hints[field.name]
        plain, *notes = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
        found[field.name] = plain, tuple(notes)
    return found


class Declared:
    """What dataclasses of options have in common: sequences are kept as tuples, a text in place of one is one item,
    values are checked one by one."""

    def __post_init__(self) -> None:
        for each in declarations(type(self)):
            if each.several:
                value = getattr(self, each.name)
                object.__setattr__(self, each.name, (value,) if isinstance(value, str) else tuple(value))

    def check_values(self) -> None:
        """Raise UsageError for the first value that an option cannot have."""
        for each in declarations(type(self)):
            each.check(getattr(self, each.name))

    def replaying(self) -> list[str]:
        """The flags of options that were given and are about a replay."""
        return [
            each.flag
            for each in declarations(type(self))
            if each.option.replays and getattr(self, each.name) != each.default
        ]


def part_of(options: Any, kind: type[T]) -> T:
    """The fields of a dataclass among those of another one that has them all, and more."""
    return kind(**{field.name: getattr(options, field.name) for field in fields(cast(Any, kind))})
