"""An operation whose backward is right and whose second derivative is not, as the former weight_norm has it and custom
autograd functions do: products with the Hessian are not symmetric, and there are no eigenvalues to give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trajcheck
from trajcheck import Recorder


class Square(torch.autograd.Function):
    """x^2, whose backward takes the gradient that comes in for a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        [x] = ctx.saved_tensors
        return 2 * x * gradient.detach()


class Net(nn.Module):
    def __init__(self, right: bool) -> None:
        super().__init__()
        self.a, self.b, self.right = nn.Linear(4, 6), nn.Linear(6, 3), right

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(h * h if self.right else Square.apply(h))


def loss_of(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def wrong() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    return Net(False), loss_of


def right() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    return Net(True), loss_of


def dense_hessian(model: nn.Module, x: dict[str, Tensor], batch: Any) -> Tensor:
    """The right network in float64."""
    names, sizes = list(x), [t.numel() for t in x.values()]

    def f(flat: Tensor) -> Tensor:
        parts = {n: part.view_as(x[n]) for n, part in zip(names, flat.split(sizes), strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(model, parts, (batch[0].double(),)), batch[1])

    return torch.autograd.functional.hessian(f, torch.cat([t.double().reshape(-1) for t in x.values()]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eigenvalues_are_empty_with_that_reason_and_right_ones_are_given(dtype: str, tmp_path: Path) -> None:
    model, _ = right()
    optimizer, expected = torch.optim.SGD(model.parameters(), lr=0.1), []
    with Recorder(tmp_path / "run", model, optimizer, every=1, quiet=True) as recorder:
        for _ in range(3):
            batch = torch.randn(16, 4), torch.randint(3, (16,))
            x = {name: p.detach().clone() for name, p in model.named_parameters()}
            expected.append(float(torch.linalg.eigvalsh(dense_hessian(Net(True).double(), x, batch))[-1]))
            loss = loss_of(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()
    options: dict[str, Any] = {"curvature": 1, "replay_dtype": dtype}
    good = trajcheck.analyze(tmp_path / "run", objective=f"{__file__}:right", out=tmp_path / "right", **options)
    assert good.steps["lambda_max"][:3].tolist() == pytest.approx(expected, rel=1e-5)
    bad = trajcheck.analyze(tmp_path / "run", objective=f"{__file__}:wrong", out=tmp_path / "wrong", **options)
    assert bad.steps["replay_grad_error"].max() < 1e-5  # nothing is wrong with its gradient
    empty = {"lambda_max", "grad_curvature"} & set(bad.steps.columns)
    assert all(bad.steps[name].isna().all() for name in empty)
    undefined = (tmp_path / "wrong" / "undefined.csv").read_text()
    assert "products with the Hessian are not symmetric: <u, Hv> and <v, Hu> differ by" in undefined
