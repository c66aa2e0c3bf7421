"""--sample own, previous, probe, full: every column against tests/helpers/dense_samples.py, and laws between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dense_samples import GEOMETRY, SAMPLES, mean_with_errors, on_each_batch
from frames import assert_accounted, assert_close, col
from plain_run_files import Outcome
from run_files import write_probe
from sample_cases import (
    SPECS,
    accounted,
    analyzed,
    assert_same_values,
    assert_table,
    network_records,
    probe_batches,
    rows_of,
    written,
)

PROBE = probe_batches()


def assert_report(report: Any, task: Any, samples: Sequence[str]) -> None:
    """Both tables, on each of the samples."""
    assert set(report.steps["sample"]) == set(report.references["sample"]) == set(samples)
    for sample in samples:
        expected = SAMPLES[sample](task)
        assert_table(rows_of(report.steps, sample), expected.steps, f"steps on {sample}")
        for spec, columns in expected.references.items():
            assert_table(rows_of(report.references, sample, spec), columns, f"{spec} on {sample}")


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_column_on_one_sample(sample: str, tmp_path: Path) -> None:
    run, objective, task = written(tmp_path, network_records(), PROBE, name="with_data")
    assert_report(analyzed(run, objective, tmp_path / "report", sample=(sample,)), task, [sample])


def test_every_column_on_all_samples_at_once(tmp_path: Path) -> None:
    run, objective, task = written(tmp_path, network_records(), PROBE, name="with_data", ref_gradients=True, points=3)
    options = {"sample": tuple(SAMPLES), "ref_gradients": True, "path_integral": 3}
    assert_report(analyzed(run, objective, tmp_path / "report", **options), task, list(SAMPLES))


def test_every_column_on_pairs_of_steps(tmp_path: Path) -> None:
    """Chords of one step every five: the weights differ, and every second row has neither d_t nor z_{t-1}."""
    records = network_records(20, steps=[0, 1, 5, 6, 10, 11, 15, 16, 20])
    run, objective, task = written(tmp_path, records, PROBE)
    samples = ("own", "previous", "probe")
    assert_report(analyzed(run, objective, tmp_path / "report", sample=samples), task, samples)


def test_every_empty_cell_is_accounted_for(tmp_path: Path) -> None:
    """Those of columns that only other samples have, too."""
    run, objective, _ = written(tmp_path, network_records(), PROBE, name="with_data")
    report = analyzed(run, objective, tmp_path / "report", sample=tuple(SAMPLES), path_integral=2)
    for table, frame in (("steps", report.steps), ("references", report.references)):
        assert_accounted(report.undefined, table, frame, frame.select_dtypes("number"))


def test_the_own_sample_is_the_default_and_unchanged_by_others(tmp_path: Path) -> None:
    run, objective, _ = written(tmp_path, network_records(), PROBE, name="with_data")
    alone = analyzed(run, objective, tmp_path / "alone")
    among = analyzed(run, objective, tmp_path / "among", sample=("own", "previous", "probe", "full"))
    assert set(alone.steps["sample"]) == {"own"}
    assert_same_values(alone.steps, rows_of(among.steps, "own"))
    for spec in SPECS:
        assert_same_values(rows_of(alone.references, "own", spec), rows_of(among.references, "own", spec))


def test_descent_on_the_previous_sample_is_that_of_the_step_before(tmp_path: Path) -> None:
    """z_{t-1} is the sample that made d_t: <grad f(x_{t-1}; z_{t-1}), d_t> = -|d_t|^2 / eta in plain SGD."""
    rate = 0.1
    run, objective, _ = written(tmp_path, network_records(rate=rate))
    steps = analyzed(run, objective, tmp_path / "report", sample=("own", "previous")).steps
    own, previous = rows_of(steps, "own"), rows_of(steps, "previous")
    assert_close(previous, "descent", col(own, "descent"))
    assert_close(previous, "descent", -(col(own, "step_norm") ** 2) / rate)


@pytest.mark.parametrize("sample", ["previous", "probe", "full"])
def test_loss_changes_less_update_correlations_are_the_gaps(sample: str, tmp_path: Path) -> None:
    run, objective, _ = written(tmp_path, network_records(), PROBE, name="with_data")
    rows = rows_of(analyzed(run, objective, tmp_path / "report", sample=(sample,)).steps, sample)
    gap = col(rows, "inst_gap")
    here = ~np.isnan(gap)
    assert here.sum() == 16
    left = (col(rows, "loss_change_sum") - col(rows, "update_corr_sum"))[here]
    np.testing.assert_allclose(left, np.cumsum(gap[here]), rtol=1e-9, atol=1e-12)


def error_columns(frame: pd.DataFrame) -> list[str]:
    names = [name for name in frame if str(name).endswith("_se")]
    assert names
    return [str(name) for name in names]


def test_a_probe_of_copies_of_one_batch_is_that_batch_without_error(tmp_path: Path) -> None:
    task = written(tmp_path / "many", network_records(), [PROBE[0]] * 5)
    one = on_each_batch(task[2])[0]
    report = analyzed(task[0], task[1], tmp_path / "report", sample=("probe",))
    tables = [(report.steps, one.steps), *((rows_of(report.references, "probe", s), one.references[s]) for s in SPECS)]
    for frame, columns in tables:
        assert_table(frame, columns, "one batch", [name for name in columns if name in frame])
        for name in error_columns(frame):
            error, values = col(frame, name), col(frame, name.removesuffix("_se"))
            assert (np.isnan(error) == np.isnan(values)).all(), name
            largest = np.nanmax(np.abs(values), initial=0.0)
            assert np.nanmax(error, initial=0.0) <= 1e-14 * largest, name


def test_one_probe_batch_has_no_error(tmp_path: Path) -> None:
    run, objective, task = written(tmp_path, network_records(), PROBE[:1])
    report = analyzed(run, objective, tmp_path / "report", sample=("probe",))
    one = on_each_batch(task)[0]
    assert_close(report.steps, "loss", one.steps["loss"])
    rows = rows_of(report.references, "probe", "final")
    assert_close(rows, "cos", one.references["final"]["cos"])
    for table, frame, name in (("steps", report.steps, "loss_se"), ("references", rows, "cos_se")):
        assert np.isnan(col(frame, name)).all()
        assert accounted(report, table, name) >= set(frame["step"])


def test_probe_batches_in_several_files_are_read_in_order(tmp_path: Path) -> None:
    run, objective, task = written(tmp_path, network_records(), PROBE[:4])
    write_probe(run, PROBE[4:], number=1)
    task.probe = PROBE
    assert_report(analyzed(run, objective, tmp_path / "report", sample=("probe",)), task, ["probe"])


def test_full_is_the_mean_over_the_data_set_by_the_number_of_examples(tmp_path: Path) -> None:
    """On a probe of the data set's own batches, those of equal size alone: the same losses."""
    run, objective, task = written(tmp_path, network_records(), PROBE, name="with_data")
    loss = col(analyzed(run, objective, tmp_path / "report", sample=("full",)).steps, "loss")
    losses = np.array([[task.program.f(record.x, batch) for batch in task.program.data] for record in task.records])
    np.testing.assert_allclose(loss, losses @ [4, 4, 3] / 11, rtol=1e-12)
    assert np.abs(loss / losses.mean(axis=1) - 1).max() > 1e-3


