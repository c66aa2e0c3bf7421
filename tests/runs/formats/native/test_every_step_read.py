"""every-step.f64 as it is read: what it tells of a run, what of it is refused, what copies and checks of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from plain_run_files import write_plain_step

import trajcheck
from trajcheck.errors import RunError
from trajcheck.runs.formats.native.every_step import read_every_step
from trajcheck.runs.trajectory import open_trajectory

RECORDED = (0, 3, 4, 9)
NAN = np.nan


def numbers(steps: int = 9) -> np.ndarray:
    stream = np.random.default_rng(0)
    return stream.uniform(0.5, 2.0, (steps, 4))


def written(folder: Path, rows: np.ndarray) -> Path:
    """A run of some steps, without tau and windows, and the numbers of all of them."""
    folder.mkdir()
    stream = np.random.default_rng(1)
    for step in RECORDED:
        tensors = {f"{kind}/w": stream.normal(size=5) for kind in ("param", "grad")[: 1 + (step < 9)]}
        own = {"loss": rows[step, 0], "lr": [rows[step, 1]]} if step < 9 else {}
        write_plain_step(folder, step, tensors, **own)
    rows.astype("<f8").tofile(folder / "every-step.f64")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("every-step") / "run", numbers())


def test_times_and_losses_of_all_steps(run: Path, tmp_path: Path) -> None:
    rows = numbers()
    report = trajcheck.analyze(run, out=tmp_path / "report", objective="none")
    steps = report.steps[report.steps["sample"] == "own"].set_index("step")
    for step in RECORDED:
        assert steps.loc[step, "tau"] == pytest.approx(rows[:step, 1].sum(), rel=1e-14)
        assert steps.loc[step, "window_loss_sum"] == pytest.approx(rows[:step, 0].sum(), rel=1e-14)
    assert "window_grad_sq_sum" not in steps
    log = read_every_step(run)
    assert log is not None and dict(log.grad_sq) == dict(enumerate(rows[:, 2]))
    assert len(log.update_sq) == 9 and log.update_sq[8] == rows[8, 3] and 9 not in log.update_sq
    assert log.lr[5] == (rows[5, 1],) and log.files == (str(run / "every-step.f64"),)


def test_what_is_not_known_is_not_summed(tmp_path: Path) -> None:
    rows = numbers()
    rows[1] = NAN, NAN, NAN, NAN
    rows[6] = 7.0, 0.0, NAN, 0.0  # a loss scaler skipped it: no update was made at its loss
    run = written(tmp_path / "run", rows)
    report = trajcheck.analyze(run, out=tmp_path / "report", objective="none")
    assert report.steps["window_loss_sum"].notna().tolist() == [True, False, False, False]
    assert report.steps["tau"].notna().tolist() == [True, False, False, False]
    reasons = report.undefined[report.undefined["column"] == "tau"]["reason"]
    assert set(reasons) == {"the learning rate of step 1 is not known"}
    rows[1] = 1.0
    rows.tofile(run / "every-step.f64")
    steps = trajcheck.analyze(run, out=tmp_path / "other", objective="none").steps.set_index("step")
    assert steps.loc[9, "window_loss_sum"] == pytest.approx(rows[:9, 0].sum() - 7.0, rel=1e-14)
    assert steps.loc[9, "tau"] == pytest.approx(rows[:9, 1].sum(), rel=1e-14)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ((4097, 0), np.inf, r"record 4097: loss is inf; expected a finite number, or NaN"),
        ((3, 1), -0.1, r"record 3: rate is -0.1; expected a finite number that is not below 0"),
        ((0, 2), -np.inf, r"record 0: \|g\|\^2 is -inf"),
        ((5000, 3), -1e-9, r"record 5000: \|x_\(t\+1\) - x_t\|\^2 is -1e-09"),
    ],
)
def test_numbers_that_none_can_be(place: tuple[int, int], value: float, words: str, tmp_path: Path) -> None:
    rows = numbers(5001)
    rows[place] = value
    rows.tofile(tmp_path / "every-step.f64")
    with pytest.raises(RunError, match=words):
        read_every_step(tmp_path)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "every-step.f64")
    with pytest.raises(RunError, match="not a regular file; expected four numbers of every step"):
        read_every_step(tmp_path)


def test_a_sparse_file_is_refused_by_its_size(tmp_path: Path) -> None:
    """Its terabytes of zeros would be read for days."""
    (tmp_path / "every-step.f64").touch()
    os.truncate(tmp_path / "every-step.f64", 1 << 43)
    with pytest.raises(RunError, match=r"8,796,093,022,208 bytes; expected 4,000,000,000 at most.*take it away"):
        read_every_step(tmp_path)


def test_a_torn_record_is_dropped_and_blocks_are_read_where_they_are(tmp_path: Path) -> None:
    rows = numbers(9000)
    rows[8191] = NAN
    (tmp_path / "every-step.f64").write_bytes(rows.tobytes()[:-1])
    log = read_every_step(tmp_path)
    assert log is not None and len(log.loss) == 8998
    for step in (8998, 0, 4096, 4095, 8192):
        assert log.loss[step] == rows[step, 0]
    assert 8191 not in log.loss and 8999 not in log.loss and -1 not in log.loss
    (tmp_path / "every-step.f64").write_bytes(b"torn")
    assert read_every_step(tmp_path) is None


def test_a_rate_that_is_not_the_recorded_one_is_refused(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "run")
    rows = numbers()
    rows[3, 1] *= 1.01
    rows.tofile(other / "every-step.f64")
    with pytest.raises(RunError, match=r"every-step.f64: the rate of step 3 is"):
        open_trajectory(other)


def test_verify_compares_it_with_the_records(run: Path, tmp_path: Path) -> None:
    (clean,) = trajcheck.verify(run, threads=1).runs
    assert not clean.damage and clean.files == len(RECORDED)
    other = shutil.copytree(run, tmp_path / "run")
    rows = numbers()
    rows[4, :2] += 1e-9
    (other / "every-step.f64").write_bytes(rows.tobytes() + b"torn")
    (found,) = trajcheck.verify(other, threads=1).runs
    assert [text.partition("every-step.f64: ")[2] for text in found.damage if "every-step" in text] == [
        "the loss of 1 steps is another than in the records of these steps: 4.",
        "the rate of 1 steps is another than in the records of these steps: 4.",
    ]
    assert "every-step.f64 ends with 4 bytes of a record that was not written whole" in found.notes
    rows[7, 2] = -1
    rows.tofile(other / "every-step.f64")
    (found,) = trajcheck.verify(other, threads=1).runs
    assert any("record 7: |g|^2 is -1" in text for text in found.damage)


def test_convert_copies_it(run: Path, tmp_path: Path) -> None:
    trajcheck.convert(run, tmp_path / "copy", steps="::3")
    assert (tmp_path / "copy/every-step.f64").read_bytes() == (run / "every-step.f64").read_bytes()
    assert open_trajectory(tmp_path / "copy").snapshots[-1].tau == pytest.approx((numbers()[:, 1].sum(),), rel=1e-14)
