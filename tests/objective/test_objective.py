"""trajcheck/objective.py, with objective_file.py, samples.py, parameter_names.py and conditions.py."""

from __future__ import annotations

import pickle
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from trajcheck.errors import ObjectiveError, StepFileError, UsageError
from trajcheck.objective.devices import resolve_device
from trajcheck.objective.loading import load_objective
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import make_sample
from trajcheck.runs.batch_tree import flatten

CPU = torch.device("cpu")


def squared_error(model: nn.Module, batch: Any) -> Tensor:
    inputs, targets = batch
    return F.mse_loss(model(inputs), targets)


def regression_batch(inputs: int = 3, outputs: int = 2, rows: int = 8) -> dict[str, Tensor]:
    return {"0": torch.randn(rows, inputs), "1": torch.randn(rows, outputs)}


def parameters_of(model: nn.Module, seed: int = 1) -> dict[str, Tensor]:
    """Other values than the model's own, under its raw names."""
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.5 * torch.randn(p.shape, generator=generator).to(p.dtype) for name, p in model.named_parameters()}


def in_place(
    model: nn.Module, loss: Callable[[nn.Module, Any], Tensor], x: dict[str, Tensor], batch: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """The plain way: load x into the model, call backward, read .grad."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(x[name])
    model.zero_grad()
    value = loss(model, batch)
    value.backward()
    return value.detach(), {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()
    }


def assert_same_as_in_place(
    make: Callable[[], nn.Module],
    loss: Callable[[nn.Module, Any], Tensor],
    tensors: dict[str, Tensor],
    batch: Any,
) -> None:
    torch.manual_seed(0)
    plain = make()
    torch.manual_seed(0)
    objective = Objective(make(), loss)
    x = parameters_of(plain)
    value, gradient = objective.loss_and_gradient(x, make_sample(tensors, device=CPU))
    expected, expected_gradient = in_place(plain, loss, x, batch)
    torch.testing.assert_close(value, expected.double(), rtol=1e-6, atol=1e-7)
    assert list(gradient) == list(expected_gradient)
    for name, part in expected_gradient.items():
        torch.testing.assert_close(gradient[name], part, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(objective.loss(x, make_sample(tensors, device=CPU)), value, rtol=0, atol=0)


# Models


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embedding(tokens))


def next_token(model: nn.Module, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, num_layers=2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden, _ = self.rnn(inputs, (torch.zeros(2, len(inputs), 4), torch.zeros(2, len(inputs), 4)))
        return self.head(hidden[:, -1])


class Encoder(nn.Module):
    """No forward: its loss calls methods and submodules."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def encode(self, inputs: Tensor) -> Tensor:
        return torch.tanh(self.body(inputs))


def twice(model: nn.Module, batch: Any) -> Tensor:
    inputs, targets = batch
    assert isinstance(model, Encoder)
    return F.mse_loss(model.head(model.encode(inputs)), targets) + model.encode(2 * inputs).square().mean()


class Averaged(nn.Module):
    """Assigns its buffer anew instead of changing it in place."""

    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("average", torch.zeros(3))

    def forward(self, inputs: Tensor) -> Tensor:
        self.average = 0.5 * self.average + inputs.mean(0)
        return inputs * self.weight + self.average


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = checkpoint(self.body, inputs, use_reentrant=False)
        return self.head(torch.tanh(hidden))


def attention() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=8, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Linear(3, 4), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(4, 2))


def weight_normed() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2))


def normalised(dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(dropout), nn.ReLU(), nn.Linear(4, 2))


@pytest.mark.parametrize("make", [normalised, weight_normed, Checkpointed])
def test_value_and_gradient_are_those_of_loading_the_parameters(make: Callable[[], nn.Module]) -> None:
    tensors = regression_batch()
    assert_same_as_in_place(make, squared_error, tensors, (tensors["0"], tensors["1"]))


@pytest.mark.parametrize("make", [Recurrent, lambda: nn.Sequential(attention(), nn.Flatten(), nn.Linear(10, 2))])
def test_recurrent_and_attention(make: Callable[[], nn.Module]) -> None:
    tensors = {"0": torch.randn(8, 5, 3), "1": torch.randn(8, 2)}
    assert_same_as_in_place(make, squared_error, tensors, (tensors["0"], tensors["1"]))


