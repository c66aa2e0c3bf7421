"""analyze --pca (plane, gram_pass, principal_components) against a dense singular value decomposition."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from counted import estimate
from places import SAMPLES
from plain_run_files import SHAPES, write_plain_step
from safetensors.numpy import load_file

import trajcheck
from trajcheck.errors import NotFiniteError, UsageError
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.measuring.options import Options
from trajcheck.metrics.principal_components import principal_plane
from trajcheck.runs.references import resolve_references
from trajcheck.runs.trajectory import open_trajectory
from trajcheck.stream import gram_pass as module
from trajcheck.stream.gram_pass import evenly_spaced, gather_gram

DIGITS = SAMPLES / "digits-sgd-seed0"


def dense(run: Path, steps: list[int] | None = None) -> np.ndarray:
    """The iterates [steps, parameters], float64."""
    files = sorted(run.glob("step-*.safetensors"))
    chosen = files if steps is None else [run / f"step-{step:09d}.safetensors" for step in steps]
    names = sorted(name for name in load_file(files[0]) if name.startswith("param/"))
    return np.stack([np.concatenate([load_file(f)[name].ravel().astype(float) for name in names]) for f in chosen])


def test_it_is_the_singular_value_decomposition_of_the_centred_iterates(tmp_path: Path) -> None:
    other = SAMPLES / "digits-sgd-seed1"
    report = trajcheck.analyze(DIGITS, ["final", "step:7", str(other)], "none", pca=30, out=tmp_path / "report")
    table, facts = report.trajectory, report.summary["trajectory"]
    assert table is not None and list(table) == ["step", "component_1", "component_2", "off_plane"]
    steps = table["step"].tolist()
    assert len(steps) == 30 == facts["iterates"] and steps[0] == 0 and steps[-1] == 120
    points = dense(DIGITS, steps)
    mean = points.mean(axis=0)
    _, s, axes = np.linalg.svd(points - mean, full_matrices=False)
    axes *= np.where((points - mean)[0] @ axes.T > 0, -1.0, 1.0)[:, None]
    expected = (points - mean) @ axes[:2].T
    np.testing.assert_allclose(table[["component_1", "component_2"]], expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(facts["explained"], s[:2] ** 2 / (s**2).sum(), rtol=1e-12)
    rest = points - mean - expected @ axes[:2]
    np.testing.assert_allclose(table["off_plane"], np.linalg.norm(rest, axis=1), atol=1e-7)
    for spec, point in {
        "final": points[-1],
        "step:7": dense(DIGITS, [7])[0],
        str(other): dense(other, [120])[0],
    }.items():
        found, where = facts["references"][spec], (point - mean) @ axes[:2].T
        np.testing.assert_allclose([found["component_1"], found["component_2"]], where, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(found["off_plane"], np.linalg.norm(point - mean - where @ axes[:2]), atol=1e-7)
    saved = json.loads((tmp_path / "report" / "summary.json").read_text())["trajectory"]
    assert saved == facts


def test_small_blocks_give_the_same_products(plain_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = MeasuredRun(plain_run, Options(refs=("final", "mean:3")), quiet=True)
    references = resolve_references(("final", "init"), analysis.trajectory, None)
    whole = gather_gram(analysis.trajectory, analysis.rows.rows, references)
    monkeypatch.setattr(module, "MEMORY", 3 * 8 * (len(analysis.rows.rows) + 2))
    told: list[float] = []
    parts = gather_gram(analysis.trajectory, analysis.rows.rows, references, told.append)
    assert len(told) == 3 and sum(told) == pytest.approx(len(analysis.rows.rows))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-14)


def test_far_from_the_origin_small_movements_keep_their_digits(tmp_path: Path) -> None:
    """Centred before they are multiplied: the inner products of the iterates themselves would lose them all."""
    offsets = np.random.default_rng(0).normal(size=(9, 40)) * 1e-7
    points = 1e6 + offsets
    for step, point in enumerate(points):
        write_plain_step(tmp_path, step, {"param/w": point}, tau=float(step))
    trajectory = open_trajectory(tmp_path)
    rows = MeasuredRun(tmp_path, Options(), quiet=True).rows
    centred = points - points.mean(axis=0)
    found = gather_gram(trajectory, rows.rows, []).gram
    np.testing.assert_allclose(found, centred @ centred.T, rtol=1e-2, atol=1e-3 * np.abs(found).max())


def test_a_random_walk_has_the_known_spectrum() -> None:
    """6 / (pi k)^2 of the variance each (Antognini and Sohl-Dickstein, 2018), as the figure's caption says."""
    walk = np.cumsum(np.random.default_rng(0).normal(size=(300, 20_000)), axis=0)
    centred = walk - walk.mean(axis=0)
    found = principal_plane(centred @ centred.T, np.empty((0, 300)), np.empty(0))
    assert found.explained == pytest.approx((0.608, 0.152), abs=0.01)


