"""Gradients that know nothing of x, towards points that were made of the run's own steps, and under optimizers that
carry a gradient on for long: the mean cosine that is offered as free of noise is 0 within two standard errors, or none
is offered, the cells of cos_skip are empty, and the reason names probe.

Seed 0 stands for all, as in test_pure_noise.py: over the seeds 1 to 12 the offered means, in units of their own errors,
have means within 0.5 and standard deviations of 0.8 to 1.2 in each of 14 cases, and 8 of the 168 lie beyond 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from dense import Record
from frames import col, towards
from handwritten import write_run
from run_files import describe_optimizer
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

import trajcheck

STEPS, SIZE, RATE, SEED = 300, 300, 0.01, 0
SGD: dict[str, Any] = {"momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False}
#: An update from (x, gradients so far): what an optimizer is to these tests.
Update = Callable[[np.ndarray, np.ndarray, dict[str, Any]], np.ndarray]


def sgd(momentum: float = 0.0) -> Update:
    def update(x: np.ndarray, g: np.ndarray, state: dict[str, Any]) -> np.ndarray:
        state["v"] = momentum * state.get("v", 0.0) + g
        return np.asarray(x - RATE * state["v"])

    return update


def adam(beta1: float) -> Update:
    def update(x: np.ndarray, g: np.ndarray, state: dict[str, Any]) -> np.ndarray:
        t = state["t"] = state.get("t", 0) + 1
        state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
        state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * g**2
        return np.asarray(x - RATE * state["m"] / (1 - beta1**t) / (np.sqrt(state["v"] / (1 - 0.999**t)) + 1e-8))

    return update


def schedule_free(x: np.ndarray, g: np.ndarray, state: dict[str, Any]) -> np.ndarray:
    """y = 0.1 z + 0.9 (the mean of all z so far), at which gradients are taken (arXiv 2405.15682)."""
    t = state["t"] = state.get("t", 0) + 1
    z, mean = state.get("z", x) - RATE * g, state.get("mean", x)
    state["z"], state["mean"] = z, mean + (z - mean) / t
    return np.asarray(0.1 * z + 0.9 * state["mean"])


def lookahead(x: np.ndarray, g: np.ndarray, state: dict[str, Any]) -> np.ndarray:
    """Five steps of SGD, then half of the way back to where they began (arXiv 1907.08610)."""
    t = state["t"] = state.get("t", 0) + 1
    slow, x = state.get("slow", x), x - RATE * g
    if t % 5 == 0:
        x = slow = slow + 0.5 * (x - slow)
    state["slow"] = slow
    return np.asarray(x)


def walk(
    update: Update, seed: int, steps: int = STEPS, x: np.ndarray | None = None, first: int = 0, state: Any = None
) -> list[Record]:
    """The optimizer's path along independent g_t ~ N(0, I), each the gradient of a batch of its own."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=SIZE) if x is None else x
    state = {} if state is None else state
    records = []
    for t in range(first, first + steps):
        g = rng.normal(size=SIZE)
        records.append(Record(t, x, g, RATE, z=g))
        x = update(x, g, state)
    return [*records, Record(first + steps, x)]


def written(folder: Path, records: Sequence[Record], name: str = "SGD", **group: Any) -> Path:
    run = write_run(folder, records, optimizer=None)
    describe_optimizer(run, name, lr=RATE, **{**SGD, **group})
    return run


def point(record: Record) -> np.ndarray:
    return np.asarray(record.x, dtype=np.float64)


def z_score(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean() / (values.std(ddof=1) / math.sqrt(len(values))))


