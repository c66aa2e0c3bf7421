"""What single tensors and headers show: zeros, holes, NaN, frozen tensors, dtypes, optimizer states, missing steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_trainings import CLEAN, Training, write_files, write_native

from trajcheck.audit.audit import audit
from trajcheck.audit.findings import DAMAGE, NOTE, SUSPICIOUS, Finding
from trajcheck.audit.layout import layout, missing_steps
from trajcheck.files.extents import Extent
from trajcheck.runs.trajectory import Trajectory, open_trajectory


@pytest.fixture(scope="module")
def whole() -> Training:
    return CLEAN["adam"]()[0]


def found(tmp_path: Path, weights: Training) -> list[Finding]:
    return list(audit(open_trajectory(write_files(tmp_path / "run", weights))).findings)


def with_tensor(whole: Training, step: int, name: str, value: np.ndarray) -> Training:
    return dict(whole) | {step: whole[step] | {name: value.astype(whole[step][name].dtype)}}


def test_a_tensor_of_zeros(tmp_path: Path, whole: Training) -> None:
    (finding,) = found(tmp_path, with_tensor(whole, 90, "2.weight", np.zeros((20, 20))))
    assert (finding.steps, finding.finding, finding.severity, finding.tensors) == (
        (90,),
        "zeros",
        DAMAGE,
        ("2.weight",),
    )


def test_a_file_whose_end_was_never_written(tmp_path: Path, whole: Training) -> None:
    large = {step: each | {"embed": np.repeat(each["0.weight"], 40, axis=0)} for step, each in whole.items()}
    holed = large[90]["embed"].copy()
    holed.reshape(-1)[-2000:] = 0
    findings = found(tmp_path, with_tensor(large, 90, "embed", holed))
    assert [(each.steps, each.finding, each.tensors) for each in findings] == [((90,), "holes", ("embed",))]


@pytest.mark.parametrize("step, severity", [(90, DAMAGE), (300, NOTE)])
def test_nan_in_the_middle_and_at_the_end(tmp_path: Path, whole: Training, step: int, severity: str) -> None:
    value = whole[step]["4.weight"].copy()
    value[0, 0] = np.nan
    (finding,) = found(tmp_path, with_tensor(whole, step, "4.weight", value))
    assert (finding.steps, finding.finding, finding.severity) == ((step,), "not finite", severity)


def test_a_tensor_that_never_changes_is_a_note(tmp_path: Path, whole: Training) -> None:
    still = {step: each | {"2.bias": whole[0]["2.bias"]} for step, each in whole.items()}
    (finding,) = audit(open_trajectory(write_native(tmp_path / "run", still))).findings
    assert (finding.steps, finding.finding, finding.severity, finding.tensors) == ((), "frozen", NOTE, ("2.bias",))


def test_another_dtype(tmp_path: Path, whole: Training) -> None:
    narrow = {name: value.astype(np.float16) for name, value in whole[90].items()}
    findings = found(tmp_path, dict(whole) | {90: narrow})
    assert [(each.steps, each.finding, each.severity) for each in findings] == [((90,), "dtype", SUSPICIOUS)]
    assert "F16, and F32 in 30 other steps" in findings[0].evidence


def with_states(trajectory: Trajectory, states: dict[int, dict[str, tuple[int, ...]]]) -> list[Finding]:
    usual = {f"exp_avg/{name}": shape for name, shape in trajectory.shapes.items()}
    snapshots = [
        replace(
            each,
            state={key: Extent("", 0, 0, "F32", shape) for key, shape in states.get(each.step, usual).items()},
        )
        for each in trajectory.snapshots
    ]
    return layout(snapshots, trajectory.shapes)


def test_optimizer_states(tmp_path: Path, whole: Training) -> None:
    trajectory = open_trajectory(write_files(tmp_path / "run", whole))
    usual = {f"exp_avg/{name}": shape for name, shape in trajectory.shapes.items()}
    assert with_states(trajectory, {}) == [] and with_states(trajectory, {0: {}}) == []
    (none,) = with_states(trajectory, {90: {}})
    assert (none.steps, none.severity) == ((90,), SUSPICIOUS)
    (gone,) = with_states(trajectory, {90: {k: s for k, s in usual.items() if k != "exp_avg/0.weight"}})
    assert "states are missing: exp_avg/0.weight" in gone.evidence
    (wrong,) = with_states(trajectory, {90: usual | {"exp_avg/0.weight": (12, 20)}})
    assert (wrong.steps, wrong.severity) == ((90,), DAMAGE) and "[12, 20] for [20, 12]" in wrong.evidence


def test_missing_steps(tmp_path: Path, whole: Training) -> None:
    (finding,) = found(tmp_path, {step: each for step, each in whole.items() if step not in (120, 130)})
    assert (finding.steps, finding.finding, finding.severity) == ((120, 130), "missing steps", SUSPICIOUS)


@pytest.mark.parametrize(
    "steps",
    [
        [0, 1, 2, 4, 8, 16, 32, 64, 128],  # logarithmic
        [t + d for t in range(0, 900, 100) for d in (0, 1)],  # pairs
        [*range(0, 100, 10), *range(100, 1100, 100)],  # another spacing from a step on
        [*range(0, 1000, 100), 950],  # the last of a run that ended anywhere
        [0, 500, 9000, 9500],
    ],
)
def test_spacings_without_a_hole(steps: list[int]) -> None:
    assert missing_steps(sorted(steps)) == []
