"""archives/torch_saved: folders of files of torch.save, as training loops and libraries lay them out."""

from __future__ import annotations

import argparse
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_files import archive, called, pickled, text
from torch import Tensor, nn

import trajcheck
from trajcheck.errors import InvalidReferenceError, RunError, StepFileError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.torch_tensors import read_tensor
from trajcheck.files.trees.folder import FolderTree
from trajcheck.runs.formats.archives.torch_saved.metrics import read_metrics
from trajcheck.runs.formats.archives.torch_saved.numbering import named_step
from trajcheck.runs.formats.archives.torch_saved.run import TorchFiles
from trajcheck.runs.logs.run_log import AT_STEP, MEAN
from trajcheck.runs.trajectory import open_trajectory

#: Updates made before each checkpoint; by names, 12 comes before 2.
STEPS = (2, 4, 12)


class Net(nn.Module):
    """With statistics, a mask, a tied weight, and a layer that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(12, 8)
        self.body = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.still = nn.Linear(8, 8)
        self.head = nn.Linear(8, 12, bias=False)
        self.head.weight = self.wte.weight
        self.register_buffer("attn_mask", torch.tril(torch.ones(4, 4)))
        self.still.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.still(self.norm(torch.tanh(self.body(self.wte(x))))))


class Training:
    """AdamW in two groups, as nanoGPT has them, with a schedule; a state at each of STEPS, and what was trained."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        model = self.model = Net()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in trained if p.dim() >= 2], "weight_decay": 0.1},
            {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 20)
        average = torch.optim.swa_utils.AveragedModel(model)
        self.saved: dict[int, dict[str, Any]] = {}
        self.points: dict[int, np.ndarray] = {}
        self.moments: dict[int, dict[str, np.ndarray]] = {}
        self.rates: dict[int, float] = {}
        for step in range(STEPS[-1] + 1):
            self.rates[step] = self.optimizer.param_groups[0]["lr"]
            if step in STEPS:
                self.points[step] = self.flat()
                self.moments[step] = {
                    name: self.optimizer.state[p]["exp_avg"].double().numpy().copy()
                    for name, p in model.named_parameters()
                    if p.requires_grad
                }
                self.saved[step] = self.copied(
                    {
                        "model": model.state_dict(),
                        "ema": average.state_dict(),
                        "optimizer": self.optimizer.state_dict(),
                        "schedule": schedule.state_dict(),
                    }
                )
            x = torch.randint(12, (6,))
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), (x + 1) % 12).backward()
            self.optimizer.step()
            schedule.step()
            average.update_parameters(model)

    def flat(self) -> np.ndarray:
        trained = [p.detach().double().numpy().ravel() for p in self.model.parameters() if p.requires_grad]
        return np.concatenate(trained)

    @staticmethod
    def copied(value: Any) -> Any:
        import copy

        return copy.deepcopy(value)

    def distances(self) -> list[float]:
        last = self.points[STEPS[-1]]
        return [float(np.linalg.norm(self.points[step] - last)) for step in STEPS]


@pytest.fixture(scope="module")
def training() -> Training:
    return Training()


def wrapped(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in state.items()}


