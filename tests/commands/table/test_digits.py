"""commands/table/digits.py: numbers to the digits that their errors warrant."""

from __future__ import annotations

import numpy as np
import pytest

from trajcheck.commands.table.digits import rounded
from trajcheck.commands.table.forms import latex_number, plain_number


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0.827, 0.119, "0.83 ± 0.12"),  # the three examples of the Review of Particle Physics
        (0.827, 0.367, "0.8 ± 0.4"),
        (0.827, 0.0984, "0.83 ± 0.10"),
        (0.18743, 0.05613, "0.19 ± 0.06"),
        (-21.85, 0.59, "-21.9 ± 0.6"),
        (-0.001, 0.3, "0.00 ± 0.30"),
        (1234.5, 321.0, "(1.23 ± 0.32)e3"),
        (1234.5, 32.1, "1234 ± 32"),
        (1.2345e-5, 2.1e-7, "(1.234 ± 0.021)e-5"),
        (2.5e7, 4e4, "(2.500 ± 0.004)e7"),
        (3.0, 50.0, "(0 ± 5)e1"),
        (100.0, 0.0, "100 ± 0"),
        (0.5, 0.0, "0.5 ± 0"),
        (1.4029, None, "1.40"),
        (0.0, None, "0"),
        (-89.9415, None, "-89.9"),
        (123456.0, None, "1.23e5"),
        (0.00012, None, "1.20e-4"),
        (1e300, 1e298, "(1.000 ± 0.010)e300"),
        (9.996, None, "10.00"),
    ],
)
def test_numbers_as_they_are_printed(value: float, error: float | None, shown: str) -> None:
    assert plain_number(rounded(value, error)) == shown


def test_numbers_of_latex() -> None:
    assert latex_number(rounded(-0.139, 0.015)) == r"$-0.139 \pm 0.015$"
    assert latex_number(rounded(1234.5, 321.0)) == r"$(1.23 \pm 0.32) \times 10^{3}$"
    assert latex_number(rounded(1.26)) == "$1.26$"


def test_what_is_printed_is_within_half_of_its_last_digit() -> None:
    stream = np.random.default_rng(0)
    for value, error in zip(
        stream.normal(size=400) * 10 ** stream.uniform(-8, 8, 400), 10 ** stream.uniform(-8, 8, 400), strict=True
    ):
        shown = rounded(value, error)
        unit = 10.0 ** (shown.power - len(shown.value.partition(".")[2]))
        assert abs(float(shown.value) * 10.0**shown.power - value) <= 0.5001 * unit
        assert abs(float(str(shown.error)) * 10.0**shown.power - error) <= 0.5001 * unit <= 0.26 * error
        assert len(str(shown.error).replace(".", "").lstrip("0")) <= 2
