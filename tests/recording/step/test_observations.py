"""trajcheck.recording.step.observations: micro-batches, cleared gradients, randomness, buffers, skipped steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loops import assert_holds, batch_of, loss_of, network, read, recorded_steps, sgd, train, weights
from torch import Tensor, nn

from trajcheck.errors import RecorderError
from trajcheck.recording.recorder import Recorder


def replayed(model: nn.Module, tensors: dict[str, Tensor], batch: Any, i: int = 0) -> dict[str, Tensor]:
    """Gradients at the recorded x_t on the recorded sample."""
    with torch.random.fork_rng(), torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"param/{name}"])
        for name, buffer in model.named_buffers():
            buffer.copy_(tensors[f"buffer/{name}"])
        torch.set_rng_state(tensors["rng/cpu"][i].clone())
        model.zero_grad()
        with torch.enable_grad():
            loss_of(model, batch).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_the_recorded_sample_gives_the_recorded_gradient(tmp_path: Path) -> None:
    """Dropout masks from the generator state, BatchNorm statistics from the buffers."""
    model = network()
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        train(model, optimizer, 3, recorder)
    for step in range(3):
        tensors, _ = read(tmp_path, step)
        assert tensors["rng/cpu"].shape == (1, torch.get_rng_state().numel())
        assert tensors["buffer/1.num_batches_tracked"] == step
        assert_holds(tensors, "grad", replayed(network(5), tensors, batch_of(step)))


def test_generator_states_are_stored_only_where_they_were_used(tmp_path: Path) -> None:
    model = network()
    model[2].p = 0.0
    model.eval()
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        train(model, optimizer, 2, recorder)
    assert not any(name.startswith("rng") for name in read(tmp_path, 1)[0])


def test_forwards_without_gradients_and_in_evaluation_mode_do_not_count(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)

    def evaluate(step: int) -> None:
        with torch.no_grad():
            model(batch_of(99)[0])
        model.eval()
        model(batch_of(99)[0])
        torch.rand(1)
        model.train()

    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        train(model, optimizer, 3, recorder, after=evaluate)
    tensors, _ = read(tmp_path, 2)
    assert_holds(tensors, "grad", replayed(network(5), tensors, batch_of(2)))


@pytest.mark.parametrize("scaled", [True, False])
def test_gradient_accumulation_is_one_record_a_step(scaled: bool, tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    losses: list[float] = []
    gradients: dict[str, Tensor] = {}
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        for step in range(2):
            losses = []
            for i in range(3):
                loss = loss_of(model, batch_of(10 * step + i))
                losses.append(loss.item())
                if scaled:
                    (loss / 4).backward()
                    recorder.observe(batch_of(10 * step + i), loss, weight=0.25)
                else:
                    loss.backward()
                    recorder.observe(batch_of(10 * step + i), loss)
            gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            optimizer.step()
            optimizer.zero_grad()
    tensors, metadata = read(tmp_path, 1)
    weight = 0.25 if scaled else 1.0
    assert metadata["micro_batches"] == 3
    assert metadata["micro_weights"] == [weight] * 3
    assert metadata["loss"] == pytest.approx(weight * sum(losses), rel=1e-12)
    assert_holds(tensors, "grad", gradients)
    assert_holds(tensors, "batch", {f"{i}/{j}": batch_of(10 + i)[j] for i in range(3) for j in range(2)})
    assert tensors["rng/cpu"].shape[0] == 3
    assert len({bytes(state.numpy()) for state in tensors["rng/cpu"]}) == 3
    assert tensors["buffer/1.num_batches_tracked"] == 3  # before the step's first forward
    single = replayed(network(5), tensors, batch_of(11), 1)["4.bias"]
    assert single.shape == gradients["4.bias"].shape


def test_one_micro_batch_with_a_weight(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        loss = loss_of(model, batch_of(0))
        (loss / 2).backward()
        recorder.observe(batch_of(0), loss, weight=0.5)
        optimizer.step()
    tensors, metadata = read(tmp_path, 0)
    assert metadata["micro_weights"] == [0.5]
    assert "micro_batches" not in metadata
    assert metadata["loss"] == 0.5 * loss.item()
    assert "batch/1" in tensors


@pytest.mark.parametrize(
    ("late", "to_none"),
    [(False, True), (False, False), (True, True)],  # zeroed in place before backward: cannot be told from accumulation
)
def test_observations_whose_gradients_were_cleared_are_forgotten(to_none: bool, late: bool, tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        for i in range(5):
            loss = loss_of(model, batch_of(i))
            if late:
                optimizer.zero_grad(set_to_none=to_none)
            loss.backward()
            recorder.observe(batch_of(i), loss)
            if i % 2 == 0:  # the others are abandoned
                optimizer.step()
            if not late:
                optimizer.zero_grad(set_to_none=to_none)
    assert recorded_steps(tmp_path) == [0, 1, 2, 3]
    for step, i in enumerate((0, 2, 4)):
        tensors, metadata = read(tmp_path, step)
        assert "micro_batches" not in metadata
        assert torch.equal(tensors["batch/0"], batch_of(i)[0])
        assert_holds(tensors, "grad", replayed(network(5), tensors, batch_of(i)))


def test_clipping_of_cleared_gradients_is_forgotten(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        loss_of(model, batch_of(0)).backward()
        recorder.observe(batch_of(0), 1.0)
        recorder.clipped(0.5)
        optimizer.zero_grad()
        train(model, optimizer, 1, recorder)
    assert "clip" not in read(tmp_path, 0)[1]


def test_a_step_without_gradients_has_no_batch(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        loss = loss_of(model, batch_of(0))
        loss.backward()
        recorder.observe(batch_of(0), loss)
        optimizer.zero_grad()
        optimizer.step()
    tensors, metadata = read(tmp_path, 0)
    assert not any(name.startswith("batch") for name in tensors)
    assert "loss" not in metadata
    assert not tensors["grad/0.weight"].any()


def test_zero_gradients_are_kept(tmp_path: Path) -> None:
    """A dead network: nothing was cleared."""
    model = nn.Linear(2, 1, bias=False)
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        for _ in range(2):
            loss = model(torch.zeros(3, 2)).sum()
            loss.backward()
            recorder.observe(torch.zeros(3, 2), loss)
        optimizer.step()
    assert read(tmp_path, 0)[1]["micro_batches"] == 2


def test_two_batches_of_one_backward_pass(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        losses = [loss_of(model, batch_of(i)) for i in range(2)]
        sum(losses, torch.tensor(0.0)).backward()
        for i in range(2):
            recorder.observe(batch_of(i), losses[i])
        optimizer.step()
    assert read(tmp_path, 0)[1]["micro_batches"] == 2


def test_observing_before_the_backward_pass(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        for step in range(2):
            for i in range(2):
                loss = loss_of(model, batch_of(2 * step + i))
                recorder.observe(batch_of(2 * step + i), loss)
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    tensors, metadata = read(tmp_path, 1)
    assert metadata["micro_batches"] == 2
    assert torch.equal(tensors["batch/1/0"], batch_of(3)[0])


def test_observing_after_the_step_is_refused(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    with (
        pytest.raises(RecorderError, match=r"before optimizer\.step\(\)"),
        Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder,
    ):
        loss = loss_of(model, batch_of(0))
        loss.backward()
        optimizer.step()
        recorder.observe(batch_of(0), loss)


def test_a_model_that_is_never_called_itself(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    parts = nn.Sequential(*model)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        with pytest.warns(RuntimeWarning, match="Give the Recorder what is called") as caught:
            train(parts, optimizer, 3, recorder)
        assert len(caught) == 1 and caught[0].filename.endswith("loops.py"), "where the loop calls observe()"
    tensors, _ = read(tmp_path, 2)
    assert "batch/0" in tensors
    assert not any(name.startswith(("rng", "buffer")) for name in tensors)


@pytest.mark.parametrize("loss", [torch.ones(2), "high", None])
def test_losses_that_are_none(loss: Any, tmp_path: Path) -> None:
    model = network()
    with (
        pytest.raises(RecorderError, match=r"observe\(\) was given a loss"),
        Recorder(tmp_path, model, sgd(model), every=1, strict=True, quiet=True) as recorder,
    ):
        loss_of(model, batch_of(0)).backward()
        recorder.observe(batch_of(0), loss)


def test_a_batch_that_is_not_plain_has_a_tree(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    x, y = batch_of(0)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        for batches in ([{"x": x, "y": y}], [{"x": x, "task": "a"}], [x, {"x": [x]}]):
            for batch in batches:
                loss = loss_of(model, (x, y))
                loss.backward()
                recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()
    trees = [read(tmp_path, step)[1].get("batch_tree") for step in range(3)]
    assert trees[0] is None
    assert trees[1] == {"dict": {"x": {"tensor": "x"}, "task": {"value": "a"}}}
    assert trees[2] == {"tuple": [{"tensor": "0"}, {"dict": {"x": {"list": [{"tensor": "1/x/0"}]}}}]}
    assert {name for name in read(tmp_path, 2)[0] if name.startswith("batch")} == {"batch/0", "batch/1/x/0"}


def test_batches_are_copied_at_once(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        x, y = batch_of(0)
        loss = loss_of(model, (x, y))
        loss.backward()
        recorder.observe(x.T, loss)
        x.zero_()
        optimizer.step()
    assert torch.equal(read(tmp_path, 0)[0]["batch"], batch_of(0)[0].T)


def test_autocast_is_noted(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        for enabled in (True, False):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                loss = loss_of(model, batch_of(0))
            loss.backward()
            recorder.observe(batch_of(0), loss)
            optimizer.step()
            optimizer.zero_grad()
    assert [read(tmp_path, step)[1].get("autocast") for step in range(2)] == ["bfloat16", None]


# Loss scaling. The third batch overflows.

OPTIMIZERS = [
    (torch.optim.SGD, {}),
    (torch.optim.SGD, {"momentum": 0.9}),
    (torch.optim.Adam, {}),
    (torch.optim.AdamW, {}),
]


def scaled_run(
    folder: Path, make: Any, options: dict[str, Any], known: bool, every: int = 1, late: bool = False
) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Iterates and unscaled gradients of five iterations, the third of which is skipped."""
    model = nn.Linear(4, 1)
    with torch.no_grad():
        model.weight.fill_(0.5)
        model.bias.fill_(0.5)
    optimizer = make(model.parameters(), lr=0.125, **options)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    iterates, gradients = [], []
    with Recorder(
        folder, model, optimizer, every=every, strict=True, quiet=True, scaler=scaler if known else None
    ) as recorder:
        for i in range(5):
            batch = batch_of(i)[0] * (1e38 if i == 2 else 1)
            loss = model(batch).sum()
            if late:
                optimizer.zero_grad()
            scaled = scaler.scale(loss)
            scaled.backward()
            recorder.observe(batch, loss)
            iterates.append(weights(model))
            scale = scaler.get_scale()
            gradients.append({n: p.grad / scale for n, p in model.named_parameters() if p.grad is not None})
            scaler.step(optimizer)
            scaler.update()
            if not late:
                optimizer.zero_grad()
        assert scaler.get_scale() == 512.0
    iterates.append(weights(model))
    return iterates, gradients


