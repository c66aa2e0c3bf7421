"""Python's arithmetic on sizes and other numbers, as far as a program may use it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from trajcheck.objective.program.arguments import Misfit

Number = bool | int | float

#: How large an integer may get: nothing that torch takes is larger, and Python's own have no end.
LARGEST = 2**63


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * max(exponent, 1) > 64:
        raise Misfit(f"{base} to the power {exponent} has more than 64 bits")
    found = base**exponent
    if isinstance(found, complex):
        raise Misfit(f"{base} to the power {exponent} is no real number")
    return found


#: By the name that a program has for it: how many numbers it takes, and what it does.
FUNCTIONS: dict[str, tuple[int, Callable[..., Number]]] = {
    **{name: (2, getattr(operator, name)) for name in ("add", "sub", "mul", "floordiv", "truediv", "mod")},
    **{name: (2, getattr(operator, name)) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "and": (2, operator.and_),
    "or": (2, operator.or_),
    "pow": (2, _power),
    "max": (2, max),
    "min": (2, min),
    "neg": (1, operator.neg),
    "not": (1, operator.not_),
    "int": (1, int),
    "float": (1, float),
    "ceil": (1, math.ceil),
    "floor": (1, math.floor),
    "sqrt": (1, math.sqrt),
}


def calculate(name: str, numbers: list[Any]) -> Number:
    """The result. Raises Misfit where it is no number of 64 bits."""
    if not all(isinstance(number, bool | int | float) for number in numbers):
        raise Misfit(f"{name} is of numbers, not of {', '.join(type(number).__name__ for number in numbers)}")
    try:
        found = FUNCTIONS[name][1](*numbers)
    except (ArithmeticError, ValueError, TypeError) as error:
        raise Misfit(f"{name} of {', '.join(map(str, numbers))}: {error}") from error
    if isinstance(found, int) and abs(found) > LARGEST:
        raise Misfit(f"{name} gives a number of more than 64 bits")
    return found
