"""trajcheck.record: loops as people write them, recorded without a change to them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from loops import assert_holds, batch_of, loss_of, network, read, recorded_steps, run_json, sgd, weights
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as torch_module
from torch.optim import optimizer as torch_optimizer

import trajcheck
from trajcheck.errors import RecorderError
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.step_recorder import StepRecorder
from trajcheck.recording.unedited_loop import live_objects

STEPS, CLIP = 4, 0.3

OBJECTIVE = """
from torch import nn
from torch.nn import functional as F

def network():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 3))
    return model, lambda model, batch: F.cross_entropy(model(batch[0]), batch[1])
"""


@pytest.fixture(autouse=True)
def no_hooks_are_left() -> Any:
    gc.collect()  # optimizers of earlier tests
    yield
    assert not torch_module._global_forward_pre_hooks and not torch_module._global_forward_hooks
    assert not torch_optimizer._global_optimizer_pre_hooks


def accumulating(loss_module: Callable[..., Tensor], wrap: Callable[[Any], Any] = lambda model: model) -> Any:
    """A script with all that is usual: late zero_grad, accumulation, clipping, a schedule, validation."""
    model = network()
    called = wrap(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for step in range(STEPS):
        for i in range(2):
            inputs, targets = batch_of(2 * step + i)
            loss = loss_module(called(inputs), targets)
            if i == 0:
                optimizer.zero_grad()
            (loss / 2).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        scheduler.step()
        model.eval()
        loss_module(called(batch_of(99)[0]), batch_of(99)[1])  # with gradients enabled, as validation should not be
        with torch.no_grad():
            called(batch_of(98)[0])
        model.train()
    return model


def by_hand(run: Path) -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    with Recorder(run, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        for step in range(STEPS):
            for i in range(2):
                batch = batch_of(2 * step + i)
                loss = loss_of(model, batch)
                (loss / 2).backward()
                recorder.observe(batch, loss, weight=0.5)
            recorder.clip_grad_norm_(CLIP)
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            model.eval()
            model(batch_of(99)[0])
            model.train()


def compiled(model: Any) -> Any:
    return torch.compile(model, backend="aot_eager")


@pytest.mark.parametrize("wrap", [lambda model: model, compiled], ids=["plain", "compiled"])
def test_a_loop_with_a_loss_module_is_recorded_as_by_hand(wrap: Any, tmp_path: Path) -> None:
    with trajcheck.record(tmp_path / "run", every=1, strict=True, quiet=True) as recording:
        recorded = accumulating(nn.CrossEntropyLoss(), wrap)
    assert recording.runs == [tmp_path / "run"]
    untouched = accumulating(nn.CrossEntropyLoss(), wrap)
    assert all(torch.equal(a, b) for a, b in zip(recorded.parameters(), untouched.parameters(), strict=True))
    by_hand(tmp_path / "by-hand")
    for step in range(STEPS + 1):
        (tensors, metadata), (expected, said) = (read(tmp_path / run, step) for run in ("run", "by-hand"))
        random = {name for name in tensors if name.startswith("rng")} if wrap is compiled else set()
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in tensors.keys() - random)
        del metadata["checksum"], said["checksum"]
        if step < STEPS:
            assert metadata.pop("clip") == pytest.approx(said.pop("clip"), rel=1e-6)
        assert metadata == said
    if wrap is not compiled:
        (tmp_path / "objective.py").write_text(OBJECTIVE)
        spec = f"{tmp_path / 'objective.py'}:network"
        report = trajcheck.analyze(tmp_path / "run", objective=spec, out=tmp_path / "report")
        errors = report.steps[["replay_loss_error", "replay_grad_error"]].dropna().to_numpy()
        assert len(errors) == STEPS and (errors < 1e-6).all()


def test_a_function_whose_targets_autograd_keeps_is_recorded_as_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with trajcheck.record(tmp_path / "run", every=2, strict=True):
        accumulating(F.cross_entropy)
    by_hand(tmp_path / "by-hand")
    said = capsys.readouterr().err
    assert "made of its output by NllLoss, whose targets are recorded with the inputs" in said
    assert "missing" not in said and "not known" not in said
    (tensors, metadata), (expected, by_hand_too) = (read(tmp_path / run, 2) for run in ("run", "by-hand"))
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in tensors)
    assert metadata["micro_weights"] == by_hand_too["micro_weights"] == [0.5, 0.5]
    assert metadata["loss"] == pytest.approx(by_hand_too["loss"], rel=1e-6)


def sum_of_logs(outputs: Tensor, targets: Tensor) -> Tensor:
    return (-outputs.log_softmax(1) * F.one_hot(targets, 3)).sum(1).mean()


def test_without_a_loss_module_the_loss_is_what_backward_was_called_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with trajcheck.record(tmp_path / "run", every=2, strict=True):
        recorded = accumulating(sum_of_logs)
    by_hand(tmp_path / "by-hand")
    said = capsys.readouterr().err
    assert f"{tmp_path / 'run'}: 4 steps of AdamW, parameters of Sequential; batches are the inputs of Seq" in said
    assert said.count("made of its output by Mean; of 4 batches targets are missing, since they cannot be seen") == 1
    assert said.count("the weight by which 4 of 4 losses count in their step is not known") == 1
    assert recorded_steps(tmp_path / "run") == [0, 2, 4]
    (tensors, metadata), (expected, by_hand_too) = (read(tmp_path / run, 2) for run in ("run", "by-hand"))
    for kind in ("param", "grad", "buffer"):
        assert_holds(tensors, kind, {n.partition("/")[2]: t for n, t in expected.items() if n.startswith(kind)})
    assert torch.equal(tensors["batch/1"], batch_of(5)[0])
    assert torch.equal(tensors["rng/cpu"], expected["rng/cpu"])
    assert metadata["loss"] == pytest.approx(by_hand_too["loss"], rel=1e-6)
    assert metadata["micro_weights"] == [None, None]
    assert "the loss was made by Mean, outside of the model" in metadata["omitted"]["targets"]
    assert "Let a loss module make it (nn.CrossEntropyLoss)" in metadata["omitted"]["targets"]
    assert_holds(read(tmp_path / "run", 4)[0], "param", weights(recorded))


class ReturnsLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, inputs: Tensor, *, targets: Tensor, mode: str = "train") -> dict[str, Tensor]:
        logits = self.net(inputs)
        return {"logits": logits, "loss": F.cross_entropy(logits, targets)}


def test_a_model_that_returns_its_loss(tmp_path: Path) -> None:
    with trajcheck.record(tmp_path, every=1, strict=True, quiet=True):
        model = ReturnsLoss()
        optimizer = sgd(model)
        losses = []
        for step in range(2):
            inputs, targets = batch_of(step)
            loss = model(inputs, targets=targets)["loss"]
            losses.append(loss.item())
            (3 * loss).backward()
            optimizer.step()
            optimizer.zero_grad()
    tensors, metadata = read(tmp_path, 1)
    assert metadata["loss"] == 3 * losses[1] and metadata["micro_weights"] == [3.0]
    assert {name for name in tensors if name.startswith("batch")} == {"batch/args/0", "batch/kwargs/targets"}


def test_a_loss_scaler_is_found(tmp_path: Path) -> None:
    with trajcheck.record(tmp_path, every=1, strict=True, quiet=True):
        model, loss_module = nn.Linear(4, 1), nn.MSELoss()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.125)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        gradients = []
        for step in range(4):
            inputs = batch_of(step)[0] * (1e30 if step == 1 else 1)
            scaler.scale(loss_module(model(inputs), torch.zeros(6, 1))).backward()
            scaler.unscale_(optimizer)
            gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    metadata = [read(tmp_path, step)[1] for step in range(4)]
    assert [each.get("skipped", False) for each in metadata] == [False, True, False, False]
    for step in (0, 2, 3):
        norm = torch.nn.utils.get_total_norm(gradients[step])
        assert metadata[step]["clip"] == pytest.approx(0.1 / (float(norm) + 1e-6), rel=1e-6)
        assert "micro_weights" not in metadata[step]  # the scale is no weight


def test_two_optimizers_are_two_runs(tmp_path: Path) -> None:
    """A generator and a discriminator: each run has the parameters of its own optimizer."""
    with trajcheck.record(tmp_path / "gan", every=1, strict=True, quiet=True) as recording:
        torch.manual_seed(0)
        generator, judge, loss_module = nn.Linear(2, 4), nn.Linear(4, 1), nn.BCEWithLogitsLoss()
        first, second = sgd(generator), torch.optim.Adam(judge.parameters())
        before = []
        for _ in range(3):
            fake = generator(torch.randn(5, 2))
            second.zero_grad()
            loss_module(judge(fake.detach()), torch.zeros(5, 1)).backward()
            before.append((weights(generator), weights(judge)))
            second.step()
            first.zero_grad()
            loss_module(judge(fake), torch.ones(5, 1)).backward()
            first.step()
    assert recording.runs == [tmp_path / "gan", tmp_path / "gan" / "optimizer-2"]
    names = [run_json(run)["optimizer"]["name"] for run in recording.runs]
    assert names == ["SGD", "Adam"]
    for i, run in enumerate(recording.runs):
        assert recorded_steps(run) == [0, 1, 2, 3]
        for step in range(3):
            assert_holds(read(run, step)[0], "param", before[step][i])
    assert trajcheck.analyze(tmp_path / "gan", out=tmp_path / "report").references is not None


@pytest.mark.parametrize("clips", ["all", "each", "none"])
def test_two_optimizers_of_one_model_are_one_run(clips: str, tmp_path: Path) -> None:
    """x_t and g_t are whole; the factor of clipping is known only where both were clipped by the same."""
    with trajcheck.record(tmp_path, every=1, strict=True, quiet=True) as recording:
        model, loss_module = network(), nn.CrossEntropyLoss()
        parts = [list(model[0].parameters()), [*model[1].parameters(), *model[4].parameters()]]
        optimizers = [torch.optim.SGD(parts[0], lr=0.125), torch.optim.AdamW(parts[1])]
        seen, used, factors = [], [], []
        for step in range(3):
            seen.append(weights(model))
            loss_module(model(batch_of(step)[0]), batch_of(step)[1]).backward()
            norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            factors.append(0.05 / (float(norm) + 1e-6))
            for each in {"all": [parts[0] + parts[1]], "each": parts, "none": []}[clips]:
                nn.utils.clip_grad_norm_(each, 0.05)
            used.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    assert recording.runs == [tmp_path]
    assert sorted(run_json(tmp_path)["optimizer"]["name"].split(" + ")) == ["AdamW", "SGD"]
    for step in range(3):
        tensors, metadata = read(tmp_path, step)
        assert_holds(tensors, "param", seen[step])
        assert_holds(tensors, "grad", used[step])
        assert sorted(metadata["lr"]) == [0.001, 0.125]
        assert torch.equal(tensors["batch/0"], batch_of(step)[0])
        if clips == "each":
            assert metadata["clip"] is None
        else:
            assert metadata.get("clip", 1.0) == (pytest.approx(factors[step], rel=1e-5) if clips == "all" else 1.0)


def test_an_optimizer_without_gradients_does_not_hide_how_the_others_were_clipped(tmp_path: Path) -> None:
    with trajcheck.record(tmp_path, every=1, strict=True, quiet=True):
        model, loss_module = network(), nn.CrossEntropyLoss()
        parts = [list(model[0].parameters()), [*model[1].parameters(), *model[4].parameters()]]
        optimizers = [torch.optim.SGD(part, lr=0.125) for part in parts]
        model[0].register_forward_hook(lambda module, args, output: output.detach())
        loss_module(model(batch_of(0)[0]), batch_of(0)[1]).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        for optimizer in optimizers:
            optimizer.step()
    assert read(tmp_path, 0)[1]["clip"] == pytest.approx(0.05 / (float(norm) + 1e-6), rel=1e-5)


def test_an_optimizer_that_is_first_seen_at_its_step(tmp_path: Path) -> None:
    """Made after the first forward: the first record has no batch."""
    with trajcheck.record(tmp_path, every=1, strict=True, quiet=True):
        model, loss_module = network(), nn.CrossEntropyLoss()
        optimizer = None
        for step in range(3):
            loss = loss_module(model(batch_of(step)[0]), batch_of(step)[1])
            loss.backward()
            optimizer = optimizer or sgd(model)
            optimizer.step()
            optimizer.zero_grad()
    assert [
        ("batch/0/0" in tensors or "batch/0" in tensors) for tensors, _ in (read(tmp_path, s) for s in range(3))
    ] == [
        False,
        True,
        True,
    ]
    assert all(any(name.startswith("grad") for name in read(tmp_path, s)[0]) for s in range(3))


def test_parts_of_a_model_that_is_never_called_itself(tmp_path: Path) -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

    with trajcheck.record(tmp_path, every=1, strict=True, quiet=True):
        model, loss_module = Parts(), nn.CrossEntropyLoss()
        optimizer = sgd(model)
        for step in range(2):
            loss_module(model.head(model.encoder(batch_of(step)[0]).tanh()), batch_of(step)[1]).backward()
            optimizer.step()
            optimizer.zero_grad()
    tensors, metadata = read(tmp_path, 1)
    assert {"param/encoder.weight", "param/head.bias"} <= tensors.keys()
    assert torch.equal(tensors["batch/0"], batch_of(1)[0]) and metadata["loss"] > 0


def test_a_closure(tmp_path: Path) -> None:
    with trajcheck.record(tmp_path, every=1, strict=True, quiet=True):
        model, loss_module = network(), nn.CrossEntropyLoss()
        optimizer = sgd(model)
        for step in range(3):

            def closure(step: int = step) -> Tensor:
                optimizer.zero_grad()
                loss = loss_module(model(batch_of(step)[0]), batch_of(step)[1])
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                return loss

            optimizer.step(closure)
    for step in range(3):
        tensors, metadata = read(tmp_path, step)
        assert 0 < metadata["clip"] < 1 and metadata["loss"] > 0
        assert torch.equal(tensors["batch/1"], batch_of(step)[1])


def test_gradients_asked_for_by_hand_are_no_backward_pass(tmp_path: Path) -> None:
    """A gradient penalty takes torch.autograd.grad, and the forward again; a backward pass follows."""
    with trajcheck.record(tmp_path, every=1, strict=True, quiet=True):
        model, loss_module = nn.Linear(4, 1), nn.MSELoss()
        optimizer = sgd(model)
        for step in range(2):
            inputs = batch_of(step)[0].requires_grad_()
            output = model(inputs)
            slope = torch.autograd.grad(output.sum(), inputs, create_graph=True)[0]
            (loss_module(output, torch.zeros(6, 1)) + slope.square().mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
    for step in range(2):
        assert "micro_batches" not in read(tmp_path, step)[1]


def test_two_losses_of_one_output_are_one_where_backward_began(tmp_path: Path) -> None:
    with trajcheck.record(tmp_path, every=1, strict=True, quiet=True):
        model, losses = nn.Linear(4, 1), (nn.MSELoss(), nn.L1Loss())
        optimizer = sgd(model)
        output = model(batch_of(0)[0])
        total = sum((loss(output, torch.zeros(6, 1)) for loss in losses), torch.tensor(0.0))
        total.backward()
        optimizer.step()
    tensors, metadata = read(tmp_path, 0)
    assert metadata["loss"] == total.item() and "micro_weights" not in metadata and "batch/0" in tensors
    assert metadata["omitted"]["targets"].startswith(
        "several loss modules made the loss of one output, and the batches"
    )


def one_step() -> None:
    model = network()
    optimizer = sgd(model)
    loss_of(model, batch_of(0)).backward()
    optimizer.step()


def test_hooks_are_removed_after_exceptions(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), trajcheck.record(tmp_path, every=1, quiet=True):
        one_step()
        raise ZeroDivisionError
    assert recorded_steps(tmp_path) == [0, 1]
    one_step()
    assert recorded_steps(tmp_path) == [0, 1]


def test_what_is_refused(tmp_path: Path) -> None:
    with trajcheck.record(tmp_path / "outer", every=1, quiet=True):
        one_step()
        with pytest.raises(RecorderError, match="inside record"), trajcheck.record(tmp_path / "inner"):
            pass
    recording = trajcheck.record(tmp_path / "outer")
    with pytest.raises(RecorderError, match="already holds a run"), recording:
        pass
    with pytest.raises(RecorderError, match="record takes no evry="):
        trajcheck.record(tmp_path, evry=1)
    with pytest.raises(RecorderError, match="windows=True sums"):
        trajcheck.record(tmp_path, windows=True)


def test_what_cannot_be_recorded_does_not_stop_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = torch.zeros(3, requires_grad=True)
    with pytest.warns(RuntimeWarning), trajcheck.record(tmp_path / "free", every=1, quiet=True):
        free.sum().backward()
        torch.optim.SGD([free], lr=1.0).step()
    assert torch.equal(free, -torch.ones(3))
    with (
        pytest.raises(RecorderError, match=r"no torch\.nn\.Module has all the parameters"),
        trajcheck.record(tmp_path / "strict", every=1, quiet=True, strict=True),
    ):
        torch.optim.SGD([free], lr=1.0).step()

    def broken(*args: Any) -> None:
        raise ZeroDivisionError("broken")

    monkeypatch.setattr(StepRecorder, "observe", broken)
    with (
        pytest.warns(RuntimeWarning, match="training goes on: step 0: ZeroDivisionError"),
        trajcheck.record(tmp_path / "broken", every=1, quiet=True),
    ):
        one_step()


def test_nothing_stepped(tmp_path: Path) -> None:
    with (
        pytest.warns(RuntimeWarning, match="no optimizer made a step, so nothing was recorded"),
        trajcheck.record(tmp_path / "run", every=1, quiet=True),
    ):
        pass
    assert not (tmp_path / "run").exists()


def test_attaching_walks_once_over_all_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once to find modules that are compiled in place, and once for all that attaching asks for."""
    walks = Mock(wraps=live_objects._walk)
    monkeypatch.setattr(live_objects, "_walk", walks)
    model, criterion = network(), nn.CrossEntropyLoss()
    optimizer = sgd(model)
    with trajcheck.record(tmp_path / "run", every=1, quiet=True) as recording:
        for step in range(3):
            inputs, targets = batch_of(step)
            optimizer.zero_grad()
            criterion(model(inputs), targets).backward()
            optimizer.step()
        assert walks.call_count == 2
    assert recording.runs == [tmp_path / "run"]
    assert len(recorded_steps(tmp_path / "run")) == 4
    assert walks()[torch.optim.Optimizer] != []
