"""Columns of a table, made as their declarations say: each operand and each column once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from trajcheck.metrics.catalogue import quantities
from trajcheck.metrics.columns import Column
from trajcheck.metrics.quantity import Quantity

#: Ending of the columns of errors over batches.
SE = "_se"


def with_own_error(table: str, name: str) -> str:
    """The column of several batches whose error is called so; '' where it is no such error."""
    one = quantities(table).get(name.removesuffix(SE))
    return one.name if one is not None and one.of_batches and name.endswith(SE) else ""


class Evaluated:
    """The columns of one table, from operands that `base` makes by name."""

    def __init__(self, table: str, base: Callable[[str], Any]) -> None:
        self.table, self._base = table, base
        self._known: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """A column that a function makes, or what columns are made of. One that has an error of its own is a mapping,
        of "" and of `_se`; a function that takes it is given the column."""
        if name not in self._known:
            one = quantities(self.table).get(name)
            if one is None and (of := with_own_error(self.table, name)):
                return self[of][SE]
            self._known[name] = self._base(name) if one is None or one.function is None else self._made(one)
        return self._known[name]

    def _made(self, one: Quantity) -> Any:
        """A value that is not finite, as where squares or sums overflow, is undefined."""
        assert one.function is not None
        found = [self[each] for each in one.operands]
        operands = [each[""] if isinstance(each, Mapping) and each.keys() == {"", SE} else each for each in found]
        with np.errstate(all="ignore"):
            made = one.function(*operands)
        if isinstance(made, Column):
            return made.finite()
        return {name: each.finite() for name, each in made.items()} if isinstance(made, Mapping) else made

    def columns(self, holds: Collection[str], *, of_tensor: bool = False) -> dict[str, Column]:
        """The table's columns, in the order of the contract, whose conditions (`Quantity.when`) are among those that
        hold: all of them, or those that make sense for one tensor."""
        found: dict[str, Column] = {}
        for name, one in quantities(self.table).items():
            suits = one.of_tensor or one.only_of_tensor if of_tensor else not one.only_of_tensor
            if not suits or not set(one.when) <= set(holds):
                continue
            value: Column | Mapping[str, Column] = self[name if one.function is not None else one.operands[0]]
            found |= {name: value} if isinstance(value, Column) else {f"{name}{end}": c for end, c in value.items()}
        return found