def test_tied_parameters_are_one() -> None:
    tokens = torch.randint(7, (3, 5))
    assert_same_as_in_place(Tied, next_token, {"": tokens}, tokens)
    assert Objective(Tied(), next_token).names == ("embedding.weight",)


def test_a_loss_that_calls_methods_and_submodules() -> None:
    tensors = regression_batch()
    assert_same_as_in_place(Encoder, twice, tensors, (tensors["0"], tensors["1"]))


def test_the_model_is_not_changed() -> None:
    model = normalised()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    Objective(model, squared_error).loss_and_gradient(parameters_of(model), make_sample(regression_batch(), device=CPU))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_callers_parameters_are_not_changed() -> None:
    model = nn.Sequential(nn.Embedding(7, 4, max_norm=0.1), nn.Linear(4, 7))
    x = parameters_of(model)
    before = {name: tensor.clone() for name, tensor in x.items()}
    tokens = torch.randint(7, (3, 5))
    value, gradient = Objective(model, next_token).loss_and_gradient(x, make_sample({"": tokens}, device=CPU))
    for name, tensor in x.items():
        assert torch.equal(tensor, before[name]) and not tensor.requires_grad
    expected, expected_gradient = in_place(model, next_token, x, tokens)
    torch.testing.assert_close(value, expected.double())
    torch.testing.assert_close(gradient["0.weight"], expected_gradient["0.weight"])


def test_a_loss_that_changes_the_parameters_is_refused() -> None:
    def clamp(model: nn.Module, batch: Any) -> Tensor:
        with torch.no_grad():
            next(model.parameters()).clamp_(-1, 1)
        return squared_error(model, batch)

    model = nn.Linear(3, 2)
    with pytest.raises(ObjectiveError, match=r"step 3, at x_t: the loss changed the parameter weight in place"):
        sample = make_sample(regression_batch(), device=CPU)
        Objective(model, clamp).loss(parameters_of(model), sample, where="step 3, at x_t")


def test_unused_and_frozen_parameters() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "frozen": nn.Linear(2, 2), "unused": nn.Linear(5, 5)})
    model["frozen"].requires_grad_(False)
    objective = Objective(model, lambda m, b: F.mse_loss(m["frozen"](m["used"](b[0])), b[1]))  # type: ignore[index]
    assert "frozen.weight" in objective.names and "frozen.weight" not in objective.trainable
    x = parameters_of(model)
    value, gradient = objective.loss_and_gradient(x, make_sample(regression_batch(), device=CPU))
    assert set(gradient) == {"used.weight", "used.bias", "unused.weight", "unused.bias"}
    assert torch.equal(gradient["unused.weight"], torch.zeros(5, 5))
    x["frozen.weight"] = 2 * x["frozen.weight"]
    assert objective.loss(x, make_sample(regression_batch(), device=CPU)) != value


def test_the_run_says_what_is_trainable() -> None:
    model = nn.Linear(3, 2)
    objective = Objective(model, squared_error)
    objective.check({"weight": (2, 3), "bias": (2,)}, trainable=["bias"])
    _, gradient = objective.loss_and_gradient(parameters_of(model), make_sample(regression_batch(), device=CPU))
    assert list(gradient) == ["bias"]


def test_sparse_gradients_are_made_dense() -> None:
    tokens = torch.randint(7, (3, 5))
    dense, sparse = (nn.Sequential(nn.Embedding(7, 4, sparse=sparse), nn.Linear(4, 7)) for sparse in (False, True))
    x = parameters_of(dense)
    gradients = [
        Objective(model, next_token).loss_and_gradient(x, make_sample({"": tokens}, device=CPU))[1]["0.weight"]
        for model in (dense, sparse)
    ]
    torch.testing.assert_close(*gradients)


def test_a_loss_may_differentiate_with_respect_to_its_inputs() -> None:
    def residual(model: nn.Module, batch: Any) -> Tensor:
        points = batch[0].requires_grad_()
        (slope,) = torch.autograd.grad(model(points).sum(), points, create_graph=True)
        return slope.square().mean()

    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    sample = make_sample(regression_batch(), device=CPU)
    objective = Objective(model, residual)
    x = parameters_of(model)
    with torch.no_grad():
        value = objective.loss(x, sample)
        again, gradient = objective.loss_and_gradient(x, sample)
    assert value == again and gradient["0.weight"].abs().sum() > 0 and gradient["2.bias"].abs().sum() == 0
    assert not value.requires_grad


# Samples: randomness, buffers, micro-batches


