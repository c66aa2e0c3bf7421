"""The alpha-beta condition: its frontier against all lines, the best pair against all corners, laws, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from trajcheck.metrics.fits.alpha_beta import AlphaBeta, alpha_beta
from trajcheck.metrics.fits.envelope import NoFit


def drawn(seed: int, rows: int = 60, mean: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    above = np.exp(2 * random.normal(size=rows))
    return above * (mean + 0.4 * random.normal(size=rows)), above, random.random(rows)


@pytest.mark.parametrize("seed", range(6))
def test_the_frontier_is_the_lowest_line_everywhere(seed: int) -> None:
    c, above, floor = drawn(seed)
    found = alpha_beta(c, above, floor)
    for beta in np.linspace(0, 5, 40):
        assert found.frontier.at(beta) == pytest.approx(min((c + beta * (above + floor)) / above), rel=1e-12)
    assert (np.diff(found.frontier.slope) < 0).all() and (np.diff(found.frontier.beta) >= 0).all()
    rows = found.frontier.row
    lines = (c[rows] + found.frontier.beta * (above + floor)[rows]) / above[rows]
    assert found.frontier.alpha == pytest.approx(lines, rel=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_beta_min_is_where_the_frontier_meets_beta(seed: int) -> None:
    c, above, floor = drawn(seed)
    found = alpha_beta(c, above, floor)
    assert found.beta_min > 0 and found.frontier.at(found.beta_min) == pytest.approx(found.beta_min, rel=1e-9)
    assert found.frontier.at(2 * found.beta_min) > 2 * found.beta_min


@pytest.mark.parametrize("seed", range(6))
def test_the_pair_is_the_best_of_all_corners(seed: int) -> None:
    found = alpha_beta(*drawn(seed, mean=1.5 if seed % 2 else 0.5))
    beta, alpha = found.frontier.beta, found.frontier.alpha
    best = (beta / (alpha - beta))[alpha > beta].min(initial=np.inf)
    if np.isfinite(found.alpha):
        assert found.frontier.at(found.beta) == pytest.approx(found.alpha, rel=1e-7)
        assert found.beta / (found.alpha - found.beta) == pytest.approx(best, rel=1e-7)
    else:  # along the last line beta / (alpha - beta) falls for ever
        assert alpha[-1] - found.frontier.slope[-1] * beta[-1] <= 0


def test_where_f_inf_is_the_references_loss_alpha_less_beta_is_the_quasar_constant() -> None:
    c, above, _ = drawn(3, mean=2.0)
    found = alpha_beta(c, above, np.zeros(60))
    quasar = (c / above).min()
    for beta in (0.0, 0.3, 7.0):
        assert found.frontier.at(beta) - beta == pytest.approx(quasar, rel=1e-9)
    assert (found.beta_min, found.beta) == (0, 0) and found.alpha == pytest.approx(quasar, rel=1e-12)


def test_intervals_hold_what_was_found_and_few_rows_have_none() -> None:
    c, above, floor = drawn(1, rows=80, mean=0.7)
    found = alpha_beta(c, above, floor)
    assert found.interval is not None
    low, _, high = found.interval
    assert (low <= found[:3]).all() and (found[:3] <= high).all() and high[2] > low[2]
    assert alpha_beta(c[:31], above[:31], floor[:31]).interval is None


def test_scaling_the_loss_and_the_order_of_rows_change_nothing() -> None:
    c, above, floor = drawn(1, mean=1.5)

    def numbers(found: AlphaBeta) -> tuple[float, float, float]:
        return found.beta_min, found.alpha, found.beta

    found, order = numbers(alpha_beta(c, above, floor)), np.random.default_rng(0).permutation(60)
    assert numbers(alpha_beta(c * 1e-9, above * 1e-9, floor * 1e-9)) == pytest.approx(found, rel=1e-9)
    assert numbers(alpha_beta(c[order], above[order], floor[order])) == pytest.approx(found, rel=1e-12)


def test_refused_with_the_reason() -> None:
    c, above, floor = drawn(1)
    with pytest.raises(NoFit, match="7 have f"):
        alpha_beta(c[:7], above[:7], floor[:7])
    with pytest.raises(NoFit, match="below the loss floor"):
        alpha_beta(c, above, -floor)
    with pytest.raises(NoFit, match="no alpha > beta meets all rows"):
        alpha_beta(c, above, 0 * floor)
