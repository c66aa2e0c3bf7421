"""trajcheck/objective/curvature/hessian.py and Objective.hessian: against the dense Hessian of torch.func."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from trajcheck.errors import ObjectiveError, StepFileError
from trajcheck.objective.curvature.hessian import Hessian
from trajcheck.objective.curvature.lanczos import extreme_eigenvalues
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import Sample, make_sample, seed_generators

CPU = torch.device("cpu")

Loss = Callable[[nn.Module, Any], Tensor]


class Transformer(nn.Module):
    """Two blocks of causal attention with dropout, embeddings tied to the head."""

    def __init__(self, width: int = 4, tokens: int = 6) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2))
        self.head = nn.Linear(width, tokens, bias=False)
        self.head.weight = self.embedding.weight
        self.dropout = nn.Dropout(0.2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for norm, attention in zip(self.norms, self.attention, strict=True):
            q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in attention(norm(x)).chunk(3, -1))
            mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout.p, is_causal=True)
            x = x + self.dropout(F.gelu(mixed.transpose(1, 2).flatten(2)))
        return self.head(x)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.3)), nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.tanh(checkpoint(self.body, inputs, use_reentrant=False)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.rnn(inputs)[0][:, -1])


class Partly(nn.Module):
    """`linear` enters the loss linearly, `unused` not at all, `empty` has no elements and `gain` no dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 2)
        self.linear, self.unused = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2))
        self.empty, self.gain = nn.Parameter(torch.randn(0)), nn.Parameter(torch.randn(()))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.gain * torch.tanh(self.body(inputs))


