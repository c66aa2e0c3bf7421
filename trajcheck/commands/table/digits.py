"""Numbers to the digits that their errors warrant."""

from __future__ import annotations

import math
from typing import NamedTuple

#: From where, and up to where, a number is written without a power of ten.
SMALLEST, LARGEST = 1e-3, 1e5

#: Digits of a number without an error.
SIGNIFICANT = 3


class Rounded(NamedTuple):
    """`value` and `error` (None where there is none) as texts, in units of 10^`power`."""

    value: str
    error: str | None
    power: int


def rounded(value: float, error: float | None = None) -> Rounded:
    """A finite number, and its standard error, as they are to be printed.

    An error is given one digit, or two where its first three digits are below 355 (or it rounds up to 1000), and the
    number as many decimals as its error: the rule of the Particle Data Group. Without an error a number has three
    digits, with one of 0 at most so many. Where it is below 0.001 or from 100,000 on, or its last digit would stand
    before the point, both are in units of a power of ten. Source: Review of Particle Physics, introduction, 5.3.
    """
    place = _last_place(error) if error else _magnitude(value) - SIGNIFICANT + 1
    largest = max(abs(value), error or 0.0)
    power = 0
    if largest and (largest < SMALLEST or largest >= LARGEST or (error and place > 0)):
        power = _magnitude(round_to(largest, place))
    decimals = max(0, power - place)
    texts = [f"{round_to(each, place) / 10.0**power:.{decimals}f}" for each in (value, error or 0.0)]
    if decimals and (error == 0 or (value == 0 and not error)):
        texts = [text.rstrip("0").rstrip(".") for text in texts]
    shown = [text.removeprefix("-") if float(text) == 0 else text for text in texts]
    return Rounded(shown[0], None if error is None else shown[1] if error else "0", power)


def _last_place(error: float) -> int:
    """The power of ten of the last digit that an error above 0 has."""
    first = _magnitude(error)
    leading = round(error / 10.0 ** (first - 2))
    return first - 1 if leading < 355 else first


def round_to(value: float, place: int) -> float:
    """To a multiple of 10^place."""
    return round(value, -place) if place > -300 else value


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0
