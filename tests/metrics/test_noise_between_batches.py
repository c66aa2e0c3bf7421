"""trajcheck.metrics.formulas.noise on batches of known mean and covariance: without bias, with errors that cover, and
undetermined where they say nothing."""

from __future__ import annotations

import numpy as np
import pytest
from dense_noise import noise

from trajcheck.metrics.batches import ONE_BATCH, TWO_BATCHES, Batches
from trajcheck.metrics.columns import Column
from trajcheck.metrics.formulas import noise as formulas

NAMES = ("grad_true_sq", "noise_trace", "noise_scale", "coherence", "batch_cos", "growth", "batch_grad_sq")


def batches(gradients: np.ndarray, sizes: np.ndarray, averaged: float = 1.0) -> Batches:
    """Of gradients [m, rows, n] and sizes [m]; a NaN gradient is a batch that the row does not have."""
    here = ~np.isnan(gradients[..., 0])
    known = np.where(here[..., None], gradients, 0.0)
    norms = np.linalg.norm(known, axis=2)
    units = known / np.where(norms > 0, norms, 1.0)[..., None]

    def of(values: np.ndarray) -> np.ndarray:
        return np.where(here, values, np.nan)

    return Batches(
        of(norms**2),
        of((known * known.sum(axis=0)).sum(axis=2)),
        of((known * units.sum(axis=0)).sum(axis=2)),
        of(np.broadcast_to(sizes[:, None], here.shape)),
        of(np.full(here.shape, averaged)),
        np.full(here.shape[1], "", dtype=object),
    )


def columns(found: Batches) -> dict[str, Column]:
    return {f"{name}{end}": each for name in NAMES for end, each in getattr(formulas, name)(found).items()}


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """10^4 rows of 24 batches of unequal sizes: mean and covariance of one example, sizes, gradients [m, rows, n]."""
    stream = np.random.default_rng(7)
    mean = 0.1 * stream.normal(size=8)
    root = stream.normal(size=(8, 8)) * 0.3 * np.exp(0.5 * stream.normal(size=8))
    sizes = np.tile([4.0, 8, 16, 8, 4, 12, 8, 8, 16, 4, 8, 8], 2)
    noises = stream.normal(size=(24, 10_000, 8)) @ root.T
    return mean, root @ root.T, sizes, mean + noises / np.sqrt(sizes)[:, None, None]


def test_without_bias_over_ten_thousand_draws(drawn: tuple[np.ndarray, ...]) -> None:
    """Far below the noise: |grad f|^2 is a fiftieth of what |g|^2 shows."""
    mean, covariance, sizes, gradients = drawn
    found = columns(batches(gradients, sizes))
    plain = (np.linalg.norm(gradients, axis=2) ** 2).mean()
    for name, truth in (("grad_true_sq", mean @ mean), ("noise_trace", np.trace(covariance))):
        values = found[name].values
        assert abs(values.mean() - truth) < 3 * values.std() / 100, name
        missed = np.abs(values - truth) > 2 * found[f"{name}_se"].values
        assert 0.88 < 1 - missed.mean() < 0.99, (name, 1 - missed.mean())
    assert plain > 5 * (mean @ mean)
    assert (found["grad_true_sq"].values < 0).any(), "an estimate without bias of a small square is below 0 at times"


def test_ratios_are_undetermined_and_never_infinite(drawn: tuple[np.ndarray, ...]) -> None:
    _, _, sizes, gradients = drawn
    found = columns(batches(gradients[:, :300], sizes))
    value, error = found["grad_true_sq"], found["grad_true_sq_se"]
    unsure = ~(value.values > error.values)
    assert 30 < unsure.sum() < 290
    for name in ("growth", "noise_scale"):
        ratio = found[name]
        assert set(ratio.reasons[unsure]) == {formulas.UNDETERMINED}
        assert set(ratio.reasons[~unsure]) <= {"", formulas.ON_ONE}
        assert np.isfinite(ratio.values[ratio.reasons == ""]).all() and (ratio.reasons == "").any()
    assert found["coherence"].whole and found["batch_cos"].whole


def test_against_pairs_and_leaving_one_out(drawn: tuple[np.ndarray, ...]) -> None:
    """Rows of 12, of 5 and of 3 batches beside one another."""
    _, _, sizes, gradients = drawn
    some = gradients[:12, :12].copy() + 1.0
    sizes = sizes[:12]
    some[5:, 4:8] = np.nan
    some[3:, 8:] = np.nan
    found = columns(batches(some, sizes))
    for row in range(12):
        here = ~np.isnan(some[:, row, 0])
        expected = noise(some[here, row], sizes[here].tolist())
        for name, value in expected.items():
            np.testing.assert_allclose(found[name].values[row], value, rtol=1e-9, err_msg=f"{name}, row {row}")


