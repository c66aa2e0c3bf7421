"""archives/hf/trainer.py: checkpoint-N of the Trainer, written by hand; tests/integrations has the library's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hf_archives import LAYOUTS, Tensors, in_tar, in_zip, write_state, write_weights
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

import trajcheck
from trajcheck.errors import InvalidReferenceError, RunError, StepFileError
from trajcheck.runs.formats.archives.hf.trainer_state import Entry, losses_of_steps, rates_of_updates
from trajcheck.runs.formats.recognise import open_run
from trajcheck.runs.trajectory import open_trajectory

STEPS = (2, 10, 30)
SHAPES = {
    "body.wte.weight": (20, 30),
    "body.h.0.attn.weight": (30, 7),
    "body.h.0.attn.bias": (7,),
    "body.ln_f.weight": (30,),
}


@pytest.fixture(scope="module")
def points() -> list[Tensors]:
    stream = np.random.default_rng(0)
    return [{name: stream.normal(size=shape) for name, shape in SHAPES.items()} for _ in STEPS]


def log(upto: int, every: int = 1) -> list[dict[str, float]]:
    """Of a schedule that falls by 1% a step, as transformers 5 logs it: entry s, the update to x_s."""
    entries = range(every, upto + 1, every)
    return [{"step": s, "loss": 3 - s / 100, "learning_rate": rate(s - 1), "epoch": s / 10} for s in entries]


def rate(step: int) -> float:
    return float(0.1 * 0.99**step)


def write(folder: Path, points: list[Tensors], layout: str = "whole", version: str = "5.24.0", every: int = 1) -> Path:
    for step, tensors in zip(STEPS, points, strict=True):
        place = write_weights(
            folder / f"checkpoint-{step}", {**tensors, "body.h.0.attn.masked_bias": np.array(-1e4)}, layout
        )
        write_state(place, step, log(step, every))
        config = {"tie_word_embeddings": True, "transformers_version": version}
        (place / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def archive(tmp_path: Path, points: list[Tensors]) -> Path:
    return write(tmp_path / "out", points)


def flat(tensors: Tensors) -> np.ndarray:
    return np.concatenate([tensors[name].ravel() for name in SHAPES])


def check(report: Any, points: list[Tensors]) -> None:
    assert report.steps["step"].tolist() == list(STEPS)
    np.testing.assert_allclose(report.steps["param_norm"], [np.linalg.norm(flat(p)) for p in points], rtol=1e-14)
    distances = [np.linalg.norm(flat(p) - flat(points[-1])) for p in points]
    np.testing.assert_allclose(report.references["ref_dist"], distances, rtol=1e-14)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_norms_and_distances(layout: str, points: list[Tensors], tmp_path: Path) -> None:
    check(trajcheck.analyze(write(tmp_path / "out", points, layout), out=tmp_path / "report"), points)


@pytest.mark.parametrize("kind", ["tar", "tar with one folder", "zip"])
def test_in_a_tar_or_zip_file(kind: str, archive: Path, points: list[Tensors], tmp_path: Path) -> None:
    """In place, of the same id; the same report."""
    pack, top = (in_zip if kind == "zip" else in_tar), ("run1/" if "folder" in kind else "")
    file = pack(archive, tmp_path / f"out.{kind[:3]}", top)
    check(trajcheck.analyze(file, out=tmp_path / "report"), points)
    packed, plain = open_trajectory(file), open_trajectory(archive)
    assert packed.id == plain.id and packed.log is not None and plain.log is not None
    assert packed.log.lr == plain.log.lr and packed.log.loss == plain.log.loss


def test_rates_losses_and_times(archive: Path) -> None:
    """Each step's loss is that of the entry after it, each rate as well; tau sums all of them."""
    trajectory = open_trajectory(archive)
    assert trajectory.info.tied == {"lm_head.weight": "body.wte.weight"}
    for snapshot in trajectory.snapshots:
        assert snapshot.epoch == snapshot.step / 10 and snapshot.tau is not None
        assert snapshot.tau[0] == pytest.approx(sum(rate(s) for s in range(snapshot.step)), rel=1e-12)
    first, _, last = trajectory.snapshots
    assert (first.loss, first.lr) == (3 - 3 / 100, (rate(2),))
    assert (last.loss, last.lr) == (None, None)  # entry 31 was never written


