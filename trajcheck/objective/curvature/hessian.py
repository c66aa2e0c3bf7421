"""Products of the Hessian with vectors, where the point and the sample are fixed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from trajcheck.objective.evaluation.backward import gradients

#: Elements that are widened to float64 at a time.
SLICE = 1 << 20


@contextmanager
def functions_checked(value: Tensor) -> Iterator[None]:
    """Around the gradient of `value`: RuntimeError where a torch.autograd.Function's backward escapes autograd.

    A backward made of kernels from outside torch (fused losses, fused attention), or `once_differentiable`, gives a
    gradient without a graph, and torch would leave its second derivative out of H without a word. A function whose
    gradient really is a constant is refused too: nothing tells the two apart.
    """
    handles: list[RemovableHandle] = []
    found, waiting = {value.grad_fn}, [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            handles.append(node.register_hook(_refuse_escape(node.name())))
        following = {after for after, _ in node.next_functions} - found
        found |= following
        waiting += following
    try:
        yield
    finally:
        # Backward passes that keep no graph are to come, through the same nodes.
        for handle in handles:
            handle.remove()


def _refuse_escape(name: str) -> Callable[[Sequence[Tensor | None], Sequence[Tensor | None]], None]:
    def hook(inputs: Sequence[Tensor | None], outputs: Sequence[Tensor | None]) -> None:
        for gradient in inputs:
            # What `once_differentiable` returns has a graph of one node, which raises in backward(), not in grad().
            escaped = gradient is not None and (
                gradient.grad_fn is None or gradient.grad_fn.name() == "torch::autograd::Error"
            )
            if escaped:
                raise RuntimeError(
                    f"{name}, of a torch.autograd.Function, cannot be differentiated; write the function with "
                    "operations of torch alone, without once_differentiable"
                )

    return hook


class Hessian:
    """H = the Hessian of f(.; z) at x, f = sum_i weight_i loss_i over micro-batches, as products H v.

    Double backward (Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6, 1994): the gradient
    is computed once with its graph, and H v = grad_x <grad f(x; z), v> is one more backward pass through that graph.
    Dropout masks and all else that is random belong to the graph, and so are the same in every product.

    Vectors are flat, [n]: the trainable parameters one after the other, each in row-major order, in `dtype` (the
    parameters' own, float32 at least) on `device`. Parameters that the gradient does not depend on have rows of zeros.

    Attributes: `loss`, f(x; z) as float64 [], and `gradient`, grad f(x; z) [n], from the same graph; `dimension`, n.

    parameters      the trainable tensors at x
    parts           one (weight_i loss_i, weight_i grad loss_i with its graph) for each micro-batch
    inside          runs a function under the conditions of the evaluation
    keep_graph      False makes the graph of each micro-batch anew for every product: the memory of two micro-batches
                    at most instead of all, for a forward and a backward pass more per product

    Errors: ObjectiveError for a loss with an operation that torch cannot differentiate twice.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        parts: Callable[[], Iterator[tuple[Tensor, list[Tensor]]]],
        inside: Callable[[Callable[[], Any]], Any],
        *,
        keep_graph: bool = True,
    ) -> None:
        self._parameters, self._parts, self._inside = list(parameters), parts, inside
        self._sizes = [x.numel() for x in self._parameters]
        self._keep_graph = keep_graph
        self._graphs: list[list[Tensor]] = []
        self.dimension = sum(self._sizes)
        self.device = self._parameters[0].device
        self.dtype = torch.float32
        for x in self._parameters:
            self.dtype = torch.promote_types(self.dtype, x.dtype)
        self.loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self.gradient = torch.zeros(self.dimension, dtype=self.dtype, device=self.device)
        inside(self._first_pass)

    def product(self, v: Tensor) -> Tensor:
        """H v [n] for v [n]; NaN and Inf are returned as they are."""
        pieces = [
            piece.view_as(x).to(x.dtype)
            for piece, x in zip(v.detach().split(self._sizes), self._parameters, strict=True)
        ]

        def work() -> Tensor:
            total = torch.zeros_like(self.gradient)
            for gradient in self._graphs or (gradient for _, gradient in self._parts()):
                total += self._flat(self._derivative(gradient, pieces))
            return total

        return self._inside(work)

    def gradient_curvature(self) -> float | None:
        """grad_curvature = <g, H g> / |g|^2, g = `gradient`, by one product; None where g = 0, NaN where g or H g is.

        Positive where f curves upwards along its gradient; never below lambda_min or above lambda_max.
        """
        largest = float(self.gradient.abs().max())
        if largest == 0:
            return None
        if not math.isfinite(largest):
            return math.nan
        v = self.gradient / largest  # a gradient of 1e-30 has a square of 0 in float32
        return float(_dot(v, self.product(v)) / _dot(v, v))

    def _first_pass(self) -> None:
        for loss, gradient in self._parts():
            self.loss += loss
            self.gradient += self._flat([part.detach() for part in gradient])
            if self._keep_graph:
                self._graphs.append(gradient)

    def _derivative(self, gradient: Sequence[Tensor], v: Sequence[Tensor]) -> list[Tensor]:
        """grad_x <gradient, v>, tensor by tensor."""
        # A loss that is linear in a parameter has a gradient there that depends on nothing.
        curved = [(part, piece) for part, piece in zip(gradient, v, strict=True) if part.requires_grad]
        if not curved:
            return [torch.zeros_like(x) for x in self._parameters]
        parts, pieces = zip(*curved, strict=True)
        found = gradients(parts, self._parameters, pieces, keep_graph=self._keep_graph)
        return [torch.zeros_like(x) if part is None else part for x, part in zip(self._parameters, found, strict=True)]

    def _flat(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([tensor.to_dense().reshape(-1).to(self.dtype) for tensor in tensors])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> in float64, without a float64 copy of either."""
    parts = zip(a.split(SLICE), b.split(SLICE), strict=True)
    return torch.stack([x.double().dot(y.double()) for x, y in parts]).sum()
