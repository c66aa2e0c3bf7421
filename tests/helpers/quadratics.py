"""Problems with known answers: quadratics of a chosen spectrum, their descent, and trajectories of pure noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from dense import Record

Layout = dict[str, tuple[int, ...]]  # how the flat vector x is cut into named tensors, in order


class Problem(Protocol):
    """A loss of a flat x and a sample z, with its gradient, and the same loss as torch source for replay."""

    def f(self, x: np.ndarray, z: Any) -> float: ...

    def grad(self, x: np.ndarray, z: Any) -> np.ndarray: ...

    def torch_loss(self) -> str:
        """Source of `loss(x, batch)`: x the flat vector, batch as it was stored."""
        ...


@dataclass
class Quadratic:
    """f(x; z) = scale * mean over the rows c of z of 1/2 (x - c)^T H (x - c)."""

    hessian: np.ndarray
    scale: float = 1.0

    @classmethod
    def with_spectrum(cls, eigenvalues: Sequence[float], seed: int, scale: float = 1.0) -> Quadratic:
        """H of these eigenvalues in a random basis."""
        size = len(eigenvalues)
        basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))
        hessian = basis @ np.diag(eigenvalues) @ basis.T
        return cls((hessian + hessian.T) / 2, scale)

    @property
    def size(self) -> int:
        return len(self.hessian)

    def f(self, x: np.ndarray, z: np.ndarray) -> float:
        away = x - z
        return float(self.scale * 0.5 * np.mean(np.sum((away @ self.hessian) * away, axis=1)))

    def grad(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.asarray(self.scale * (self.hessian @ (x - z.mean(axis=0))))

    def torch_loss(self) -> str:
        return f"""
HESSIAN = torch.tensor({self.hessian.tolist()!r}, dtype=torch.float64)


def loss(x, batch):
    away = x - batch.to(x.dtype)
    return {self.scale!r} * 0.5 * ((away @ HESSIAN.to(x.dtype)) * away).sum(1).mean()
"""

    def samples(self, count: int, rng: np.random.Generator, noise: float = 1.0, rows: int = 3) -> list[np.ndarray]:
        """Minibatches of centres around the origin; noise 0 is gradient descent on 1/2 x^T H x."""
        return [noise * rng.normal(size=(rows, self.size)) for _ in range(count)]


def descend(
    problem: Problem, start: np.ndarray, samples: Sequence[Any], rates: Sequence[float], clip: float = 1.0
) -> list[Record]:
    """Plain SGD, one record a step, and the last iterate; with `clip`, the gradient used is clip * grad f."""
    records = []
    x, tau = np.asarray(start, dtype=np.float64), 0.0
    for t, (z, rate) in enumerate(zip(samples, rates, strict=True)):
        used = clip * problem.grad(x, z)
        records.append(Record(t, x, used, rate, tau, z, problem.f(x, z), clip))
        x, tau = x - rate * used, tau + rate
    records.append(Record(len(records), x, tau=tau))
    return records


def pure_noise(rates: Sequence[float], size: int, seed: int) -> list[Record]:
    """SGD along gradients that know nothing of x."""
    rng = np.random.default_rng(seed)
    x, records = rng.normal(size=size), []
    for t, rate in enumerate(rates):
        g = rng.normal(size=size)
        records.append(Record(t, x, g, rate))
        x = x - rate * g
    return [*records, Record(len(records), x)]


def cosine_rates(count: int, first: float) -> list[float]:
    return [first * 0.5 * (1 + np.cos(np.pi * t / count)) for t in range(count)]


def keep(records: Sequence[Record], steps: Sequence[int]) -> list[Record]:
    """Only the records of these steps."""
    wanted = set(steps)
    return [record for record in records if record.step in wanted]