def check(run: Path, ref: str, out: Path, **options: Any) -> tuple[dict[str, Any], pd.DataFrame]:
    """That what is offered is free of noise; the headline towards the reference, and its rows."""
    report = trajcheck.analyze(run, [ref], out=out, quiet=True, **options)
    values = report.summary["headline"]["references"][ref]
    table = towards(report.references, ref)
    skipped = col(table, "cos_skip")
    if np.isfinite(skipped).any() and values["cosine"] is not None:
        assert abs(z_score(skipped)) < 2
    if values["cosine"] is None:
        assert "--sample probe" in values["cosine_missing"]
        assert any("--sample probe" in warning and ref in warning for warning in report.summary["warnings"])
    else:
        assert abs(values["cosine"]) < 2 * values["cosine_error"]
    if not np.isfinite(skipped).any():
        reasons = report.undefined[(report.undefined["column"] == "cos_skip") & (report.undefined["ref"] == ref)]
        assert values["cosine"] is not None or reasons["reason"].str.contains("--sample probe").any()
    return values, table


# -- points made of the run's own iterates ----------------------------------------------------------------------------


def averaged(records: Sequence[Record], decay: float) -> np.ndarray:
    """The exponential average, from x_0 on."""
    mean = point(records[0])
    for record in records:
        mean = decay * mean + (1 - decay) * point(record)
    return mean


POINTS: dict[str, Callable[[list[Record]], np.ndarray]] = {
    "ema-0.99": lambda records: averaged(records, 0.99),
    "ema-0.9999": lambda records: averaged(records, 0.9999),
    "swa": lambda records: np.mean([point(each) for each in records[150:]], axis=0),
    "merge": lambda records: (point(records[-1]) + np.random.default_rng(99).normal(size=SIZE)) / 2,
    "nearly-final": lambda records: point(records[-1]) + 1e-3 * np.random.default_rng(98).normal(size=SIZE),
}


