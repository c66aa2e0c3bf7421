"""Weight decay takes an own term out of x_T that x_s still holds: then no cosine of own samples is free of it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dense import Record
from frames import col, towards
from handwritten import write_run
from run_files import describe_optimizer

import trajcheck

SIZE, RATE = 200, 0.1


def decayed_noise(decay: float, steps: int, seed: int) -> list[Record]:
    """SGD along independent g_t ~ N(0, I), which shrinks x at every step."""
    rng = np.random.default_rng(seed)
    x, records = rng.normal(size=SIZE), []
    for t in range(steps):
        g = rng.normal(size=SIZE)
        records.append(Record(t, x, g, RATE))
        x = (1 - RATE * decay) * x - RATE * g
    return [*records, Record(steps, x)]


def analyzed(folder: Path, decay: float, steps: int, seed: int, **group: Any) -> Any:
    run = write_run(folder / "run", decayed_noise(decay, steps, seed), optimizer=None)
    settings = {"lr": RATE, "momentum": 0, "dampening": 0, "nesterov": False, "weight_decay": decay, **group}
    describe_optimizer(run, group.pop("name", "SGD"), **settings)
    return trajcheck.analyze(run, ["final"], out=folder / "report", quiet=True)


@pytest.mark.parametrize("seed", range(3))
def test_a_decay_that_matters_leaves_no_cosine(tmp_path: Path, seed: int) -> None:
    """By plain numpy cos(g_t, x_(t+1) - x_T) is some -0.05 here, many standard errors from 0."""
    records = decayed_noise(0.05, 400, seed)
    end = np.asarray(records[-1].x)
    cosines = []
    for one, following in pairwise(records[:-1]):
        g, e = np.asarray(one.g), np.asarray(following.x) - end
        cosines.append(g @ e / np.linalg.norm(g) / np.linalg.norm(e))
    assert np.mean(cosines) < -5 * np.std(cosines) / len(cosines) ** 0.5
    report = analyzed(tmp_path, 0.05, 400, seed)
    head = report.summary["headline"]["references"]["final"]
    assert head["cosine"] is None and "weight decay takes 86% of a step's own term" in head["cosine_missing"]
    skipped = col(towards(report.references, "final"), "cos_skip")
    assert np.isnan(skipped[:385]).all()
    reasons = report.undefined[report.undefined["column"] == "cos_skip"]["reason"]
    assert reasons.str.contains("weight decay takes").any() and reasons.str.contains("--sample probe").any()


@pytest.mark.parametrize("seed", range(3))
def test_a_decay_that_does_nothing_costs_nothing(tmp_path: Path, seed: int) -> None:
    skipped = col(towards(analyzed(tmp_path, 1e-4, 200, seed).references, "final"), "cos_skip")
    free = skipped[~np.isnan(skipped)]
    assert len(free) == 199
    assert abs(free.mean()) < 2.5 * free.std() / len(free) ** 0.5


@pytest.mark.parametrize(("group", "taken"), [({"momentum": 0.9}, 10.0), ({"momentum": 0.9, "decoupled": True}, 1.0)])
def test_momentum_carries_a_decay_on(tmp_path: Path, group: dict[str, Any], taken: float) -> None:
    """One that is part of the gradient shrinks by 1 / (1 - momentum) as much."""
    report = analyzed(tmp_path, 0.01, 100, 0, **group)
    share = 100 * (1 - np.exp(-0.01 * RATE * 100 * taken))
    assert f"weight decay takes {share:.0f}% of" in report.summary["headline"]["references"]["final"]["cosine_missing"]
