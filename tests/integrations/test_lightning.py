"""trajcheck.integrations.lightning: a real Lightning Trainer, and its training in a plain loop with the Recorder."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from imported_late import Lazily
from loops import batch_of, loss_of, read, recorded_steps
from same_reports import assert_same_reports
from torch import nn

import trajcheck
from trajcheck.errors import RecorderError
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.step_recorder import StepRecorder

lightning: Any = Lazily("lightning.pytorch")
models: Any = Lazily("lightning_models")

BATCHES, PARTS, CLIP = 6, 2, 0.2
STEPS = BATCHES // PARTS

pytestmark = [
    pytest.mark.skipif(find_spec("lightning") is None, reason="needs lightning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:Trying to infer the `batch_size`"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:.*ended before the epoch ended"),
]

OBJECTIVE = """
from torch import nn
from torch.nn import functional as F
import lightning.pytorch as lightning
from trajcheck.integrations.lightning import training_step_loss

class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout({dropout}), nn.Tanh(), nn.Linear(8, 3))

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return {{"loss": loss}}

def classifier():
    return Classifier(), training_step_loss
"""


def data(count: int = BATCHES) -> Any:
    inputs, targets = (torch.cat(parts) for parts in zip(*map(batch_of, range(count)), strict=True))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, targets), batch_size=6)


def trainer(callbacks: list[Any], **options: Any) -> Any:
    settings = {
        "max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "accumulate_grad_batches": PARTS,
        "gradient_clip_val": CLIP,
    }  # fmt: skip
    return lightning.Trainer(callbacks=callbacks, **{**settings, **options})


def fitted(callbacks: list[Any], module: Any = None, validate: bool = False, **options: Any) -> Any:
    module = models.Classifier() if module is None else module
    trainer(callbacks, **options).fit(module, data(), data(2) if validate else None)
    return module


def plain_loop(run: Path, autocast: bool) -> Any:
    module = models.Classifier().train()
    optimizer = models.sgd(module)
    with Recorder(run, module, optimizer, every=1, strict=True, quiet=True) as recorder:
        recorder.epoch = 0
        for step in range(STEPS):
            for i in range(PARTS):
                batch: Any = list(batch_of(PARTS * step + i))
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    recorder.forward_begins(module)
                    loss = loss_of(module.net, batch)
                (loss / PARTS).backward()
                recorder.observe(batch, loss, weight=1 / PARTS)
            recorder.clip_grad_norm_(CLIP)
            optimizer.step()
            optimizer.zero_grad()
    return module


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def objective(folder: Path, dropout: float = 0.0) -> str:
    path = folder / "objective.py"
    path.write_text(OBJECTIVE.format(dropout=dropout))
    return f"{path}:classifier"


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bf16"])
def test_the_one_line_records_what_a_plain_loop_records(autocast: bool, tmp_path: Path) -> None:
    """Bit by bit, but for the clipping factor, which is measured on the gradients and not computed from their norm."""
    options: dict[str, Any] = {"precision": "bf16-mixed"} if autocast else {}
    recorded = fitted([models.TrajcheckCallback(tmp_path / "one-line", every=1, strict=True, quiet=True)], **options)
    assert same_weights(recorded, plain_loop(tmp_path / "by-hand", autocast))
    assert same_weights(recorded, fitted([], **options))
    assert recorded_steps(tmp_path / "one-line") == list(range(STEPS + 1))
    clips = []
    for step in range(STEPS + 1):
        (tensors, metadata), (expected, said) = (read(tmp_path / run, step) for run in ("one-line", "by-hand"))
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in tensors)
        del metadata["checksum"], said["checksum"]  # which tell 0.0 from -0.0
        if step < STEPS:
            clips.append(metadata.pop("clip"))
            assert clips[-1] == pytest.approx(said.pop("clip"), rel=1e-6)
            assert metadata.pop("loss") == pytest.approx(said.pop("loss"), rel=1e-15)
        assert metadata == said
    assert min(clips) < 0.9
    assert_same_reports(tmp_path, ("one-line", "by-hand"), objective(tmp_path), STEPS, autocast=autocast)


def test_dropout_epochs_and_validation_during_training(tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_epochs": 2, "val_check_interval": 2, "validate": True, "accumulate_grad_batches": 1}
    callback = models.TrajcheckCallback(tmp_path / "run", every=1, strict=True, quiet=True, windows=True)
    recorded = fitted([callback], models.Classifier(0.3), **options)
    assert same_weights(recorded, fitted([], models.Classifier(0.3), **options))
    assert callback.recorder is None  # closed
    metadata = [read(tmp_path / "run", step)[1] for step in range(2 * BATCHES)]
    assert [each["epoch"] for each in metadata] == [0] * BATCHES + [1] * BATCHES
    assert not any("micro_weights" in each for each in metadata)
    report = trajcheck.analyze(tmp_path / "run", objective=objective(tmp_path, 0.3), out=tmp_path / "report")
    errors = report.steps[["replay_loss_error", "replay_grad_error"]].dropna()
    assert len(errors) == 2 * BATCHES
    assert (errors.max().to_numpy() < (1e-6, 1e-5)).all(), errors
    assert report.references["window_num"].notna().any()


def test_the_length_of_the_run_is_the_trainers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitted([models.TrajcheckCallback(tmp_path / "run", schedule=trajcheck.Budget(bytes=10**9), strict=True)])
    assert "every step, " in capsys.readouterr().err
    assert recorded_steps(tmp_path / "run") == list(range(STEPS + 1))


def test_steps_that_the_loss_scaler_skips(tmp_path: Path) -> None:
    """float16 on the CPU; the scale falls until nothing overflows. Clipping and unscaling are told apart."""
    from lightning.pytorch.plugins.precision import MixedPrecision

    def options() -> dict[str, Any]:
        return {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**18))]}

    recorded = fitted([models.TrajcheckCallback(tmp_path, every=1, strict=True, quiet=True)], max_epochs=2, **options())
    assert same_weights(recorded, fitted([], max_epochs=2, **options()))
    metadata = [read(tmp_path, step)[1] for step in range(2 * STEPS)]
    skipped = [each.get("skipped", False) for each in metadata]
    assert skipped[0] and not skipped[-1]
    assert [each["epoch"] for each in metadata] == [0] * STEPS + [1] * STEPS
    for step, each in enumerate(metadata):
        assert each["autocast"] == "float16" and 0.1 < each["loss"] < 3
        if not skipped[step]:
            tensors = read(tmp_path, step)[0]
            norm = math.hypot(*(float(t.norm()) for name, t in tensors.items() if name.startswith("grad")))
            assert norm == pytest.approx(min(CLIP, norm / each["clip"]), rel=1e-4)
    assert any("clip" in each for each in metadata)


def test_clipping_by_value_is_known_to_have_no_factor(tmp_path: Path) -> None:
    callback = models.TrajcheckCallback(tmp_path, every=1, strict=True, quiet=True)
    fitted([callback], gradient_clip_val=0.01, gradient_clip_algorithm="value")
    assert read(tmp_path, 0)[1]["clip"] is None


def test_a_job_resumed_from_a_checkpoint_goes_on_with_the_run(tmp_path: Path) -> None:
    def callback(run: str) -> Any:
        return models.TrajcheckCallback(tmp_path / run, every=1, strict=True, quiet=True)

    first = trainer([callback("run")])
    first.fit(models.Classifier(), data())
    first.save_checkpoint(tmp_path / "checkpoint.ckpt")
    second = trainer([callback("run")], max_epochs=2)
    second.fit(models.Classifier(), data(), ckpt_path=tmp_path / "checkpoint.ckpt")
    fitted([callback("whole")], max_epochs=2)
    assert recorded_steps(tmp_path / "run") == recorded_steps(tmp_path / "whole") == list(range(2 * STEPS + 1))
    for step in range(2 * STEPS + 1):
        (tensors, metadata), (expected, said) = (read(tmp_path / run, step) for run in ("run", "whole"))
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in tensors)
        assert metadata["tau"] == pytest.approx(said["tau"], rel=1e-14)


def test_tau_goes_on_from_a_checkpoint_whose_step_was_not_recorded(tmp_path: Path) -> None:
    class Save(lightning.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    def callback(run: str) -> Any:
        return models.TrajcheckCallback(tmp_path / run, every=2, strict=True, quiet=True)

    fitted([callback("run"), Save()], max_epochs=1)
    (tmp_path / "run" / f"step-{STEPS:09d}.safetensors").unlink()  # the job was killed before its end
    trainer([callback("run")], max_epochs=2).fit(models.Classifier(), data(), ckpt_path=tmp_path / "0.ckpt")
    assert recorded_steps(tmp_path / "run") == [0, 2, 4, 6]
    assert read(tmp_path / "run", 6)[1]["tau"] == pytest.approx([6 * 0.25])


def test_manual_optimisation(tmp_path: Path) -> None:
    options: dict[str, Any] = {"accumulate_grad_batches": 1, "gradient_clip_val": None}
    recorded = fitted(
        [models.TrajcheckCallback(tmp_path, every=1, strict=True, quiet=True)], models.Manual(), **options
    )
    assert same_weights(recorded, fitted([], models.Manual(), **options))
    assert recorded_steps(tmp_path) == list(range(BATCHES + 1))
    tensors, metadata = read(tmp_path, 3)
    assert torch.equal(tensors["batch/0"], batch_of(3)[0])
    assert metadata["loss"] > 0 and "micro_weights" not in metadata
    with pytest.raises(RecorderError, match=r"Manual has 2 optimizers.*trajcheck\.record"):
        fitted([models.TrajcheckCallback(tmp_path / "two")], models.Manual(2), **options)


def test_what_fails_does_not_reach_training_unless_strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise ZeroDivisionError("broken")

    untouched = fitted([])
    monkeypatch.setattr(StepRecorder, "observe", broken)
    with pytest.warns(RuntimeWarning, match="training goes on: step 0: ZeroDivisionError"):
        assert same_weights(untouched, fitted([models.TrajcheckCallback(tmp_path / "run", every=1, quiet=True)]))
    with pytest.raises(RecorderError, match="ZeroDivisionError"):
        fitted([models.TrajcheckCallback(tmp_path / "strict", every=1, strict=True, quiet=True)])


def test_training_that_fails_leaves_the_final_iterate(tmp_path: Path) -> None:
    class Failing(models.Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 4:
                raise ZeroDivisionError
            return super().training_step(batch, batch_idx)

    with pytest.raises(ZeroDivisionError):
        fitted([models.TrajcheckCallback(tmp_path, every=1, quiet=True)], Failing())
    assert recorded_steps(tmp_path) == [0, 1, 2]
    assert not any(name.startswith("grad") for name in read(tmp_path, 2)[0])


def annealed(module: nn.Module) -> Any:
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@pytest.mark.parametrize("parts", [1, 2])
def test_its_checkpoints_are_an_archive(parts: int, tmp_path: Path) -> None:
    """Numbered by the updates made, with the losses and rates of metrics.csv, in place; the last one is there twice."""
    live = models.Points()
    checkpoints = lightning.callbacks.ModelCheckpoint(every_n_train_steps=2, save_top_k=-1, save_last=True)
    logger = lightning.loggers.CSVLogger(str(tmp_path))
    fitted(
        [live, checkpoints, lightning.callbacks.LearningRateMonitor("step")], models.Classifier(make=annealed),
        max_epochs=2, logger=logger, enable_checkpointing=True, log_every_n_steps=1, accumulate_grad_batches=parts,
        gradient_clip_val=None,
    )  # fmt: skip
    report = trajcheck.analyze(logger.log_dir, out=tmp_path / "report")
    steps = list(range(2, 2 * BATCHES // parts + 1, 2))
    assert report.steps["step"].tolist() == steps
    norms = [np.linalg.norm(live.points[step]) for step in steps]
    np.testing.assert_allclose(report.steps["param_norm"], norms, rtol=1e-12)
    distances = [np.linalg.norm(live.points[step] - live.points[steps[-1]]) for step in steps]
    np.testing.assert_allclose(report.references["ref_dist"], distances, rtol=1e-12)
    assert report.steps["lr"].tolist()[:-1] == [live.rates[step] for step in steps[:-1]]
    np.testing.assert_allclose(report.steps["tau"], [sum(live.rates[t] for t in range(step)) for step in steps])
    warnings = " ".join(report.summary["warnings"])
    assert "last.ckpt is checkpoints/epoch=1-step=" in warnings
    if parts == 1:
        np.testing.assert_allclose(report.steps["loss"][:-1], [live.losses[step] for step in steps[:-1]], rtol=1e-6)
    else:  # what was logged is the loss of a part of each batch
        assert "loss" not in report.steps or report.steps["loss"].isna().all()
        assert "an update is of another number of batches" in warnings


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecorderError, match="TrajcheckCallback takes no evry=; it takes every"):
        models.TrajcheckCallback(tmp_path, evry=3)