Layout = Callable[[int, dict[str, Any]], tuple[str, Any]]
LAYOUTS: dict[str, Layout] = {
    "bare": lambda t, s: (f"model_{t}.pth", s["model"]),
    "nanogpt": lambda t, s: (
        f"ckpt-{'ABC'[STEPS.index(t)]}.pt",
        {
            "model": wrapped(s["model"], "_orig_mod."),
            "optimizer": s["optimizer"],
            "model_args": {"n_layer": 1},
            "iter_num": t,
            "best_val_loss": torch.tensor(1.5),
            "config": {"learning_rate": 0.01, "dataset": "digits"},
        },
    ),
    "timm": lambda t, s: (
        f"checkpoint-{t}.pth.tar",
        {
            "epoch": STEPS.index(t),
            "arch": "net",
            "state_dict": s["model"],
            "optimizer": s["optimizer"],
            "version": 2,
            "args": argparse.Namespace(lr=0.01, opt="adamw"),
            "state_dict_ema": s["ema"],
            "metric": 71.5,
        },
    ),
    "fairseq": lambda t, s: (
        f"checkpoint_{STEPS.index(t) + 1}_{t}.pt",
        {
            "args": None,
            "cfg": {"optimization": {"lr": [0.01]}},
            "model": s["model"],
            "criterion": {},
            "optimizer_history": [{"num_updates": 0}, {"criterion_name": "X", "num_updates": t}],
            "extra_state": {"train_iterator": {"epoch": STEPS.index(t) + 1}, "val_loss": 1.0},
            "last_optimizer_state": s["optimizer"],
        },
    ),
    "mmengine": lambda t, s: (
        f"epoch_{STEPS.index(t) + 1}.pth",
        {
            "meta": {"epoch": STEPS.index(t) + 1, "iter": t, "cfg": "model = dict()", "time": "20260101"},
            "state_dict": s["model"],
            "message_hub": {"log_scalars": {"train/loss": argparse.Namespace(_log_history=np.arange(3.0))}},
            "optimizer": s["optimizer"],
            "param_schedulers": [s["schedule"]],
            "ema_state_dict": s["ema"],
        },
    ),
    "torchvision": lambda t, s: (
        f"model_{t}.pth",
        {
            "model": wrapped(s["model"], "module."),
            "optimizer": s["optimizer"],
            "lr_scheduler": s["schedule"],
            "epoch": STEPS.index(t),  # of so many updates as Adam counts
            "args": argparse.Namespace(model="net", lr=0.01),
            "model_ema": s["ema"],
        },
    ),
    "loop": lambda t, s: (
        f"step{t}.bin",
        {
            "net": s["model"],
            "step": t,
            "optimizer_state_dict": s["optimizer"],
            "scheduler": s["schedule"],
            "loss": torch.ones(()),
        },
    ),
}


@pytest.fixture(scope="module")
def folders(training: Training, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("archives")
    for name, layout in LAYOUTS.items():
        (root / name).mkdir()
        for step in STEPS:
            file, value = layout(step, training.saved[step])
            torch.save(value, root / name / file, _use_new_zipfile_serialization=name != "loop")
    return {name: root / name for name in LAYOUTS}


@pytest.mark.parametrize("name", LAYOUTS)
def test_norms_and_distances(name: str, training: Training, folders: dict[str, Path], tmp_path: Path) -> None:
    report = trajcheck.analyze(folders[name], out=tmp_path / "out")
    assert report.steps["step"].tolist() == list(STEPS)
    norms = [np.linalg.norm(training.points[step]) for step in STEPS]
    np.testing.assert_allclose(report.steps["param_norm"], norms, rtol=1e-12)
    np.testing.assert_allclose(report.references["ref_dist"], training.distances(), rtol=1e-12)
    warnings = " ".join(report.summary["warnings"])
    assert ("averages of iterates" in warnings) == (name in ("timm", "mmengine", "torchvision"))


@pytest.mark.parametrize("name", sorted(LAYOUTS.keys() - {"bare"}))
def test_what_the_optimizer_says(name: str, training: Training, folders: dict[str, Path]) -> None:
    trajectory = open_trajectory(folders[name])
    info = trajectory.info
    assert info.optimizer == "AdamW" and [group["weight_decay"] for group in info.groups] == [0.1, 0.0]
    assert all(group["decoupled"] and group["betas"] == [0.9, 0.95] for group in info.groups)
    assert info.group_of == {"wte.weight": 0, "body.weight": 0, "body.bias": 1, "norm.weight": 1, "norm.bias": 1}
    assert {*info.frozen} == {"still.weight", "still.bias"} and dict(info.tied) == {"head.weight": "wte.weight"}
    with ExtentReader() as reader:
        for step, snapshot in zip(STEPS, trajectory.snapshots, strict=True):
            for parameter, expected in training.moments[step].items():
                there = read_tensor(reader, snapshot.state[f"exp_avg/{parameter}"])
                assert np.array_equal(there.double().numpy(), expected)
    rates = [snapshot.lr for snapshot in trajectory.snapshots]
    if name in ("timm", "fairseq"):  # whether the schedule had moved on is not said there
        assert rates == [None] * 3 and any("rates that the optimizer's state holds" in note for note in info.notes)
    else:  # of the update from x_t on
        assert rates == [(training.rates[step],) * 2 for step in STEPS]


def test_an_average_that_lightning_puts_in_the_place_of_the_model(training: Training, tmp_path: Path) -> None:
    """WeightAveraging writes the average as state_dict, and the trained weights as current_model_state."""
    for step in STEPS:
        state = {f"model.{name}": tensor for name, tensor in training.saved[step]["model"].items()}
        average = {name: tensor * 0.9 if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        value = {
            "state_dict": average,
            "current_model_state": state,
            "averaging_state": {"n_averaged": torch.tensor(3)},
        }
        torch.save({**value, "global_step": step, "pytorch-lightning_version": "2.6.0"}, tmp_path / f"step={step}.ckpt")
    report = trajcheck.analyze(tmp_path, out=tmp_path / "out")
    norms = [np.linalg.norm(training.points[step]) for step in STEPS]
    np.testing.assert_allclose(report.steps["param_norm"], norms, rtol=1e-12)
    assert any("averages of iterates" in warning for warning in report.summary["warnings"])


def test_settings_are_fields_of_the_run(folders: dict[str, Path]) -> None:
    assert open_trajectory(folders["timm"]).info.user == {"args.lr": 0.01, "args.opt": "adamw"}
    user = open_trajectory(folders["nanogpt"]).info.user
    assert (user["config.dataset"], user["model_args.n_layer"]) == ("digits", 1)


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def steps_of(folder: Path) -> Sequence[int]:
    return open_trajectory(folder).steps


def test_duplicates_and_strangers(training: Training, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["timm"], tmp_path / "run")
    (folder / "last.pth.tar").write_bytes((folder / "checkpoint-12.pth.tar").read_bytes())
    torch.save({"state_dict": training.saved[4]["model"]}, folder / "model_best.pth.tar")  # without its epoch
    torch.save({"state_dict": nn.Linear(2, 2).state_dict(), "epoch": 5}, folder / "discriminator-5.pth")
    torch.save(training.saved[4]["optimizer"], folder / "optim-4.pt")
    torch.save({"epoch": 4, "model": nn.Linear(2, 2)}, folder / "whole-4.pt")
    trajectory = open_trajectory(folder)
    assert trajectory.steps == list(STEPS)
    notes = " ".join(trajectory.info.notes)
    assert "last.pth.tar is checkpoint-12.pth.tar once more" in notes
    assert "model_best.pth.tar is checkpoint-4.pth.tar once more" in notes
    assert "as of another model: discriminator-5.pth" in notes
    assert "optim-4.pt (holds no state dict" in notes and "whole-4.pt (holds a pickled module" in notes


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("ckpt-10.pt", 10), ("epoch=3-step=800.ckpt", 800), ("best_95.pth", None), ("best_epoch_7.pth", 7),
        ("checkpoint-12.pth.tar", 12), ("checkpoints/last.ckpt", None), ("last-v1.ckpt", None), ("0007.bin", 7),
        ("epoch_2_iter_900.pth", 900), ("step_30/model_0.pt", 30), ("resnet50-0676ba61.pth", None),
        ("step_2e5.pt", 200_000), ("ckpt_1.5M.pt", 1_500_000), ("step_1.0005k.pt", None), ("step_100.5.pt", 100),
    ],
)  # fmt: skip
def test_steps_in_names(name: str, step: int | None) -> None:
    assert named_step(name) == step


