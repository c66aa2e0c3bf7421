"""archives/numbered_files.py and archives/roles.py: a folder of safetensors files, one a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hf_archives import in_tar
from safetensors.numpy import save_file

import trajcheck
from trajcheck.errors import RunError, StepFileError
from trajcheck.runs.formats.recognise import run_around
from trajcheck.runs.trajectory import open_trajectory

STEPS = (2, 10, 100)  # by their names, 10 and 100 come before 2
Tensors = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def points() -> list[Tensors]:
    stream = np.random.default_rng(0)
    trained = {"module.body.weight": (20, 30), "module._orig_mod.head.bias": (4,), "module.norm.weight": (5,)}
    fixed = {"module.norm.running_mean": stream.normal(size=5), "module.still": stream.normal(size=(3, 3))}
    return [
        {
            **{name: stream.normal(size=shape) for name, shape in trained.items()},
            **fixed,
            "module.norm.num_batches_tracked": np.array(7 * place),
        }
        for place in range(len(STEPS))
    ]


@pytest.fixture
def archive(tmp_path: Path, points: list[Tensors]) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    for step, tensors in zip(STEPS, points, strict=True):
        # tied, and stored twice
        save_file({**tensors, "module.tied": tensors["module.body.weight"]}, folder / f"weights-step{step}.safetensors")
    return folder


def flat(tensors: Tensors) -> np.ndarray:
    names = ("module.body.weight", "module._orig_mod.head.bias", "module.norm.weight")
    return np.concatenate([tensors[name].ravel() for name in names])


def test_norms_and_distances(archive: Path, points: list[Tensors], tmp_path: Path) -> None:
    """Buffers, a frozen tensor and the second of two tied ones are in no norm, and are named; natural order."""
    report = trajcheck.analyze(archive, out=tmp_path / "out")
    assert report.steps["step"].tolist() == list(STEPS)
    expected = [np.linalg.norm(flat(point)) for point in points]
    np.testing.assert_allclose(report.steps["param_norm"], expected, rtol=1e-14)
    distances = [np.linalg.norm(flat(point) - flat(points[-1])) for point in points]
    np.testing.assert_allclose(report.references["ref_dist"], distances, rtol=1e-14)
    warnings = " ".join(report.summary["warnings"])
    assert "tensor body.weight has the bytes of tied" in warnings or "tensor tied has the bytes of body" in warnings
    assert "1 tensor has the same bytes" in warnings and "(still)" in warnings
    assert "1 tensor is a buffer by the name (norm.running_mean)" in warnings


def test_names_of_the_model(archive: Path) -> None:
    trajectory = open_trajectory(archive)
    assert set(trajectory.shapes) == {"body.weight", "head.bias", "norm.weight"}
    assert set(trajectory.snapshots[0].buffers) == {"norm.running_mean", "norm.num_batches_tracked"}
    assert set(trajectory.snapshots[0].frozen) == {"still"}
    assert dict(trajectory.info.tied) == {"tied": "body.weight"}


def test_two_files_of_one_step(archive: Path) -> None:
    (archive / "other_step_10.safetensors").write_bytes((archive / "weights-step10.safetensors").read_bytes())
    with pytest.raises(RunError, match="would both be step 10"):
        open_trajectory(archive)


def test_a_file_that_is_no_step_is_named(archive: Path, tmp_path: Path) -> None:
    (archive / "best.safetensors").write_bytes((archive / "weights-step10.safetensors").read_bytes())
    assert "left out, as no step is in their names: best.safetensors" in open_trajectory(archive).info.notes


def test_files_of_torch_beside_them_are_named(archive: Path) -> None:
    for name in ("step_2.pt", "step_10.pt", "notes.pt"):
        (archive / name).write_bytes(b"")
    assert any(
        "lie 2 of torch.save with a number (step_2.pt, step_10.pt)" in n for n in open_trajectory(archive).info.notes
    )


def test_small_tied_matrices_and_complex_tensors(tmp_path: Path) -> None:
    """A matrix of 66 elements is tied by its bytes, a vector of 66 is not; a complex tensor is named."""
    stream = np.random.default_rng(1)
    points = []
    for step in (1, 2, 3):
        matrix, vector = stream.normal(size=(11, 6)), stream.normal(size=66)
        points.append(np.concatenate([matrix.ravel(), vector, vector]))
        tensors: dict[str, np.ndarray] = {"emb": matrix, "head": matrix, "a": vector, "b": vector}
        tensors["z"] = np.ones(3, np.complex64) * step
        save_file(tensors, tmp_path / f"step{step}.safetensors")
    trajectory = open_trajectory(tmp_path)
    assert trajectory.shapes.keys() == {"emb", "a", "b"} and dict(trajectory.info.tied) == {"head": "emb"}
    assert "1 tensor is complex (z), which no norm is of" in trajectory.info.notes
    report = trajcheck.analyze(tmp_path, out=tmp_path / "out")
    np.testing.assert_allclose(report.steps["param_norm"], [np.linalg.norm(point) for point in points], rtol=1e-14)


def test_what_a_folder_without_a_run_holds(archive: Path, tmp_path: Path) -> None:
    for name in ("empty", "links", "unnamed"):
        (tmp_path / name).mkdir()
    (archive / "step_2.pt").write_bytes(b"")
    (tmp_path / "links" / "step_2.pt").symlink_to(archive / "step_2.pt")
    (tmp_path / "unnamed" / "a.pt").write_bytes(b"")
    for name, reason in {
        "empty": "it is empty",
        "links": "links out of it are not followed: step_2.pt",
        "unnamed": "their names say no step: a.pt",
    }.items():
        with pytest.raises(RunError, match=reason):
            open_trajectory(tmp_path / name)


def test_two_names_of_one_parameter(tmp_path: Path) -> None:
    for step in (1, 2):
        save_file({"w": np.ones(3) * step, "module.w": np.ones(3)}, tmp_path / f"step{step}.safetensors")
    with pytest.raises(StepFileError, match="would both be 'w'"):
        open_trajectory(tmp_path)


def test_a_truncated_file(archive: Path, tmp_path: Path) -> None:
    file = archive / "weights-step10.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(StepFileError, match=r"weights-step10\.safetensors"):
        open_trajectory(archive)
    assert open_trajectory(archive, skip_bad=True).steps == [2, 100]


def test_a_report_may_lie_beside_the_files(archive: Path) -> None:
    assert run_around(archive) == archive
    assert run_around(archive / "reports" / "mine") is None


def test_in_a_tar_file(archive: Path, points: list[Tensors], tmp_path: Path) -> None:
    report = trajcheck.analyze(in_tar(archive, tmp_path / "x.tar"), out=tmp_path / "out")
    expected = [np.linalg.norm(flat(point)) for point in points]
    np.testing.assert_allclose(report.steps["param_norm"], expected, rtol=1e-14)


def test_a_recorded_run_in_a_tar_file(tmp_path: Path) -> None:
    """Its gradients are no parameters."""
    for step in (0, 1):
        file = tmp_path / "run" / f"step-{step:09}.safetensors"
        file.parent.mkdir(exist_ok=True)
        words = {"trajcheck": f'{{"format": 1, "step": {step}}}'}
        save_file({"param/w": np.ones(3) * step, "grad/w": np.ones(3)}, file, words)
    with pytest.raises(StepFileError, match="a run that trajcheck recorded, which is read in a folder alone"):
        open_trajectory(in_tar(tmp_path / "run", tmp_path / "x.tar"))
