"""trajcheck/objective/curvature/lanczos.py: against numpy's and scipy's eigenvalues."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import eigsh
from torch import Tensor

from trajcheck.errors import UsageError
from trajcheck.objective.curvature.lanczos import Extremes, extreme_eigenvalues


def rotated(eigenvalues: np.ndarray, seed: int = 0) -> np.ndarray:
    """A dense symmetric matrix with these eigenvalues."""
    n = len(eigenvalues)
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    matrix = (q * eigenvalues) @ q.T
    return (matrix + matrix.T) / 2


def network_spectrum(n: int = 400) -> np.ndarray:
    """Outliers at the top, a dense bulk around 0, a few negative eigenvalues."""
    eigenvalues = 1e-3 * np.random.default_rng(0).normal(size=n)
    eigenvalues[:8] = np.logspace(0, -1, 8)
    eigenvalues[8:11] = [-0.03, -0.02, -0.015]
    return eigenvalues


def extremes(
    matrix: np.ndarray,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    tolerance: float = 1e-6,
    max_products: int = 500,
    memory: int | None = None,
) -> Extremes:
    operator = torch.from_numpy(matrix).to(dtype)
    return extreme_eigenvalues(
        operator.mv,
        len(matrix),
        device="cpu",
        dtype=dtype,
        seed=seed,
        tolerance=tolerance,
        max_products=max_products,
        memory=memory,
    )


def diagonal(eigenvalues: Tensor, **options: Any) -> Extremes:
    return extreme_eigenvalues(
        eigenvalues.mul, len(eigenvalues), device="cpu", dtype=eigenvalues.dtype, seed=1, **options
    )


def assert_right(found: Extremes, matrix: np.ndarray, tolerance: float = 1e-6, rounding: float = 1e-13) -> None:
    """Converged to `tolerance` relative to max |lambda|, each value within its residual of an eigenvalue, which
    need not be the extreme one where others lie nearer to that than the tolerance."""
    expected = np.linalg.eigvalsh(matrix)
    scale = np.abs(expected).max()
    assert found.max_converged and found.min_converged
    for value, residual, truth in (
        (found.lambda_max, found.lambda_max_residual, expected[-1]),
        (found.lambda_min, found.lambda_min_residual, expected[0]),
    ):
        assert np.abs(value - expected).min() <= residual + rounding * scale
        assert abs(value - truth) <= max(residual, tolerance * scale) + rounding * scale
        assert residual <= 2 * tolerance * scale + rounding * scale


spectra = st.lists(
    st.sampled_from([0.0, 1.0, 1.0, -1.0, 3.0, -7.5, 1e-7, -1e-7, 0.3]) | st.floats(-10, 10, width=32),
    min_size=1,
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(eigenvalues=spectra, scale=st.sampled_from([1.0, 1e-20, 1e12]), seed=st.integers(0, 2**31))
def test_any_spectrum(eigenvalues: list[float], scale: float, seed: int) -> None:
    """Indefinite, repeated, low rank, zero; every dimension from 1 on."""
    matrix = scale * rotated(np.array(eigenvalues), seed)
    assert_right(extremes(matrix, seed=seed), matrix)


@pytest.mark.parametrize(
    "eigenvalues",
    [
        network_spectrum(),
        -network_spectrum(),
        np.abs(network_spectrum()),
        np.linspace(-1, 1, 200),
        np.linspace(1e-9, 1, 100),
        np.concatenate([np.zeros(195), [3.0, 1.0, -4.0, 0.5, 2.0]]),
        np.repeat([5.0, 2.0, -6.0], 60),
    ],
    ids=["network", "largest negative", "smallest near 0", "uniform", "positive", "low rank", "repeated"],
)
@pytest.mark.parametrize("vectors", [None, 12, 24], ids=["no bound", "12 vectors", "24 vectors"])
def test_against_scipy(eigenvalues: np.ndarray, vectors: int | None) -> None:
    matrix = rotated(eigenvalues)
    memory = None if vectors is None else vectors * 8 * len(matrix)
    found = extremes(matrix, memory=memory, max_products=4000)
    assert_right(found, matrix)
    low, high = eigsh(matrix, k=2, which="BE", return_eigenvectors=False, v0=np.ones(len(matrix)))
    scale = max(abs(low), abs(high))
    assert abs(found.lambda_max - high) <= 1e-6 * scale
    assert abs(found.lambda_min - low) <= 1e-6 * scale


@pytest.mark.parametrize("vectors", [None, 8, 16])
def test_float32_is_as_good_as_its_rounding(vectors: int | None) -> None:
    matrix = rotated(network_spectrum())
    memory = None if vectors is None else vectors * 4 * len(matrix)
    found = extremes(matrix, dtype=torch.float32, memory=memory)
    assert_right(found, matrix, rounding=1e-6)
    wide = extremes(matrix, dtype=torch.float64)
    assert found.lambda_max == pytest.approx(wide.lambda_max, abs=1e-6)
    assert found.lambda_min == pytest.approx(wide.lambda_min, abs=1e-6)


def test_the_basis_stays_orthogonal_over_many_restarts() -> None:
    """Without reorthogonalisation the extreme eigenvalues come back as copies, and the bound on products is missed."""
    matrix = rotated(np.concatenate([np.linspace(-1, 1, 300), [40.0, 39.0]]))
    found = extremes(matrix, memory=16 * 8 * len(matrix), tolerance=1e-12, max_products=3000)
    assert_right(found, matrix, tolerance=1e-12)


@pytest.mark.parametrize("ends", ["max", "min", "both"])
def test_an_error_that_will_do(ends: str) -> None:
    """The residual bounds the distance from an eigenvalue; its square by the gap to the next one is the error."""
    values = network_spectrum()
    matrix = rotated(values)
    operator = torch.from_numpy(matrix)
    how: dict[str, Any] = {"device": "cpu", "dtype": torch.float64, "seed": 4, "ends": ends}
    found = extreme_eigenvalues(operator.mv, len(matrix), error=1e-4, **how)
    certain = extreme_eigenvalues(operator.mv, len(matrix), **how)
    expected = np.linalg.eigvalsh(matrix)
    assert found.products < certain.products
    for end, place, value, residual, error in (
        ("max", -1, found.lambda_max, found.lambda_max_residual, found.lambda_max_error),
        ("min", 0, found.lambda_min, found.lambda_min_residual, found.lambda_min_error),
    ):
        if ends not in (end, "both"):
            assert math.isnan(value) and math.isnan(error)
            continue
        gap = abs(expected[place] - expected[-2 if place else 1])
        assert abs(value - expected[place]) <= error <= 1e-4
        assert np.abs(value - expected).min() <= residual
        assert error == pytest.approx(min(residual, 4 * residual**2 / gap), rel=0.3, abs=1e-13)
        assert error < residual + 1e-13


def test_the_error_of_one_of_many_equal_eigenvalues_is_its_residual() -> None:
    """Ritz values next to each other leave no gap; and float32 is asked for more than it has."""
    matrix = rotated(np.concatenate([np.linspace(-1, 1, 60), np.full(3, 2.0), [2.0 + 1e-7]]))
    for dtype, wanted in ((torch.float64, 1e-9), (torch.float32, 1e-9)):
        operator = torch.from_numpy(matrix).to(dtype)
        found = extreme_eigenvalues(operator.mv, 64, device="cpu", dtype=dtype, seed=0, error=wanted)
        eps = torch.finfo(dtype).eps
        assert found.max_converged and found.min_converged
        assert abs(found.lambda_max - 2) <= 1.1e-7 + 100 * eps
        assert abs(found.lambda_min + 1) <= (wanted + 100 * eps) * 2
        assert 0 < found.lambda_max_error <= found.lambda_max_residual + 100 * eps * 2
        assert found.lambda_max_residual <= 2e-4


def test_an_end_is_not_taken_before_the_outermost_of_two_has_shown_itself() -> None:
    """By ten products from this start a Ritz value has settled on -0.2, by a residual that implies an error of 1e-9."""
    rng = np.random.default_rng(0)
    values = np.concatenate([[3.0, 1.5, 0.8], rng.normal(size=35) * 0.02, [-0.2, -0.23]])
    basis = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    operator = torch.from_numpy(basis * values @ basis.T)
    how: dict[str, Any] = {"device": "cpu", "dtype": torch.float64, "error": 1e-4, "ends": "min"}
    found = extreme_eigenvalues(operator.mv, 40, seed=743, **how)
    assert abs(found.lambda_min + 0.23) <= found.lambda_min_error <= 3e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_error_is_below_what_rounding_makes_of_the_products(dtype: torch.dtype) -> None:
    """An outlier alone converges until its residual is rounding, whose square says nothing; and products that are
    rounded more coarsely than the vectors show it by what they lack of symmetry."""
    matrix = rotated(np.concatenate([[50.0], np.linspace(-1, 1, 40)]))
    operator = torch.from_numpy(matrix)
    high = np.linalg.eigvalsh(matrix)[-1]
    how: dict[str, Any] = {"device": "cpu", "dtype": dtype, "error": 1e-6, "ends": "both"}
    for coarse in (dtype, torch.bfloat16):

        def product(v: torch.Tensor, to: torch.dtype = coarse) -> torch.Tensor:
            return operator.mv(v.double()).to(to)

        for seed in range(5):
            found = extreme_eigenvalues(product, len(matrix), seed=seed, rounding=2.0**-8, **how)
            assert abs(found.lambda_max - high) <= found.lambda_max_error


def test_the_seed_decides() -> None:
    matrix = rotated(network_spectrum())
    assert extremes(matrix, seed=3) == extremes(matrix, seed=3)
    assert extremes(matrix, seed=3) != extremes(matrix, seed=4)


def test_the_process_generators_are_untouched() -> None:
    before = torch.get_rng_state()
    extremes(np.eye(20))
    assert torch.equal(torch.get_rng_state(), before)


def counted(operator: Callable[[Tensor], Tensor], calls: list[int]) -> Callable[[Tensor], Tensor]:
    def matvec(v: Tensor) -> Tensor:
        calls.append(1)
        return operator(v)

    return matvec


def test_all_products_are_counted_and_bounded() -> None:
    operator = torch.from_numpy(rotated(np.linspace(-1, 1, 300)))
    calls: list[int] = []
    found = extreme_eigenvalues(
        counted(operator.mv, calls), 300, device="cpu", dtype=torch.float64, seed=0, max_products=40
    )
    assert found.products == len(calls) == 40
    assert not (found.max_converged or found.min_converged)
    assert 0.9 < found.lambda_max < 1
    assert -1 < found.lambda_min < -0.9
    for value, residual in (
        (found.lambda_max, found.lambda_max_residual),
        (found.lambda_min, found.lambda_min_residual),
    ):
        assert 1 - abs(value) <= residual


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_small_dimensions_take_no_more_products_than_needed(dimension: int) -> None:
    found = extremes(np.diag(np.arange(1.0, dimension + 1)))
    assert found.products == dimension + (1 if dimension == 1 else 2)
    assert (found.lambda_min, found.lambda_max) == pytest.approx((1, dimension))


def test_the_zero_operator() -> None:
    found = diagonal(torch.zeros(50, dtype=torch.float64))
    assert found.max_converged and found.min_converged
    assert (found.lambda_max, found.lambda_min, found.lambda_max_residual, found.lambda_min_residual) == (0, 0, 0, 0)


def test_an_operator_that_returns_its_argument() -> None:
    found = extreme_eigenvalues(lambda v: v, 30, device="cpu", dtype=torch.float64, seed=0)
    assert (found.lambda_max, found.lambda_min) == pytest.approx((1, 1), abs=1e-14)


def test_one_outlier_in_many_equal_eigenvalues() -> None:
    """The start vector is an eigenvector of 1 but for 1e-3 in the outlier's direction, within a tolerance of 1e-2."""
    eigenvalues = torch.ones(1_000_000, dtype=torch.float32)
    eigenvalues[123] = -5
    found = extreme_eigenvalues(
        eigenvalues.mul, len(eigenvalues), device="cpu", dtype=torch.float32, seed=0, tolerance=1e-2
    )
    assert found.max_converged and found.min_converged
    assert found.lambda_min == pytest.approx(-5, rel=1e-6)
    assert found.lambda_max == pytest.approx(1, rel=1e-6)