def test_two_files_of_one_step_that_differ(training: Training, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["loop"], tmp_path / "run")
    state = {name: 2 * tensor for name, tensor in training.saved[4]["model"].items()}
    torch.save({"net": state, "step": 4}, folder / "other.bin")  # the names say which step, but for this one's
    trajectory = open_trajectory(folder)
    assert trajectory.steps == list(STEPS) and any(
        "no step is said in it: other.bin" in n for n in trajectory.info.notes
    )
    torch.save({"net": state, "step": 4}, folder / "step_4.bin")
    with pytest.raises(RunError, match="which step each file is of"):
        open_trajectory(folder)


def test_what_cannot_be_told_is_refused(training: Training, tmp_path: Path) -> None:
    state = training.saved[2]["model"]
    unnamed, several, models, modules = (tmp_path / name for name in ("unnamed", "several", "models", "modules"))
    for folder in (unnamed, several, models, modules):
        folder.mkdir()
    for number, name in enumerate(("last", "best")):
        torch.save({key: tensor + number for key, tensor in state.items()}, unnamed / f"{name}.pt")
        torch.save({"a": state, "b": {key: tensor + 1 for key, tensor in state.items()}}, several / f"step{number}.pt")
        for kind, other in {"G": state, "D": nn.Linear(2, 2).state_dict()}.items():
            torch.save(other, models / f"{kind}_{number}.pth")
        torch.save({"epoch": number, "model": nn.Linear(2, 2), "train_args": {}}, modules / f"epoch{number}.pt")
    for folder, reason in {
        unnamed: r"which step each file is of is said neither inside .* nor by its name: best.pt, last.pt",
        several: "several state dicts, under 'a', 'b'",
        models: r"several models: D_0.pth, D_1.pth; and G_0.pth, G_1.pth",
        modules: r"a pickled module, under 'model' .*Linear.* Beside it there are 'epoch', 'train_args'",
    }.items():
        with pytest.raises(RunError, match=reason):
            open_trajectory(folder)


