"""commands/schedule: the bound from a CSV, a Trainer's state and every-step.f64, with what was decided said, and what
cannot be used refused by file, line and column."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from plain_run_files import Outcome

import trajcheck
from trajcheck.errors import BadInputError, OutputError, UsageError
from trajcheck.metrics.last_iterate import last_iterate

Cli = Callable[..., Outcome]

RATES, NORMS, LOSSES = 0.1 * (1 - np.arange(40) / 40), 1 / np.sqrt(1 + np.arange(40)), 2 / (1 + np.arange(40))


def csv(path: Path, rows: Sequence[Sequence[object]], head: str = "step,loss,lr,grad_norm") -> Path:
    path.write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def every(steps: Sequence[int] = range(40)) -> list[tuple[object, ...]]:
    return [(t, LOSSES[t], RATES[t], NORMS[t]) for t in steps]


def test_the_terms_of_a_csv(tmp_path: Path, cli: Cli) -> None:
    log = csv(tmp_path / "log.csv", every())
    found = trajcheck.schedule(log, distance=1.5, loss_ref=0.01)
    total, squares = RATES.sum(), RATES**2 * NORMS**2
    third = sum(
        RATES[k] / RATES[k + 1 :].sum() * squares[k:].sum() / RATES[k:].sum() / 2 for k in range(39)
    )  # a plain double loop
    first, second = 1.5**2 / (2 * total), squares.sum() / (2 * total)
    fields = ("rate_sum", "distance_term", "gradient_term", "last_term", "bound", "gap")
    np.testing.assert_allclose(
        [getattr(found, name) for name in fields],
        [total, first, second, third, first + second + third, LOSSES[39] - 0.01],
        rtol=1e-12,
    )
    assert found.rate_factor == pytest.approx(math.sqrt(first / (second + third)))
    assert (found.first_step, found.step, found.steps, found.estimate, found.held) == (0, 39, 40, False, True)
    assert found.theorem is None and "does not say how the steps were made" in found.notes[0]
    assert trajcheck.schedule(log, distance=0.0, loss_ref=-5.0).held is False
    printed = json.loads(cli("schedule", log, "--distance", 1.5, "--loss-ref", 0.01, "--format", "json").out)
    assert printed == found.as_json and printed["bound"] == found.bound  # all digits
    text = cli("schedule", log, "--distance", 1.5, "--loss-ref", 0.01).out
    assert "bound      held" in text and max(map(len, text.splitlines())) <= 80


def test_what_is_not_given_is_named(tmp_path: Path, cli: Cli) -> None:
    log = csv(tmp_path / "log.csv", every())
    found = trajcheck.schedule(log)
    assert found.bound is None and found.held is None and found.last_term is not None
    assert "--distance" in found.missing["bound"] and "--loss-ref" in found.missing["gap"]
    assert found.matched_distance is not None
    matched = trajcheck.schedule(log, distance=found.matched_distance)
    assert matched.rate_factor == pytest.approx(1) and matched.best_bound == pytest.approx(matched.bound)
    least = trajcheck.schedule(log, loss_ref=-3.0).least_distance
    assert least is not None and least > 0
    assert trajcheck.schedule(log, 1.001 * least, -3.0).held and not trajcheck.schedule(log, 0.999 * least, -3.0).held
    assert trajcheck.schedule(log, 1.0, 0.0, 0.5).gap == 0.5
    text = " ".join(cli("schedule", log).out.split())
    assert "not known whether it holds: |x_1 - x*| is not known: give --distance" in text
    no_loss = csv(tmp_path / "l.csv", [row[2:] for row in every()], "lr,gnorm")
    assert "--loss-last" in trajcheck.schedule(no_loss, 1.0, 0.0).missing["gap"]
    assert any("no column of steps" in note for note in trajcheck.schedule(no_loss).notes)


@pytest.mark.parametrize(
    "head",
    [
        "Step,train/loss,train/learning_rate,train/grad_norm",
        "global_step,Loss,LR,gnorm",
        '"Step","deep-run - train/loss","deep-run - train/lr","deep-run - train/gradient_norm"',
        "\ufeffiteration,training_loss,Learning Rate,Grad Norm",
    ],
)
def test_names_of_columns(head: str, tmp_path: Path) -> None:
    log = csv(tmp_path / "log.csv", every(), head)
    assert trajcheck.schedule(log, 1.0, 0.0).bound == trajcheck.schedule(csv(tmp_path / "b.csv", every()), 1.0, 0).bound


def test_columns_that_are_named(tmp_path: Path, cli: Cli) -> None:
    log = csv(tmp_path / "log.csv", every(), "t,a,b,c")
    found = cli("schedule", log, *("--step", "t", "--loss", "a", "--lr", "b", "--grad-norm", "c", "--format", "json"))
    assert json.loads(found.out)["last_term"] == trajcheck.schedule(csv(tmp_path / "b.csv", every())).last_term


def test_rows_that_lack_numbers_take_the_nearest(tmp_path: Path) -> None:
    """Every tenth step is logged: steps 0-5 take step 0's (5 is as near to 10: the earlier), 6-15 those of step 10."""
    found = trajcheck.schedule(csv(tmp_path / "log.csv", every(range(0, 40, 10))), 1.0)
    at = np.repeat([0, 10, 20, 30], [6, 10, 10, 5])
    terms = last_iterate(RATES[at], NORMS[at] ** 2)
    assert (found.step, found.steps, found.estimate) == (30, 31, True)
    assert (found.gradient_term, found.last_term) == (terms.gradients, terms.last)
    assert "of 31 steps 27 took the rate and 27 the gradient" in found.notes[0]


