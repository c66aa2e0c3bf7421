"""Gradients that know nothing of x: what the cosines show of pure noise, and what frees them of it.

cos(g_t, x_t - x_T) is far above 0 without any geometry, since x_t - x_T holds the step's own gradient; cos_skip and the
probe's cosine are 0 within two standard errors.

One seed stands for all: computed by plain numpy over the seeds 0 to 199, the z-scores of cos_skip's mean have standard
deviations of 0.97 to 1.01 in each of the six cases, and 4% of them lie beyond 2. Their means are below 0.1 for SGD, and
up to 0.4 for momentum and AdamW, of whose own term 0.9^50 = 0.5% is left after 50 steps. The scores of the probe's mean
cosine over the seeds 0 to 19 have means within 0.15 and standard deviations of 0.7 to 0.9; 3 of the 120 lie beyond 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dense import Record, flat
from frames import col, towards
from handwritten import write_run
from quadratics import cosine_rates
from run_files import describe_optimizer, write_probe
from scipy.special import ndtr, stdtrit

import trajcheck

STEPS, SIZE, SEED = 300, 300, 0
RATES = {"constant": [0.01] * STEPS, "cosine": cosine_rates(STEPS, 0.01)}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False},
    "momentum": {"momentum": 0.9, "dampening": 0, "weight_decay": 0, "nesterov": False},
    "AdamW": {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "decoupled": True},
}
SKIP = {"SGD": 1, "momentum": 50, "AdamW": 50}

#: <w, noise>: a loss whose gradient is the batch, whatever the weights.
OBJECTIVE = f"""
import torch

def objective():
    model = torch.nn.Module()
    model.x = torch.nn.Parameter(torch.zeros({SIZE}, dtype=torch.float64))
    return model, lambda model, noise: (model.x * noise).sum()
"""

every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)
both_schedules = pytest.mark.parametrize("schedule", RATES)


def walk(optimizer: str, rates: Sequence[float], seed: int) -> list[Record]:
    """The optimizer's path along independent g_t ~ N(0, I)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=SIZE)
    first, second, velocity = np.zeros(SIZE), np.zeros(SIZE), np.zeros(SIZE)
    records = []
    for t, rate in enumerate(rates):
        g = rng.normal(size=SIZE)
        records.append(Record(t, x, g, rate))
        if optimizer == "AdamW":
            first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
            debiased = first / (1 - 0.9 ** (t + 1)), second / (1 - 0.999 ** (t + 1))
            x = (1 - rate * 0.01) * x - rate * debiased[0] / (np.sqrt(debiased[1]) + 1e-8)
        else:
            velocity = (0.9 if optimizer == "momentum" else 0.0) * velocity + g
            x = x - rate * velocity
    return [*records, Record(len(records), x)]


@cache
def noise_table(optimizer: str, schedule: str, seed: int = SEED) -> pd.DataFrame:
    """The rows towards the last iterate."""
    with TemporaryDirectory() as folder:
        run = write_run(Path(folder) / "run", walk(optimizer, RATES[schedule], seed), optimizer=None)
        name = "SGD" if optimizer == "momentum" else optimizer
        describe_optimizer(run, name, lr=0.01, **OPTIMIZERS[optimizer])
        report = trajcheck.analyze(run, ["final"], skip=SKIP[optimizer], out=Path(folder) / "report", quiet=True)
        return towards(report.references, "final")


def z_score(values: np.ndarray) -> float:
    """Mean over its standard error. For g_t independent and of mean 0 the terms are uncorrelated, though not equal."""
    values = values[~np.isnan(values)]
    return float(values.mean() / (values.std(ddof=1) / math.sqrt(len(values))))


@every_optimizer
@both_schedules
def test_noise_has_a_cosine_towards_its_own_end(optimizer: str, schedule: str) -> None:
    assert z_score(col(noise_table(optimizer, schedule), "cos")) > 5


@every_optimizer
@both_schedules
def test_noise_has_none_without_the_steps_own_term(optimizer: str, schedule: str) -> None:
    table = noise_table(optimizer, schedule)
    skipped = col(table, "cos_skip")
    assert (~np.isnan(skipped)).sum() == STEPS - SKIP[optimizer]  # x_s is to be before the end, and not x_T itself
    assert abs(z_score(skipped)) < 2