def dropout_objective() -> tuple[Objective, dict[str, Tensor]]:
    model = normalised(dropout=0.5)
    return Objective(model, squared_error), parameters_of(model)


def test_every_point_of_a_step_draws_the_same_masks() -> None:
    masks = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        masks.append(torch.cat([F.dropout(torch.ones(50)), torch.tensor(np.random.rand(3)), torch.rand(3)]))
        masks[-1][0] = random.random()
        return squared_error(model, batch)

    model = nn.Linear(3, 2)
    objective = Objective(model, loss)
    sample = make_sample(regression_batch(), device=CPU, seed=5)
    objective.loss(parameters_of(model, 1), sample)
    torch.rand(7)
    objective.loss_and_gradient(parameters_of(model, 2), sample)
    objective.loss(parameters_of(model, 1), make_sample(regression_batch(), device=CPU, seed=6))
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


def test_recorded_generator_states_are_used() -> None:
    objective, x = dropout_objective()
    tensors = regression_batch()
    model = normalised(dropout=0.5)
    torch.manual_seed(3)
    torch.rand(11)
    state = torch.get_rng_state()
    expected, _ = in_place(model, squared_error, x, (tensors["0"], tensors["1"]))
    sample = make_sample(tensors, device=CPU, generators={"cpu": state[None]}, recorded_torch=torch.__version__)
    torch.testing.assert_close(objective.loss(x, sample), expected.double(), rtol=1e-6, atol=0)
    assert objective.randomness(sample) == "recorded"


@pytest.mark.parametrize(
    ("generators", "options", "words"),
    [
        ({}, {}, "seeded: no generator state recorded"),
        ({"cuda:0": (1, 16), "cpu": (1, 5056)}, {}, "seeded: the run was recorded on cuda, the replay is on cpu"),
        ({"cpu": (2, 5056)}, {}, "seeded: 2 generator states recorded for 1 micro-batches"),
        ({"cpu": (1, 40)}, {}, f"seeded: torch {torch.__version__} cannot use the recorded generator state (cpu)"),
        (
            None,
            {"recorded_torch": "1.0"},
            f"recorded (by torch 1.0, replayed by {torch.__version__}: draws may differ)",
        ),
        (
            None,
            {"dtype": torch.float64, "recorded_dtype": torch.float32},
            "recorded (in float32, replayed in float64: draws may differ)",
        ),
    ],
)
def test_randomness_in_words(
    generators: dict[str, tuple[int, int]] | None, options: dict[str, Any], words: str
) -> None:
    states = {name: torch.zeros(shape, dtype=torch.uint8) for name, shape in (generators or {}).items()}
    if generators is None:
        states = {"cpu": torch.get_rng_state()}  # one state may come without the axis of micro-batches
    sample = make_sample(regression_batch(), device=CPU, generators=states, **options)
    assert sample.randomness == words


def test_the_random_streams_of_the_process_are_untouched() -> None:
    objective, x = dropout_objective()
    before = torch.get_rng_state(), random.getstate(), pickle.dumps(np.random.get_state())
    sample = make_sample(
        {"0": torch.ones(8, 3), "1": torch.ones(8, 2)},
        device=CPU,
        generators={"cpu": torch.Generator().manual_seed(9).get_state()},
    )
    objective.loss_and_gradient(x, sample)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1] and pickle.dumps(np.random.get_state()) == before[2]


def test_buffers_start_every_evaluation_from_the_sample() -> None:
    seen = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        value = squared_error(model, batch)
        buffers = dict(model.named_buffers())
        seen.append((buffers["1.running_mean"].clone(), buffers["1.num_batches_tracked"].clone()))
        return value

    model = normalised()
    objective, x = Objective(model, loss), parameters_of(model)
    buffers = {"1.running_mean": torch.full((4,), 100.0), "1.num_batches_tracked": torch.tensor(41)}
    sample = make_sample(regression_batch(), device=CPU, buffers=buffers)
    for _ in range(2):
        objective.loss_and_gradient(x, sample)
    objective.loss(x, make_sample(regression_batch(), device=CPU))
    assert seen[0][0][0] > 50 and seen[0][1] == 42
    assert torch.equal(seen[0][0], seen[1][0]) and torch.equal(seen[0][1], seen[1][1])
    assert seen[2][0][0] < 50 and seen[2][1] == 1  # the model's own
    assert torch.equal(buffers["1.running_mean"], torch.full((4,), 100.0))


