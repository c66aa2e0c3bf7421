"""A flow that is killed or capped goes on to the same bytes; a state of another question is not used."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from frames import steps_of
from known_flows import SADDLE, Cli, metadata_of, quadratic
from places import SAMPLES
from safetensors.numpy import save_file

import trajcheck
from trajcheck.commands.flow.sample_function import SampleFunction
from trajcheck.commands.flow.state_file import NAME, StateFile


def csv(folder: Path) -> bytes:
    return (folder / "flow.csv").read_bytes() + (folder / "undefined.csv").read_bytes()


@pytest.fixture
def kept_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is saved at every recorded time, however fast they come."""
    save = StateFile.save
    monkeypatch.setattr(StateFile, "save", lambda self, progress, now=False: save(self, progress, now=True))


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Path, trajcheck.FlowReport]:
    """A run and its objective, and the flow that nothing ended."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run, objective, _, _ = quadratic(folder, SADDLE)
    return run, objective, folder / "whole", trajcheck.flow(run, objective, curvature=10, out=folder / "whole")


@pytest.mark.parametrize("after", [1, 9, 30, 75, 110])
def test_a_killed_flow_goes_on_to_the_same_bytes(
    undisturbed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_always: None, after: int
) -> None:
    run, objective, at, whole = undisturbed
    evaluate = SampleFunction.loss_and_gradient
    count = itertools.count()

    def killed(self: SampleFunction, theta: np.ndarray, where: str) -> Any:
        if next(count) == after:
            raise Killed
        return evaluate(self, theta, where)

    report = tmp_path / "report"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(SampleFunction, "loss_and_gradient", killed)
        trajcheck.flow(run, objective, curvature=10, out=report)
    assert not (report / "flow.csv").exists() and (report / NAME).exists() == (after > 1)
    found = trajcheck.flow(run, objective, curvature=10, out=report)
    assert csv(report) == csv(at)
    assert (found.summary["flow"]["resumed_at_step"] is not None) == (after > 1)
    counts = [each.summary["flow"]["gradient_evaluations"] for each in (found, whole)]
    assert counts[0] == counts[1]
    assert sorted(path.name for path in report.iterdir()) == ["flow.csv", "summary.json", "undefined.csv"]


def test_a_process_that_is_killed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    run, objective, _, _ = quadratic(tmp_path, SADDLE, count=60)
    path = Path(objective.rpartition(":")[0])
    path.write_text(
        path.read_text().replace("import operator\n", "import operator\nimport os\nimport signal\nimport time\n")
        + """

CALLS = [0]


def deadly():
    model, inner = objective()

    def loss(model, batch):
        CALLS[0] += 1
        if "KILLED_AFTER" in os.environ:
            time.sleep(0.005)  # the state is saved as often as it takes little of the time
        if CALLS[0] == int(os.environ.get("KILLED_AFTER", -1)):
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(model, batch)

    return model, loss
