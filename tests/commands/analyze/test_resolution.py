"""Resolutions are measured: what rounding makes of small differences is known from a wider precision.

Near the end of training losses are small sums of large numbers, and float32 decides signs by chance. What the test
compares with is a float64 replay of the same run, asked for explicitly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import near_the_end
import numpy as np
import pandas as pd
import pytest
import torch
from frames import col, towards
from plain_run_files import Outcome
from safetensors.numpy import load_file
from torch import nn

import trajcheck
from trajcheck.errors import TrajcheckError
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.measuring.options import Options
from trajcheck.measuring.precision import ReplayPrecision, tried
from trajcheck.metrics.resolution import BOUND, MARGIN, NEAREST, ROWS
from trajcheck.objective.devices import slow_in_double
from trajcheck.replay.two_precisions.trial import Trial
from trajcheck.replay.two_precisions.trial_reads import TrialReads

pytestmark = pytest.mark.usefixtures("two_precisions")

EPS = 2.0**-23
METRICS = ["convexity", "progress", "smoothness"]
Runs = dict[str, tuple[Path, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One short training of every kind, to its end."""
    folder = tmp_path_factory.mktemp("near-the-end")
    found = {}
    for name, rows in (("mlp", 76), ("cnn", 26), ("transformer", 26)):
        run = near_the_end.record(name, folder / name, seed=5, steps=120, last=rows)
        found[name] = run, near_the_end.objective(name, folder / f"{name}.py")
    return found


