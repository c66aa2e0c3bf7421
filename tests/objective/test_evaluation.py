"""Value and gradient are those of the model with the parameters loaded into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_objectives import (
    CPU,
    Recurrent,
    Tied,
    in_place,
    next_token,
    normalised,
    parameters_of,
    regression_batch,
    squared_error,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from trajcheck.errors import ObjectiveError
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import make_sample


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