@pytest.mark.parametrize(("make", "options"), OPTIMIZERS)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("late", [True, False], ids=["cleared before backward", "cleared at once"])
def test_skipped_steps_are_marked_and_numbered(
    make: Any, options: dict[str, Any], fused: bool, late: bool, tmp_path: Path
) -> None:
    iterates, gradients = scaled_run(tmp_path, make, {**options, "fused": fused}, known=True, late=late)
    assert recorded_steps(tmp_path) == [0, 1, 2, 3, 4, 5]
    for step in range(5):
        tensors, metadata = read(tmp_path, step)
        assert_holds(tensors, "param", iterates[step])
        assert torch.equal(tensors["batch"], batch_of(step)[0] * (1e38 if step == 2 else 1))
        assert metadata["lr"] == [0.125]
        assert metadata["tau"] == [0.125 * (step - (step > 2))]
        assert metadata.get("skipped", False) == (step == 2)
        if step != 2:
            assert_holds(tensors, "grad", gradients[step])
    assert_holds(read(tmp_path, 5)[0], "param", iterates[5])
    assert read(tmp_path, 5)[1]["tau"] == [0.5]
    assert any(name.startswith("grad") for name in read(tmp_path, 2)[0]) == fused


def test_skipped_steps_that_are_not_scheduled_are_counted(tmp_path: Path) -> None:
    for fused in (True, False):
        folder = tmp_path / str(fused)
        iterates, _ = scaled_run(folder, torch.optim.SGD, {"fused": fused}, known=True, every=4)
        assert recorded_steps(folder) == [0, 4, 5]
        assert_holds(read(folder, 4)[0], "param", iterates[4])
        assert read(folder, 4)[1]["tau"] == [0.375]