class Mixed(nn.Module):
    """A body in float32 under a head in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 2).double()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(inputs.to(self.body.weight.dtype))).double())


def convolutional() -> nn.Module:
    normalised = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.SiLU(), nn.Dropout(0.2))
    return nn.Sequential(normalised, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2))


def tanh_network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def squared_error(model: nn.Module, batch: Any) -> Tensor:
    inputs, targets = batch
    return F.mse_loss(model(inputs), targets)


def with_a_linear_part(model: nn.Module, batch: Any) -> Tensor:
    assert isinstance(model, Partly)
    return squared_error(model, batch) + (batch[0] @ model.linear).mean()


def next_token(model: nn.Module, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def rows(*shape: int, outputs: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "0": torch.randn(8, *shape, generator=generator, dtype=torch.float64),
        "1": torch.randn(8, outputs, generator=generator, dtype=torch.float64),
    }


def tokens() -> dict[str, Tensor]:
    return {"": torch.randint(6, (3, 7), generator=torch.Generator().manual_seed(2))}


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: 0.5 * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
        for name, p in model.named_parameters()
    }


def dense_hessian(model: nn.Module, loss: Loss, x: dict[str, Tensor], sample: Sample) -> Tensor:
    """[n, n] by torch.func, reverse over reverse, for each micro-batch.

    Row by row: under vmap, torch's backward of LayerNorm and BatchNorm is wrong (pytorch/functorch, issue 534), and
    torch.func.hessian with it.
    """

    class Program(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch: Any) -> Tensor:
            return loss(self.model, batch)

    def f(flat: Tensor, batch: Any, seed: int) -> Tensor:
        parts = flat.split([value.numel() for value in x.values()])
        tensors = {f"model.{name}": part.view_as(x[name]) for name, part in zip(x, parts, strict=True)}
        tensors |= {f"model.{name}": buffer.clone() for name, buffer in model.named_buffers()}
        seed_generators(seed, CPU)
        value: Tensor = torch.func.functional_call(Program(), tensors, (batch,))
        return value

    flat = torch.cat([value.reshape(-1) for value in x.values()])
    total = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    with sdpa_kernel(SDPBackend.MATH), torch.random.fork_rng(devices=[]):
        for i, (batch, weight) in enumerate(zip(sample.batches(), sample.weights, strict=True)):
            total += weight * torch.func.jacrev(torch.func.jacrev(f, chunk_size=1), chunk_size=1)(
                flat, batch, sample.seed + i
            )
    return total


def matrix(hessian: Hessian) -> Tensor:
    """All of H, column by column."""
    unit = torch.eye(hessian.dimension, dtype=hessian.dtype)
    return torch.stack([hessian.product(v) for v in unit], 1)


def sample_of(tensors: dict[str, Tensor]) -> Sample:
    return make_sample(tensors, device=CPU, seed=5)


def micro_batches() -> Sample:
    """Two unequal micro-batches with weights."""
    tensors = {f"0/{name}": value[:5] for name, value in rows(3).items()}
    tensors |= {f"1/{name}": value[5:] for name, value in rows(3).items()}
    return make_sample(tensors, device=CPU, micro_batches=2, weights=[0.3, 0.7], seed=5)


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.Tanh(), nn.Linear(4, 2))


CASES: dict[str, tuple[Callable[[], nn.Module], Loss, Sample]] = {
    "transformer": (Transformer, next_token, sample_of(tokens())),
    "convolutional": (convolutional, squared_error, sample_of(rows(1, 6, 6))),
    "recurrent": (Recurrent, squared_error, sample_of(rows(5, 3))),
    "partly": (Partly, with_a_linear_part, sample_of(rows(3))),
    "micro-batches": (normalised, squared_error, micro_batches()),
}


@pytest.mark.parametrize("keep_graph", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_products_are_those_of_the_dense_hessian(case: str, keep_graph: bool) -> None:
    make, loss, sample = CASES[case]
    model = make().double()
    x = parameters_of(model)
    objective = Objective(model, loss)
    hessian = objective.hessian(x, sample, keep_graph=keep_graph)
    expected = dense_hessian(model, loss, x, sample)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(matrix(hessian), expected, rtol=1e-9, atol=1e-12)

    value, gradient = objective.loss_and_gradient(x, sample)
    torch.testing.assert_close(hessian.loss, value, rtol=1e-12, atol=0)
    flat = torch.cat([gradient[name].reshape(-1) for name in objective.trainable])
    torch.testing.assert_close(hessian.gradient, flat, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("case", CASES)
def test_eigenvalues_are_those_of_the_dense_hessian(case: str) -> None:
    make, loss, sample = CASES[case]
    model = make().double()
    x = parameters_of(model)
    eigenvalues = torch.linalg.eigvalsh(dense_hessian(model, loss, x, sample))
    scale = float(eigenvalues.abs().max())
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-5)):
        model.to(dtype)
        near = Sample(
            {path: value.to(dtype) if value.is_floating_point() else value for path, value in sample.tensors.items()},
            weights=sample.weights,
            seed=sample.seed,
        )
        hessian = Objective(model, loss).hessian({name: value.to(dtype) for name, value in x.items()}, near)
        found = extreme_eigenvalues(hessian.product, hessian.dimension, device=CPU, dtype=hessian.dtype, seed=0)
        assert found.max_converged and found.min_converged
        for value, residual, truth in (
            (found.lambda_max, found.lambda_max_residual, float(eigenvalues[-1])),
            (found.lambda_min, found.lambda_min_residual, float(eigenvalues[0])),
        ):
            assert abs(value - truth) <= tolerance * scale
            if dtype is torch.float64:
                assert abs(value - truth) <= residual + 1e-13 * scale


@pytest.mark.parametrize(
    ("make", "loss", "tensors"),
    [
        (Transformer, next_token, tokens()),
        (convolutional, squared_error, rows(1, 6, 6)),
        (Checkpointed, squared_error, rows(3)),
    ],
)
def test_the_masks_are_those_of_the_gradient(make: Callable[[], nn.Module], loss: Loss, tensors: Any) -> None:
    """H v against differences of `loss_and_gradient`, whose masks come from the sample alone."""
    model = make().double()
    x = parameters_of(model)
    objective, sample = Objective(model, loss), sample_of(tensors)
    hessian = objective.hessian(x, sample)
    v = torch.randn(hessian.dimension, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    pieces = v.split([value.numel() for value in x.values()])

    def gradient(h: float) -> Tensor:
        moved = {name: x[name] + h * piece.view_as(x[name]) for name, piece in zip(x, pieces, strict=True)}
        parts = objective.loss_and_gradient(moved, sample)[1]
        return torch.cat([part.reshape(-1) for part in parts.values()])

    h = 1e-5
    torch.testing.assert_close(hessian.product(v), (gradient(h) - gradient(-h)) / (2 * h), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(hessian.product(v), hessian.product(v), rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", ["transformer", "convolutional", "recurrent"])
def test_a_gpu_gives_the_same(case: str) -> None:
    """Without dropout, whose masks differ; fused attention and cuDNN's LSTM could not be differentiated twice."""
    make, loss, sample = CASES[case]
    model = make().double()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x = parameters_of(model)
    here = Objective(model, loss).hessian(x, sample)
    expected = matrix(here)
    device = torch.device("cuda", 0)
    there = Objective(model, loss, device=device).hessian(x, make_sample(sample.tensors, device=device))
    found = torch.stack([there.product(v) for v in torch.eye(there.dimension, dtype=there.dtype, device=device)], 1)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-8, atol=1e-10)
    pair = [
        extreme_eigenvalues(hessian.product, hessian.dimension, device=hessian.device, dtype=hessian.dtype, seed=0)
        for hessian in (here, there)
    ]
    assert pair[1].lambda_max == pytest.approx(pair[0].lambda_max, rel=1e-9)
    assert pair[1].lambda_min == pytest.approx(pair[0].lambda_min, rel=1e-9)


