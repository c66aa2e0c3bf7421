"""Window sums of a loop that keeps every x_t and g_t."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loops import batch_of, read, recorded_steps
from torch import Tensor, nn


class Dense:
    """Every x_t, g_t and f_t of a run in float64, and the sums as one would write them down."""

    def __init__(self) -> None:
        self.x: list[dict[str, Tensor]] = []
        self.g: list[dict[str, Tensor]] = []
        self.f: list[float] = []

    def note(self, model: nn.Module, loss: float, factor: float = 1.0) -> None:
        self.x.append({name: p.detach().double().clone() for name, p in model.named_parameters()})
        self.g.append(
            {
                name: torch.zeros_like(p, dtype=torch.float64) if p.grad is None else p.grad.double() / factor
                for name, p in model.named_parameters()
            }
        )
        self.f.append(loss)

    def numerator(self, start: int, stop: int, point: dict[str, Tensor]) -> float:
        return sum(
            float((self.g[t][name] * (self.x[t][name] - point[name].double())).sum())
            for t in range(start, stop)
            for name in point
        )

    def check(self, folder: Path, rtol: float, skipped: tuple[int, ...] = (), complete: bool = True) -> None:
        """All windows of a run, against two points that were not known in training. Where the run need not be
        `complete`, windows and sums of losses may be unknown, but not wrong."""
        stream = torch.Generator().manual_seed(5)
        steps = recorded_steps(folder)
        first, last = self.x[0], {n: t.double() for n, t in of_kind(read(folder, steps[-1])[0], "param").items()}
        last = {name: last.get(name, first[name]) for name in first}  # frozen ones
        for step, start in zip(steps[1:], steps, strict=False):
            tensors, metadata = read(folder, step)
            if not complete and "window" not in metadata:
                continue
            window, total = metadata["window"], of_kind(tensors, "window")
            made = [t for t in range(start, step) if t not in skipped]
            assert (window["from"], window["steps"]) == (start, len(made))
            x_k = of_kind(read(folder, start)[0], "master") or of_kind(read(folder, start)[0], "param")
            for name in total:
                expected = sum((self.g[t][name] for t in made), torch.zeros_like(first[name]))
                assert total[name].dtype == (torch.float64 if x_k[name].dtype == torch.float64 else torch.float32)
                torch.testing.assert_close(total[name].double(), expected, rtol=100 * rtol, atol=10 * rtol)
            random = {n: t + torch.randn(t.shape, generator=stream, dtype=torch.float64) for n, t in first.items()}
            for point in (random, last):
                point = {name: point[name] for name in total}
                numerator = sum(self.numerator(t, t + 1, point) for t in made)
                got = window["grad_dot_offset"] + sum(
                    float((total[n].double() * (x_k[n].double() - point[n])).sum()) for n in total
                )
                size = sum(abs(self.numerator(t, t + 1, point)) for t in made)
                assert abs(got - numerator) <= rtol * max(abs(numerator), size), step
            squares = sum(float(self.g[t][n].square().sum()) for t in made for n in total)
            assert window["grad_sq_sum"] == pytest.approx(squares, rel=10 * rtol)
            if complete or window["loss_sum"] is not None:
                assert window["loss_sum"] == pytest.approx(sum(self.f[t] for t in made), rel=1e-12)


def double_batch(step: int) -> tuple[Tensor, Tensor]:
    return batch_of(step)[0].double(), batch_of(step)[1]


def of_kind(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{kind}/"): t for name, t in tensors.items() if name.startswith(f"{kind}/")}