"""
    )

    spec, report = f"{path}:deadly", tmp_path / "report"
    whole = trajcheck.flow(run, spec, out=tmp_path / "whole")
    middle = whole.summary["flow"]["gradient_evaluations"] // 2
    arguments = ["flow", str(run), "--objective", spec, "--out", str(report)]
    killed = subprocess.run(
        [sys.executable, "-m", "trajcheck", *arguments],
        env={**os.environ, "PYTHONPATH": str(SAMPLES.parent), "KILLED_AFTER": str(middle)},
    )
    assert killed.returncode == -signal.SIGKILL
    assert (report / NAME).exists() and not (report / "flow.csv").exists()
    found = trajcheck.flow(run, spec, out=report)
    assert csv(report) == csv(tmp_path / "whole")
    assert found.summary["flow"]["resumed_at_step"] > 0
    assert sorted(each.name for each in report.iterdir()) == ["flow.csv", "summary.json", "undefined.csv"]


def test_the_cap_keeps_what_was_computed_and_more_goes_on(tmp_path: Path, cli: Cli) -> None:
    run, objective, _, _ = quadratic(tmp_path)
    whole = trajcheck.flow(run, objective, curvature=7, out=tmp_path / "whole")
    needed = whole.summary["flow"]["gradient_evaluations"]
    command = (
        "flow",
        run,
        "--objective",
        objective,
        "--curvature",
        7,
        "--out",
        tmp_path / "report",
        "--max-evaluations",
    )
    outcome = cli(*command, needed // 2, "--wanted-distance", 1)
    assert outcome.code == 4
    frame = pd.read_csv(tmp_path / "report" / "flow.csv")
    reached = frame[frame["flow_dist"].notna()]
    step, tau = reached["step"].iloc[-1], reached["tau"].iloc[-1]
    assert 0 < step < 40 and f"step {step}, tau = {tau:.6g}, the last" in outcome.err
    assert f"cap of {needed // 2:,} gradient" in outcome.err and "--max-evaluations" in outcome.err
    assert len(frame) == 41 and frame[["tau", "loss", "init_dist"]].notna().all().all()
    undefined = pd.read_csv(tmp_path / "report" / "undefined.csv")
    why = undefined[(undefined["column"] == "flow_dist")]
    assert why["reason"].tolist() == ["the integration ended before this time"]
    assert sorted(steps_of(why["steps"].iloc[0])) == list(range(step + 1, 41))
    same = reached.reset_index(drop=True)
    pd.testing.assert_frame_equal(
        same[["flow_dist", "flow_error"]], whole.flow.loc[same.index, ["flow_dist", "flow_error"]]
    )
    assert json.loads((tmp_path / "report" / "summary.json").read_text())["flow"]["last_tau_reached"] == tau
    again = cli(*command, needed - 1)
    assert again.code == 4
    done = cli(*command, needed)
    assert done.code == 0, done
    assert csv(tmp_path / "report") == csv(tmp_path / "whole")
    assert not (tmp_path / "report" / NAME).exists()


def test_a_cap_that_leaves_no_room_at_all(tmp_path: Path) -> None:
    run, objective, _, _ = quadratic(tmp_path)
    report = trajcheck.flow(run, objective, max_evaluations=1, out=tmp_path / "report")
    assert report.flow["flow_dist"].notna().sum() == 1 and "step 0, tau = 0" in report.incomplete[0]


def interrupted(folder: Path) -> tuple[Path, str, Path, trajcheck.FlowReport]:
    """A run whose flow was ended by its cap, so that its state is there."""
    run, objective, _, _ = quadratic(folder, count=16)
    report = folder / "report"
    return run, objective, report, trajcheck.flow(run, objective, max_evaluations=30, out=report)


def test_the_state_of_another_question_is_not_used(tmp_path: Path) -> None:
    run, objective, out, _ = interrupted(tmp_path)

    def resumed(**options: Any) -> Any:
        saved = (out / NAME).read_bytes()
        found = trajcheck.flow(run, options.pop("objective", objective), out=out, **options)
        (out / NAME).write_bytes(saved)
        return found.summary["flow"]["resumed_at_step"]

    assert resumed() and resumed(max_evaluations=10**6) and resumed(start="step:0")
    assert not resumed(rtol=1e-5) and not resumed(atol=1e-5) and not resumed(curvature=10)
    assert not resumed(start="step:1") and not resumed(replay_dtype="float32")
    path = Path(objective.rpartition(":")[0])
    path.write_text(path.read_text() + "\n# a change\n")
    assert not resumed()


def test_a_state_whose_objective_has_other_values_is_not_used(tmp_path: Path) -> None:
    """Its text is the same, and what it reads is not."""
    run, objective, _, _ = quadratic(tmp_path)
    path = Path(objective.rpartition(":")[0])
    path.write_text(
        path.read_text().replace("import operator\n", "import operator\nimport pathlib\n")
        + """

def from_file():
    scale = float(pathlib.Path(__file__ + ".scale").read_text())
    model, inner = objective()
    return model, lambda model, batch: scale * inner(model, batch)
"""
    )
    scale = Path(f"{path}.scale")
    scale.write_text("1.0")
    spec, out = f"{path}:from_file", tmp_path / "report"
    trajcheck.flow(run, spec, max_evaluations=30, out=out)
    scale.write_text("0.5")
    found = trajcheck.flow(run, spec, out=out)
    assert found.summary["flow"]["resumed_at_step"] is None
    assert any("began anew" in warning for warning in found.summary["warnings"])
    fresh = trajcheck.flow(run, spec, out=tmp_path / "fresh")
    pd.testing.assert_frame_equal(found.flow, fresh.flow)


@pytest.mark.parametrize("damage", ["truncated", "shape", "text"])
def test_a_damaged_state_is_not_used(tmp_path: Path, damage: str) -> None:
    run, objective, out, _ = interrupted(tmp_path)
    path = out / NAME
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-5])
    elif damage == "text":
        save_file({"theta/0": np.zeros(6)}, path, {"trajcheck": "{}"})
    else:
        text = json.loads(metadata_of(path)["trajcheck"])
        save_file({"theta/0": np.zeros(5), "theta/1": np.zeros(6)}, path, {"trajcheck": json.dumps(text)})
    found = trajcheck.flow(run, objective, out=out)
    assert any("could not be used" in warning for warning in found.summary["warnings"])
    whole = trajcheck.flow(run, objective, out=tmp_path / "whole")
    pd.testing.assert_frame_equal(found.flow, whole.flow)