def test_micro_batches_share_buffers_and_are_weighted() -> None:
    model = Averaged()
    objective = Objective(model, lambda m, batch: m(batch).square().mean())
    first, second = torch.randn(4, 3), torch.randn(4, 3)
    sample = make_sample({"0": first, "1": second}, device=CPU, micro_batches=2, weights=[0.25, 0.75])
    x = parameters_of(model)
    loss, gradient = objective.loss_and_gradient(x, sample)
    weight = x["weight"].clone().requires_grad_()
    average = first.mean(0)
    expected = 0.25 * (first * weight + average).square().mean()
    expected = expected + 0.75 * (second * weight + 0.5 * average + second.mean(0)).square().mean()
    expected.backward()
    torch.testing.assert_close(loss, expected.detach().double())
    torch.testing.assert_close(gradient["weight"], weight.grad)


def test_micro_batches_of_a_nested_batch() -> None:
    halves = [regression_batch() for _ in range(2)]
    flat = {f"{i}/{path}": tensor for i, half in enumerate(halves) for path, tensor in half.items()}
    model = nn.Linear(3, 2)
    objective, x = Objective(model, squared_error), parameters_of(model)
    whole = {path: torch.cat([half[path] for half in halves]) for path in ("0", "1")}
    loss, gradient = objective.loss_and_gradient(x, make_sample(flat, device=CPU, micro_batches=2))
    expected, expected_gradient = objective.loss_and_gradient(x, make_sample(whole, device=CPU))
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, expected_gradient)


def test_micro_batches_with_a_tree() -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        assert batch["task"] == "regression"
        return F.mse_loss(model(batch["inputs"]), batch["targets"], reduction=batch["reduction"])

    halves = [
        {"inputs": torch.randn(4, 3), "targets": torch.randn(4, 2), "task": "regression", "reduction": reduction}
        for reduction in ("sum", "mean")
    ]
    tensors, tree = flatten(tuple(halves))
    model = nn.Linear(3, 2)
    x = parameters_of(model)
    sample = make_sample(tensors, device=CPU, micro_batches=2, tree=tree, weights=[1, 3])
    expected = sum(weight * in_place(model, loss, x, half)[0] for weight, half in zip((1, 3), halves, strict=True))
    torch.testing.assert_close(Objective(model, loss).loss(x, sample), torch.as_tensor(expected).double())


def test_micro_batches_that_do_not_fit() -> None:
    model = nn.Linear(3, 2)
    for tensors, tree, message in [
        ({"0/0": torch.ones(1)}, None, "step 9: 2 micro-batches were announced, the stored batch is 1 batches"),
        ({"inputs": torch.ones(1)}, None, "step 9: 2 micro-batches were announced, the stored batch is a dict"),
        ({"0": torch.ones(1)}, {"tensor": "1"}, "step 9: batch_tree names the tensor '1'"),
    ]:
        sample = make_sample(tensors, device=CPU, micro_batches=2, tree=tree)
        with pytest.raises(StepFileError, match=message):
            Objective(model, squared_error).loss(parameters_of(model), sample, where="step 9")
    with pytest.raises(StepFileError, match="1 micro_weights for 2 micro-batches"):
        make_sample({}, device=CPU, micro_batches=2, weights=[1.0])


def test_each_micro_batch_has_its_generator_state() -> None:
    draws = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        draws.append(torch.rand(()))
        return model(batch).square().mean()

    states = [torch.Generator().manual_seed(seed).get_state() for seed in (7, 8)]
    model = nn.Linear(3, 2)
    sample = make_sample(
        {"0": torch.ones(1, 3), "1": torch.ones(1, 3)},
        device=CPU,
        micro_batches=2,
        generators={"cpu": torch.stack(states)},
    )
    Objective(model, loss).loss(parameters_of(model), sample)
    expected = [torch.rand((), generator=torch.Generator().manual_seed(seed)) for seed in (7, 8)]
    assert draws == expected


def test_a_loss_may_change_its_batch() -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        targets = batch.pop("targets")
        return F.mse_loss(model(batch["inputs"].mul_(2)), targets)

    model = nn.Linear(3, 2)
    objective, x = Objective(model, loss), parameters_of(model)
    sample = make_sample({"inputs": torch.randn(4, 3), "targets": torch.randn(4, 2)}, device=CPU)
    assert objective.loss(x, sample) == objective.loss(x, sample)


