"""loss_change_known and sums with it as a control variate, on probe batches and the whole data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dense import rows_error, running_sum
from dense_samples import SAMPLES, jackknife_of_ratio, on_each_batch
from frames import col
from sample_cases import analyzed, network_records, probe_batches, rows_of, written

PROBE = probe_batches()
PAIRS = [0, 1, 5, 6, 10, 11, 15, 16, 20]
NAMES = {"update_corr_controlled_sum": "update_corr", "descent_controlled_sum": "descent"}


@pytest.fixture(scope="module")
def thinned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("thinned")
    run, objective, task = written(folder, network_records(20, steps=PAIRS), PROBE, name="with_data")
    return analyzed(run, objective, folder / "report", sample=("own", "probe", "full")), task


def known_of(steps: dict[str, np.ndarray]) -> np.ndarray:
    """f(x_t) - f(x_0); in the last row that has loss_change, which stands for all updates that are left, f(x_T)."""
    known = steps["loss"] - steps["loss"][0]
    known[last_of(steps)] = known[-1]
    return known


def last_of(steps: dict[str, np.ndarray]) -> int:
    return int(np.flatnonzero(~np.isnan(steps["loss_change"]))[-1])


def controlled(steps: dict[str, np.ndarray], terms: str, weigh: Any) -> tuple[np.ndarray, np.ndarray]:
    """The sum and its error, on one sample that stands still."""
    known = known_of(steps)
    gap = steps[terms] - steps["loss_change"]
    gaps, changes = running_sum(gap, weigh), running_sum(steps["loss_change"], weigh)
    share = np.minimum(np.abs(gaps) / np.abs(changes), 1)
    return known + gaps, rows_error(gap, weigh, share * (known - changes))


def test_on_the_whole_data_set(thinned: tuple[Any, Any]) -> None:
    report, task = thinned
    found, tables = rows_of(report.steps, "full"), SAMPLES["full"](task)
    known = tables.steps["loss"] - tables.steps["loss"][0]
    np.testing.assert_allclose(col(found, "loss_change_known"), known, rtol=1e-9, atol=1e-13)
    for name, terms in NAMES.items():
        value, error = controlled(tables.steps, terms, tables.pairs)
        np.testing.assert_allclose(col(found, name), value, rtol=1e-9)
        np.testing.assert_allclose(col(found, f"{name}_rows_se"), error, rtol=1e-7)
    value, error = controlled(tables.steps, "update_corr", tables.pairs)
    known = known_of(tables.steps)
    np.testing.assert_allclose(col(found, "convexity_ratio_controlled"), value / known, rtol=1e-9)
    np.testing.assert_allclose(col(found, "convexity_ratio_controlled_rows_se"), error / np.abs(known), rtol=1e-7)


def test_over_probe_batches(thinned: tuple[Any, Any]) -> None:
    report, task = thinned
    found, each = rows_of(report.steps, "probe"), on_each_batch(task)
    known = np.array([tables.steps["loss"] - tables.steps["loss"][0] for tables in each])
    np.testing.assert_allclose(col(found, "loss_change_known"), known.mean(axis=0), rtol=1e-9, atol=1e-13)
    spread = known.std(axis=0, ddof=1) / len(each) ** 0.5
    np.testing.assert_allclose(col(found, "loss_change_known_se"), spread, rtol=1e-7, atol=1e-13)
    sums = np.array([controlled(tables.steps, "update_corr", tables.pairs)[0] for tables in each])
    np.testing.assert_allclose(col(found, "update_corr_controlled_sum"), sums.mean(axis=0), rtol=1e-9)
    last = last_of(each[0].steps)
    ratio, error = jackknife_of_ratio(sums[:, last], known[:, -1])
    assert col(found, "convexity_ratio_controlled")[last] == pytest.approx(ratio, rel=1e-9)
    assert col(found, "convexity_ratio_controlled_se")[last] == pytest.approx(error, rel=1e-7)


def test_own_samples_know_no_sum_beforehand(thinned: tuple[Any, Any]) -> None:
    found = rows_of(thinned[0].steps, "own")
    for name in ("loss_change_known", *NAMES, "convexity_ratio_controlled"):
        assert np.isnan(col(found, name)).all()


@pytest.mark.parametrize("sample", ["probe", "full"])
def test_of_every_step_the_sum_is_the_known_one(sample: str, tmp_path: Path) -> None:
    run, objective, _ = written(tmp_path, network_records(), PROBE, name="with_data")
    found = rows_of(analyzed(run, objective, tmp_path / "report", sample=(sample,)).steps, sample)
    np.testing.assert_allclose(col(found, "loss_change_known")[1:], col(found, "loss_change_sum")[1:], rtol=1e-9)
    assert "update_corr_controlled_sum" not in found


def test_the_true_sum_is_nearer_to_the_controlled_one(thinned: tuple[Any, Any], tmp_path: Path) -> None:
    """And the error of the plain one, which knows what its rows missed, covers it."""
    run, objective, _ = written(tmp_path, network_records(20), PROBE, name="with_data")
    whole = rows_of(analyzed(run, objective, tmp_path / "report", sample=("full",)).steps, "full")
    some = rows_of(thinned[0].steps, "full")
    truth = last_value(whole, "update_corr_sum")
    plain, better = (last_value(some, name) for name in ("update_corr_sum", "update_corr_controlled_sum"))
    assert abs(better - truth) < abs(plain - truth) / 2
    assert abs(better - truth) <= 3 * last_value(some, "update_corr_controlled_sum_rows_se")
    assert abs(plain - truth) <= 3 * last_value(some, "update_corr_sum_rows_se")


def last_value(frame: Any, name: str) -> float:
    values = col(frame, name)
    return float(values[~np.isnan(values)][-1])