def test_rates_of_older_versions(points: list[Tensors], tmp_path: Path) -> None:
    """Up to transformers 4.50 entry s holds the rate of the update from x_s; in between nobody knows."""
    older = open_trajectory(write(tmp_path / "older", points, version="4.47.1")).log
    assert older is not None and older.lr[2] == (rate(1),) and 0 not in older.lr
    between = open_trajectory(write(tmp_path / "between", points, version="4.51.3"))
    assert between.log is not None and not between.log.lr and between.snapshots[0].loss is not None
    assert any("log's rates were left out: whether" in note for note in between.info.notes)


ENTRIES = [Entry(s, 1.0, rate(s - 1)) for s in range(1, 9)]


@pytest.mark.parametrize(
    ("entries", "following", "versions", "expected"),
    [
        (ENTRIES, {4: rate(4)}, (), {s: rate(s) for s in range(8)}),  # the scheduler has gone on since the entry
        (ENTRIES, {4: rate(3)}, (), {s: rate(s - 1) for s in range(1, 9)}),  # it is the entry's
        (ENTRIES, {4: rate(4)}, ("4.40.0",), {s: rate(s) for s in range(8)}),  # what is seen goes before the version
        (ENTRIES, {}, ("4.52.0", "5.1.0"), {s: rate(s) for s in range(8)}),
        (ENTRIES, {}, ("4.50.3", "4.53.0"), {}),  # two jobs, of two versions
        (ENTRIES, {}, ("nightly",), {}),
        ([Entry(s, None, 0.1) for s in (1, 2)], {}, (), {0: 0.1, 1: 0.1}),  # all one
        ([Entry(1, None, 0.1), Entry(2, None, 0.1), Entry(3, None, 0.2)], {1: 0.1}, (), {}),  # a plateau tells nothing
    ],
)
def test_which_update_a_rate_is_of(entries: Any, following: Any, versions: Any, expected: dict[int, float]) -> None:
    found, why = rates_of_updates(entries, following, versions)
    assert found == expected and bool(why) == (not expected)


def test_means_are_no_losses(points: list[Tensors], tmp_path: Path) -> None:
    trajectory = open_trajectory(write(tmp_path / "out", points, every=10))
    assert trajectory.log is not None and trajectory.log.loss_kind == "mean"
    assert [snapshot.loss for snapshot in trajectory.snapshots] == [None] * 3
    assert "of no single iterate" in trajectory.snapshots[1].omitted["loss"]
    assert "the learning rate of step 0 is not known" in trajectory.no_tau(trajectory.snapshots[1])


def test_single_losses_among_means() -> None:
    """With logging_first_step; and a 0, which stands for NaN."""
    entries = [Entry(1, 5.0, None), Entry(10, 4.0, None), Entry(11, 0.0, None), Entry(12, 3.0, None)]
    losses, kind, told = losses_of_steps(entries)
    assert (losses, kind) == (
        {0: 5.0, 11: 3.0},
        "step",
    ) and "1 logged losses are exactly 0, the first of them at step 11" in told


def test_settings_of_the_optimizer(archive: Path, points: list[Tensors]) -> None:
    """Which tensors decay is told by their shapes, and, of one shape, by names; rates are the saved ones."""
    kinds = {0: ["body.wte.weight", "body.h.0.attn.weight"], 1: ["body.h.0.attn.bias", "body.ln_f.weight"]}
    for step in STEPS:
        slots, number = {}, 0
        groups = []
        for place, names in kinds.items():
            members = list(range(number, number + len(names)))
            for name in names:
                moments = dict.fromkeys(("exp_avg", "exp_avg_sq"), torch.zeros(SHAPES[name]))
                slots[number] = {"step": torch.tensor(float(step)), **moments}
                number += 1
            decay = {"weight_decay": 0.1 * (1 - place), "decoupled_weight_decay": True}
            usual = {"betas": (0.9, 0.95), "eps": 1e-8, "amsgrad": False, "lr": rate(step), "params": members}
            groups.append({**usual, **decay})
        torch.save({"state": slots, "param_groups": groups}, archive / f"checkpoint-{step}" / "optimizer.pt")
    trajectory = open_trajectory(archive)
    assert trajectory.info.optimizer == "AdamW" and trajectory.info.groups[0]["betas"] == [0.9, 0.95]
    assert trajectory.settings.decay_at(0) == dict.fromkeys(kinds[0], 0.1)
    assert trajectory.snapshots[-1].lr == (rate(30),) * 2 and set(trajectory.shapes) == set(SHAPES)
    assert trajectory.snapshots[0].lr == pytest.approx((rate(2),) * 2)


def test_folders_whose_step_is_another(archive: Path) -> None:
    write_state(archive / "checkpoint-10", 20, log(20))
    with pytest.raises(StepFileError, match=r"checkpoint-10: its trainer_state\.json says step 20, its name 10"):
        open_trajectory(archive)
    assert open_trajectory(archive, skip_bad=True).steps == [2, 30]


