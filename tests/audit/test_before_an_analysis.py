"""An analysis, and a batch, begin with the audit: damage stops them, --skip-bad goes on without it, and warnings say
the rest. verify says all, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from plain_run_files import Outcome
from small_trainings import CLEAN, Training, write_files, write_native

import trajcheck
from trajcheck.audit.findings import SEVERITIES
from trajcheck.audit.positions import ranges
from trajcheck.commands.batch.tasks import chunk_tasks, measure_chunk, report_task
from trajcheck.errors import RunError
from trajcheck.measuring import audited
from trajcheck.measuring.options import Options

Cli = Callable[..., Outcome]


@pytest.fixture(scope="module")
def whole() -> Training:
    return CLEAN["adam"]()[0]


@pytest.fixture(scope="module")
def damaged(whole: Training, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("archive") / "run", dict(whole) | {90: whole[250], 120: whole[280]})


@pytest.fixture(scope="module")
def with_a_hole(whole: Training, tmp_path_factory: pytest.TempPathFactory) -> Path:
    some = {step: each for step, each in whole.items() if step != 140}
    return write_native(tmp_path_factory.mktemp("archive") / "run", some)


def test_damage_stops_an_analysis(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=r"damage in 2 of 31 steps: step 90: equal content.*step 250.*step 120.*skip-bad"
    ):
        trajcheck.analyze(damaged, out=tmp_path / "out")
    assert not (tmp_path / "out" / "summary.json").exists()


def test_an_analysis_goes_on_without_bad_steps_and_lists_them(damaged: Path, tmp_path: Path) -> None:
    report = trajcheck.analyze(damaged, out=tmp_path / "out", skip_bad=True)
    assert {90, 120}.isdisjoint(report.steps["step"]) and len(report.steps) == 29
    assert set(report.summary["left_out"]["steps"]) == {"90", "120"}
    assert [each["steps"] for each in report.summary["audit"]["findings"]] == [[90], [120]]


def test_what_is_suspicious_is_a_warning(with_a_hole: Path, tmp_path: Path) -> None:
    report = trajcheck.analyze(with_a_hole, out=tmp_path / "out")
    assert report.summary["warnings"][0].startswith("audit: step 140: missing steps: none between 130 and 150")
    (finding,) = report.summary["audit"]["findings"]
    assert (finding["steps"], finding["severity"]) == ([140], "suspicious")


def test_workers_of_a_batch_need_no_audit_of_their_own(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that cuts a run into chunks has looked at it."""
    options = Options(skip_bad=True, objective="none")
    task = report_task(damaged, tmp_path / "out", options, {"deep": False, "plots": False, "interval": 60.0})
    chunks = json.loads(json.dumps(chunk_tasks({**task, "rows": 20})))
    assert [len(each["steps"]) for each in chunks] == [20, 9]
    monkeypatch.setattr(audited, "quick_audit", lambda trajectory: pytest.fail("audited again"))
    assert all(measure_chunk(each) for each in chunks)


def test_a_batch_goes_on_with_the_other_runs(cli: Cli, damaged: Path, with_a_hole: Path, tmp_path: Path) -> None:
    outcome = cli("batch", damaged, with_a_hole, "--out", tmp_path / "out", "--no-plots")
    assert outcome.code != 0 and (tmp_path / "out").is_dir()
    assert len(list((tmp_path / "out").rglob("summary.json"))) >= 1


def test_verify_says_all(cli: Cli, damaged: Path, with_a_hole: Path) -> None:
    outcome = cli("verify", damaged)
    assert outcome.code == 3
    assert all(len(line) <= 80 for line in outcome.out.splitlines())
    words = " ".join(outcome.out.split())
    assert "step finding evidence severity" in words and "90 equal content all sampled elements are those" in words
    assert "step 90: equal content" in outcome.err and "all bytes (sha256)" in outcome.err
    suspicious = cli("verify", with_a_hole)
    assert suspicious.code == 0 and suspicious.err == "" and "missing steps" in suspicious.out


def test_the_keys_of_json_are_stable(cli: Cli, damaged: Path, with_a_hole: Path) -> None:
    outcome = cli("verify", damaged, with_a_hole, "--format", "json")
    assert outcome.code == 3
    said = json.loads(outcome.out)
    assert set(said) == {"format", "damaged", "runs"} and said["damaged"] is True
    for run in said["runs"]:
        assert set(run) == {
            "path", "steps", "files", "bytes_of_files", "checksums",
            "findings", "tensors", "sampled", "bytes", "not_judged",
        }  # fmt: skip
        for finding in run["findings"]:
            assert set(finding) == {"steps", "finding", "evidence", "severity", "tensors", "belongs_to", "of"}
            assert finding["severity"] in SEVERITIES
    (first, second) = said["runs"][0]["findings"][:2]
    assert (first["steps"], first["belongs_to"], second["steps"], second["belongs_to"]) == ([90], 250, [120], 280)
    assert cli("verify", damaged, "--format", "yaml").code == 2


def test_equal_samples_that_are_not_equal_whole_are_suspicious(whole: Training, tmp_path: Path) -> None:
    """One element of a large tensor, which is not in the sample."""
    large = {step: each | {"embed": each["0.weight"].repeat(50, axis=0)} for step, each in whole.items()}
    copy = dict(large[250]) | {"embed": large[250]["embed"].copy()}
    outside = next(i for i in range(12000) if not any(a <= i < b for a, b in ranges("embed", (1000, 12))))
    copy["embed"].reshape(-1)[outside] += 1
    (audit,) = trajcheck.verify(write_files(tmp_path / "run", dict(large) | {90: copy})).audits
    (finding,) = [each for each in audit.findings if each.steps]
    assert (finding.steps, finding.belongs_to, finding.severity) == ((90,), 250, "suspicious")
    assert "other elements differ" in finding.evidence