def test_too_few_batches_say_so() -> None:
    gradients = np.ones((2, 2, 3)) * np.array([1.0, 2.0])[:, None, None]
    gradients[1, 0] = np.nan
    found = columns(batches(gradients, np.array([4.0, 4.0])))
    assert {each.reasons[0] for each in found.values()} == {ONE_BATCH}
    assert found["grad_true_sq"].values[1] == pytest.approx(6.0)
    assert found["batch_cos"].values[1] == pytest.approx(1.0)
    assert found["grad_true_sq_se"].reasons[1] == found["coherence_se"].reasons[1] == TWO_BATCHES
    assert found["growth"].reasons[1] == found["noise_scale"].reasons[1] == formulas.NO_ERROR


def test_gradients_of_zero() -> None:
    gradients = np.ones((4, 2, 3))
    gradients[:, 0] = 0
    gradients[2, 1] = 0
    found = columns(batches(gradients, np.full(4, 2.0)))
    assert found["coherence"].reasons[0] == formulas.NO_GRADIENTS
    assert found["growth"].reasons[0] == formulas.UNDETERMINED
    assert found["grad_true_sq"].values[0] == found["noise_trace"].values[0] == 0
    assert list(found["batch_cos"].reasons) == [formulas.A_ZERO] * 2
    assert found["grad_true_sq"].values[1] == pytest.approx(1.5)  # half of the pairs


def test_batches_that_are_alike_have_no_trace_of_rounding() -> None:
    stream = np.random.default_rng(3)
    mean, off = stream.normal(size=500), stream.normal(size=(4, 3, 500))
    found = columns(batches(mean + np.array([0.0, 1e-9, 1e-5])[:, None] * off, np.full(4, 2.0)))
    for name in ("noise_trace", "noise_trace_se", "noise_scale"):
        assert list(found[name].reasons[:2]) == [formulas.ROUNDED] * 2, name
    expected = 2 * 1e-10 * off[:, 2].var(axis=0, ddof=1).sum()
    assert found["noise_trace"].values[2] == pytest.approx(expected, rel=1e-3)
    assert found["grad_true_sq"].values[:2] == pytest.approx((mean**2).sum())


def test_what_a_batch_counts_is_known_or_not_said(drawn: tuple[np.ndarray, ...]) -> None:
    """A sum has no trace of one example's noise here, but the same scale; unequal sizes of no mean have nothing."""
    _, _, sizes, gradients = drawn
    some, alike = gradients[:, :5] + 2.0, np.full(24, 8.0)
    mean, total = columns(batches(some, alike)), columns(batches(8 * some, alike, averaged=0.0))
    assert set(total["noise_trace"].reasons) == {formulas.A_SUM}
    np.testing.assert_allclose(total["noise_scale"].values, mean["noise_scale"].values)
    np.testing.assert_allclose(total["growth_se"].values, mean["growth_se"].values)
    unsaid = columns(batches(some, alike, averaged=np.nan))
    assert set(unsaid["noise_trace"].reasons) == set(unsaid["noise_scale"].reasons) == {formulas.NO_MEAN}
    np.testing.assert_array_equal(unsaid["grad_true_sq"].values, mean["grad_true_sq"].values)
    unequal = columns(batches(some, sizes, averaged=np.nan))
    assert {set(each.reasons) == {formulas.UNEQUAL} for n, each in unequal.items() if "cos" not in n} == {True}
    assert unequal["batch_cos"].whole
    nameless = columns(batches(some, np.full(24, np.nan), averaged=np.nan))
    assert set(nameless["noise_trace"].reasons) == {formulas.NO_SIZE} and nameless["growth"].whole


def test_scaling_the_loss(drawn: tuple[np.ndarray, ...]) -> None:
    _, _, sizes, gradients = drawn
    one, other = (columns(batches(factor * gradients[:, :50], sizes)) for factor in (1.0, 10.0))
    for name, each in one.items():
        power = 2 if name.startswith(("grad_true_sq", "noise_trace", "batch_grad_sq")) else 0
        np.testing.assert_allclose(other[name].values, 10.0**power * each.values, rtol=1e-9, err_msg=name)