def test_a_damaged_file(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["bare"], tmp_path / "run")
    file = folder / "model_4.pth"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(StepFileError, match=r"model_4\.pth.* analyze --skip-bad leaves such steps out"):
        open_trajectory(folder)
    assert open_trajectory(folder, skip_bad=True).steps == [2, 12]
    file.rename(folder / "last.pth")
    with pytest.raises(RunError, match="Which step the file is of cannot be told"):
        open_trajectory(folder, skip_bad=True)


def test_a_file_made_to_do_harm(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["bare"], tmp_path / "run")
    archive(folder / "model_4.pth", pickled(called("os", "mkdir", text(str(tmp_path / "mark")))))
    with pytest.raises(StepFileError, match=r"model_4\.pth: names os\.mkdir, .* made to do harm"):
        open_trajectory(folder)
    assert open_trajectory(folder, skip_bad=True).steps == [2, 12] and not (tmp_path / "mark").exists()


def test_a_folder_a_step(training: Training, folders: dict[str, Path], tmp_path: Path) -> None:
    for file in folders["bare"].iterdir():
        inner = tmp_path / "run" / file.stem.replace("model_", "step-")
        inner.mkdir(parents=True)
        (inner / "model.pth").write_bytes(file.read_bytes())
        (inner / "optimizer.pt").write_bytes(file.read_bytes())
    trajectory = open_trajectory(tmp_path / "run")
    assert trajectory.steps == list(STEPS) and TorchFiles(tmp_path / "run").folders() == {"step-2", "step-4", "step-12"}
    for number in (1, 2):  # runs, and no steps
        (tmp_path / "seeds" / f"seed{number}").mkdir(parents=True)
        (tmp_path / "seeds" / f"seed{number}" / "model_1.pth").write_bytes(file.read_bytes())
    assert not TorchFiles.recognise(tmp_path / "seeds")


def test_bfloat16(training: Training, tmp_path: Path) -> None:
    points = []
    for step in STEPS:
        state = {name: tensor.bfloat16() for name, tensor in training.saved[step]["model"].items()}
        state["head.weight"] = state["wte.weight"]  # still tied
        torch.save(state, tmp_path / f"step{step}.pt")
        names = ("wte.weight", "body.weight", "body.bias", "norm.weight", "norm.bias")
        points.append(torch.cat([state[name].double().ravel() for name in names]))
    report = trajcheck.analyze(tmp_path, out=tmp_path / "out")
    np.testing.assert_allclose(report.steps["param_norm"], [float(point.norm()) for point in points], rtol=1e-12)
    distances = [float((point - points[-1]).norm()) for point in points]
    np.testing.assert_allclose(report.references["ref_dist"], distances, rtol=1e-12)


def test_a_link_out_of_the_folder(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["bare"], tmp_path / "run")
    (folder / "model_4.pth").unlink()
    (folder / "model_4.pth").symlink_to(folders["bare"] / "model_4.pth")
    with pytest.raises(StepFileError, match=r"model_4\.pth: is a link out of the archive"):
        open_trajectory(folder)


def test_a_tar_file_in_place(training: Training, folders: dict[str, Path], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "run.tar", "w") as archive:
        archive.add(folders["nanogpt"], arcname="run")
    report = trajcheck.analyze(tmp_path / "run.tar", out=tmp_path / "out")
    np.testing.assert_allclose(report.references["ref_dist"], training.distances(), rtol=1e-12)


def test_epochs_of_an_optimizer_that_counts_nothing(tmp_path: Path) -> None:
    """An epoch is no update: its rate is none of a step, and no time follows from it."""
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(3):
        for _ in range(4):
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
        value = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
        torch.save(value, tmp_path / f"model_{epoch}.pth")
    trajectory = open_trajectory(tmp_path)
    assert trajectory.steps == [0, 1, 2] and trajectory.info.optimizer == "SGD"
    assert [(each.lr, each.tau) for each in trajectory.snapshots] == [(None, None)] * 3
    assert any("numbered by epochs" in note and "one is not one update" in note for note in trajectory.info.notes)