def test_skipped_steps_without_the_scaler(tmp_path: Path) -> None:
    """Not fused: no hook fires, the observation is dropped and no number used. Fused: the hooks tell."""
    scaled_run(tmp_path / "plain", torch.optim.SGD, {"fused": False}, known=False)
    assert recorded_steps(tmp_path / "plain") == [0, 1, 2, 3, 4]
    tensors, metadata = read(tmp_path / "plain", 2)
    assert torch.equal(tensors["batch"], batch_of(3)[0])
    assert "micro_batches" not in metadata
    scaled_run(tmp_path / "fused", torch.optim.SGD, {"fused": True}, known=False)
    assert read(tmp_path / "fused", 2)[1]["skipped"] is True


def test_a_skipped_last_step(tmp_path: Path) -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with Recorder(tmp_path, model, optimizer, every=1, strict=True, quiet=True, scaler=scaler) as recorder:
        loss = model(torch.full((1, 4), 1e38)).sum()
        scaler.scale(loss).backward()
        recorder.observe(torch.full((1, 4), 1e38), loss)
        scaler.step(optimizer)
        scaler.update()
    assert recorded_steps(tmp_path) == [0, 1]
    assert read(tmp_path, 0)[1]["skipped"] is True
    assert read(tmp_path, 1)[1]["tau"] == [0.0]
