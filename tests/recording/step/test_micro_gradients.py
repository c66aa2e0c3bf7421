"""Gradients of micro-batches as differences of what .grad adds up: their noise, and where rounding hides it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trajcheck.recording.sums.micro_gradients import ROUNDED, MicroGradients

SIZE = 20_000


def noise(gradients: list[torch.Tensor]) -> float:
    """Dense: the trace of the covariance of the micro-batches' gradients."""
    return float(torch.stack([each.double() for each in gradients]).var(dim=0).sum())


def recorded(gradients: list[torch.Tensor]) -> tuple[dict[str, Any], str]:
    parameter: Any = SimpleNamespace(tensor=torch.zeros(SIZE, dtype=gradients[0].dtype))
    sums = MicroGradients(ranks=1)
    for number, gradient in enumerate(gradients):
        part = gradient / len(gradients)  # as autograd adds it, in the dtype of .grad
        parameter.tensor.grad = part if number == 0 else parameter.tensor.grad + part
        sums.observed([parameter], 1.0, first=number == 0, scaled=False)
    return sums.take(len(gradients))


def drawn(dtype: torch.dtype, count: int, spread: float) -> list[torch.Tensor]:
    stream = torch.Generator().manual_seed(7)
    mean, *others = [torch.randn(SIZE, generator=stream, dtype=torch.float64) for _ in range(count + 1)]
    return [(mean + spread * other).to(dtype) for other in others]


@pytest.mark.parametrize(
    ("dtype", "count", "spread"),
    [(torch.float64, 2, 1e-5), (torch.float32, 8, 1e-3), (torch.float16, 8, 0.1), (torch.bfloat16, 8, 1.0)],
)
def test_noise_far_above_rounding_is_right(dtype: torch.dtype, count: int, spread: float) -> None:
    gradients = drawn(dtype, count, spread)
    found, why = recorded(gradients)
    assert not why
    estimate = (sum(found["squares"]) - sum(found["dots"]) / count) / (count - 1)
    assert estimate == pytest.approx(noise(gradients), rel=0.01)


@pytest.mark.parametrize(
    ("dtype", "count", "spread"),
    [(torch.float64, 2, 1e-8), (torch.float32, 2, 1e-7), (torch.bfloat16, 32, 0.1), (torch.bfloat16, 8, 0.01)],
)
def test_noise_that_rounding_hides_is_not_recorded(dtype: torch.dtype, count: int, spread: float) -> None:
    """Without that, the last three would be some 7, 1.10 and 1.66 times the noise."""
    assert recorded(drawn(dtype, count, spread)) == ({}, ROUNDED)
