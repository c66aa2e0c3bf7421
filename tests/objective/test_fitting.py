"""Whether a run's names, shapes, ties and buffers fit the model of an objective."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from small_objectives import CPU, Tied, in_place, next_token, normalised, parameters_of, regression_batch, squared_error
from torch import Tensor, nn

from trajcheck.errors import ObjectiveError
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import make_sample


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


def test_a_model_in_one_attribute_of_the_objectives() -> None:
    """As the LightningModule of a run whose checkpoints are known by the names of the model inside."""
    inner = normalised()
    tensors, buffers = regression_batch(), {name: tensor.clone() for name, tensor in inner.named_buffers()}
    sample = make_sample(tensors, device=CPU, buffers=buffers)
    expected = Objective(inner, squared_error).loss(parameters_of(inner), sample)
    objective = Objective(nn.Sequential(inner), squared_error)
    x = parameters_of(inner)
    objective.check({name: tuple(tensor.shape) for name, tensor in x.items()})
    assert objective.names == tuple(x) and objective.loss(x, sample) == expected
    with pytest.raises(ObjectiveError, match=r"only in the run: other; only in the objective: 0\.0\.weight"):
        objective.check({"other": (1,)})


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