def test_sums_are_wide_however_many_elements() -> None:
    """Several blocks: 1.2 million elements, where a float32 sum loses the fourth digit."""
    eigenvalues = torch.linspace(0, 0.5, 1_200_000, dtype=torch.float32)
    eigenvalues[7], eigenvalues[-3] = -1, 2
    found = diagonal(eigenvalues)
    assert found.max_converged and found.min_converged
    assert (found.lambda_max, found.lambda_min) == pytest.approx((2, -1), abs=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("call", [1, 4])
def test_a_product_that_is_not_finite_leaves_nothing_defined(bad: float, call: int) -> None:
    eigenvalues = torch.linspace(-1, 1, 40, dtype=torch.float64)
    calls: list[int] = []

    def matvec(v: Tensor) -> Tensor:
        calls.append(1)
        return eigenvalues * v * (bad if len(calls) == call else 1)

    found = extreme_eigenvalues(matvec, 40, device="cpu", dtype=torch.float64, seed=0)
    assert not (found.max_converged or found.min_converged)
    assert found.products == call
    values = (found.lambda_max, found.lambda_max_residual, found.lambda_min, found.lambda_min_residual)
    assert all(math.isnan(value) for value in values)


def test_an_operator_that_is_not_symmetric_is_known_by_its_products() -> None:
    matrix = rotated(network_spectrum()) + 0.01 * np.random.default_rng(1).normal(size=(400, 400))
    found = extremes(matrix)
    assert not (found.max_converged or found.min_converged)
    assert found.asymmetry > 0 and found.products < 10 and math.isnan(found.lambda_max)


@pytest.mark.parametrize("vectors", [None, 8])
def test_a_slight_asymmetry_is_found_and_rounding_is_none(vectors: int | None) -> None:
    symmetric = rotated(np.linspace(-1, 5, 60))
    memory = None if vectors is None else vectors * 60 * 8  # with so few, it restarts
    assert extremes(symmetric, memory=memory).asymmetry == 0
    askew = symmetric.copy()
    askew[3] += 1e-4 * np.random.default_rng(2).normal(size=60)
    assert 1e-6 < extremes(askew, memory=memory).asymmetry < 1e-3


#: A crowd at 0, as the Hessians of networks have it, and eight large eigenvalues.
CROWDED = np.concatenate([0.01 * np.abs(np.random.default_rng(0).normal(size=600)) ** 3, np.linspace(1, 20, 8)])


def test_an_end_that_converged_is_given_whatever_becomes_of_the_other() -> None:
    operator = torch.from_numpy(rotated(CROWDED))
    found = extreme_eigenvalues(operator.mv, len(CROWDED), device="cpu", dtype=torch.float64, seed=0, max_products=60)
    assert found.products == 60 and found.max_converged and not found.min_converged
    assert abs(found.lambda_max - 20) <= found.lambda_max_residual + 1e-12


@pytest.mark.parametrize("end", ["max", "min"])
def test_one_end_alone_takes_no_more_products_than_it_needs(end: str) -> None:
    operator = torch.from_numpy(rotated(CROWDED))
    found, both = (
        extreme_eigenvalues(operator.mv, len(CROWDED), device="cpu", dtype=torch.float64, seed=0, ends=ends)
        for ends in (end, "both")
    )
    value = getattr(found, f"lambda_{end}")
    assert value == pytest.approx(getattr(both, f"lambda_{end}"), abs=2 * both.bound)
    assert getattr(found, f"{end}_converged")
    other = "min" if end == "max" else "max"
    assert math.isnan(getattr(found, f"lambda_{other}")) and not getattr(found, f"{other}_converged")
    assert found.products < both.products / 4 if end == "max" else found.products == both.products - 1


@pytest.mark.parametrize("ends", ["max", "min", "both"])
def test_one_dimension_has_one_eigenvalue(ends: str) -> None:
    found = diagonal(torch.tensor([3.0], dtype=torch.float64), ends=ends)
    for end in ("max", "min"):
        assert getattr(found, f"{end}_converged") is (ends in (end, "both"))
        assert not getattr(found, f"{end}_converged") or getattr(found, f"lambda_{end}") == 3
    assert found.products == 2


def test_options_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match=r"79 bytes hold 0 vectors of 10 elements.*give 480 at least"):
        extremes(np.eye(10), memory=79)
    with pytest.raises(UsageError, match="max_products is 2"):
        extremes(np.eye(10), max_products=2)
