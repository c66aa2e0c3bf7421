"""`verify --against RUN`: steps that descend from another run's step 0, or lie on its path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from plain_run_files import Outcome
from small_trainings import Training, training, write_files, write_native

import trajcheck
from trajcheck.audit.findings import DAMAGE, NOTE, Finding
from trajcheck.audit.kinship import kept
from trajcheck.audit.sampled import read_samples
from trajcheck.runs.trajectory import open_trajectory

Cli = Callable[..., Outcome]


@pytest.fixture(scope="module")
def two() -> tuple[Training, Training]:
    """Of two seeds, of which one goes on for longer."""
    return training(0, 200)[0], training(1, 300)[0]


def found(run: Path, other: Path) -> list[Finding]:
    (audit,) = trajcheck.verify(run, against=[other]).audits
    return [each for each in audit.findings if each.severity != NOTE]


def test_two_runs_have_nothing_to_do_with_each_other(tmp_path: Path, two: tuple[Training, Training]) -> None:
    run, other = write_files(tmp_path / "run", two[0]), write_native(tmp_path / "other", two[1])
    assert found(run, other) == [] and found(other, run) == []


def test_steps_of_the_other_run_are_named_as_its_own(tmp_path: Path, two: tuple[Training, Training]) -> None:
    """Copies, and steps that it holds nowhere."""
    own, theirs = two
    halfway = {name: (theirs[130][name] + theirs[140][name]) / 2 for name in theirs[130]}
    run = write_files(tmp_path / "run", dict(own) | {90: theirs[250], 150: halfway})
    findings = found(run, write_files(tmp_path / "other", theirs))
    by_step = {each.steps: each for each in findings if each.of is not None}
    assert set(by_step) == {(90,), (150,)} == {each.steps for each in findings}
    assert by_step[90,].belongs_to == 250 and "all sampled elements are those of step 250" in by_step[90,].evidence
    assert by_step[150,].belongs_to in (130, 140) and by_step[150,].severity == DAMAGE


def test_all_steps_but_the_first_descend_from_the_other(tmp_path: Path, two: tuple[Training, Training]) -> None:
    own, theirs = two
    other = write_files(tmp_path / "other", {0: theirs[0], 300: theirs[300]})
    run = write_files(tmp_path / "run", dict(own) | {step: each for step, each in theirs.items() if 0 < step <= 200})
    findings = [each for each in found(run, other) if each.finding == "descends from another run"]
    steps = {step for each in findings for step in each.steps}
    assert steps == set(range(10, 210, 10)) and {each.severity for each in findings} == {DAMAGE}


def test_runs_of_one_initialization(tmp_path: Path, two: tuple[Training, Training]) -> None:
    """Are apart by where their steps lie alone, which is said."""
    own = two[0]
    draws = np.random.default_rng(0)
    moved = {0: own[0]} | {
        step: {name: x + step * 1e-3 * draws.normal(size=x.shape).astype("f4") for name, x in each.items()}
        for step, each in own.items()
        if step
    }
    (audit,) = trajcheck.verify(write_files(tmp_path / "a", own), against=[write_files(tmp_path / "b", moved)]).audits
    assert [each.finding for each in audit.findings if each.of] == ["same step 0"]


def test_other_tensors_are_not_compared(tmp_path: Path, two: tuple[Training, Training]) -> None:
    own = two[0]
    less = {step: {name: x for name, x in each.items() if name != "4.bias"} for step, each in own.items()}
    (audit,) = trajcheck.verify(write_files(tmp_path / "a", own), against=[write_files(tmp_path / "b", less)]).audits
    assert "not compared" in [each.finding for each in audit.findings]


def test_the_part_that_is_kept_is_that_of_all_elements(tmp_path: Path, two: tuple[Training, Training]) -> None:
    """Every element of these tensors is sampled: so it is <c_a, c_b> / |c_a|^2 over all but the constant ones."""
    own = two[0]
    trajectory = open_trajectory(write_files(tmp_path / "run", own))
    samples = read_samples(trajectory.snapshots, trajectory.shapes)
    assert samples is not None
    names = [name for name, x in own[0].items() if x.size >= 32]

    def dense(step: int) -> np.ndarray:
        x = [own[step][name].astype(np.float64) for name in names]
        return np.concatenate([(each - each.mean()).ravel() for each in x])

    for a, b in ((0, 20), (3, 4), (5, 20)):
        x, y = dense(10 * a), dense(10 * b)
        assert kept(samples, a, b).part == pytest.approx(x @ y / (x @ x), rel=1e-5)
        assert kept(samples, a, b).cosine == pytest.approx(x @ y / np.sqrt((x @ x) * (y @ y)), rel=1e-5)


def test_on_the_command_line(cli: Cli, tmp_path: Path, two: tuple[Training, Training]) -> None:
    own, theirs = two
    run, other = write_files(tmp_path / "run", dict(own) | {90: theirs[250]}), write_files(tmp_path / "other", theirs)
    outcome = cli("verify", run, "--against", other)
    assert outcome.code == 3 and "step 90: of another run" in outcome.err
    assert cli("verify", run, "--against", tmp_path / "nowhere").code == 3