@pytest.mark.parametrize(
    ("points", "missing"),
    [
        (np.outer(np.arange(5.0), [1.0, 2.0, 3.0]), {"component_2": "the chosen iterates lie on a line"}),
        (
            np.ones((4, 3)),
            {
                "component_1": "all chosen iterates are one point",
                "component_2": "the chosen iterates lie on a line",
            },
        ),
    ],
)
def test_iterates_that_span_no_plane(points: np.ndarray, missing: dict[str, str], tmp_path: Path) -> None:
    for step, point in enumerate(points):
        write_plain_step(tmp_path, step, {"param/w": point}, tau=float(step))
    report = trajcheck.analyze(tmp_path, pca=5, out=tmp_path.parent / f"{tmp_path.name}-report")
    reasons = report.undefined[report.undefined["table"] == "trajectory"]
    assert dict(zip(reasons["column"], reasons["reason"], strict=True)) == missing
    assert "--pca: the iterates do not span a plane; undefined.csv says why" in report.incomplete
    assert report.summary["trajectory"]["explained"][1] is None


def test_rows_are_chosen_evenly_in_steps(tmp_path: Path) -> None:
    for step in (0, 1, 2, 3, 4, 5, 6, 7, 8, 100, 200, 300):
        write_plain_step(tmp_path, step, {"param/w": np.array([step, 1.0])}, tau=float(step))
    rows = MeasuredRun(tmp_path, Options(), quiet=True).rows
    assert [row.step for row in evenly_spaced(rows, 4)] == [0, 100, 200, 300]
    assert [row.step for row in evenly_spaced(rows, 3)] == [0, 100, 300]
    assert len(evenly_spaced(rows, 500)) == 12


def test_the_dry_run_counts_it(plain_run: Path, bytes_read: list[int], tmp_path: Path) -> None:
    cost = estimate(plain_run, Options(pca=4))
    analysis = MeasuredRun(plain_run, Options(pca=4), quiet=True)
    references = resolve_references(("final",), analysis.trajectory, None)
    bytes_read.clear()
    gather_gram(analysis.trajectory, evenly_spaced(analysis.rows, 4), references)
    size = 4 * sum(int(np.prod(shape)) for shape in SHAPES.values())
    assert cost.plane_bytes == sum(bytes_read) == 5 * size
    assert f"plane      {5 * size:,} bytes to read" in str(cost) and estimate(plain_run, Options()).plane_bytes == 0


def test_not_finite_values_are_named(plain_run: Path) -> None:
    analysis = MeasuredRun(plain_run, Options(), quiet=True)
    path = plain_run / "step-000000004.safetensors"
    tensors = load_file(path)
    tensors["param/layer.bias"][1] = np.inf
    write_plain_step(plain_run, 4, tensors, loss=0.2, lr=0.1, tau=0.4)
    with pytest.raises(NotFiniteError, match=r"step 4, tensor param/layer\.bias"):
        gather_gram(analysis.trajectory, analysis.rows.rows, [])


@pytest.mark.parametrize("count", [2, 501])
def test_how_many_it_takes(count: int, plain_run: Path) -> None:
    with pytest.raises(UsageError, match=f"--pca {count}: expected a number of iterates, 3 to 500"):
        trajcheck.analyze(plain_run, pca=count)