def test_a_choice_that_shapes_leave_open(tmp_path: Path) -> None:
    """The first of two layers alike is frozen: one file does not say which, two do by their bytes."""
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    optimizer = torch.optim.Adam(model[1].parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for step in (1, 2):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": schedule.state_dict()}
        torch.save({**state, "step": step}, tmp_path / f"step{step}.pt")
        schedule.step()  # after the file is written: the rate in it is of the update before
        info = open_trajectory(tmp_path).info
        assert dict(info.group_of) == ({} if step == 1 else {"1.weight": 0})
        assert [*info.frozen] == ([] if step == 1 else ["0.weight"])
        assert any("does not follow from their order and shapes" in note for note in info.notes) == (step == 1)
    assert [each.lr for each in open_trajectory(tmp_path).snapshots] == [None, None]


def test_a_group_without_state_and_names_of_torch(training: Training, tmp_path: Path) -> None:
    """SGD without momentum keeps nothing of a parameter: all that may be are trained, or their names are in it."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    for named in (False, True):
        parameters = [*model.named_parameters()][2 * named :]
        optimizer = torch.optim.SGD(parameters if named else [p for _, p in parameters], lr=0.1)
        (folder := tmp_path / str(named)).mkdir()
        for step in (1, 2):
            with torch.no_grad():
                for _, parameter in parameters:
                    parameter.add_(1)
            torch.save(
                {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "it": step}, folder / f"{step}.pt"
            )
        trajectory = open_trajectory(folder)
        assert {*trajectory.shapes} == {name for name, _ in parameters} and trajectory.info.optimizer == "SGD"
        rates = [snapshot.lr for snapshot in trajectory.snapshots]
        assert rates == [(0.1,)] * 2  # one and the same, and nothing moves it


def test_channels_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in too many pieces to be read by rows is compared as it lies, and is no tensor of the model's shape."""
    monkeypatch.setattr("trajcheck.files.pickles.tensors.MOST_PARTS", 8)
    stream = torch.Generator().manual_seed(0)
    points = [torch.randn(2, 3, 3, 3, generator=stream) for _ in range(3)]
    for step, point in enumerate(points):
        torch.save({"conv.weight": point.to(memory_format=torch.channels_last)}, tmp_path / f"step{step}.pt")
    report = trajcheck.analyze(tmp_path, out=tmp_path / "out")
    distances = [float((point.double() - points[-1].double()).norm()) for point in points]
    np.testing.assert_allclose(report.references["ref_dist"], distances, rtol=1e-12)
    assert any("the numbers of conv.weight lie in the order of channels last" in w for w in report.summary["warnings"])
    torch.save({"conv.weight": points[-1]}, tmp_path / "rows.pt")
    with pytest.raises(InvalidReferenceError, match=r"conv.weight \[2, 3, 3, 3\] instead of \[54\]"):
        trajcheck.analyze(tmp_path, refs=[str(tmp_path / "rows.pt")], out=tmp_path / "other")
    torch.save({"conv.weight": points[-1].mT.contiguous().mT}, tmp_path / "step9.pt")
    with pytest.raises(StepFileError, match=r"step9.pt: tensor 'conv.weight' .* in another order than by rows"):
        open_trajectory(tmp_path)


def counting(folder: Path, kind: type[torch.optim.Optimizer], said: Callable[[int], int]) -> None:
    """A file after each of four updates, which says `said(updates)`, with a rate that a scheduler halves each time."""
    weight = nn.Parameter(torch.ones(8))
    optimizer = kind([weight], lr=0.5)  # type: ignore[call-arg]
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    folder.mkdir()
    for made in range(1, 5):
        weight.grad = torch.randn(8)
        optimizer.step()
        scheduler.step()
        held = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
        torch.save({"model": {"w": weight.data}, "iteration": said(made), **held}, folder / f"m_{said(made):07}.pt")


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_an_index_of_the_last_update_is_no_number_of_updates(kind: Any, tmp_path: Path) -> None:
    """x_1 is not taken for x_0: the optimizer counts, or else its scheduler."""
    counting(tmp_path / "run", kind, lambda made: made - 1)
    (tmp_path / "run" / "m_0000001.pt").write_bytes(b"PK")  # a damaged one moves along
    trajectory = open_trajectory(tmp_path / "run", skip_bad=True)
    assert trajectory.steps == [1, 3, 4] and list(trajectory.left_out) == [2]
    assert [each.lr for each in trajectory.snapshots] == [(0.25,), (0.0625,), (0.03125,)]  # of the update from there on
    by = "optimizers" if kind is torch.optim.Adam else "schedulers"
    note = f"steps are one more than the files say, which is the index of the last update: {by} count one more"
    assert note in trajectory.info.notes


def test_batches_that_are_counted_are_no_updates(tmp_path: Path) -> None:
    counting(tmp_path / "run", torch.optim.Adam, lambda made: 4 * made)
    trajectory = open_trajectory(tmp_path / "run")
    assert trajectory.steps == [4, 8, 12, 16] and not any(each.lr or each.tau for each in trajectory.snapshots)
    assert any("at step 16, as the files say it, the optimizer counts 4 updates" in n for n in trajectory.info.notes)
    counting(tmp_path / "scaled", torch.optim.Adam, lambda made: made + 1)  # one was skipped
    trajectory = open_trajectory(tmp_path / "scaled")
    assert trajectory.steps == [2, 3, 4, 5]
    assert any("the optimizer counts 4 updates, fewer, as a loss scaler skips" in n for n in trajectory.info.notes)


def test_files_called_averages_are_no_iterates(tmp_path: Path) -> None:
    for step in range(3):
        torch.save({"w": torch.full((4,), float(step))}, tmp_path / f"model_{step}.pt")
        torch.save({"w": torch.full((4,), step / 2)}, tmp_path / f"model-ema_{step}.pt")
    trajectory = open_trajectory(tmp_path)
    assert [Path(each.path).name for each in trajectory.snapshots] == ["model_0.pt", "model_1.pt", "model_2.pt"]
    assert any("averages of iterates, which are no iterates, were left out" in note for note in trajectory.info.notes)


def test_what_is_too_coarse_to_move_is_named(tmp_path: Path) -> None:
    for step in range(3):
        state = {"a": torch.full((40,), 1.0 + step), "norm.weight": torch.ones(40)}
        for name, dtype in {"coarse": torch.bfloat16, "fine": torch.float32}.items():
            (tmp_path / name).mkdir(exist_ok=True)
            torch.save({k: v.to(dtype) for k, v in state.items()}, tmp_path / name / f"step{step}.pt")
    coarse, fine = ("".join(open_trajectory(tmp_path / name).info.notes) for name in ("coarse", "fine"))
    assert "(norm.weight): taken as frozen, and in no norm; in BF16 a tensor whose updates are smaller" in coarse
    assert fine.endswith("(norm.weight): taken as frozen, and in no norm")


def test_a_folder_above_a_run_says_where_it_lies(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    inner = copied(folders["bare"], tmp_path / "logs" / "version_0")
    with pytest.raises(RunError, match=rf"holds no run itself; one lies in {inner}: give that\."):
        open_trajectory(tmp_path / "logs")
    other = copied(folders["bare"], tmp_path / "logs" / "version_1")
    both = rf"runs lie in {inner}, {other}: give one of them, or all of them by trajcheck batch {tmp_path}\."
    with pytest.raises(RunError, match=both):
        open_trajectory(tmp_path)


def test_files_of_another_kind_are_no_run(tmp_path: Path) -> None:
    torch.save(torch.ones(3), tmp_path / "data.pt")
    np.arange(9, dtype=np.uint16).tofile(tmp_path / "train_1.bin")
    torch.save({"state": {}}, tmp_path / "optimizer.pt")
    with pytest.raises(RunError, match="a folder without a run"):
        open_trajectory(tmp_path)


LOG = """epoch,lr-SGD/pg1,lr-SGD/pg2,step,train_loss{kind},val_loss
,0.5,0.25,0,,
0,,,0,2.0,
,0.4,,1,,
{epoch},,,1,1.5,
{epoch},,,1,,3.0
"""


@pytest.mark.parametrize(
    ("kind", "epoch", "at"), [("", 0, AT_STEP), ("", 1, MEAN), ("_step", 1, AT_STEP)], ids=["steps", "epochs", "named"]
)
def test_metrics_of_lightning(kind: str, epoch: int, at: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(LOG.format(kind=kind, epoch=epoch))
    log = read_metrics(FolderTree(tmp_path), "metrics.csv")
    assert log is not None and log.loss_kind == at
    assert log.lr == {0: (0.5, 0.25)} and log.loss == {0: 2.0, 1: 1.5}