def test_rates_of_0_at_the_end(tmp_path: Path) -> None:
    rows = [(t, LOSSES[t], 0.0 if t >= 37 else RATES[t], NORMS[t]) for t in range(40)]
    found = trajcheck.schedule(csv(tmp_path / "log.csv", rows), 1.0, 0.0)
    assert found.step == 36 and found.loss == LOSSES[36] and "the last 3 steps have rate 0" in found.notes[0]
    with pytest.raises(BadInputError, match="no step has a rate above 0"):
        trajcheck.schedule(csv(tmp_path / "z.csv", [(t, 1, 0, 1) for t in range(5)]))


def test_a_resumed_job_and_rows_that_complete_each_other(tmp_path: Path) -> None:
    lost = [(t, 9.0, 9.0, 9.0) for t in range(25, 31)]  # beyond the checkpoint of step 25, and not kept
    rows = [*every(range(25)), *lost, *every(range(25, 40))]
    halves = [half for t, loss, *others in rows for half in ((t, loss, "", ""), (t, "", *others))]
    whole = trajcheck.schedule(csv(tmp_path / "log.csv", every()), 1.0, 0.0)
    found = trajcheck.schedule(csv(tmp_path / "r.csv", halves), 1.0, 0.0)
    assert (found.bound, found.gap, found.estimate) == (whole.bound, whole.gap, False)
    assert "line 64 goes back to step 25, as a resumed job does: 6 steps" in found.notes[0]
    again = trajcheck.schedule(csv(tmp_path / "t.csv", [*every(), (39, 7.0, RATES[39], NORMS[39])]), 1.0, 0.0)
    assert again.loss == 7.0 and "1 numbers are logged twice for one step" in again.notes[0]


def test_numbers_that_are_not_finite_are_not_known(tmp_path: Path) -> None:
    rows = [(*row[:3], "nan" if row[0] in (7, 38, 39) else row[3]) for row in every()]
    found = trajcheck.schedule(csv(tmp_path / "log.csv", rows), 1.0, 0.0)
    assert found.step == 37 and found.estimate and "3 logged numbers are NaN or infinite" in " ".join(found.notes)
    assert "0 took the rate and 1 the gradient" in found.notes[0]


