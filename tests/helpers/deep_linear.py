"""A deep linear network, f(W1, W2, W3) = mean over the rows of |W3 W2 W1 input - target|^2 / 2, in plain numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from handwritten import cut
from quadratics import Layout

Sample = tuple[np.ndarray, np.ndarray]


@dataclass
class DeepLinear:
    """`widths` from the input to the output."""

    widths: tuple[int, ...] = (4, 3, 3, 2)

    @property
    def layout(self) -> Layout:
        pairs = zip(self.widths[1:], self.widths, strict=False)
        return {f"layers.w{i}": pair for i, pair in enumerate(pairs)}

    @property
    def size(self) -> int:
        return sum(a * b for a, b in self.layout.values())

    def f(self, x: np.ndarray, z: Sample) -> float:
        inputs, targets = z
        for weight in cut(x, self.layout).values():
            inputs = inputs @ weight.T
        return float(0.5 * np.sum((inputs - targets) ** 2) / len(targets))

    def grad(self, x: np.ndarray, z: Sample) -> np.ndarray:
        inputs, targets = z
        weights, activations = list(cut(x, self.layout).values()), [inputs]
        for weight in weights:
            activations.append(activations[-1] @ weight.T)
        back, found = (activations[-1] - targets) / len(targets), []
        for weight, activation in zip(reversed(weights), reversed(activations[:-1]), strict=True):
            found.append((back.T @ activation).ravel())
            back = back @ weight
        return np.concatenate(found[::-1])

    def torch_loss(self) -> str:
        return f"""
WIDTHS = {self.widths!r}


def loss(x, batch):
    inputs, targets = (part.to(x.dtype) for part in batch)
    begin = 0
    for rows, columns in zip(WIDTHS[1:], WIDTHS):
        inputs = inputs @ x[begin : begin + rows * columns].view(rows, columns).T
        begin += rows * columns
    return 0.5 * (inputs - targets).square().sum() / len(targets)
"""

    def sample(self, rows: int, rng: np.random.Generator) -> Sample:
        inputs = rng.normal(size=(rows, self.widths[0]))
        return inputs, inputs @ rng.normal(size=(self.widths[0], self.widths[-1])) / 2