# dtypes and precision


def test_replay_in_float64() -> None:
    made = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        made.append((batch[0].dtype, torch.zeros(1).dtype))
        return F.cross_entropy(model(batch[0]), batch[1], weight=None)

    model = normalised()
    x = parameters_of(model)
    tensors = {"0": torch.randn(8, 3), "1": torch.randint(2, (8,))}
    objective = Objective(model, loss).prepare("float64")
    sample = make_sample(tensors, device=CPU, dtype=torch.float64, recorded_dtype=torch.float32)
    value, gradient = objective.loss_and_gradient(x, sample)
    assert made == [(torch.float64, torch.float64)] and torch.get_default_dtype() == torch.float32
    assert all(part.dtype == torch.float64 for part in gradient.values())
    assert sample.tensors["1"].dtype == torch.int64
    plain = normalised().double()
    expected, _ = in_place(plain, loss, {n: t.double() for n, t in x.items()}, (tensors["0"].double(), tensors["1"]))
    torch.testing.assert_close(value, expected, rtol=1e-14, atol=0)


def test_a_batch_keeps_its_dtypes_but_16_bits_where_the_replay_keeps_the_runs() -> None:
    tensors = {"0": torch.randn(2, dtype=torch.float64), "1": torch.randn(2, dtype=torch.bfloat16)}
    sample = make_sample(tensors, device=CPU, dtype=torch.float32, recorded_dtype=torch.float32)
    assert [t.dtype for t in sample.tensors.values()] == [torch.float64, torch.float32]


def test_replay_in_bfloat16() -> None:
    model = nn.Linear(3, 2)
    objective = Objective(model, squared_error).prepare("bfloat16")
    sample = make_sample(regression_batch(), device=CPU, dtype=torch.bfloat16, recorded_dtype=torch.float32)
    loss, gradient = objective.loss_and_gradient(parameters_of(model), sample)
    assert loss.dtype == torch.float64 and loss.shape == () and gradient["weight"].dtype == torch.bfloat16


def test_a_loss_module_moves_too_and_its_buffers_do_not_drift() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("centre", torch.zeros(2))
            self.inner = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]))
            self.centre: Tensor

        def forward(self, model: nn.Module, batch: Any) -> Tensor:
            outputs = model(batch[0])
            self.centre.add_(outputs.detach().mean(0))
            return self.inner(outputs - self.centre, batch[1])

        def method(self, model: nn.Module, batch: Any) -> Tensor:
            return self(model, batch)

    tensors = {"0": torch.randn(8, 3), "1": torch.randint(2, (8,))}
    sample = make_sample(tensors, device=CPU, dtype=torch.float64, recorded_dtype=torch.float32)
    for loss in (Centred(), Centred().method):
        model = nn.Linear(3, 2)
        objective = Objective(model, loss).prepare("float64")
        assert objective.names == ("weight", "bias")
        x = parameters_of(model)
        assert objective.loss(x, sample) == objective.loss(x, sample)


def precision_settings() -> list[Any]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    settings = [torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic]
    settings += [matmul.allow_bf16_reduced_precision_reduction, matmul.allow_fp16_reduced_precision_reduction]
    return [*settings, cudnn.enabled]


def test_full_precision_only_while_evaluating() -> None:
    seen = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        seen.append(precision_settings())
        return squared_error(model, batch)

    model = nn.Linear(3, 2)
    objective = Objective(model, loss)
    before = precision_settings()
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = True
    try:
        during = precision_settings()
        objective.loss(parameters_of(model), make_sample(regression_batch(), device=CPU))
        assert precision_settings() == during
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.benchmark = before[2]
    assert seen == [["highest", False, False, True, False, False, True]]


def test_full_precision_where_the_newer_switches_were_used() -> None:
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("torch before 2.9")
    seen = []
    backends: Any = torch.backends
    switches = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul)

    def settings() -> list[str]:
        return [switch.fp32_precision for switch in switches]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        seen.append(settings())
        return squared_error(model, batch)

    model = nn.Linear(3, 2)
    objective = Objective(model, loss)
    before = settings()
    for switch in switches:
        switch.fp32_precision = "tf32"
    try:
        objective.loss(parameters_of(model), make_sample(regression_batch(), device=CPU))
        assert settings() == ["tf32"] * 4
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
    assert all(value in ("ieee", "none") for value in seen[0])


# Names