def test_a_sparse_gradient() -> None:
    def make(sparse: bool) -> nn.Module:
        return nn.Sequential(nn.Embedding(6, 3, sparse=sparse), nn.Tanh(), nn.Linear(3, 6)).double()

    found, expected = (
        matrix(Objective(model, next_token).hessian(parameters_of(model), sample_of(tokens())))
        for model in (make(True), make(False))
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def test_frozen_parameters_have_no_rows() -> None:
    model = tanh_network().double()
    next(model.parameters()).requires_grad_(False)
    x = parameters_of(model)
    whole = dense_hessian(model, squared_error, x, sample_of(rows(3)))
    hessian = Objective(model, squared_error).hessian(x, sample_of(rows(3)))
    torch.testing.assert_close(matrix(hessian), whole[12:, 12:], rtol=1e-10, atol=1e-14)


def test_a_linear_loss_has_no_curvature() -> None:
    model = nn.Linear(3, 1).double()
    hessian = Objective(model, lambda model, batch: model(batch[0]).mean()).hessian(
        parameters_of(model), sample_of(rows(3))
    )
    assert not matrix(hessian).any()
    assert hessian.gradient_curvature() == 0


def test_vectors_are_float32_at_least() -> None:
    model = tanh_network().bfloat16()
    sample = sample_of({name: value.bfloat16() for name, value in rows(3).items()})
    hessian = Objective(model, squared_error).hessian(parameters_of(model), sample)
    assert hessian.dtype == hessian.product(torch.ones(hessian.dimension)).dtype == torch.float32


def test_parameters_of_several_dtypes() -> None:
    model = Mixed()
    hessian = Objective(model, squared_error).hessian(parameters_of(model), sample_of(rows(3)))
    assert hessian.dtype == torch.float64
    wide = Objective(Mixed().double(), squared_error).hessian(parameters_of(model), sample_of(rows(3)))
    torch.testing.assert_close(matrix(hessian), matrix(wide), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_gradient_curvature(scale: float) -> None:
    """On half a quadratic form: <g, A g> / |g|^2; in float32 too, where the square of 1e-25 is 0 and of 1e25 Inf."""
    a = torch.tensor([[2.0, 1.0, 0.0], [1.0, -3.0, 0.5], [0.0, 0.5, 1.0]])
    model = nn.Linear(3, 1, bias=False)
    x = {"weight": torch.tensor([[1.0, 2.0, -1.0]])}

    def form(model: nn.Module, batch: Any) -> Tensor:
        w = next(model.parameters())[0]
        return scale * (w @ batch @ w) / 2

    hessian = Objective(model, form).hessian(x, sample_of({"": a}))
    g = a @ x["weight"][0]
    expected = scale * float(g @ a @ g / (g @ g))
    assert hessian.gradient_curvature() == pytest.approx(expected, rel=1e-6)


def test_gradient_curvature_where_there_is_none() -> None:
    model = nn.Linear(3, 1, bias=False)
    x = {"weight": torch.zeros(1, 3)}

    def bowl(model: nn.Module, batch: Any) -> Tensor:
        return (next(model.parameters()) - batch).square().sum()

    objective = Objective(model, bowl)
    assert objective.hessian(x, sample_of({"": torch.zeros(1, 3)})).gradient_curvature() is None
    infinite = objective.hessian(x, sample_of({"": torch.tensor([[math.inf, 0, 0]])})).gradient_curvature()
    assert infinite is not None
    assert math.isnan(infinite)


def test_nothing_of_the_process_or_the_caller_changes() -> None:
    model = convolutional().double()
    x = parameters_of(model)
    tensors = [*model.state_dict().values(), *x.values()]
    before = [tensor.clone() for tensor in tensors]
    state, python_state, numpy_draw = torch.get_rng_state(), random.getstate(), np.random.RandomState()
    numpy_draw.set_state(np.random.get_state())
    hessian = Objective(model, squared_error).hessian(x, sample_of(rows(1, 6, 6)))
    hessian.product(torch.ones(hessian.dimension, dtype=torch.float64))
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python_state
    assert np.random.random() == numpy_draw.random_sample()
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.get_default_dtype() == torch.float32
    assert torch.backends.cuda.flash_sdp_enabled()


class Cube(torch.autograd.Function):
    """x^3, differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient


class OnceDifferentiable(Cube):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return Cube.backward(ctx, gradient)


class Fused(Cube):
    """A backward that autograd does not see, like a kernel from outside torch."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        with torch.no_grad():
            return Cube.backward(ctx, gradient)


def test_a_function_that_can_be_differentiated_twice() -> None:
    model = tanh_network().double()
    x = parameters_of(model)
    found, expected = (
        matrix(Objective(model, loss).hessian(x, sample_of(rows(3))))
        for loss in (
            lambda model, batch: Cube.apply(model(batch[0])).sum(),
            lambda model, batch: (model(batch[0]) ** 3).sum(),
        )
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("function", [OnceDifferentiable, Fused])
@pytest.mark.parametrize("last", [torch.sum, lambda y: y.square().sum()], ids=["constant gradient", "gradient"])
def test_a_function_that_cannot_be_differentiated_twice(function: type[Cube], last: Any) -> None:
    model = tanh_network().double()
    objective = Objective(model, lambda model, batch: last(function.apply(model(batch[0]))))
    with pytest.raises(
        ObjectiveError, match=f"step 7: the second derivative of the loss raised .*{function.__name__}Backward"
    ):
        objective.hessian(parameters_of(model), sample_of(rows(3)), where="step 7")


def test_an_operation_that_cannot_be_differentiated_twice() -> None:
    def alignment(model: nn.Module, batch: Any) -> Tensor:
        scores = model(batch[0]).log_softmax(-1)[:, None]
        return F.ctc_loss(scores, torch.tensor([[1]]), torch.tensor([8]), torch.tensor([1]))

    model = tanh_network().double()
    hessian = Objective(model, alignment).hessian(parameters_of(model), sample_of(rows(3)))
    with pytest.raises(ObjectiveError, match=r"second derivative of the loss raised .*_ctc_loss_backward"):
        hessian.product(hessian.gradient)


def test_parameters_that_change_under_a_kept_graph() -> None:
    model = tanh_network().double()
    x = parameters_of(model)
    hessian = Objective(model, squared_error).hessian(x, sample_of(rows(3)))
    x["2.weight"].mul_(2)
    with pytest.raises(ObjectiveError, match="modified by an inplace operation"):
        hessian.product(hessian.gradient)


def test_what_cannot_be_a_hessian() -> None:
    model = tanh_network().double()
    x = parameters_of(model)
    sample = sample_of(rows(3))
    with pytest.raises(ObjectiveError, match="does not depend on any parameter"):
        Objective(model, lambda model, batch: batch[0].sum()).hessian(x, sample)
    with pytest.raises(ObjectiveError, match="the loss raised KeyError"):
        Objective(model, lambda model, batch: dict(batch=batch)["labels"]).hessian(x, sample)
    with pytest.raises(StepFileError, match="2 micro-batches"):
        Objective(model, squared_error).hessian(x, Sample({"": rows(3)["0"]}, weights=(0.5, 0.5)))
    model.requires_grad_(False)
    with pytest.raises(ObjectiveError, match="no parameter is trainable"):
        Objective(model, squared_error).hessian(x, sample)