def test_a_long_log(archive: Path) -> None:
    """Of most checkpoints it is not read, and their step is."""
    for step in STEPS:
        write_state(archive / f"checkpoint-{step}", step, [*log(step), *({"eval_loss": 1.0, "step": 1},) * 3000])
    trajectory = open_trajectory(archive)
    assert [snapshot.epoch for snapshot in trajectory.snapshots] == [0.2, 1.0, 3.0]
    assert trajectory.snapshots[0].lr == (rate(2),)
    write_state(archive / "checkpoint-10", 20, [{"eval_loss": 1.0, "step": 1}] * 3000)
    with pytest.raises(StepFileError, match="says step 20, its name 10"):
        open_trajectory(archive)
    write_state(archive / "checkpoint-10", 10)
    write_state(archive / "checkpoint-30", 30, [*({"eval_loss": 1.0, "step": 1},) * 3000, {"loss": 1}])
    notes = " ".join(open_trajectory(archive).info.notes)
    assert "a log was left out" in notes and "checkpoint-30/trainer_state.json" in notes


def test_copies_and_strange_names(archive: Path, tmp_path: Path) -> None:
    shutil.copytree(archive / "checkpoint-30", archive / "checkpoint-best")
    shutil.copytree(archive / "checkpoint-10", archive / "epoch-1")
    shutil.rmtree(archive / "checkpoint-10")
    trajectory = open_trajectory(archive)
    assert trajectory.steps == list(STEPS)  # epoch-1 is step 10, as it says inside
    assert "checkpoint-best holds step 30 again, as checkpoint-30 does: left out" in trajectory.info.notes


def test_checkpoints_of_two_trainings(archive: Path) -> None:
    write_state(archive / "checkpoint-2", 2, [{**entry, "loss": 7.0} for entry in log(2)])
    notes = " ".join(open_trajectory(archive).info.notes)
    assert "say different things of step 1: the checkpoints are not all of one training" in notes
    twice = [{"step": 1, "loss": 7.0}, {"step": 1, "loss": 8.0}]  # as some trainers log it
    for step in STEPS:
        write_state(archive / f"checkpoint-{step}", step, twice)
    assert "say different things" not in " ".join(open_trajectory(archive).info.notes)


def test_a_job_that_was_killed(archive: Path) -> None:
    """At the end it leaves a folder without trainer_state.json, in the middle something was lost."""
    (archive / "checkpoint-30" / "trainer_state.json").unlink()
    assert "written last" in open_trajectory(archive).left_out[30]
    (archive / "checkpoint-2" / "model.safetensors").unlink()
    with pytest.raises(StepFileError, match=r"checkpoint-2: no file of weights"):
        open_trajectory(archive)


def index(table: Any) -> str:
    return json.dumps({"weight_map": table})


INDEX, MODEL, STATE = "model.safetensors.index.json", "model.safetensors", "trainer_state.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
BESIDE, NO_STATE = "a .safetensors file beside it", "not a state of the Trainer"
HOSTILE: dict[str, tuple[str, str, str]] = {
    "a way out": (INDEX, index({"w": "../../../etc/passwd.safetensors"}), BESIDE),
    "an absolute way": (INDEX, index({"w": "/etc/x.safetensors"}), BESIDE),
    "no name": (INDEX, index({"w": 7}), BESIDE),
    "a pickle named by it": (INDEX, index({"w": "x.bin"}), BESIDE),
    "a file that is not there": (INDEX, index({"w": "b.safetensors"}), "which is not there"),
    "no table": (INDEX, index([]), "no weight_map"),
    "deep": (INDEX, '{"weight_map":' * 999 + "{}" + "}" * 999, "not JSON"),
    "an absurd header": (MODEL, "\x7f" * 64, "a header that would need"),
    "a pointer": (MODEL, POINTER, "git lfs pull"),
    "a state that is none": (STATE, '{"global_step": -1}', NO_STATE),
    "a state in words": (STATE, '{"global_step": "10"}', NO_STATE),
    "a log that is none": (STATE, '{"global_step": 10, "log_history": {"a": 1}}', NO_STATE),
    "an entry without a step": (STATE, '{"global_step": 10, "log_history": [{"loss": 1}]}', NO_STATE),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_crafted_files(what: str, archive: Path) -> None:
    """Each is refused by its reason, alone; the others are read."""
    name, text, told = HOSTILE[what]
    if name != "trainer_state.json":
        (archive / "checkpoint-10" / "model.safetensors").unlink()
    (archive / "checkpoint-10" / name).write_text(text)
    with pytest.raises(StepFileError, match=told.replace(".", r"\.")):
        open_trajectory(archive)
    assert open_trajectory(archive, skip_bad=True).steps == [2, 30]


def test_shards_of_two_saves(points: list[Tensors], tmp_path: Path) -> None:
    folder = write(tmp_path / "out", points, "shards") / "checkpoint-10"
    save_file({"other": np.ones(3)}, folder / "model-00002-of-00002.safetensors")
    with pytest.raises(StepFileError, match="the files are not of one save, or damaged"):
        open_trajectory(tmp_path / "out")
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(StepFileError, match=r"holds 1 files of weights .* and no index; expected numbers 1 to 2"):
        open_trajectory(tmp_path / "out")


def test_a_link_out_of_the_archive(archive: Path, tmp_path: Path) -> None:
    shutil.move(archive / "checkpoint-30", tmp_path / "elsewhere")
    (archive / "checkpoint-30").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=r"checkpoint-30: is a link out of the archive"):
        open_trajectory(archive)


