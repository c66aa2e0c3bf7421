"""|g|^2, |x' - x|^2 and scattered elements as sums.c gives them, against plain torch, wherever tensors lie by then."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trajcheck.recording.step.content_samples import ContentSamples
from trajcheck.recording.sums.addresses import Places, takes
from trajcheck.recording.sums.compiled import compiled
from trajcheck.recording.sums.squares import StepSquares

needs_library = pytest.mark.skipif(compiled() is None, reason="sums.c was not built")


def _elsewhere(p: torch.nn.Parameter) -> None:
    p.data = p.data.clone()


def _transposed(p: torch.nn.Parameter) -> None:
    p.data = p.data.t().contiguous().t()


def _doubled(p: torch.nn.Parameter) -> None:
    p.data = p.data.double()


@pytest.mark.parametrize("move", [_elsewhere, _transposed, _doubled])
def test_parameters_are_looked_up_where_they_lie(move: Callable[[torch.nn.Parameter], None]) -> None:
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in [(7, 5), (13, 3), (41, 1)]]
    described: Any = [SimpleNamespace(source=p, group=0) for p in parameters]
    squares = StepSquares(described)
    squares.begin()
    for step in range(6):
        if step % 2:
            move(parameters[step % 3])
        before = [p.detach().double().clone() for p in parameters]
        for p in parameters:
            p.grad = torch.randn_like(p)
            p.data.add_(p.grad, alpha=-0.1)
        found, gradient = squares.moved()(), squares.gradients()
        assert found is not None
        expected = sum(float((p.detach().double() - x).square().sum()) for p, x in zip(parameters, before, strict=True))
        assert sum(map(float, found)) == pytest.approx(expected, rel=1e-6)
        expected = sum(float(p.grad.double().square().sum()) for p in parameters if p.grad is not None)
        assert sum(map(float, gradient)) == pytest.approx(expected, rel=1e-12)


def test_what_the_library_cannot_read_is_not_given_to_it() -> None:
    x = torch.randn(6, 4)
    assert takes(x)
    assert takes(torch.nn.Parameter(x))
    meta = torch.empty(3, device="meta")
    for other in (x.t(), x.double(), x.to_sparse(), meta, x[:, :2]):
        assert not takes(other)


@needs_library
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.float64])
def test_scattered_elements(dtype: torch.dtype) -> None:
    library = compiled()
    assert library is not None
    base = torch.arange(200).to(dtype)
    places = Places([base[3:9], base[10:190:7], base[199:], base[5:5]])
    found = torch.empty(places.number, dtype=dtype)
    library.gather(places, found)
    torch.testing.assert_close(found, torch.cat([base[3:9], base[10:190:7], base[199:]]), rtol=0, atol=0)
    assert library.gathered(places, found)
    base[0] = base[11] = 0  # read by nobody
    assert library.gathered(places, found)
    base[10 + 7 * 25] = 0
    assert not library.gathered(places, found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.complex128])
def test_samples_of_every_dtype_tell_a_change(dtype: torch.dtype) -> None:
    x = torch.randn(40, 60, dtype=dtype)
    samples = ContentSamples({"x": x})
    assert samples.look() == []
    before = samples.next()
    torch.testing.assert_close(samples.again(), before, rtol=0, atol=0)
    x[:, 30] += 1
    assert not samples.unchanged(before)
    assert not torch.equal(samples.again()[0], before[0])
