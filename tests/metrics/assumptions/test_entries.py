"""From margins to a row of assumptions.csv: shares, extremes, quantiles, the worst violation; each with its reason."""

from __future__ import annotations

import numpy as np
import pytest

from trajcheck.metrics.assumptions.entries import NOT_VIOLATED, NUMBERS, SHARES, Judged, judge
from trajcheck.metrics.columns import column
from trajcheck.metrics.weights import Weights

STEPS = np.array([0, 1, 2, 4, 8, 9])
WEIGHTS = Weights(STEPS.astype(float), 0, 10)  # of all six rows: 1, 1, 2, 3, 2, 1


def test_shares_weigh_by_steps_and_a_row_has_one_verdict() -> None:
    margin = column([-1.0, 2.0, 0.1, -0.1, 3.0, -5.0])
    resolution = column([0.5, 0.5, 0.2, 0.1, 1.5, 0.5])
    cells = judge(Judged(margin, margin, resolution, 0.0), "largest", WEIGHTS, STEPS).cells
    assert tuple(cells) == NUMBERS
    assert [cells[name] for name in SHARES] == pytest.approx([0.2, 0.3, 0.5])
    assert (cells["worst"], cells["worst_step"], cells["constant"], cells["rows"]) == (4.0, 1, 3.0, 6)
    assert cells["quantile_5"] == -5.0 and cells["median"] == -0.1 and cells["quantile_95"] == 3.0


def test_rows_that_do_not_carry_it_weigh_nothing_and_their_steps_go_to_their_neighbours() -> None:
    margin = column([-1.0, None, None, 2.0, None, -5.0], ["", "a", "a", "", "b", ""])
    cells = judge(Judged(margin, margin, column([0.5] * 6)), "smallest", WEIGHTS, STEPS).cells
    # rows 0, 4 and 9: steps 0 to 2, 3 to 6, 7 to 9
    assert [cells[name] for name in SHARES] == pytest.approx([0.6, 0.4, 0.0])
    assert cells["rows"] == 3 and cells["constant"] == -5.0


def test_what_is_not_there_has_its_reason() -> None:
    none = column([None] * 6, ["x", "y", "y", "y", "x", "y"])
    cells = judge(Judged(none, none, column([0.5] * 6), none), "largest", WEIGHTS, STEPS).cells
    assert {cells[name] for name in NUMBERS if name != "rows"} == {"y"} and cells["rows"] == 0
    held = column([-1.0] * 6)
    cells = judge(Judged("no constant", held, column([0.5] * 6), "no noise"), "largest", WEIGHTS, STEPS).cells
    assert cells["worst"] == cells["worst_step"] == NOT_VIOLATED
    assert cells["constant"] == cells["median"] == "no constant" and cells["noise"] == "no noise"
    cells = judge(Judged(held, unjudged="of its own"), "largest", WEIGHTS, STEPS).cells
    assert {cells[name] for name in (*SHARES, "worst")} == {"of its own"} and cells["rows"] == 6


def test_an_exact_violation_has_no_size_in_units_of_its_resolution() -> None:
    margin = column([-1.0, 1.0, -1.0, -1.0, -1.0, -1.0])
    cells = judge(Judged(margin, margin, column([0.0] * 6)), "largest", WEIGHTS, STEPS).cells
    assert cells["violated"] == pytest.approx(0.1) and cells["worst_step"] == 1
    assert "the violation is exact" in str(cells["worst"])