def test_the_command_line_takes_several_samples(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    run, objective, _ = written(tmp_path, network_records(), PROBE)
    outcome = cli(
        *("analyze", run, "--objective", objective, "--sample", "own", "--sample", "probe"),
        *("--out", tmp_path / "report", "--quiet"),
    )
    assert outcome.code == 0, outcome.err
    for name in ("steps", "references"):
        assert set(pd.read_csv(tmp_path / "report" / f"{name}.csv")["sample"]) == {"own", "probe"}


def test_a_probe_that_was_not_recorded_is_asked_for_in_vain(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    run, objective, _ = written(tmp_path, network_records())
    outcome = cli(
        *("analyze", run, "--objective", objective, "--sample", "own", "--sample", "probe"),
        *("--out", tmp_path / "report"),
    )
    assert outcome.code in (2, 3, 4)
    assert "recorder.probe" in outcome.err.lower()


def test_full_without_a_data_set_is_asked_for_in_vain(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    run, objective, _ = written(tmp_path, network_records())
    outcome = cli("analyze", run, "--objective", objective, "--sample", "full", "--out", tmp_path / "report")
    assert outcome.code in (2, 3, 4)
    assert "batches" in outcome.err and "full" in outcome.err


@pytest.mark.parametrize("sample", ["previous", "probe", "full"])
def test_other_samples_need_an_objective(sample: str, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    run, _, _ = written(tmp_path, network_records(), PROBE)
    outcome = cli("analyze", run, "--sample", sample, "--out", tmp_path / "report")
    assert outcome.code in (2, 3, 4)
    assert "--objective" in outcome.err


def test_an_unknown_sample_is_a_usage_error(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    run, objective, _ = written(tmp_path, network_records())
    outcome = cli("analyze", run, "--objective", objective, "--sample", "prob", "--out", tmp_path / "report")
    assert outcome.code == 2
    assert all(name in outcome.err for name in ("prob", "own", "previous", "probe", "full"))


# -- the errors themselves ----------------------------------------------------------------------------------------

BOOTSTRAPPED = {
    "steps": ("loss", "inst_gap", "inst_smooth"),
    "init": ("loss", "inst_gap", "rsi", "cos", "convexity_ratio"),
    "final": ("loss", "inst_gap", "rsi", "cos", "convexity_ratio"),
}


def test_the_standard_errors_are_those_of_a_bootstrap(tmp_path: Path) -> None:
    """Within 20% of 1,000 draws of B batches out of B = 10, with replacement.

    A draw's variance is that around the 10 batches' mean divided by 10, and not by 9: the bootstrap's standard
    deviation is sqrt(9/10) of the standard error by construction, and is divided by it here. 1,000 draws give it to
    1/sqrt(2000) = 2%. The jackknife agrees with it to first order in the spread of the denominator, whose error on the
    rows compared is less than a sixth of it.
    """
    run, objective, task = written(tmp_path, network_records(), PROBE)
    report = analyzed(run, objective, tmp_path / "report", sample=("probe",))
    each, count = on_each_batch(task), len(PROBE)
    draws = np.random.default_rng(0).integers(count, size=(1000, count))
    for table, names in BOOTSTRAPPED.items():
        steps = table == "steps"
        columns = [tables.steps if steps else tables.references[table] for tables in each]
        frame = report.steps if steps else rows_of(report.references, "probe", table)
        by_name = {name: np.array([one[name] for one in columns]) for name in columns[0]}
        sure = mean_with_errors(columns, each[0].pairs if steps else each[0].points)
        for name in names:
            if name == "convexity_ratio":
                num, den = (by_name[f"convexity_{part}"][draws].sum(axis=1) for part in ("num", "den"))
                drawn = num / np.where(den == 0, np.nan, den)
                rows = 6 * sure["convexity_den_se"] < np.abs(sure["convexity_den"])
            else:
                drawn = by_name[name][draws].mean(axis=1)
                rows = sure[f"{name}_se"] > 1e-9  # x_t = x* has no gap, on any batch
            bootstrap = drawn.std(axis=0) / np.sqrt((count - 1) / count)
            error = col(frame, f"{name}_se")
            rows &= ~np.isnan(sure[name])
            assert rows.sum() >= 5, f"{table} {name}"
            np.testing.assert_allclose(error[rows], bootstrap[rows], rtol=0.2, err_msg=f"{table} {name}")


def test_what_does_not_depend_on_the_sample_has_no_error(tmp_path: Path) -> None:
    run, objective, _ = written(tmp_path, network_records(), PROBE)
    report = analyzed(run, objective, tmp_path / "report", sample=("own", "probe"))
    for frame in (report.steps, report.references):
        assert not {f"{name}_se" for name in GEOMETRY} & set(frame.columns)
        assert np.isnan(frame.loc[frame["sample"] == "own", error_columns(frame)].to_numpy(dtype=float)).all()