BAD = {
    "a negative rate": (lambda rows: [*rows, (40, 1, -0.1, 1)], "line 42, column lr: -0.1 is no lr; expected a number"),
    "a negative norm": (lambda rows: [(0, 1, 1, -1)], "line 2, column grad_norm: -1 is no grad_norm"),
    "a word": (lambda rows: [(0, "x", 1, 1)], "line 2, column loss: x is no loss; expected a number"),
    "no step": (lambda rows: [("", 1, 1, 1)], "line 2, column step: a blank is no number of a step"),
    "half a step": (lambda rows: [(0.5, 1, 1, 1)], "line 2, column step: 0.5 is no number of a step"),
    "no rows": (lambda rows: [], "has no row with a number"),
    "rows in no order": (lambda rows: rows[::-1], "39 of 40 rows go back, first line 3 to step 38"),
    "too many steps": (lambda rows: [*rows, (2**50, 1, 1, 1)], "expected 20,000,000 at most"),
    "an overflow": (lambda rows: [(0, 1, 1, 1e300)], "the square of the gradient of step 0 is inf"),
    "only NaN": (lambda rows: [(0, 1, "nan", 1)], "no step has a finite rate"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_csv_that_cannot_be_used(name: str, tmp_path: Path, cli: Cli) -> None:
    rows, said = BAD[name]
    log = csv(tmp_path / "bad.csv", rows(every()))
    outcome = cli("schedule", log)
    assert outcome.code == 3 and said in outcome.err and "bad.csv" in outcome.err


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("step,loss,lr,x", "has no column grad_norm"),
        ("step,loss,grad_norm,x", "Name it by --lr COL"),
        ("step,loss,lr,grad_norm,train/lr", "2 columns may be lr: lr, train/lr; choose one by --lr COL"),
        ("", "has no column lr"),
    ],
)
def test_a_head_that_cannot_be_used(head: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=said):
        trajcheck.schedule(csv(tmp_path / "bad.csv", [(0, 1, 1, 1, 1)], head))


def state(path: Path, entries: Sequence[object], version: str = "") -> Path:
    path.write_text(json.dumps({"global_step": 40, "log_history": entries, "best_metric": None}))
    if version:
        path.with_name("config.json").write_text(json.dumps({"transformers_version": version}))
    return path


def entry(step: int, rate: float) -> dict[str, object]:
    return {"loss": LOSSES[step - 1], "learning_rate": rate, "grad_norm": NORMS[step - 1], "epoch": 0.1, "step": step}


@pytest.mark.parametrize(("version", "next_one"), [("4.52.1", False), ("4.40.0", True), ("", False)])
def test_a_trainers_state(version: str, next_one: bool, tmp_path: Path) -> None:
    """An entry after s updates tells of update s - 1, but its rate is that of update s up to transformers 4.50."""
    rates = [*RATES, 0.0]
    entries: list[object] = [entry(s, rates[s] if next_one else rates[s - 1]) for s in range(1, 41)]
    entries += [{"eval_loss": 1.0, "step": 40}, {"train_loss": 0.5, "train_runtime": 3.0, "step": 40}]
    found = trajcheck.schedule(state(tmp_path / "trainer_state.json", entries, version), 1.0, 0.0)
    first = RATES if not next_one else np.r_[RATES[1], RATES[1:]]  # nobody logged that of step 0: the nearest one
    terms = last_iterate(first, NORMS**2)
    assert (found.step, found.steps, found.gap, found.estimate) == (39, 40, LOSSES[39], next_one)
    assert found.last_term == pytest.approx(terms.last, rel=1e-12)
    notes = " ".join(found.notes)
    assert "before it clips" in notes and ("no config.json" in notes) == (not version)
    assert trajcheck.schedule(tmp_path, 1.0, 0.0) == found  # the folder