@pytest.fixture(scope="module")
def both(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """Their reports in float32 and in float64."""
    out = tmp_path_factory.mktemp("reports")
    found = {}
    for name, (run, spec) in runs.items():
        options: dict[str, Any] = {"objective": spec, "metrics": METRICS}
        found[name] = (
            trajcheck.analyze(run, **options, replay_dtype="float32", out=out / f"{name}-32"),
            trajcheck.analyze(run, **options, replay_dtype="float64", out=out / f"{name}-64"),
        )
    return found


def tables(both: dict[str, tuple[Any, Any]]) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """float32 and float64 beside one another: towards x_{t-1}, and towards the last iterate."""
    found = [(narrow.steps, wide.steps) for narrow, wide in both.values()]
    return found + [(narrow.references, wide.references) for narrow, wide in both.values()]


@pytest.mark.parametrize(("name", "bound"), [("inst_gap", "gap_resolution"), ("loss_change", "loss_change_resolution")])
def test_true_errors_lie_below_the_resolution(both: dict[str, tuple[Any, Any]], name: str, bound: str) -> None:
    """At least 99% of them, and at most 0.5% of resolved signs are wrong."""
    rows = above = resolved = wrong = 0
    for narrow, wide in tables(both):
        if name not in narrow:
            continue
        a, b, limit = col(narrow, name), col(wide, name), col(narrow, bound)
        here = np.isfinite(a) & np.isfinite(b) & (a != 0)
        rows, above = rows + here.sum(), above + (np.abs(a - b) > limit)[here].sum()
        certain = here & (np.abs(a) > limit)
        resolved, wrong = resolved + certain.sum(), wrong + ((a < 0) != (b < 0))[certain].sum()
    assert rows > 110 and resolved > rows / 4
    assert above <= 0.01 * rows
    assert wrong <= 0.005 * resolved
    if name == "inst_gap":  # which the bound that takes rounding to be relative to the loss would not do
        gaps = [(col(n, "inst_gap") - col(w, "inst_gap"), col(n, "loss")) for n, w in tables(both)]
        assert sum((np.abs(error) > 8 * EPS * loss).sum() for error, loss in gaps) > 0.03 * rows


def test_what_is_divided_by_a_small_number_is_no_rounding(both: dict[str, tuple[Any, Any]]) -> None:
    """directional_smoothness and inst_smooth: empty below their resolution, with the reason; near the truth above."""
    empty, apart = 0, []
    for narrow, wide in both.values():
        for name in ("directional_smoothness", "inst_smooth"):
            a, b = col(narrow.steps, name), col(wide.steps, name)
            given = np.isfinite(a) & np.isfinite(b)
            apart += np.abs(np.log(a / b))[given].tolist()
            empty += (np.isnan(a) & np.isfinite(b)).sum()
        reasons = narrow.undefined[narrow.undefined["column"] == "directional_smoothness"]["reason"]
        assert "the numerator is below its resolution" in set(reasons)
        smallest = col(narrow.steps, "smooth_resolution")
        kept = np.isfinite(col(narrow.steps, "inst_smooth"))
        assert (col(narrow.steps, "inst_smooth") > smallest)[kept].all()
    assert empty > 10 and len(apart) > 50
    assert np.mean(np.array(apart) < np.log(3)) > 0.98


def expected_resolution(
    error: np.ndarray, twice: np.ndarray, scale: np.ndarray, bound: np.ndarray, loss: np.ndarray
) -> np.ndarray:
    """The definition, row by row, in plain loops."""
    places = np.flatnonzero(twice)
    result = []
    for t in range(len(error)):
        near = sorted(places, key=lambda p: abs(np.log(loss[p]) - np.log(loss[t])))[:NEAREST]
        r16 = max(error[near] / (EPS * scale[near]))
        e16 = max(error[near])
        own = error[t] if twice[t] else 0.0
        result.append(max(MARGIN * r16 * EPS * scale[t], MARGIN * e16, own, BOUND * EPS * bound[t]))
    return np.array(result)


def test_the_resolution_is_the_definition(both: dict[str, tuple[Any, Any]], runs: Runs) -> None:
    """From the float64 report's differences on the rows that were evaluated twice, 64 of all."""
    narrow, wide = both["mlp"]
    run, spec = runs["mlp"]
    places = MeasuredRun(run, Options(objective=spec, replay_dtype="float32"), quiet=True).request.second
    assert narrow.summary["replay"]["second"] == {"dtype": "float64", "rows": ROWS, "failed": ""}
    assert len(places) == ROWS
    a, b = narrow.steps, wide.steps
    rows = np.isfinite(col(a, "inst_gap"))
    twice = np.isin(np.arange(len(a)), sorted(places))[rows]
    loss, change, inner = (col(a, name)[rows] for name in ("loss", "loss_change", "update_corr"))
    losses = np.abs(loss) + np.abs(loss - change)
    for name, bound, scale in (
        ("inst_gap", "gap_resolution", losses + np.abs(inner)),
        ("loss_change", "loss_change_resolution", losses),
    ):
        error = np.abs(col(a, name) - col(b, name))[rows]
        expected = expected_resolution(error, twice, scale, losses, loss)
        found = col(a, bound)[rows]
        ties = np.abs(found / expected - 1) > 1e-6  # of two rows equally near the other may count
        assert ties.mean() < 0.1 and found[~ties] == pytest.approx(expected[~ties], rel=1e-6)


def in_long_double(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """inst_gap and loss_change towards x_{t-1} of the MLP, by hand in long double."""
    steps = [load_file(file) for file in sorted(run.glob("step-*.safetensors"))]
    points = [
        [d[f"param/{name}"].astype(np.longdouble) for name in ("1.weight", "1.bias", "3.weight", "3.bias")]
        for d in steps
    ]

    def taken(x: list[np.ndarray], inputs: np.ndarray, labels: np.ndarray) -> tuple[Any, list[np.ndarray]]:
        hidden = inputs @ x[0].T + x[1]
        active = np.maximum(hidden, 0)
        logits = active @ x[2].T + x[3]
        logits -= logits.max(1, keepdims=True)
        of_label = np.eye(logits.shape[1])[labels]
        powers = np.exp(logits)
        loss = (np.log(powers.sum(1)) - (of_label * logits).sum(1)).mean()
        back = (powers / powers.sum(1, keepdims=True) - of_label) / len(labels)
        behind = (back @ x[2]) * (hidden > 0)
        return loss, [behind.T @ inputs, behind.sum(0), back.T @ active, back.sum(0)]

    found = []
    for before, x, d in zip(points, points[1:], steps[1:], strict=False):
        if "batch/0" not in d:
            break
        sample = d["batch/0"].reshape(len(d["batch/1"]), -1).astype(np.longdouble), d["batch/1"]
        loss, gradient = taken(x, *sample)
        change = loss - taken(before, *sample)[0]
        inner = sum((g * (a - b)).sum() for g, a, b in zip(gradient, x, before, strict=True))
        found.append((float(change - inner), float(change)))
    gaps, changes = np.array(found).T
    return gaps, changes


@pytest.mark.skipif(bool(np.finfo(np.longdouble).eps > 1e-18), reason="long double is double here")
def test_float64_too_is_resolved_by_what_was_measured(
    both: dict[str, tuple[Any, Any]], runs: Runs, tmp_path: Path
) -> None:
    """Three times the largest that float32 is off by in all terms, over 2^29: no true error is above it, where most are
    above 4 eps. So from a whole run, and from the last steps of one, between which float32 sees no difference."""
    whole = near_the_end.record("mlp", tmp_path / "whole", seed=6, steps=40)
    reports = [
        trajcheck.analyze(whole, objective=runs["mlp"][1], metrics=METRICS[:2], replay_dtype=each, out=tmp_path / each)
        for each in ("float32", "float64")
    ]
    _resolved_in_float64(whole, runs["mlp"][1], *reports)
    _resolved_in_float64(*runs["mlp"], *both["mlp"])


def _resolved_in_float64(run: Path, spec: str, narrow: Any, wide: Any) -> None:
    assert not any("does not show how float64 rounds" in each for each in wide.summary["warnings"])
    assert wide.summary["replay"]["second"] == {"dtype": "float32", "rows": NEAREST, "failed": ""}
    measured = MeasuredRun(run, Options(objective=spec, replay_dtype="float64", metrics=METRICS[:2]), quiet=True)
    request = replace(measured.request, twice=NEAREST)
    twice = np.isin(np.arange(len(wide.steps)), sorted(request.second))
    loss, change = col(wide.steps, "loss"), col(wide.steps, "loss_change")
    bound = BOUND * 2.0**-52 * (np.abs(loss) + np.abs(loss - change))
    off, before, inner = (
        np.abs(a - b)
        for a, b in (
            (col(narrow.steps, "loss"), loss),
            (col(narrow.steps, "loss") - col(narrow.steps, "loss_change"), loss - change),
            (col(narrow.steps, "update_corr"), col(wide.steps, "update_corr")),
        )
    )
    beyond = 0
    for name, limit, apart, true in zip(
        ("inst_gap", "loss_change"),
        ("gap_resolution", "loss_change_resolution"),
        (off + before + inner, off + before),
        in_long_double(run),
        strict=True,
    ):
        value, found = col(wide.steps, name), col(wide.steps, limit)
        seen = np.nanmax(apart[twice]) * 2.0**-29
        here = np.isfinite(value)
        np.testing.assert_allclose(found[here], np.fmax(bound, MARGIN * seen)[here], rtol=1e-6)
        error = np.abs(value[here] - true)
        assert len(true) == here.sum() and (error <= found[here]).all()
        certain = np.abs(value[here]) > found[here]
        assert certain.mean() > 0.5 and ((value[here] < 0) == (true < 0))[certain].all()
        beyond += (error > bound[here]).mean()
    assert beyond / 2 > 0.5


def test_float64_is_the_default_where_it_costs_little(runs: Runs, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    """Its rounding is measured in float32; an explicit dtype is obeyed; --dry-run and summary say which, and why."""
    run, spec = runs["cnn"]
    report = trajcheck.analyze(run, objective=spec, metrics=["convexity"], steps="::4", out=tmp_path / "default")
    replay = report.summary["replay"]
    assert replay["dtype"] == "float64" and replay["why"].startswith("it costs little")
    assert replay["second"] == {"dtype": "float32", "rows": 6, "failed": ""}
    rows = towards(report.references, "final")
    bound = BOUND * 2.0**-52 * (np.abs(col(rows, "loss")) + np.abs(col(rows, "loss_ref")))
    here = np.isfinite(bound)
    assert here.sum() == 6 and (col(rows, "gap_resolution") >= bound)[here].all()
    asked = trajcheck.analyze(
        run, objective=spec, replay_dtype="float32", metrics=["secant"], steps="::8", out=tmp_path / "asked"
    )
    assert asked.summary["replay"]["dtype"] == "float32" and asked.summary["replay"]["why"].startswith("as asked")
    assert "second" not in asked.summary["replay"]  # nothing here is a small difference
    told = cli("analyze", run, "--objective", spec, "--dry-run", "--steps", "::8").out
    assert "precision  float64: it costs little" in told
    told = cli("analyze", run, "--objective", spec, "--replay-dtype", "float32", "--dry-run", "--steps", "::8").out
    assert "precision  float32: as asked" in told and re.search(
        r"in float64, on \d rows, to measure the rounding", told
    )


def test_shares_that_rounding_decides_are_said(both: dict[str, tuple[Any, Any]]) -> None:
    """Where a wider precision would judge more than a point of the steps otherwise, and about how many."""
    for narrow, wide in both.values():
        heads = [report.summary["headline"] for report in (narrow, wide)]
        pairs = [(each["previous"], "x_(t-1)") for each in heads], [(e["references"]["final"], "final") for e in heads]
        [warning] = [each for each in narrow.summary["warnings"] if "rounding in float32 decides signs" in each]
        assert "--replay-dtype float64" in warning and "e+" not in warning
        assert not any("decides signs" in each for each in wide.summary["warnings"])
        for (here, where), (there, _) in pairs:
            changed = sum(abs(here["shares"][name] - there["shares"][name]) for name in here["shares"]) / 2
            assert here["judged_otherwise"] == pytest.approx(changed, abs=0.05)
            assert (f"towards {where}" in warning) == (here["judged_otherwise"] > 0.01)
            assert there["judged_otherwise"] is None


def test_a_second_call_needs_no_second_pass_and_an_interrupted_one_ends_the_same(runs: Runs, tmp_path: Path) -> None:
    run, spec = runs["mlp"]
    options: dict[str, Any] = {"objective": spec, "replay_dtype": "float32", "metrics": ["convexity"], "steps": "::3"}
    whole = trajcheck.analyze(run, **options, out=tmp_path / "whole")
    again = trajcheck.analyze(run, **options, out=tmp_path / "whole")
    assert again.summary["scalars"]["computed"] == 0 and again.summary["replay"]["evaluations"] == 0
    pd.testing.assert_frame_equal(again.steps, whole.steps)
    out = tmp_path / "parts"
    trajcheck.analyze(run, **{**options, "metrics": ["secant"]}, out=out)  # which leaves some of it there
    folder = out / "scalars"
    measured = MeasuredRun(run, Options(**options), quiet=True)
    from trajcheck.scalars.saved.store import ScalarStore

    store = ScalarStore(folder, interval=0)
    measurement = measured.measurement(measured.resolve(folder).points, store)
    places = [row.place for row in measured.rows.work]
    measured.compute(measurement, measurement.portions_of(measured.rows.some(places[: len(places) // 2])))
    store.flush()
    parts = trajcheck.analyze(run, **options, out=out)
    assert parts.summary["scalars"]["reused"] > 0
    pd.testing.assert_frame_equal(parts.steps, whole.steps)
    pd.testing.assert_frame_equal(parts.references, whole.references)


class _Narrow(nn.Module):
    """A model whose code is of float32 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) @ torch.from_numpy(np.ones((1, 1), dtype=np.float32))


NARROW = """
import sys; sys.path.insert(0, {here!r})
from test_resolution import _Narrow
def objective():
    return _Narrow(), lambda model, batch: (model(batch) ** 2).mean()
"""


def test_a_loss_that_float64_breaks_keeps_its_own_and_the_summary_says_so(tmp_path: Path) -> None:
    """By default; asked for, the error is the answer; and rounding that cannot be measured is said."""
    torch.manual_seed(0)
    model = _Narrow()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with trajcheck.Recorder(tmp_path / "run", model, optimizer, every=1, quiet=True) as recorder:
        for _ in range(4):
            batch = torch.randn(5, 3)
            loss = (model(batch) ** 2).mean()
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()
    path = tmp_path / "objective.py"
    path.write_text(NARROW.format(here=str(Path(__file__).parent)))
    spec = f"{path}:objective"
    report = trajcheck.analyze(tmp_path / "run", objective=spec, metrics=["convexity"], out=tmp_path / "report")
    replay = report.summary["replay"]
    assert replay["dtype"] == "float32" and "not float64: it fails there" in replay["why"]
    assert "float64 fails" in next(each for each in report.summary["warnings"] if "could not be measured" in each)
    losses = np.abs(col(report.steps, "loss")) + np.abs(col(report.steps, "loss") - col(report.steps, "loss_change"))
    given = np.isfinite(losses)
    np.testing.assert_allclose(col(report.steps, "gap_resolution")[given], BOUND * EPS * losses[given], rtol=1e-6)
    json.dumps(report.summary)
    with pytest.raises(TrajcheckError, match="dtype"):
        trajcheck.analyze(tmp_path / "run", objective=spec, replay_dtype="float64", out=tmp_path / "asked")


def test_a_model_of_many_parameters_or_operations_keeps_its_own(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, spec = runs["transformer"]
    from trajcheck.measuring import precision

    def why() -> tuple[str, str]:
        found = MeasuredRun(run, Options(objective=spec), quiet=True).precision
        return found.dtype, found.why

    assert why()[0] == "float64"
    monkeypatch.setattr(precision, "OPERATIONS", 1000)
    dtype, words = why()
    assert dtype == "float32" and "operations; up to 1e+03 it would be float64" in words
    monkeypatch.setattr(precision, "PARAMETERS", 100)
    dtype, words = why()
    assert dtype == "float32" and "parameters; up to 100 it would be float64" in words


@pytest.mark.parametrize(
    ("capability", "hip", "words"),
    [
        ((8, 0), None, ""),
        ((9, 0), None, ""),
        ((8, 9), None, "float64 is up to 64 times slower than float32 on a card (compute capability 8.9)"),
        ((9, 0), "6.2", "how fast float64 is on a card is not known"),
    ],
)
def test_float64_is_the_default_on_a_gpu_only_where_that_is_fast(
    capability: tuple[int, int], hip: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch would say of a card stands in for the card, and a trial that must not be made for a slow one."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    slow = slow_in_double(torch.device("cuda", 0))
    assert slow == words and slow_in_double(torch.device("cpu")) == ""
    expected = ReplayPrecision("float64", "it costs little", "float32", TrialReads(0, "own", {}, ()))
    tries: list[str] = []

    def trial(reads: TrialReads, own: str, wider: str) -> Trial:
        tries.append(wider)
        return Trial(10, "")

    found = tried(expected, trial, slow)
    assert (found.dtype, found.why) == (("float32", words) if words else ("float64", "it costs little"))
    assert tries == ([] if words else ["float64"]) and found.evaluations == 2 * len(tries)
