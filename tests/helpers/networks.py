"""Losses that are not quadratic: logistic regression (convex) and a small tanh network (not convex)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from quadratics import Layout

Sample = tuple[np.ndarray, np.ndarray]  # inputs (rows, features) and targets (rows,)


@dataclass
class Logistic:
    """f(x; inputs, signs) = mean log(1 + exp(-sign * <input, x>))."""

    features: int

    def f(self, x: np.ndarray, z: Sample) -> float:
        inputs, signs = z
        return float(np.logaddexp(0.0, -signs * (inputs @ x)).mean())

    def grad(self, x: np.ndarray, z: Sample) -> np.ndarray:
        inputs, signs = z
        wrong = 1 / (1 + np.exp(signs * (inputs @ x)))
        return np.asarray(-(wrong * signs) @ inputs / len(signs))

    def torch_loss(self) -> str:
        return """
def loss(x, batch):
    inputs, signs = batch
    zero = torch.zeros((), dtype=x.dtype)
    return torch.logaddexp(zero, -signs.to(x.dtype) * (inputs.to(x.dtype) @ x)).mean()
"""

    def sample(self, rows: int, rng: np.random.Generator) -> Sample:
        inputs = rng.normal(size=(rows, self.features))
        noisy = inputs @ np.ones(self.features) + 2 * rng.normal(size=rows)
        return inputs, np.where(noisy > 0, 1.0, -1.0)


@dataclass
class TanhNetwork:
    """f = mean (gain * <out, tanh(W input + bias)> - target)^2, x = (W, bias, out, gain, nothing)."""

    features: int
    hidden: int

    @property
    def layout(self) -> Layout:
        """Among the tensors a scalar and an empty one, which real models have too."""
        return {
            "body.hidden.weight": (self.hidden, self.features),
            "body.hidden.bias": (self.hidden,),
            "out": (self.hidden,),
            "gain": (),
            "body.nothing": (0,),
        }

    @property
    def size(self) -> int:
        return self.hidden * (self.features + 2) + 1

    def _loss(self, x: torch.Tensor, z: Sample) -> torch.Tensor:
        inputs, targets = (torch.as_tensor(part, dtype=torch.float64) for part in z)
        h, d = self.hidden, self.features
        weight, bias, out, gain = x[: h * d].reshape(h, d), x[h * d : h * d + h], x[h * d + h : -1], x[-1]
        return ((gain * (torch.tanh(inputs @ weight.T + bias) @ out) - targets) ** 2).mean()

    def f(self, x: np.ndarray, z: Sample) -> float:
        return float(self._loss(torch.tensor(x, dtype=torch.float64), z))

    def grad(self, x: np.ndarray, z: Sample) -> np.ndarray:
        point = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(self._loss(point, z), point)[0].numpy()

    def torch_loss(self) -> str:
        return f"""
def loss(x, batch):
    inputs, targets = (part.to(x.dtype) for part in batch)
    h, d = {self.hidden}, {self.features}
    hidden = torch.tanh(torch.einsum("rd,hd->rh", inputs, x[: h * d].view(h, d)) + x[h * d : h * d + h])
    return (x[-1] * (hidden * x[h * d + h : -1]).sum(1) - targets).square().mean()
"""

    def sample(self, rows: int, rng: np.random.Generator) -> Sample:
        inputs = rng.normal(size=(rows, self.features))
        return inputs, np.sin(2 * inputs[:, 0]) + 0.3 * rng.normal(size=rows)
