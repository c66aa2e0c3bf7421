"""window_num and its like: sums over ALL steps from every 50th record, against the whole path kept in the test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dense import Record, Reference, flat
from dense_samples import every_step_num, skipped_num, windows
from frames import assert_close, col, towards
from handwritten import cut, write_run
from quadratics import Layout, Quadratic, descend, keep
from run_files import amend
from safetensors.numpy import save_file
from sample_cases import accounted

import trajcheck

LAST, EVERY, SIZE = 400, 50, 30
RECORDED = list(range(0, LAST + 1, EVERY))
LAYOUT: Layout = {"first.weight": (5, 4), "first.bias": (5,), "second": (5,)}


def whole_path(dtype: type[np.floating[Any]] = np.float64, clip: float = 1.0) -> list[Record]:
    """Every step of noisy descent on a quadratic, its numbers rounded to the dtype that they are recorded in."""
    quadratic = Quadratic.with_spectrum(np.geomspace(0.01, 2.0, SIZE).tolist(), seed=6)
    rng = np.random.default_rng(7)
    samples = quadratic.samples(LAST, rng)
    records = descend(quadratic, 3 * rng.normal(size=SIZE), samples, [0.05] * LAST, clip=clip)
    for record in records:
        record.z = None
        record.x = flat(record.x).astype(dtype)
        record.g = None if record.g is None else flat(record.g).astype(dtype)
    return records


def windowed(folder: Path, every: Sequence[Record], dtype: type[np.floating[Any]] = np.float64, **meta: Any) -> Path:
    """Every 50th record, with the sums over the steps since the one before; gradients summed one by one in `dtype`."""
    run = write_run(folder / "run", keep(every, RECORDED), LAYOUT, dtype=dtype)
    for sums in windows(every, RECORDED):
        total = np.zeros(SIZE, dtype=dtype)
        for record in every[sums.start : sums.stop]:
            assert record.g is not None
            total += (np.asarray(record.g) / dtype(record.clip)).astype(dtype)
        tensors = {f"window/{name}": value for name, value in cut(total, LAYOUT).items()}
        amend(run, sums.stop, tensors, window={**sums.meta(), **meta})
    return run


def analyzed(run: Path, folder: Path, refs: Sequence[str] = ("final",), **options: Any) -> Any:
    return trajcheck.analyze(run, refs, out=folder / "report", **options)


def references_of(every: Sequence[Record], folder: Path) -> dict[str, Reference]:
    """Points that nobody knew of while the sums were made."""
    file = folder / "afterwards.safetensors"
    somewhere = np.random.default_rng(1).normal(size=SIZE)
    save_file(cut(somewhere, LAYOUT), file)
    points = {"final": LAST, "init": 0, "step:150": 150}
    return {**{spec: Reference(every[step].x) for spec, step in points.items()}, str(file): Reference(somewhere)}


@pytest.mark.parametrize("clip", [1.0, 0.5])
def test_the_numerator_over_all_steps(clip: float, tmp_path: Path) -> None:
    every = whole_path(clip=clip)
    references = references_of(every, tmp_path)
    report = analyzed(windowed(tmp_path, every), tmp_path, list(references))
    for spec, ref in references.items():
        rows = towards(report.references, spec)
        assert_close(rows, "window_num", every_step_num(every, flat(ref.x), RECORDED), spec)


def test_the_numerator_from_float32_sums(tmp_path: Path) -> None:
    every = whole_path(np.float32)
    references = references_of(every, tmp_path)
    report = analyzed(windowed(tmp_path, every, np.float32), tmp_path, list(references))
    for spec, ref in references.items():
        rows = towards(report.references, spec)
        assert_close(rows, "window_num", every_step_num(every, flat(ref.x), RECORDED), spec, relative=1e-6)


def test_the_form_without_the_steps_own_terms(tmp_path: Path) -> None:
    """sum <G, x_k' - x*>: x_k' lies behind every gradient of its window."""
    every = whole_path()
    references = references_of(every, tmp_path)
    report = analyzed(windowed(tmp_path, every), tmp_path, list(references))
    for spec, ref in references.items():
        rows = towards(report.references, spec)
        assert_close(rows, "window_num_skip", skipped_num(windows(every, RECORDED), every, flat(ref.x)), spec)


def test_the_sums_of_losses_and_squared_gradients(tmp_path: Path) -> None:
    every = whole_path(clip=0.5)
    steps = analyzed(windowed(tmp_path, every), tmp_path).steps
    sums = windows(every, RECORDED)
    assert_close(steps, "window_loss_sum", np.cumsum([0.0, *(window.loss for window in sums)]))
    assert_close(steps, "window_grad_sq_sum", np.cumsum([0.0, *(window.grad_sq for window in sums)]))


def test_losses_that_were_not_summed_leave_the_numerator_alone(tmp_path: Path) -> None:
    every = whole_path()
    report = analyzed(windowed(tmp_path, every, loss_sum=None), tmp_path)
    assert np.isnan(col(report.steps, "window_loss_sum")[1:]).all()
    assert not np.isnan(col(towards(report.references, "final"), "window_num")).any()


WINDOWED = {"references": ("window_num", "window_num_skip"), "steps": ("window_loss_sum", "window_grad_sq_sum")}


def assert_filled_before(report: Any, whole: Any, end: int) -> None:
    """The values of the whole run up to row `end`; from there on none, and a reason for each."""
    for table, names in WINDOWED.items():
        frame, full = getattr(report, table), getattr(whole, table).set_index("step")
        for name in names:
            values, steps = col(frame, name), frame["step"].to_numpy()
            before = steps < end
            np.testing.assert_array_equal(values[before], full.loc[steps[before], name], err_msg=name)
            assert np.isnan(values[steps >= end]).all(), name
            assert accounted(report, table, name) >= set(steps[steps >= end]), name


def test_a_missing_record_ends_the_sums(tmp_path: Path) -> None:
    """The window of record 250 begins at 200, whose x nobody has any more."""
    run = windowed(tmp_path, whole_path())
    whole = analyzed(run, tmp_path / "whole")
    (run / "step-000000200.safetensors").unlink()
    assert_filled_before(analyzed(run, tmp_path / "part"), whole, 250)


def test_a_record_without_a_window_ends_the_sums(tmp_path: Path) -> None:
    every = whole_path()
    run = windowed(tmp_path, every)
    whole = analyzed(run, tmp_path / "whole")
    bare = write_run(tmp_path / "bare", keep(every, RECORDED), LAYOUT)
    name = "step-000000200.safetensors"
    (run / name).write_bytes((bare / name).read_bytes())
    assert_filled_before(analyzed(run, tmp_path / "part"), whole, 200)


def test_rows_that_are_left_out_end_the_sums(tmp_path: Path) -> None:
    run = windowed(tmp_path, whole_path())
    whole = analyzed(run, tmp_path / "whole")
    assert_filled_before(analyzed(run, tmp_path / "part", steps="::100"), whole, 100)


def test_rows_up_to_some_step_have_the_sums_of_the_whole(tmp_path: Path) -> None:
    run = windowed(tmp_path, whole_path())
    whole = analyzed(run, tmp_path / "whole")
    part = analyzed(run, tmp_path / "part", steps=":225")
    assert part.steps["step"].tolist() == RECORDED[:5]
    assert_filled_before(part, whole, 225)


def test_without_windows_there_are_no_such_columns(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", keep(whole_path(), RECORDED), LAYOUT)
    report = analyzed(run, tmp_path)
    assert not {*WINDOWED["steps"], *WINDOWED["references"]} & {*report.steps.columns, *report.references.columns}