class Parallel(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Tensor:
        return self.module(inputs)


def test_wrappers_do_not_show_in_names() -> None:
    inner = normalised()
    compiled: Any = torch.compile(inner, backend="eager")
    model = Parallel(nn.Sequential(compiled, nn.Identity()))
    objective = Objective(model, squared_error)
    assert objective.names == tuple(f"0.{name}" for name, _ in inner.named_parameters())
    x = {f"0.{name}": tensor for name, tensor in parameters_of(inner).items()}
    buffers = {f"0.{name}": tensor.clone() for name, tensor in inner.named_buffers()}
    tensors = regression_batch()
    sample = make_sample(tensors, device=CPU, buffers=buffers)
    plain = {name.removeprefix("0."): tensor for name, tensor in x.items()}
    value, gradient = objective.loss_and_gradient(x, sample)
    expected, expected_gradient = in_place(inner, squared_error, plain, (tensors["0"], tensors["1"]))
    torch.testing.assert_close(value, expected.double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient["0.0.weight"], expected_gradient["0.weight"])


def test_two_parameters_of_one_canonical_name_are_refused() -> None:
    model = nn.ModuleDict({"module": nn.Linear(2, 2)})
    model.register_parameter("weight", nn.Parameter(torch.ones(2)))
    with pytest.raises(ObjectiveError, match=r"two parameters of the model are called weight"):
        Objective(model, squared_error)


def test_lazy_parameters_are_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.LazyLinear(2)
    with pytest.raises(ObjectiveError, match=r"lazy parameter weight has no shape yet; let NAME\(\) run the model"):
        Objective(model, squared_error)


def test_check_names_what_differs() -> None:
    objective = Objective(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), squared_error, title="train.py:make")
    run = {"0.weight": (4, 3), "0.bias": (5,), **{f"{i}.extra": (1,) for i in range(5)}}
    with pytest.raises(ObjectiveError) as caught:
        objective.check(run)
    message = str(caught.value)
    assert "objective train.py:make: it does not fit the run" in message
    assert "only in the run: 0.extra, 1.extra, 2.extra and 2 more" in message
    assert "only in the objective: 1.weight, 1.bias" in message
    assert "0.bias (5,) in the run and (4,) in the objective" in message


def test_a_tied_parameter_may_be_stored_under_any_of_its_names() -> None:
    tokens = {"": torch.randint(7, (3, 5))}
    x = torch.randn(7, 4)
    objective = Objective(Tied(), next_token)
    expected = objective.loss({"embedding.weight": x}, make_sample(tokens, device=CPU))
    objective.check({"head.weight": (7, 4)}, {"embedding.weight": "head.weight"})
    assert objective.names == objective.trainable == ("head.weight",)
    value, gradient = objective.loss_and_gradient({"head.weight": x}, make_sample(tokens, device=CPU))
    assert value == expected and list(gradient) == ["head.weight"]
    objective.check({"head.weight": (7, 4)})  # without run.json: the objective knows its own ties
    objective.check({"wte": (7, 4)}, {"head.weight": "wte"})


def test_ties_must_agree() -> None:
    with pytest.raises(
        ObjectiveError, match=r"embedding.weight and head.weight are two parameters in the run, and one"
    ):
        Objective(Tied(), next_token).check({"embedding.weight": (7, 4), "head.weight": (7, 4)})
    untied = Tied()
    untied.head = nn.Linear(4, 7, bias=False)
    with pytest.raises(ObjectiveError, match=r"head.weight is tied to embedding.weight in the run, and not in the obj"):
        Objective(untied, next_token).check({"embedding.weight": (7, 4)}, {"head.weight": "embedding.weight"})


def test_buffers_of_another_model() -> None:
    model = normalised()
    sample = make_sample(regression_batch(), device=CPU, buffers={"1.other": torch.zeros(4)})
    with pytest.raises(ObjectiveError, match=r"step 1: the run has a buffer 1.other, which the objective's model does"):
        Objective(model, squared_error).loss(parameters_of(model), sample, where="step 1")


