"""Buffers and micro-batches of a sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_objectives import CPU, in_place, normalised, parameters_of, regression_batch, squared_error
from torch import Tensor, nn
from torch.nn import functional as F

from trajcheck.errors import StepFileError
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import make_sample
from trajcheck.runs.batch_flattening import flatten


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
