"""trajcheck.recording.unedited_loop.gradient_factor: what multiplied gradients; other changes have no factor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trajcheck.recording.unedited_loop.gradient_factor import GradientMeasures


def parameters(dtype: torch.dtype = torch.float32, shapes: Any = ((40, 30), (7,), (1,))) -> list[Tensor]:
    stream = torch.Generator().manual_seed(0)
    made = [torch.zeros(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    for tensor in made:
        tensor.grad = torch.randn(tensor.shape, generator=stream, dtype=torch.float64).to(dtype)
    return made


def scaled(tensors: list[Tensor], factor: float) -> None:
    for tensor in tensors:
        assert tensor.grad is not None
        tensor.grad.mul_(factor)


@given(st.floats(1e-6, 1e6), st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]))
def test_a_multiple_has_its_factor(factor: float, dtype: torch.dtype) -> None:
    if dtype is torch.float16:
        factor = min(max(factor, 0.1), 100.0)  # stays clear of underflow, which rounds tensor by tensor
    tensors = parameters(dtype)
    measures = GradientMeasures(tensors)
    assert measures.untouched()
    scaled(tensors, factor)
    assert not measures.untouched()
    assert measures.factor() == pytest.approx(factor, rel=4 * torch.finfo(dtype).eps)


def test_clipping_to_a_norm() -> None:
    tensors = parameters()
    measures = GradientMeasures(tensors)
    norm = torch.nn.utils.clip_grad_norm_(tensors, 0.5)
    assert measures.factor() == pytest.approx(0.5 / (float(norm) + 1e-6), rel=1e-7)
    assert GradientMeasures(tensors).factor() == 1.0


@pytest.mark.parametrize("shapes", [((40, 30), (7,)), ((50,),)], ids=["several", "one"])
@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: torch.nn.utils.clip_grad_value_(tensors, 1.0),
        lambda tensors: [tensor.grad.add_(0.01) for tensor in tensors],
        lambda tensors: tensors[0].grad.mul_(torch.linspace(0.9, 1.1, tensors[0].numel()).view_as(tensors[0])),
        lambda tensors: setattr(tensors[0], "grad", None),
        lambda tensors: tensors[0].grad.view(-1)[0].fill_(float("inf")),
        lambda tensors: tensors[0].grad.view(-1)[0].fill_(float("nan")),
    ],
    ids=["value", "noise", "uneven", "given up", "inf", "nan"],
)
def test_what_has_no_factor(change: Callable[[list[Tensor]], Any], shapes: Any) -> None:
    tensors = parameters(shapes=shapes)
    measures = GradientMeasures(tensors)
    change(tensors)
    assert measures.factor() is None


def test_one_tensor_of_several_has_no_factor() -> None:
    tensors = parameters()
    measures = GradientMeasures(tensors)
    scaled(tensors[1:2], 0.5)
    assert measures.factor() is None


def test_zero_and_absent_gradients() -> None:
    tensors = parameters()
    scaled(tensors, 0.0)
    measures = GradientMeasures(tensors)
    assert measures.factor() == 1.0
    assert tensors[0].grad is not None
    tensors[0].grad.add_(1)
    assert measures.factor() is None
    for tensor in tensors:
        tensor.grad = None
    assert GradientMeasures(tensors).factor() == 1.0


def test_sparse_gradients() -> None:
    table = torch.nn.Embedding(5, 3, sparse=True)
    table(torch.tensor([1, 3, 3])).sum().backward()
    measures = GradientMeasures([table.weight])
    assert table.weight.grad is not None
    table.weight.grad = table.weight.grad * 0.25
    assert measures.factor() == pytest.approx(0.25, rel=1e-7)