def test_tied_buffers_and_buffers_that_come_late() -> None:
    class Masked(nn.Module):
        mask: Tensor | None

        def __init__(self, mask: Tensor | None) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))
            self.register_buffer("mask", mask)

        def forward(self, inputs: Tensor) -> Tensor:
            if self.mask is None:
                self.mask = torch.ones(3)
            return inputs * self.weight * self.mask

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return model(batch).sum()

    late = Objective(Masked(None), loss)
    x, ones = {"weight": torch.ones(3)}, torch.ones(1, 3)
    recorded = make_sample({"": ones}, device=CPU, buffers={"mask": torch.tensor([1.0, 2.0, 3.0])})
    assert late.loss(x, recorded) == 6 and late.loss(x, make_sample({"": ones}, device=CPU)) == 3
    assert late.loss(x, recorded) == 6

    mask = torch.ones(3)
    tied = Objective(nn.Sequential(Masked(mask), Masked(mask)), loss).prepare("float64")
    sample = make_sample({"": ones}, device=CPU, buffers={"0.mask": torch.full((3,), 2.0)})
    assert tied.loss({"0.weight": torch.ones(3), "1.weight": torch.ones(3)}, sample) == 12


def test_modes() -> None:
    model = normalised()
    Objective(model.eval(), squared_error)
    assert all(module.training for module in model.modules())
    model[1].eval()  # type: ignore[index]
    Objective(model, squared_error)
    assert not model[1].training and model[0].training  # type: ignore[index]


# Losses that cannot be used


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda m, b: 3.0, "the loss returned a float; expected a scalar tensor"),
        (lambda m, b: m(b[0]).sum(1), r"the loss has shape \(8,\); expected a scalar, shape \(\): add .mean\(\)"),
        (lambda m, b: m(b[0]).sum().reshape(1), r"the loss has shape \(1,\); .*: add .squeeze\(\)"),
        (lambda m, b: m(b[0]).sum().long(), "the loss is int64; expected a floating dtype"),
        (lambda m, b: m(b[0]).sum() * 1j, "the loss is complex64; expected a floating dtype"),
        (lambda m, b: m(b[0]).sum().detach(), "the loss does not depend on any parameter through autograd"),
        (lambda m, b: (b[0].requires_grad_() ** 2).sum(), "the loss does not depend on any parameter through autograd"),
        (lambda m, b: m(b[1]).sum(), r"the loss raised RuntimeError: mat1 and mat2 .*\(.*line \d+\)"),
        (lambda m, b: sys.exit(2), r"the loss raised SystemExit: 2 \(test_objective.py, line \d+\)"),
    ],
)
def test_unusable_losses(loss: Callable[[nn.Module, Any], Any], message: str) -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ObjectiveError, match=rf"^objective o.py:f, step 120, at x_\(t-1\): {message}"):
        objective = Objective(model, loss, title="o.py:f", path=Path(__file__))
        sample = make_sample(regression_batch(), device=CPU)
        objective.loss_and_gradient(parameters_of(model), sample, where="step 120, at x_(t-1)")


def test_a_non_finite_loss_is_returned() -> None:
    model = nn.Linear(3, 2)
    objective = Objective(model, lambda m, b: m(b[0]).sum() / 0)
    loss, gradient = objective.loss_and_gradient(parameters_of(model), make_sample(regression_batch(), device=CPU))
    assert not loss.isfinite() and not gradient["weight"].isfinite().all()


# Loading FILE.py:NAME

