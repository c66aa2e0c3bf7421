"""The dtype of a replay, and full precision while it evaluates."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from small_objectives import CPU, in_place, normalised, parameters_of, regression_batch, squared_error
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import make_sample


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


class _Squared(torch.autograd.Function):
    """x^2, whose backward computes in float32, as kernels from outside torch do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, along: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return along.float() * 2 * x.float()


class _RunAgain(nn.Module):
    """Code that backward runs again, with casts in it: layers of a checkpoint, a function's own backward."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.how = how

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        if self.how == "function":
            return self.head(cast(Tensor, _Squared.apply(self.body(hidden))))
        return self.head(checkpoint(lambda x: torch.tanh(self.body(x).float()), hidden, use_reentrant=False))


@pytest.mark.parametrize("how", ["checkpoint", "function"])
def test_casts_in_what_backward_runs_again_are_those_of_the_replay_too(how: str) -> None:
    torch.manual_seed(0)
    model, tensors = _RunAgain(how), regression_batch()
    x = parameters_of(model)
    objective = Objective(model, squared_error).prepare("float64", {name: torch.float32 for name in x})
    sample = make_sample(tensors, device=CPU, dtype=torch.float64, recorded_dtype=torch.float32)
    value, gradient = objective.loss_and_gradient(x, sample)
    wide = {name: tensor.double().requires_grad_() for name, tensor in x.items()}

    def linear(name: str, inputs: Tensor) -> Tensor:
        return F.linear(inputs, wide[f"{name}.weight"], wide[f"{name}.bias"])

    hidden = linear("body", linear("first", tensors["0"].double()))
    outputs = linear("head", hidden.square() if how == "function" else torch.tanh(hidden))
    expected = F.mse_loss(outputs, tensors["1"].double())
    torch.testing.assert_close(value, expected.detach(), rtol=1e-14, atol=0)
    for name, each in zip(wide, torch.autograd.grad(expected, list(wide.values())), strict=True):
        torch.testing.assert_close(gradient[name], each, rtol=1e-12, atol=1e-14)