@pytest.mark.parametrize("name", POINTS)
def test_a_file_made_of_the_runs_iterates(name: str, tmp_path: Path) -> None:
    records = walk(sgd(), SEED)
    run = written(tmp_path / "run", records)
    save_file({"x": POINTS[name](records)}, tmp_path / "point.safetensors")
    values, table = check(run, str(tmp_path / "point.safetensors"), tmp_path / "report")
    assert values["cosine"] is None
    assert abs(z_score(col(table, "cos")[:-1])) > 1.5 or name == "ema-0.9999"  # the bias that is not offered
    if name.startswith("ema") or name in ("swa", "nearly-final"):
        assert "nearer to the iterate of step" in values["dependence"]["found"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("wide", [False, True])
def test_a_rounded_copy_of_the_end(dtype: torch.dtype, wide: bool, tmp_path: Path) -> None:
    """As it is, or widened again: the step is known, and without its own term noise gives 0."""
    records = walk(sgd(), SEED)
    run = written(tmp_path / "run", records)
    rounded = torch.from_numpy(point(records[-1])).to(dtype)
    save_torch({"x": rounded.float() if wide else rounded}, tmp_path / "point.safetensors")
    values, table = check(run, str(tmp_path / "point.safetensors"), tmp_path / "report")
    assert "a rounded copy of the iterate of step 300" in values["dependence"]["found"]
    assert values["cosine_of"] == "cos_skip"
    assert z_score(col(table, "cos")[:-1]) > 5
    assert "cos_floor" not in table or np.isnan(col(table, "cos_floor")).all()


def test_an_iterate_in_a_file_is_the_iterate(tmp_path: Path) -> None:
    records = walk(sgd(), SEED)
    run = written(tmp_path / "run", records)
    save_file({"x": point(records[200])}, tmp_path / "point.safetensors")
    ref = str(tmp_path / "point.safetensors")
    report = trajcheck.analyze(run, [ref, "step:200"], out=tmp_path / "report", quiet=True)
    values = report.summary["headline"]["references"]
    assert values[ref]["dependence"] == values["step:200"]["dependence"] == {"whole": 200, "free": 200, "found": ""}
    both = [towards(report.references, each) for each in (ref, "step:200")]
    np.testing.assert_array_equal(col(both[0], "cos_skip"), col(both[1], "cos_skip"))
    check(run, "step:200", tmp_path / "other")


# -- other runs -------------------------------------------------------------------------------------------------------


def bf16(x: np.ndarray) -> np.ndarray:
    return np.asarray(torch.from_numpy(x).bfloat16().double().numpy())


def test_another_run_is_independent(tmp_path: Path) -> None:
    run = written(tmp_path / "run", walk(sgd(), SEED))
    other = written(tmp_path / "other", walk(sgd(), SEED + 1000))
    values, table = check(run, str(other), tmp_path / "report")
    assert values["dependence"] == {"whole": 0, "free": 0, "found": ""}
    assert values["cosine_of"] == "cos"
    assert abs(z_score(col(table, "cos"))) < 2


@pytest.mark.parametrize("kind", ["exact", "bf16"])
@pytest.mark.parametrize("numbered", [False, True])
def test_a_run_that_went_on_from_the_end(kind: str, numbered: bool, tmp_path: Path) -> None:
    """x* holds all steps of this run, and others that this run did not make: it is a later iterate of it."""
    records = walk(sgd(), SEED)
    run = written(tmp_path / "run", records)
    start = bf16(point(records[-1])) if kind == "bf16" else point(records[-1])
    other = walk(sgd(), SEED + 1000, 100, start, STEPS if numbered else 0)
    values, table = check(run, str(written(tmp_path / "other", other)), tmp_path / "report")
    assert (values["dependence"]["whole"], values["dependence"]["free"]) == (300, 300)
    assert "shares the iterate of step 300" in values["dependence"]["found"]
    assert values["cosine_of"] == "cos_skip"
    assert z_score(col(table, "cos")) > 3


def test_a_run_that_went_on_with_the_batches_of_this_one(tmp_path: Path) -> None:
    """As a job does that begins its epoch again: x* holds every gradient twice."""
    records = walk(sgd(), SEED)
    rng = np.random.default_rng(SEED)
    rng.normal(size=SIZE)  # x_0
    x, other = point(records[-1]), []
    for t in range(100):
        g = rng.normal(size=SIZE)
        other.append(Record(t, x, g, RATE, z=g))
        x = x - RATE * g
    other.append(Record(100, x))
    run = written(tmp_path / "run", records)
    values, _ = check(run, str(written(tmp_path / "other", other)), tmp_path / "report")
    assert values["cosine"] is None
    assert "took its batch of step 0" in values["dependence"]["found"]


@pytest.mark.parametrize("whole", [False, True])
def test_a_run_that_branched_off_in_the_middle(whole: bool, tmp_path: Path) -> None:
    records = walk(sgd(), SEED)
    run = written(tmp_path / "run", records)
    other = walk(sgd(), SEED + 1000, 150, point(records[120]), 120)
    other = [*records[:120], *other] if whole else other
    values, _ = check(run, str(written(tmp_path / "other", other)), tmp_path / "report")
    assert (values["dependence"]["whole"], values["dependence"]["free"]) == (120, 120)


@pytest.mark.parametrize("batches", ["others", "the same", "unknown"])
def test_a_run_from_the_same_beginning(batches: str, tmp_path: Path) -> None:
    """Under pure noise two runs of the same batches are one walk at two rates."""
    records = walk(sgd(), SEED)
    if batches == "the same":
        begin = point(records[0])
        other = [Record(r.step, begin + 0.5 * (point(r) - begin), r.g, RATE / 2, z=r.g) for r in records]
    else:
        other = walk(sgd(), SEED + 1000, x=point(records[0]))
    if batches == "unknown":
        other = [Record(r.step, r.x, r.g, RATE) for r in other]
    run = written(tmp_path / "run", records)
    values, _ = check(run, str(written(tmp_path / "other", other)), tmp_path / "report")
    assert (values["cosine"] is not None) == (batches == "others")
    assert ("began where this one did" in values["dependence"]["found"]) == (batches != "others")


def test_a_run_that_began_at_an_average(tmp_path: Path) -> None:
    records = walk(sgd(), SEED)
    run = written(tmp_path / "run", records)
    other = walk(sgd(), SEED + 1000, 100, averaged(records, 0.99))
    values, _ = check(run, str(written(tmp_path / "other", other)), tmp_path / "report")
    assert values["cosine"] is None
    assert "began nearer to the iterate of step" in values["dependence"]["found"]


def test_probe_batches_are_free_of_all_that(tmp_path: Path) -> None:
    """The cosine of an average is offered on batches that no step was made from."""
    from run_files import write_probe

    records = walk(sgd(), SEED)
    run = written(tmp_path / "run", records)
    rng = np.random.default_rng(77)
    write_probe(run, [rng.normal(size=SIZE) for _ in range(20)])
    (tmp_path / "noise.py").write_text(
        "import torch\n\n\ndef objective():\n    model = torch.nn.Module()\n"
        f"    model.x = torch.nn.Parameter(torch.zeros({SIZE}, dtype=torch.float64))\n"
        "    return model, lambda model, noise: (model.x * noise).sum()\n"
    )
    save_file({"x": averaged(records, 0.99)}, tmp_path / "point.safetensors")
    report = trajcheck.analyze(
        run,
        [str(tmp_path / "point.safetensors")],
        f"{tmp_path / 'noise.py'}:objective",
        out=tmp_path / "report",
        sample=("own", "probe"),
        metrics=["secant"],
        steps="::15",
        quiet=True,
    )
    (values,) = report.summary["headline"]["references"].values()
    assert values["cosine_sample"] == "probe"
    assert abs(values["cosine"]) < 2 * values["cosine_se"]
    assert not any("no mean cosine" in warning for warning in report.summary["warnings"])


# -- what optimizers remember -----------------------------------------------------------------------------------------

MEMORIES: dict[str, tuple[Update, str, dict[str, Any], int | None]] = {
    "momentum-0.9": (sgd(0.9), "SGD", {"momentum": 0.9}, 50),
    "momentum-0.99": (sgd(0.99), "SGD", {"momentum": 0.99}, 500),
    "beta1-0.9": (adam(0.9), "Adam", {"betas": [0.9, 0.999]}, 50),
    "beta1-0.99": (adam(0.99), "Adam", {"betas": [0.99, 0.999]}, 500),
    "schedule-free": (schedule_free, "SGDScheduleFree", {}, None),
    "lookahead": (lookahead, "Lookahead", {}, None),
}


@pytest.mark.parametrize(
    ("name", "steps", "given"),
    [
        *((name, 300, given) for name in MEMORIES for given in (None, 50)),
        *(("momentum-0.99", 700, given) for given in (None, 50)),
        ("beta1-0.99", 700, None),
    ],
)
def test_what_the_optimizer_remembers(name: str, steps: int, given: int | None, tmp_path: Path) -> None:
    update, optimizer, group, needed = MEMORIES[name]
    run = written(tmp_path / "run", walk(update, SEED, steps), optimizer, **group)
    values, table = check(run, "final", tmp_path / "report", skip=given)
    offered = needed is not None and (given or needed) >= needed and steps > needed
    assert (values["cosine"] is not None) == offered
    if not offered and given is None:
        assert "cos_skip" not in table or np.isnan(col(table, "cos_skip")).all()


def test_an_iterate_within_the_optimizers_memory(tmp_path: Path) -> None:
    """x_30 holds a part alone of what momentum makes of the steps before it."""
    run = written(tmp_path / "run", walk(sgd(0.9), SEED), momentum=0.9)
    report = trajcheck.analyze(run, ["step:30"], out=tmp_path / "report", quiet=True)
    table = towards(report.references, "step:30")
    assert "cos_skip" not in table or np.isnan(col(table, "cos_skip")).all()
    values = report.summary["headline"]["references"]["step:30"]
    assert values["cosine"] is None
    assert "--sample probe" in values["cosine_missing"]