def test_a_trainer_that_logs_every_ten_steps(tmp_path: Path) -> None:
    log = state(tmp_path / "trainer_state.json", [entry(s, RATES[s - 1]) for s in range(10, 41, 10)])
    found = trajcheck.schedule(log, 1.0, 0.0)
    at = np.repeat([9, 19, 29, 39], [15, 10, 10, 5])
    terms = last_iterate(RATES[at], NORMS[at] ** 2)
    assert (found.first_step, found.step, found.last_term) == (0, 39, pytest.approx(terms.last, rel=1e-12))
    assert found.estimate and "mean over the updates since the entry before (10 of the last)" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "has no list log_history"),
        ('{"log_history": [3]}', "entry 0 of log_history is no object"),
        ('{"log_history": [{"loss": 1, "step": "x"}]}', "has the step x"),
        ('{"log_history": [{"loss": 1, "step": 1, "learning_rate": -1}]}', "learning_rate is -1; expected a number, 0"),
        ('{"log_history": [{"loss": true, "step": 1}]}', "loss is True"),
        ('{"log_history": [{"loss": 1, "step": 1, "learning_rate": 1}]}', "no step has a finite norm of a gradient"),
        ('{"log_history": ', "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_a_state_that_cannot_be_used(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(BadInputError, match=said):
        trajcheck.schedule(tmp_path / "s.json")


def test_every_step_file(tmp_path: Path) -> None:
    """An update's length tells of an optimizer whose steps are others; what is not known is taken from the nearest."""
    numbers = np.stack([LOSSES, RATES, NORMS**2, (RATES * NORMS) ** 2], 1)
    numbers[5] = LOSSES[5], 0.0, math.nan, 0.0  # skipped by a loss scaler
    file = tmp_path / "every-step.f64"
    file.write_bytes(numbers.astype("<f8").tobytes() + b"torn")
    found = trajcheck.schedule(file, 1.0, 0.0)
    rates = np.where(np.arange(40) == 5, 0.0, RATES)
    assert found.last_term == pytest.approx(last_iterate(rates, NORMS**2).last, rel=1e-12)
    assert not found.estimate and found.theorem is None and not found.not_theorem
    assert any("1 steps that a loss scaler skipped" in note for note in found.notes)
    numbers[20:, 3] *= 1.5
    numbers[9, 2] = math.nan
    file.write_bytes(numbers.astype("<f8").tobytes())
    other = trajcheck.schedule(file, 1.0, 0.0)
    assert other.theorem is False and "the updates' lengths are not eta_t |g_t|" in other.not_theorem[0]
    assert other.estimate and "0 took the rate and 1 the gradient" in other.notes[0]


def test_where_it_is_written(tmp_path: Path, cli: Cli) -> None:
    log, out = csv(tmp_path / "log.csv", every()), tmp_path / "made" / "bound.json"
    outcome = cli("schedule", log, "--out", out, "--quiet")
    assert outcome.code == 0 and not outcome.out
    assert json.loads(out.read_text()) == trajcheck.schedule(log, out=out).as_json
    with pytest.raises(OutputError, match="no bound of trajcheck schedule"):
        trajcheck.schedule(log, out=log)
    assert log.read_text().startswith("step,")


def test_usage(tmp_path: Path, cli: Cli, plain_run: Path) -> None:
    log = csv(tmp_path / "log.csv", every())
    with pytest.raises(UsageError, match="--distance -1: expected a finite number, 0 or more"):
        trajcheck.schedule(log, -1.0)
    with pytest.raises(UsageError, match="--loss-ref nan"):
        trajcheck.schedule(log, 1.0, math.nan)
    with pytest.raises(UsageError, match="--lr names a column of a CSV"):
        trajcheck.schedule(state(tmp_path / "s.json", []), lr="x")
    assert cli("schedule", log, "--format", "csv").code == 2
    assert cli("schedule", tmp_path / "none.csv").code == 3
    outcome = cli("schedule", plain_run)
    assert outcome.code == 3 and "has no every-step.f64" in outcome.err