GOOD = """
from helper_beside import size
import torch
from torch import nn

class Net(nn.Linear):
    pass

def make():
    from late_helper import rate
    return Net(size, 2), loss

def loss(model, batch):
    import even_later
    return ((model(batch[0]) - batch[1]) ** 2).mean()

def swapped():
    return loss, Net(3, 2)

def nothing():
    pass

def raises():
    raise ValueError("no data here")

def failing():
    def fail(model, batch):
        return model(batch[0]) + undefined_name
    return Net(3, 2), fail

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(GOOD)
    (tmp_path / "helper_beside.py").write_text("size = 3\n")
    (tmp_path / "late_helper.py").write_text("rate = 1\n")
    (tmp_path / "even_later.py").write_text("")
    return tmp_path


def test_load_from_a_file(folder: Path) -> None:
    path, bytecode = list(sys.path), sys.dont_write_bytecode
    objective = load_objective(f"{folder}/train.py:make", device="cpu", dtype="float64")
    assert objective.names == ("weight", "bias") and objective.device == CPU and objective.dtype == torch.float64
    sample = make_sample(regression_batch(), device=CPU, dtype=torch.float64, recorded_dtype=torch.float32)
    x = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    assert objective.loss(x, sample) > 0
    assert sys.path == path and sys.dont_write_bytecode == bytecode
    assert not list(folder.rglob("__pycache__"))
    assert load_objective(f"{folder}/train.py:make", device="cpu").dtype is None


def test_loading_leaves_the_random_streams(folder: Path) -> None:
    before = torch.get_rng_state(), random.getstate(), pickle.dumps(np.random.get_state())
    load_objective(f"{folder}/train.py:make", device="cpu")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1] and pickle.dumps(np.random.get_state()) == before[2]


def test_a_second_load_is_a_fresh_one(folder: Path) -> None:
    first = load_objective(f"{folder}/train.py:make", device="cpu")
    (folder / "train.py").write_text("from torch import nn\n\ndef make():\n    return nn.Linear(4, 1), print\n")
    second = load_objective(f"{folder}/train.py:make", device="cpu")
    first.check({"weight": (2, 3), "bias": (2,)})
    second.check({"weight": (1, 4), "bias": (1,)})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("train.py", r"objective 'train.py' cannot be read; expected FILE.py:NAME"),
        ("train.py:not a name", r"cannot be read; expected FILE.py:NAME"),
        (":make", "cannot be read"),
        ("missing.py:make", r"there is no file .*missing.py; expected FILE.py:NAME"),
        ("train.py:other", r"train.py has no other \(it defines Net, make, loss, swapped, nothing, raises\)"),
        ("train.py:number", r"train.py has a number that is a int"),
        ("train.py:swapped", r"swapped\(\) returned \(function, Net\); expected \(model, loss\)"),
        ("train.py:nothing", r"nothing\(\) returned NoneType; expected \(model, loss\)"),
        ("train.py:raises", r"raises\(\) raised ValueError: no data here \(train.py, line 24\)"),
        ("train.py:loss", r"loss\(\) raised TypeError: loss\(\) missing 2 required"),
        ("raising.py:make", r"importing .*raising.py raised KeyError: 'HOME_OF_DATA' \(raising.py, line 2\)"),
        ("syntax.py:make", r"importing .*syntax.py raised SyntaxError: .*\(syntax.py, line 1\)"),
        ("script.py:make", r"raised SystemExit: 2 \(script.py, line 2\); .*if __name__ == \"__main__\""),
        ("empty.py:make", r"empty.py has no make \(it defines no functions\)"),
    ],
)
def test_objective_files_that_cannot_be_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str
) -> None:
    (folder / "raising.py").write_text("import os\n{}['HOME_OF_DATA']\n")
    (folder / "syntax.py").write_text("def make(:\n")
    (folder / "script.py").write_text("import sys\nsys.exit(2)\n")
    (folder / "empty.py").write_text("")
    monkeypatch.chdir(folder)
    with pytest.raises(ObjectiveError, match=message):
        load_objective(spec, device="cpu")


def test_an_error_in_the_loss_names_the_line_of_the_file(folder: Path) -> None:
    objective = load_objective(f"{folder}/train.py:failing", device="cpu")
    sample = make_sample(regression_batch(), device=CPU)
    with pytest.raises(ObjectiveError, match=r"step 7: the loss raised NameError: .* \(train.py, line 28\)"):
        objective.loss({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, sample, where="step 7")


def test_devices_and_dtypes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    for name, message in [("cuda", "is not available: torch"), ("mps", "not supported"), ("gpu", "not supported")]:
        with pytest.raises(UsageError, match=message):
            resolve_device(name)
    with pytest.raises(
        UsageError, match=r"replay dtype 'float8' is unknown; expected one of float64, float32, bfloat16"
    ):
        load_objective(f"{folder}/train.py:make", dtype="float8")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu() -> None:
    class Deep(Recurrent):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 4, num_layers=2, dropout=0.5, batch_first=True)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(self.rnn(inputs)[0][:, -1])

    device = resolve_device("cuda")
    model = Deep()
    objective, x = Objective(model, squared_error, device=device), parameters_of(model)
    state = torch.cuda.get_rng_state(device)
    sample = make_sample(
        {"0": torch.randn(8, 5, 3), "1": torch.randn(8, 2)}, device=device, generators={"cuda:0": state[None]}
    )
    loss, gradient = objective.loss_and_gradient(x, sample)
    assert loss == objective.loss(x, sample) and gradient["rnn.weight_hh_l1"].device == device
    assert torch.equal(torch.cuda.get_rng_state(device), state)
    assert objective.randomness(sample).startswith("seeded")
