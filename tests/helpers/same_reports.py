"""Two recordings of one training, by their reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

import trajcheck


def assert_same_reports(folder: Path, runs: Sequence[str], objective: str, steps: int, *, autocast: bool) -> None:
    """The runs in a folder have the same convexity ratio, and the first is replayed as it was trained."""
    reports = [trajcheck.analyze(folder / run, objective=objective, out=folder / f"report-{run}") for run in runs]
    ratios = [report.references["convexity_ratio"].dropna().iloc[-1] for report in reports]
    assert math.isfinite(ratios[0]) and ratios[0] == pytest.approx(ratios[1], rel=1e-6)
    errors = reports[0].steps[["replay_loss_error", "replay_grad_error"]].dropna()
    assert len(errors) == steps
    bounds = (1e-3, 2e-2) if autocast else (1e-6, 1e-5)  # the replay is in float32
    assert (errors.max().to_numpy() < bounds).all(), errors
