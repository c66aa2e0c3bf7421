"""archives/hf: a folder a revision, huggingface_hub's folder of a repository, accelerate's states; what is not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hf_archives import Tensors, in_tar, write_state, write_weights

import trajcheck
from trajcheck.errors import RunError, StepFileError
from trajcheck.reports.making.warnings import left_out_warning
from trajcheck.runs.formats.archives.step_names import step_in, step_said
from trajcheck.runs.formats.recognise import open_run, recognise
from trajcheck.runs.trajectory import open_trajectory

STEPS = (1, 20, 1000)
SHAPES = {"h.weight": (20, 30), "h.bias": (20,)}


@pytest.fixture(scope="module")
def points() -> list[Tensors]:
    stream = np.random.default_rng(1)
    return [{name: stream.normal(size=shape) for name, shape in SHAPES.items()} for _ in STEPS]


def distances(points: list[Tensors]) -> list[float]:
    flat = [np.concatenate([point[name].ravel() for name in SHAPES]) for point in points]
    return [float(np.linalg.norm(each - flat[-1])) for each in flat]


def test_names() -> None:
    said: dict[str, int | None] = {
        "step1000": 1000,
        "stage1-step20-tokens5B": 20,
        "step10k": 10_000,
        "step_2M": 2_000_000,
        "0010": 10,
    }
    said |= {"epoch=3-step=7": 7, "iter_0000100": 100, "epoch_3": 3, "main": None, "seed0": None, "run1": None}
    assert {name: step_said(name) for name in said} == said
    assert step_in("seed0") == 0 and step_in("split2-of-3") is None and step_in("step" + "9" * 40) is None


@pytest.mark.parametrize("layout", ["whole", "bin shards"])
def test_a_folder_a_revision(layout: str, points: list[Tensors], tmp_path: Path) -> None:
    for step, tensors in zip(STEPS, points, strict=True):
        write_weights(tmp_path / "all" / f"stage1-step{step}-tokens{step}B", tensors, layout)
    write_weights(tmp_path / "all" / "main", points[-1])
    report = trajcheck.analyze(tmp_path / "all", out=tmp_path / "report")
    assert report.steps["step"].tolist() == list(STEPS)
    np.testing.assert_allclose(report.references["ref_dist"], distances(points), rtol=1e-14)
    assert any("nothing says their step: main" in warning for warning in report.summary["warnings"])


def test_two_stages(points: list[Tensors], tmp_path: Path) -> None:
    for stage in (1, 2):
        write_weights(tmp_path / f"stage{stage}-step1", points[0])
    with pytest.raises(RunError, match="stage1-step1 and stage2-step1 would both be step 1"):
        open_trajectory(tmp_path)


def test_seeds_are_no_steps(points: list[Tensors], tmp_path: Path) -> None:
    for seed in (0, 1):
        write_weights(tmp_path / f"seed{seed}", points[seed])
    assert recognise(tmp_path) is None


COMMITS = ("a" * 40, "b" * 40, "c" * 40, "d" * 40)


def cache(root: Path, points: list[Tensors]) -> Path:
    """As snapshot_download leaves it: links into blobs/, the names of branches and tags in refs/."""
    folder = root / "models--org--name"
    (folder / "refs" / "pr").mkdir(parents=True)
    (folder / "blobs").mkdir()
    for commit, tensors in zip(COMMITS, (*points, points[0]), strict=True):
        made = write_weights(folder / "snapshots" / commit, tensors)
        (made / "model.safetensors").rename(folder / "blobs" / commit)
        (made / "model.safetensors").symlink_to(f"../../blobs/{commit}")
    for ref, commit in zip(("step1", "step20", "step1000", "main"), (*COMMITS[:3], COMMITS[2]), strict=True):
        (folder / "refs" / ref).write_text(commit)
    return folder


def test_the_hub_s_own_folder(points: list[Tensors], tmp_path: Path) -> None:
    folder = cache(tmp_path, points)
    for place in (folder, in_tar(folder, tmp_path / "x.tar", "models--org--name/")):
        report = trajcheck.analyze(place, out=tmp_path / f"report-{place.suffix}")
        assert report.steps["step"].tolist() == list(STEPS)
        np.testing.assert_allclose(report.references["ref_dist"], distances(points), rtol=1e-14)
        assert any("1 snapshots have no step in refs/" in warning for warning in report.summary["warnings"])
    with pytest.raises(RunError, match=r"steps are in the folder above: give .*models--org--name\."):
        open_run(folder / "snapshots")


def test_revisions_that_are_one_commit(points: list[Tensors], tmp_path: Path) -> None:
    folder = cache(tmp_path, points)
    (folder / "refs" / "step20").write_text(COMMITS[0])
    (folder / "refs" / "pr" / "7").write_text("../../../etc/passwd")
    assert "step1, step20 are one commit" in " ".join(open_trajectory(folder).info.notes)
    (folder / "snapshots" / COMMITS[0] / "model.safetensors").unlink()
    (folder / "snapshots" / COMMITS[0] / "model.safetensors").symlink_to("/etc/hostname")
    with pytest.raises(StepFileError, match="link out of the archive"):
        open_run(folder).snapshot(1)


def test_states_of_accelerate(points: list[Tensors], tmp_path: Path) -> None:
    """Its folders count the saves, its optimizer the updates; one saved twice is there once."""
    for save, step in enumerate((*STEPS, STEPS[-1])):
        folder = write_weights(tmp_path / "checkpoints" / f"checkpoint_{save}", points[min(save, 2)])
        slots = {
            number: {"step": torch.tensor(float(step)), "exp_avg": torch.zeros(shape), "exp_avg_sq": torch.zeros(shape)}
            for number, shape in enumerate(SHAPES.values())
        }
        usual = {"lr": 0.5, "betas": (0.9, 0.99), "eps": 1e-8, "amsgrad": False, "decoupled_weight_decay": False}
        torch.save({"state": slots, "param_groups": [{**usual, "params": [0, 1]}]}, folder / "optimizer.bin")
        torch.save({"_last_lr": [0.5 / (step + 1)], "last_epoch": step}, folder / "scheduler.bin")
        (folder / "random_states_0.pkl").write_bytes(b"never read")
    for place in (tmp_path, tmp_path / "checkpoints"):
        trajectory = open_trajectory(place)
        assert trajectory.steps == list(STEPS) and trajectory.info.optimizer == "Adam"
        assert [snapshot.lr for snapshot in trajectory.snapshots] == [(0.5 / (step + 1),) for step in STEPS]
        assert "checkpoint_3 holds step 1000 again, as checkpoint_2 does: left out" in trajectory.info.notes
    report = trajcheck.analyze(tmp_path, out=tmp_path / "report")
    np.testing.assert_allclose(report.references["ref_dist"], distances(points), rtol=1e-14)
    (tmp_path / "checkpoints" / "checkpoint_0" / "random_states_0.pkl").unlink()
    with pytest.raises(StepFileError, match=r"no random_states_0\.pkl, which is written last"):
        open_trajectory(tmp_path)


def test_x_0_beside_the_trainer_s_checkpoints(points: list[Tensors], tmp_path: Path) -> None:
    write_weights(tmp_path / "step-0", points[0])
    for step, tensors in zip((5, 10), points[1:], strict=True):
        write_state(write_weights(tmp_path / f"checkpoint-{step}", tensors), step)
    assert open_trajectory(tmp_path).steps == [0, 5, 10]


def test_what_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "model.Q4_K.gguf").write_bytes(b"GGUF\3\0\0\0")
    for place in (tmp_path, tmp_path / "model.Q4_K.gguf"):
        with pytest.raises(RunError, match=r"model\.Q4_K\.gguf: GGUF is not read"):
            open_run(place)
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    with pytest.raises(RunError, match=r"git worktree add"):
        open_run(tmp_path / "repository")


def test_quantized_weights_are_named(points: list[Tensors], tmp_path: Path) -> None:
    for step, tensors in zip(STEPS, points, strict=True):
        write_weights(tmp_path / f"step{step}", {**tensors, "q.weight": np.full((3, 4), step % 100, np.int8)})
    trajectory = open_trajectory(tmp_path)
    assert set(trajectory.shapes) == set(SHAPES)
    assert "1 tensor is called weight and stored in I8 (q.weight): in no norm" in trajectory.info.notes


def test_a_revision_without_weights(points: list[Tensors], tmp_path: Path) -> None:
    """In the middle something was lost, at the end it is not there yet; in a tar file as well."""
    for step, tensors in zip(STEPS, points, strict=True):
        write_weights(tmp_path / "all" / f"step{step}", tensors)
    (tmp_path / "all" / "step2000").mkdir()
    (tmp_path / "all" / "step2000" / "config.json").write_text("{}")
    for place in (tmp_path / "all", in_tar(tmp_path / "all", tmp_path / "x.tar")):
        left_out = open_trajectory(place).left_out
        assert "step2000: no file of weights; they were not uploaded, or not downloaded" in left_out[2000]
        assert left_out_warning(left_out) == f"step 2000 was left out: {left_out[2000]}"
        assert open_run(place).files()
    (tmp_path / "all" / "step20" / "model.safetensors").unlink()
    for place in (tmp_path / "all", in_tar(tmp_path / "all", tmp_path / "x.tar")):
        with pytest.raises(StepFileError, match="step20: no file of weights"):
            open_trajectory(place)
        assert open_trajectory(place, skip_bad=True).steps == [1, 1000]
