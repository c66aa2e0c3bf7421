"""What is free of the step's own term, against plain numpy, and on gradients that know nothing of x."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dense import Nearest, Record, reach_of, rows_error, rows_quantile, running_sum
from frames import col, towards
from handwritten import write_objective, write_run
from quadratics import Layout, Quadratic, cosine_rates, descend, pure_noise

import trajcheck

COUNT = 300
LAYOUT: Layout = {"x": (300,)}


def columns(run: Path, out: Path, ref: str = "final", **options: object) -> dict[str, np.ndarray]:
    report = trajcheck.analyze(run, refs=[ref], out=out, quiet=True, **options)  # type: ignore[arg-type]
    table = towards(report.references, ref)
    return {name: col(table, name) for name in table.columns if name not in ("ref", "sample")}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rates", [[0.01] * COUNT, cosine_rates(COUNT, 0.01)], ids=["constant", "cosine"])
def test_on_pure_noise(tmp_path: Path, seed: int, rates: list[float]) -> None:
    """lo_lr is the rate that was used, rsi and convexity_num are their floors; without the own term all are 0."""
    found = columns(write_run(tmp_path / "run", pure_noise(rates, 300, seed), LAYOUT), tmp_path / "report")
    part = slice(20, COUNT - 40)  # near the end the path holds little else than the own term
    assert np.median(found["lo_lr"][part] / found["lr"][part]) == pytest.approx(1, abs=0.15)
    assert np.median(found["rsi"][part] / found["rsi_floor"][part]) == pytest.approx(1, abs=0.15)
    ratio = found["convexity_num"][COUNT - 1] / found["convexity_num_floor"][COUNT - 1]
    assert ratio == pytest.approx(1, abs=0.25)
    for name in ("lo_lr_skip", "rsi_skip"):
        free = found[name][part]
        assert abs(free.mean()) < 3.5 * free.std() / len(free) ** 0.5, name
    terms = np.diff(found["convexity_num_skip"][: COUNT - 1])
    assert abs(terms.sum()) < 3.5 * terms.std() * len(terms) ** 0.5


def thinned(records: list[Record]) -> list[Record]:
    return [record for record in records if record.step % 7 < 5 or record.step == len(records) - 1]


@pytest.mark.parametrize(
    ("skip", "thin", "end"), [(1, False, 60), (5, False, 60), (5, True, 60), (1, False, 43), (5, True, 43)]
)
def test_against_plain_numpy(tmp_path: Path, skip: int, thin: bool, end: int) -> None:
    """Towards the last iterate, and towards one in the middle of the run, after which no step is counted."""
    quadratic = Quadratic.with_spectrum([0.1, 0.5, 2.0], seed=3)
    rng = np.random.default_rng(3)
    layout: Layout = {"x": (3,)}
    records = descend(quadratic, 3 * rng.normal(size=3), quadratic.samples(60, rng, 1.0), [0.1] * 60)
    kept = thinned(records) if thin else records
    run = write_run(tmp_path / "run", kept, layout)
    objective = write_objective(tmp_path / "objective.py", quadratic, layout)
    options = {"objective": objective, "replay_dtype": "float64", "skip": skip}
    found = columns(run, tmp_path / "report", f"step:{end}", **options)
    star, steps = np.asarray(records[end].x), [record.step for record in kept]
    weigh, floors = Nearest(steps, range(end - skip)), np.full(len(kept), np.nan)
    top, bottom = np.full(len(kept), np.nan), np.full(len(kept), np.nan)
    for i, record in enumerate(kept):
        later = [other for other in kept if other.step >= record.step + skip]
        if record.z is not None and record.step < end:
            floors[i] = 0.1 * float(np.sum(np.square(quadratic.grad(np.asarray(record.x), record.z))))
        if record.z is None or not later or later[0].step > end:
            continue
        x, ahead = np.asarray(record.x), np.asarray(later[0].x) - star
        g = quadratic.grad(x, record.z)
        top[i], bottom[i] = g @ ahead, quadratic.f(x, record.z) - quadratic.f(star, record.z)
        if ahead.any():
            assert found["rsi_skip"][i] == pytest.approx(top[i] / (ahead @ ahead), rel=1e-9)
        assert found["lo_lr_skip"][i] == pytest.approx(top[i] / (g @ g), rel=1e-9, abs=1e-14)
        assert found["rsi_floor"][i] == pytest.approx(0.1 * (g @ g) / ((x - star) @ (x - star)), rel=1e-9)
    all_floors = running_sum(floors, Nearest(steps, range(end)))
    np.testing.assert_allclose(found["convexity_num_floor"], all_floors, rtol=1e-9)
    weights, here = np.array(weigh(top)), ~np.isnan(top)
    num, den = np.cumsum((weights * top)[here]), np.cumsum((weights * bottom)[here])
    np.testing.assert_allclose(found["convexity_num_skip"][here], num, rtol=1e-9)
    np.testing.assert_allclose(found["convexity_den_skip"][here], den, rtol=1e-9)
    given = np.isfinite(found["convexity_ratio_skip"][here])
    np.testing.assert_allclose(found["convexity_ratio_skip"][here][given], (num / den)[given], rtol=1e-9)
    if not thin:
        assert given.all() and "convexity_num_skip_rows_se" not in found
        return
    errors = {name: rows_error(terms, weigh)[here] for name, terms in (("num", top), ("den", bottom))}
    for name, expected in errors.items():
        np.testing.assert_allclose(found[f"convexity_{name}_skip_rows_se"][here], expected, rtol=1e-9)
    quantile = rows_quantile(bottom, weigh)[here]
    np.testing.assert_array_equal(given, np.abs(den) > reach_of(quantile, errors["den"]))
    assert 0 < given.sum() < len(given)
    for place in np.flatnonzero(given):
        error = rows_error(top - (num / den)[place] * bottom, weigh)[here][place]
        found_here = found["convexity_ratio_skip_rows_se"][here][place]
        expected = quantile[place] / 3 * error / (abs(den[place]) - quantile[place] * errors["den"][place])
        assert found_here == pytest.approx(expected, rel=1e-8, abs=1e-14)
