"""Of clean archives, whatever the optimizer and the schedule, nothing is said but notes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from places import SAMPLES
from small_trainings import CLEAN, write_files, write_native

from trajcheck.audit.audit import audit
from trajcheck.audit.findings import NOTE, Audit, Finding
from trajcheck.runs.trajectory import open_trajectory


def said(folder: Path) -> Audit:
    return audit(open_trajectory(folder))


def alarms(found: Audit) -> list[Finding]:
    return [each for each in found.findings if each.severity != NOTE]


@pytest.mark.parametrize("write", [write_native, write_files])
@pytest.mark.parametrize("name", CLEAN)
def test_no_false_alarm(tmp_path: Path, name: str, write: Callable[..., Path]) -> None:
    found = said(write(tmp_path / "run", *CLEAN[name]()))
    assert alarms(found) == []
    assert bool(found.not_judged) <= name.startswith("edge of stability"), "the order of the others can be judged"


@pytest.mark.parametrize("run", sorted(path.name for path in SAMPLES.iterdir() if path.is_dir()))
def test_no_false_alarm_of_recorded_runs(run: str) -> None:
    assert alarms(said(SAMPLES / run)) == []


@pytest.mark.parametrize("name", ["a plateau of rate 0", "rate 0 at the end", "restarts to 0, every step"])
def test_a_plateau_is_a_note_and_its_rate_is_named_where_it_is_known(tmp_path: Path, name: str) -> None:
    weights, rates = CLEAN[name]()
    known = said(write_native(tmp_path / "known", weights, rates))
    unknown = said(write_native(tmp_path / "unknown", weights))
    plateaus = [each for each in known.findings if each.finding == "plateau"]
    still = [step for step, after in zip(weights, list(weights)[1:], strict=False) if rates[step] == 0 and after]
    assert set(still) <= {step for each in plateaus for step in each.steps}
    assert all("no update was made there" in each.evidence for each in plateaus)
    assert [each.steps for each in unknown.findings] == [each.steps for each in known.findings]
    assert not any("no update" in each.evidence for each in unknown.findings)
