"""--dry-run counts what an analysis on any samples evaluates."""

from __future__ import annotations

from pathlib import Path

import pytest
from counted import estimate
from places import SAMPLES

import trajcheck
from trajcheck.measuring.options import Options
from trajcheck.objective.objective import Objective

pytestmark = pytest.mark.usefixtures("two_precisions")

OBJECTIVE = """
import torch
from objectives import digits

def with_data():
    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(17, (3, 8, 64), generator=stream, dtype=torch.uint8)
    return (*digits(), [(each, torch.arange(8)) for each in pixels])
"""


@pytest.mark.parametrize(
    "sample", [("probe",), ("full",), ("previous", "probe"), ("own", "previous", "probe", "full")], ids="-".join
)
@pytest.mark.parametrize("ref_gradients", [False, True])
def test_evaluations_on_every_sample(
    sample: tuple[str, ...], ref_gradients: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    monkeypatch.syspath_prepend(SAMPLES)
    run, objective = SAMPLES / "digits-sgd-seed0", f"{tmp_path / 'objective.py'}:with_data"
    refs, points = ("final", "init", "step:3"), 2 if ref_gradients else None
    options = Options(
        refs,
        objective,
        ref_gradients=ref_gradients,
        steps="2:9:2",
        sample=sample,
        path_integral=points,
        metrics=("progress", "smoothness"),
    )
    cost = estimate(run, options)
    losses, gradients = [0], [0]
    for name, count in (("loss", losses), ("loss_and_gradient", gradients)):
        made = getattr(Objective, name)

        def counted(*args: object, made: object = made, count: list[int] = count, **kwargs: object) -> object:
            count[0] += 1
            assert callable(made)
            return made(*args, **kwargs)

        monkeypatch.setattr(Objective, name, counted)
    report = trajcheck.analyze(
        run,
        refs,
        objective,
        ref_gradients=ref_gradients,
        steps="2:9:2",
        sample=sample,
        path_integral=points,
        metrics=("progress", "smoothness"),
        out=tmp_path / "report",
    )
    losses[0] -= 2 * ("full" in sample)  # on its first batch in each precision, before all else: whether it counts
    assert (cost.losses, cost.gradients) == (losses[0], gradients[0])
    assert report.summary["replay"]["evaluations"] == losses[0] + gradients[0]
    assert ("whole data set" in str(cost)) == ("full" in sample)
