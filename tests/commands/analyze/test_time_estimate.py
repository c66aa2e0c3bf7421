"""trajcheck/commands/analyze/time_estimate.py: how long an analysis would take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from places import SAMPLES
from plain_run_files import Outcome

from trajcheck.commands.analyze.time_estimate import Mark, Span, estimate_time, span
from trajcheck.measuring.options import Options

RUN, OBJECTIVE = SAMPLES / "digits-sgd-seed0", f"{SAMPLES / 'objectives.py'}:digits"
Cli = Callable[..., Outcome]


class Ticking:
    """A clock that goes on by so much at each look."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def test_an_even_pace_is_known_and_the_warm_up_left_out() -> None:
    marks = [Mark(0.0, 0), Mark(9.0, 1), *(Mark(9.0 + n, 1 + n) for n in range(1, 7))]
    assert span(marks, 100) == pytest.approx((100, 100))


def test_a_changing_pace_is_a_range() -> None:
    marks = [Mark(0.0, 0), *(Mark(float(t), n) for n, t in enumerate((1, 2, 3, 5, 7, 10, 13), 1))]
    assert span(marks, 10) == pytest.approx((10, 30))
    assert str(Span(10, 30)) == "10 s to 30 s" and str(Span(10.1, 10.2)) == "10 s"


def test_one_stretch_is_all_there_is() -> None:
    assert span([Mark(0.0, 0), Mark(2.0, 0.5)], 10) == (40, 40)


def test_what_was_watched_is_the_whole_pass_and_the_whole_replay() -> None:
    """At one tick a row: as many rows as are left to the end take as many ticks."""
    found = estimate_time(RUN, Options(objective=OBJECTIVE, steps=":30"), Ticking(0.01))
    assert found.reading.low == pytest.approx(0.01)  # the model is one block: one tick for all
    assert found.replaying == pytest.approx((0.30, 0.30)) and found.curvature is None


def test_it_stops_when_it_has_seen_enough() -> None:
    clock = Ticking(1.0)
    found = estimate_time(RUN, Options(objective=OBJECTIVE), clock)
    assert clock.now < 15 and found.replaying == pytest.approx((121, 121))
    assert found.cost.gradients > 121


def test_hessians_are_inferred_and_that_is_said() -> None:
    found = estimate_time(RUN, Options(objective=OBJECTIVE, steps=":30", curvature=10), Ticking(0.01))
    evaluations = found.cost.losses + found.cost.gradients
    low, high = (0.3 / evaluations * 3 * n for n in (11 * 1.5, 60 * 4))
    assert found.cost.hessians == 3 and found.curvature == pytest.approx((low, high))
    assert "Hessians: " in str(found) and "not measured" in str(found)
    assert "33 to\n" in str(found) and "180 products" in str(found)
    assert all(len(line) <= 80 for line in str(found).splitlines())


def test_without_an_objective_nothing_is_executed(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def load(*_: object, **__: object) -> object:
        raise AssertionError("executed")

    monkeypatch.setattr("trajcheck.objective.loading.load_objective", load)
    monkeypatch.chdir(tmp_path)
    outcome = cli("analyze", RUN, "--objective", "none", "--dry-run")
    assert outcome.code == 0 and "time       pass: " in outcome.out and "replay" not in outcome.out
    assert all(len(line) <= 80 for line in outcome.out.splitlines()) and not list(tmp_path.iterdir())


def test_a_dry_run_finds_an_objective_that_does_not_fit(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "o.py").write_text(
        "import torch\n\ndef f():\n    return torch.nn.Linear(2, 1), lambda m, b: m(b).sum()\n"
    )
    outcome = cli("analyze", RUN, "--objective", f"{tmp_path / 'o.py'}:f", "--dry-run")
    assert outcome.code == 3, outcome
