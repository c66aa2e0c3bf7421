"""What a pickle becomes: plain Python values, tensors as records (tensors.py), and for all else the two records here.

Objects of a class that is not known are held apart by identity, as keys too: nobody's `__eq__`, `__hash__` or
`__setstate__` runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Global(NamedTuple):
    """A class or a function, by name alone: `torch.float32`, `torch.optim.adamw.AdamW`."""

    module: str
    name: str

    @property
    def dotted(self) -> str:
        return f"{self.module}.{self.name}"


class Inert:
    """An object of a class that is not known here, or the result of a call that was not made.

    `of` is the class or function by its dotted name; `arguments` those of the call, `state` what was to be its
    attributes, `items` and `entries` what was to be appended to it or set in it.
    """

    __slots__ = ("arguments", "entries", "items", "of", "state")

    def __init__(self, of: str, arguments: tuple[Any, ...] = ()) -> None:
        self.of, self.arguments, self.state = of, arguments, None
        self.items: list[Any] = []
        self.entries: list[tuple[Any, Any]] = []

    def __repr__(self) -> str:
        return f"<{self.of:.200}>"

    @property
    def attributes(self) -> Mapping[str, Any]:
        """By name, as far as its state is a table of them; what was set in it besides, as of a dict's own class."""
        found: dict[str, Any] = {}
        for table in self.state if isinstance(self.state, tuple) else (self.state,):  # a pair: with slots
            if isinstance(table, dict):
                found.update((name, value) for name, value in table.items() if isinstance(name, str))
        found.update((name, value) for name, value in self.entries if isinstance(name, str))
        return found

    def children(self) -> Iterator[Any]:
        """Everything in it."""
        yield from self.arguments
        yield self.state
        yield from self.items
        for pair in self.entries:
            yield from pair