def test_an_adapter(points: list[Tensors], tmp_path: Path) -> None:
    """It alone is the vector, whatever lies beside; what modules_to_save adds is in its file."""
    for step, tensors in zip(STEPS, points, strict=True):
        place = write_weights(tmp_path / "out" / f"checkpoint-{step}", {"base": np.ones(99) * step})
        adapter = {f"base_model.model.{name}": value for name, value in tensors.items()}
        save_file(adapter, place / "adapter_model.safetensors")
        (place / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
        write_state(place, step)
    check(trajcheck.analyze(tmp_path / "out", out=tmp_path / "report"), points)
    trajectory = open_trajectory(tmp_path / "out")
    assert set(trajectory.shapes) == set(SHAPES)
    notes = " ".join(trajectory.info.notes)
    assert "what was trained is an adapter of PEFT (LORA) of rank 8" in notes
    assert "model.safetensors beside it was left out" in notes


def test_an_archive_is_verified(archive: Path) -> None:
    assert open_run(archive).name == "checkpoints of Hugging Face's Trainer"
    assert trajcheck.verify(archive).runs[0].damage == []


def test_without_x_0(archive: Path, tmp_path: Path) -> None:
    """What begins later than at step 0 has no init, in whatever format, and the path begins there."""
    with pytest.raises(InvalidReferenceError, match=r"does not hold x_0: its first record is step 2\. step:2 means"):
        trajcheck.analyze(archive, refs=["init"], out=tmp_path / "report")
    report = trajcheck.analyze(archive, refs=["step:2"], out=tmp_path / "report")
    assert any(
        "init_dist and path_length are from its first record on, step 2" in w for w in report.summary["warnings"]
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    """Distances are those of the stored numbers, in float64; those near rounding are counted."""
    stream = torch.Generator().manual_seed(0)
    begin = torch.randn(5000, generator=stream, dtype=torch.float64)
    move = torch.randn(5000, generator=stream, dtype=torch.float64)
    small = 2 * 0.3 * {torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}[dtype]  # of |x|, as |move| = |x| or so
    stored = []
    for step, way in enumerate((0.0, 1.0, 1.0 + small, 1.0 + 2 * small)):
        folder = tmp_path / "all" / f"step{step}"
        folder.mkdir(parents=True)
        stored.append((begin + way * move).to(dtype))
        save_torch_file({"w": stored[-1]}, folder / "model.safetensors")
    report = trajcheck.analyze(tmp_path / "all", out=tmp_path / "report")
    distances = [float((each.double() - stored[-1].double()).norm()) for each in stored]
    np.testing.assert_allclose(report.references["ref_dist"], distances, rtol=1e-13)
    told = " ".join(report.summary["warnings"])
    assert "step_norm at 2 of 3 steps; ref_dist to final at 2 of 3 steps" in told, told


def test_a_tar_file_is_a_reference(archive: Path, points: list[Tensors], tmp_path: Path) -> None:
    """The same run: its iterates are known as the run's own."""
    file = in_tar(archive, tmp_path / "x.tar")
    report = trajcheck.analyze(archive, refs=[str(file), f"{file}@step:10"], out=tmp_path / "report")
    towards = report.references[report.references["ref"] == f"{file}@step:10"]
    distances = [np.linalg.norm(flat(point) - flat(points[1])) for point in points]
    np.testing.assert_allclose(towards["ref_dist"], distances, rtol=1e-14)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(InvalidReferenceError, match=r"x\.tar: has no end, so it is truncated"):
        trajcheck.analyze(archive, refs=[str(file)], out=tmp_path / "report")
