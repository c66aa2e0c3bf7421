"""One declaration an assumption: what it is called, what it says, from which columns it is judged, and the function
that judges it.

`@assumption(...)` above a function declares it. The names of the function's parameters are columns of the same table,
hidden ones too, or of CONTEXT; one with the default None is given where there is such a column. It returns a `Judged`,
of which `judge` makes a row of assumptions.csv, or rows by the names of their constants, as fits do. From the
declaration come the rows, their formula, the sentences of the terminal and the page, and the table of docs.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trajcheck.metrics.assumptions.entries import Entry, Judged, judge

#: What a function may ask for beside columns: `weights` (metrics/weights.py) and `steps` [rows] of the table,
#: `point_weights` of what is of one point, `sample`, the convention's name, and `one_batch`, whether every row is on
#: the same batch as all others.
CONTEXT = ("weights", "point_weights", "steps", "sample", "one_batch")

#: What an assumption gives: the row of its constant, or several by their constants' names.
Found = Judged | Entry | Mapping[str, Judged | Entry]
F = TypeVar("F", bound=Callable[..., Found])


@dataclass(frozen=True)
class Assumption:
    """`name` as in assumptions.csv; `table` whose rows it is judged on, `steps` (towards x_{t-1}) or `references`.

    `title` in words; `formula`: the inequality that a row satisfies. `constants`: {name: what each row has for
    it}, the first that of a row that is not named; `extreme`, `largest` or `smallest`, which of its rows' the constant
    is, '' of a fit. `source`: who assumes it.
    """

    name: str
    table: str
    title: str
    formula: str
    constants: Mapping[str, str]
    extreme: str
    source: str
    function: Callable[..., Found] = field(compare=False)

    @property
    def operands(self) -> dict[str, bool]:
        """The names of the function's parameters, and whether it can do without."""
        parameters = inspect.signature(self.function).parameters.values()
        return {each.name: each.default is not inspect.Parameter.empty for each in parameters}


#: Every assumption that was declared, by module, table and name; catalogue.py puts them in order.
DECLARED: dict[str, dict[tuple[str, str], Assumption]] = {}


def assumption(
    *tables: str,
    name: str,
    title: str,
    formula: str,
    constants: Mapping[str, str],
    extreme: str = "",
    source: str,
) -> Callable[[F], F]:
    """Declare the assumption that a function judges, in one table or in several; arguments as of `Assumption`."""
    module = DECLARED.setdefault(sys._getframe(1).f_globals["__name__"], {})

    def declare(function: F) -> F:
        for table in tables:
            module[table, name] = Assumption(name, table, title, formula, constants, extreme, source, function)
        return function

    return declare


def rows_of(one: Assumption, given: Mapping[str, Any]) -> dict[str, Entry]:
    """The rows of one assumption by the names of their constants, from what `given` has for its function."""
    found = one.function(**{name: given[name] for name in one.operands if name in given})
    named = found if isinstance(found, Mapping) else {next(iter(one.constants)): found}
    weights, steps = given["weights"], given["steps"]
    return {
        name: each if isinstance(each, Entry) else judge(each, one.extreme, weights, steps)
        for name, each in named.items()
    }