@both_schedules
def test_the_floor_of_plain_sgd_is_where_noise_lies(schedule: str) -> None:
    table, rates = noise_table("SGD", schedule)[:-1], np.array(RATES[schedule])
    floor, cosines = col(table, "cos_floor"), col(table, "cos")
    expected = [rates[t] / math.sqrt(math.fsum(rates[t:] ** 2)) for t in range(STEPS)]
    np.testing.assert_allclose(floor, expected, rtol=1e-9)
    assert abs(z_score(cosines - floor)) < 2
    assert cosines.mean() == pytest.approx(floor.mean(), rel=0.05)


@both_schedules
@pytest.mark.parametrize("optimizer", ["momentum", "AdamW"])
def test_there_is_no_floor_for_others(optimizer: str, schedule: str) -> None:
    assert np.isnan(col(noise_table(optimizer, schedule), "cos_floor")).all()


# -- on probe batches ---------------------------------------------------------------------------------------------

BATCHES = 20


@every_optimizer
@both_schedules
def test_noise_has_no_cosine_on_probe_batches(optimizer: str, schedule: str, tmp_path: Path) -> None:
    """A batch's noise is the same on every row, and neighbouring x_t - x_T are nearly parallel: the rows' errors do not
    average out. Where every row leaned the same way, the mean of the rows' errors were the error of the mean; so it is
    at most that."""
    run = write_run(tmp_path / "run", walk(optimizer, RATES[schedule], SEED), optimizer=None)
    describe_optimizer(run, "SGD" if optimizer == "momentum" else optimizer, lr=0.01, **OPTIMIZERS[optimizer])
    rng = np.random.default_rng([SEED, 1])
    write_probe(run, [rng.normal(size=SIZE) for _ in range(BATCHES)])
    (tmp_path / "noise.py").write_text(OBJECTIVE)
    options: dict[str, Any] = {"sample": ("own", "probe"), "metrics": ["secant"], "steps": "::15"}
    objective = f"{tmp_path / 'noise.py'}:objective"
    report = trajcheck.analyze(run, ["final"], objective, out=tmp_path / "report", **options)
    rows = report.references[report.references["sample"] == "probe"][:-1]
    cosines, errors = col(rows, "cos"), col(rows, "cos_se")
    assert abs(cosines.mean()) < 2 * errors.mean()
    np.testing.assert_allclose(errors.mean(), 1 / math.sqrt(BATCHES * SIZE), rtol=0.3)
    assert np.isnan(col(rows, "cos_floor")).all()  # the probe's gradient is in no x_t - x*


def test_a_sum_has_its_error_without_losses(tmp_path: Path) -> None:
    """That of the draws, by hand: no loss is replayed here, and there is neither den nor ratio."""
    records = walk("SGD", [0.01] * 40, 0)
    run = write_run(tmp_path / "run", records, optimizer=None)
    describe_optimizer(run, "SGD", lr=0.01, **OPTIMIZERS["SGD"])
    report = trajcheck.analyze(run, ["final"], metrics=["convexity"], out=tmp_path / "report", quiet=True)
    x, g = np.stack([flat(r.x) for r in records]), np.stack([flat(r.g) for r in records[:-1] if r.g is not None])
    terms = ((x[1:] - x[-1]) * g).sum(1)
    c = np.array([1.0] * 38 + [0.5])  # of 39 steps with an x_s before the end; the last row's is the end, and weighs 0
    freedom = (c**2).sum() ** 2 / ((c**4).sum() + (c[1:] ** 2 * c[:-1] ** 2).sum() / 2)
    error = math.sqrt((c**2 * np.diff(terms) ** 2).sum() / 2 * 39 / (c**2).sum()) * stdtrit(freedom, ndtr(2.0)) / 2
    head = report.summary["headline"]["references"]["final"]
    assert head["convexity_num"] == pytest.approx(terms.sum(), rel=1e-9)
    assert head["convexity_num_error"] == pytest.approx(error, rel=1e-9)
    assert head["convexity_den"] is None and head["convexity_den_error"] is None
