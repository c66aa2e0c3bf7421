"""What was asked for is given, refused, or said to be missing; no number is offered as what it is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from places import SAMPLES
from plain_run_files import Outcome, write_plain_step
from safetensors.numpy import save_file

import trajcheck
from trajcheck.errors import ObjectiveError

DIGITS = SAMPLES / "digits-sgd-seed0"

SHUFFLING = """
import torch
from objectives import digits
from torch.utils.data import DataLoader, TensorDataset

def shuffling():
    pixels = torch.arange(64 * 64).view(64, 64) % 17
    data = TensorDataset(pixels.to(torch.uint8), torch.arange(64) % 10)
    return (*digits(), DataLoader(data, 8, shuffle=True))
"""


def test_a_lag_that_is_asked_for_twice_is_one_column(tmp_path: Path) -> None:
    once, twice = (
        trajcheck.analyze(DIGITS, objective="none", memory_lags=lags, out=tmp_path / str(len(lags))).references
        for lags in ((1, 10), (1, 10, 1))
    )
    assert once.equals(twice)


def test_a_lag_that_no_step_has_is_said_to_be_missing(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    outcome = cli(
        "analyze",
        SAMPLES / "transformer-adamw",
        "--objective",
        "none",
        "--memory-lags",
        "1,3",
        "--quiet",
        "--out",
        tmp_path,
    )
    assert outcome.code == 4
    assert "--memory-lags 3" in outcome.err
    assert "--memory-lags 1:" not in outcome.err


def test_long_lags_are_the_same_as_short_ones(tmp_path: Path) -> None:
    """Records far ahead are read again when they are near."""
    report = trajcheck.analyze(DIGITS, objective="none", memory_lags=(100,), out=tmp_path)
    alone = trajcheck.analyze(DIGITS, objective="none", memory_lags=(100,), steps="7:8", out=tmp_path)
    column = report.references.set_index("step")["memory_100"]
    assert column.notna().sum() == 19  # at the last step g lies along e, and nothing of it is orthogonal
    assert column[7] == pytest.approx(alone.references["memory_100"].iloc[0], rel=1e-9)


def test_the_previous_sample_gives_no_debiased_cosine(tmp_path: Path) -> None:
    """x_t was made from it: towards the init pure noise would show a negative cosine."""
    report = trajcheck.analyze(DIGITS, ("init",), "run", sample=("own", "previous"), steps="0:20", out=tmp_path)
    samples = report.summary["headline"]["samples"]
    assert samples["previous"]["references"]["init"]["cosine"] is None
    assert samples["own"]["references"]["init"]["cosine_of"] == "cos"
    assert report.references.query("sample == 'previous'")["cos"].notna().any()


def test_a_data_set_that_shuffles_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SAMPLES)
    (tmp_path / "objective.py").write_text(SHUFFLING)
    objective = f"{tmp_path / 'objective.py'}:shuffling"
    with pytest.raises(ObjectiveError, match="without shuffling"):
        trajcheck.analyze(DIGITS, objective=objective, sample=("full",), steps="0:3", out=tmp_path / "report")


def test_a_denominator_within_its_error_is_called_so(tmp_path: Path) -> None:
    """On the first steps probe batches do not agree on the sign of the change of the loss."""
    report = trajcheck.analyze(DIGITS, objective="run", sample=("probe",), out=tmp_path)
    steps = report.steps
    within = steps["convexity_den"].abs() <= steps["convexity_den_se"]
    assert steps.loc[within, ["convexity_ratio", "convexity_ratio_se"]].isna().all(axis=None)
    rows = report.undefined.query("column in ('convexity_ratio', 'convexity_ratio_se')")
    assert set(rows["reason"]) <= {
        "the denominator is within its error",
        "the denominator is below its resolution",
        "x_t is the reference itself",
        *rows["reason"][rows["reason"].str.startswith(("the first recorded", "no batch"))],
    }
    assert within.any() == ("the denominator is within its error" in set(rows["reason"]))


def test_sgd_with_weight_decay_does_not_step_along_the_gradient(tmp_path: Path) -> None:
    import torch

    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.5)
    with trajcheck.Recorder(tmp_path / "run", model, optimizer, every=1, quiet=True) as recorder:
        for batch in torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(0)):
            loss = model(batch).square().mean()
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()
    report = trajcheck.analyze(tmp_path / "run", out=tmp_path / "report")
    assert not {"lo_lr", "lo_lr_smooth", "implied_rate"} & set(report.references)
    assert np.isfinite(report.references["cos_wd"].iloc[0])


ROOTS = """
import torch

class Point(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))

def roots():
    return Point(), lambda model, z: (model.w - z).sqrt().sum()
"""


def test_a_row_that_one_probe_batch_does_not_give_is_in_no_mean(tmp_path: Path) -> None:
    """sqrt(w - 1) is not finite in the middle of the walk: sums run over the other rows, on both
    batches."""
    walk = [2.0, 1.5, 0.5, 0.6, 1.7, 2.5]
    (tmp_path / "run").mkdir()
    for step, w in enumerate(walk):
        write_plain_step(tmp_path / "run", step, {"param/w": np.array([w], np.float32)}, lr=0.1)
    save_file(
        {f"batch/{i}": np.array([z], np.float32) for i, z in enumerate((0.0, 1.0))},
        tmp_path / "run" / "probe-000.safetensors",
        metadata={"trajcheck": json.dumps({"format": 1, "batches": 2})},
    )
    (tmp_path / "objective.py").write_text(ROOTS)
    objective = f"{tmp_path / 'objective.py'}:roots"
    report = trajcheck.analyze(tmp_path / "run", ("init",), objective, sample=("probe",), out=tmp_path / "report")
    table = report.references.set_index("step")
    assert table["loss"].isna().tolist() == [False, False, True, True, False, False]
    slopes = [np.mean([(w - 2) / (2 * (w - z) ** 0.5) for z in (0, 1)]) for w in (2.0, 1.5, 1.7, 2.5)]
    weights = [1, 2, 2, 0]  # step 0; 1 and 2; 3 and 4; the last iterate stands for no step
    np.testing.assert_allclose(table["convexity_num"].dropna(), np.cumsum(np.multiply(weights, slopes)), rtol=1e-5)
    # at step 4 the loss of one batch is not finite at x_{t-1} alone
    steps = report.steps.set_index("step")
    assert steps["loss_change"].isna().tolist() == [True, False, True, True, True, False]
    changes = steps["loss_change"].dropna() * [3, 2]  # of updates 0 to 2, and 3 and 4
    np.testing.assert_allclose(steps["loss_change_sum"].dropna(), changes.cumsum(), rtol=1e-12)
