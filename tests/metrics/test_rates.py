"""implied_rate and lo_lr_smooth: what the secant quantities promise plain SGD, on quadratics of a known spectrum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dense import Record, flat
from dense_samples import implied_rate, smoothed_lo_lr
from frames import assert_close, col
from handwritten import write_run
from quadratics import Quadratic, descend
from safetensors.numpy import save_file
from sample_cases import accounted

import trajcheck

COUNT = 160


def descent(eigenvalues: list[float], noise: float = 0.0, start: np.ndarray | None = None) -> list[Record]:
    """Plain SGD on a quadratic with its minimum at 0; noise 0 is gradient descent."""
    quadratic, rng = Quadratic.with_spectrum(eigenvalues, seed=2), np.random.default_rng(9)
    x = rng.normal(size=quadratic.size) if start is None else start
    return descend(quadratic, x, quadratic.samples(COUNT, rng, noise), [0.2] * COUNT)


def towards_minimum(records: list[Record], folder: Path, optimizer: str = "SGD") -> tuple[Any, Any]:
    """The rows towards 0, and the report."""
    run = write_run(folder / "run", records, optimizer=optimizer)
    save_file({"x": np.zeros(flat(records[0].x).shape)}, folder / "minimum.safetensors")
    report = trajcheck.analyze(run, [str(folder / "minimum.safetensors")], out=folder / "report", quiet=True)
    return report.references, report


# -- the implied rate ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
def test_the_rate_is_that_of_the_worst_constants_so_far(noise: float, tmp_path: Path) -> None:
    rows, _ = towards_minimum(descent([0.3, 1.0, 2.0], noise), tmp_path)
    assert_close(rows, "implied_rate", implied_rate(col(rows, "rsi"), col(rows, "eb")))


def test_the_rate_of_one_curvature_is_nought(tmp_path: Path) -> None:
    """rsi = eb = a: one step of 1/a arrives."""
    rows, _ = towards_minimum(descent([0.7, 0.7, 0.7]), tmp_path)
    np.testing.assert_allclose(col(rows, "implied_rate")[:-1], 0.0, atol=1e-12)


def test_the_rate_lies_between_the_spectrums_and_nought_and_never_falls(tmp_path: Path) -> None:
    rows, _ = towards_minimum(descent([0.3, 1.0, 2.0]), tmp_path)
    rate = col(rows, "implied_rate")[:-1]
    assert (rate >= 0).all() and (rate <= 1 - (0.3 / 2.0) ** 2).all()
    assert (np.diff(rate) >= 0).all()


def test_gradient_descent_at_mu_over_l_squared_keeps_the_promise(tmp_path: Path) -> None:
    """|x_{t+1}|^2 <= (1 - mu^2/L^2) |x_t|^2 at eta = mu/L^2, mu and L measured along the path."""
    mu, largest = 0.5, 1.0
    quadratic = Quadratic.with_spectrum([mu, 0.8, largest], seed=2)
    z = np.zeros((1, 3))
    records = descend(quadratic, np.ones(3), [z] * COUNT, [mu / largest**2] * COUNT)
    rows, _ = towards_minimum(records, tmp_path)
    distance, rate = col(rows, "ref_dist"), col(rows, "implied_rate")
    assert (distance[1:] ** 2 <= (1 - mu**2 / largest**2) * distance[:-1] ** 2 * (1 + 1e-12)).all()
    assert (rate[:-1] <= (1 - mu**2 / largest**2) * (1 + 1e-12)).all()


def test_from_the_first_negative_rsi_on_there_is_no_rate(tmp_path: Path) -> None:
    records = descent([0.3, 1.0, 2.0])
    records[10].g = -np.asarray(records[10].g)
    rows, report = towards_minimum(records, tmp_path)
    rate = col(rows, "implied_rate")
    assert not np.isnan(rate[:10]).any()
    assert np.isnan(rate[10:]).all()
    assert accounted(report, "references", "implied_rate") == set(range(10, COUNT + 1))


# -- the learning rate that comes nearest -------------------------------------------------------------------------


def test_the_smoothed_rate_is_a_ratio_of_sums_over_a_centred_window(tmp_path: Path) -> None:
    """Of some half-width; how rows near the ends are treated is not asked here."""
    rows, _ = towards_minimum(descent([0.3, 1.0, 2.0], noise=0.5), tmp_path)
    dots, squares = col(rows, "grad_dot_ref")[:-1], col(rows, "grad_norm")[:-1] ** 2
    actual = col(rows, "lo_lr_smooth")[:-1]
    fitting = []
    for half in range(1, COUNT // 2 - 5):
        expected = smoothed_lo_lr(dots, squares, half)
        inside = ~np.isnan(expected)
        if np.allclose(actual[inside], expected[inside], rtol=1e-9, atol=0):
            fitting.append(half)
    assert len(fitting) == 1
    assert not np.isnan(actual).any()


def test_in_one_curvature_it_is_the_inverse_of_it(tmp_path: Path) -> None:
    rows, _ = towards_minimum(descent([0.8, 0.8]), tmp_path)
    np.testing.assert_allclose(col(rows, "lo_lr_smooth")[:-1], 1 / 0.8, rtol=1e-9)


def test_on_a_quadratic_it_lies_in_the_inverse_spectrum(tmp_path: Path) -> None:
    rows, _ = towards_minimum(descent([0.3, 1.0, 2.0]), tmp_path)
    values = col(rows, "lo_lr_smooth")[:-1]
    assert (values >= 1 / 2.0 - 1e-12).all() and (values <= 1 / 0.3 + 1e-12).all()


def test_it_varies_less_than_what_it_smooths(tmp_path: Path) -> None:
    rows, _ = towards_minimum(descent([0.3, 1.0, 2.0], noise=0.5), tmp_path)
    spread = {name: np.diff(col(rows, name)[:-1]).std() for name in ("lo_lr", "lo_lr_smooth")}
    assert spread["lo_lr_smooth"] < spread["lo_lr"] / 2


def test_the_rate_that_was_used_stands_beside_it(tmp_path: Path) -> None:
    rows, _ = towards_minimum(descent([0.3, 1.0, 2.0]), tmp_path)
    np.testing.assert_array_equal(col(rows, "lr")[:-1], 0.2)


@pytest.mark.parametrize("optimizer", ["momentum", "Adam"])
def test_neither_is_promised_to_other_optimizers(optimizer: str, tmp_path: Path) -> None:
    rows, report = towards_minimum(descent([0.3, 1.0, 2.0]), tmp_path, optimizer)
    for name in ("implied_rate", "lo_lr_smooth"):
        assert np.isnan(col(rows, name)).all()
        assert accounted(report, "references", name) == set(range(COUNT + 1))
