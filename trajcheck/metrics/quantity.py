"""One declaration a column: what it is called, what it means, what it needs, and the function that makes it.

`@quantity(...)` above a function declares the column that the function makes; `given(...)` one that is an operand as it
stands. The names of the function's parameters say what it needs: inner products (inner_products/catalogue.py), other
columns of the same table, or what tables/operands.py makes of a run. From the declarations come the families of
--metrics, the tables, layers.csv, the words of the page, docs/columns.md, and the test that scaling the loss scales the
right columns and only those.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

STEPS, REFERENCES, COMPARE, FLOW = "steps", "references", "compare", "flow"
ALLOCATION, AVERAGES, SCHEDULE = "allocation", "averages", "schedule"
#: What --metrics chooses from.
FAMILY_NAMES = ("convexity", "smoothness", "progress", "secant", "geometry", "noise")
F = TypeVar("F", bound=Callable[..., Any])


class Unit(NamedTuple):
    """Powers of the loss, of the length of a vector of parameters, and of steps."""

    loss: int = 0
    length: int = 0
    steps: int = 0

    def __str__(self) -> str:
        def written(sign: int) -> str:
            powers = {name: sign * power for name, power in self._asdict().items() if sign * power > 0}
            return " ".join(name if power == 1 else f"{name}^{power}" for name, power in powers.items())

        top, bottom = written(1), written(-1)
        return f"{top or 1} / {bottom}" if bottom else top or "none"


NONE, LOSS, LENGTH, COUNT = Unit(), Unit(loss=1), Unit(length=1), Unit(steps=1)
#: Of curvature, smoothness, rsi and eb; of a learning rate.
CURVATURE, RATE = Unit(loss=1, length=-2), Unit(loss=-1, length=2)


@dataclass(frozen=True)
class Quantity:
    """A column of one table.

    `formula` in words and letters (x_t, g_t, d_t, e_t, y as in docs/columns.md); `symbol` as a paper writes it.
    `families`: the names of --metrics that give it; none: every report has it. `power`: its power of the loss, when the
    loss is multiplied and the recorded rates are not; None: it is no power. `of_tensor`: whether it makes sense for one
    tensor; `only_of_tensor`: for nothing else. `of_sample`: whether a sample enters; `of_batches`: whether all batches
    of a row enter together, so that it has an error of its own. `when`: what it takes beside its
    operands (CONDITIONS of tables/operands.py). `words` for the page's chart, '' where that does not offer it, and its
    `rank` there. `of_means`: (num, den), columns of the same table, of a quotient that over probe batches is what its
    function makes of the means of its operands, all of them columns; the others are means of what they are on each.
    `hidden`: an operand of others that no report shows. `integer`: written as one. `operands`: what the
    function takes, `optional` those of them that it uses only where they are there; a column without a function is its
    operand as it stands.
    """

    name: str
    table: str
    formula: str
    unit: Unit
    range: str
    source: str
    symbol: str
    families: tuple[str, ...] = ()
    power: int | None = 0
    of_tensor: bool = False
    only_of_tensor: bool = False
    of_sample: bool = True
    of_batches: bool = False
    when: tuple[str, ...] = ()
    words: str = ""
    rank: int = 0
    hidden: bool = False
    integer: bool = False
    of_means: tuple[str, str] | None = None
    operands: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    function: Callable[..., Any] | None = field(default=None, compare=False)


#: Every column that was declared, by module, table and name; catalogue.py puts them in order.
DECLARED: dict[str, dict[tuple[str, str], Quantity]] = {}


def quantity(*tables: str, name: str | None = None, **declaration: Any) -> Callable[[F], F]:
    """Declare the column that a function makes, in one table or in several; `declaration` as of `_declare`.

    The function takes columns, and gives one, or several by what is to be added to the name.
    """

    def declare(function: F) -> F:
        operands = tuple(inspect.signature(function).parameters)
        _declare(tables, name or function.__name__, operands, function, **declaration)
        return function

    return declare


def given(name: str, *tables: str, operand: str | None = None, **declaration: Any) -> None:
    """Declare a column that is an operand as it stands: the one of its own name, or another."""
    _declare(tables, name, (operand or name,), None, **declaration)


def _declare(
    tables: tuple[str, ...],
    name: str,
    operands: tuple[str, ...],
    function: Callable[..., Any] | None,
    *,
    formula: str,
    unit: Unit,
    range: str = "any sign",
    symbol: str = "",
    source: str = "",
    family: str | tuple[str, ...] = (),
    power: int | str | None = "of the unit",
    chart: tuple[int, str] | Mapping[str, tuple[int, str]] = (0, ""),
    when: str | tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    **flags: Any,
) -> None:
    """Fields as of `Quantity`. `power` is that of the unit unless it is given; `chart` is (rank, words), or that by
    table."""
    module = DECLARED.setdefault(sys._getframe(2).f_globals["__name__"], {})  # of the declaration
    for table in tables:
        rank, words = chart.get(table, (0, "")) if isinstance(chart, Mapping) else chart
        module[table, name] = Quantity(
            name=name,
            table=table,
            formula=formula,
            unit=unit,
            range=range,
            source=source,
            symbol=symbol or name,
            families=(family,) if isinstance(family, str) else family,
            power=unit.loss if isinstance(power, str) else power,
            when=(when,) if isinstance(when, str) else when,
            words=words,
            rank=rank,
            operands=operands,
            optional=optional,
            function=function,
            **flags,
        )
