"""Backward passes, in which code of the model may run: checkpointed layers, functions with a backward of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

try:
    from torch.autograd.graph import _engine_run_backward
except ImportError:  # which only adds what is logged to this
    _engine_run_backward = torch.autograd.Variable._execution_engine.run_backward


def gradients(
    of: Sequence[Tensor],
    wanted: Sequence[Tensor],
    along: Sequence[Tensor] | None = None,
    *,
    keep_graph: bool = False,
    create_graph: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of sum <of_i, along_i> (None: of numbers, along 1), as torch.autograd.grad computes them; None
    where nothing depends on one of `wanted`.

    torch.autograd.grad leaves every mode for its whole length, also the one that replaces casts (precision.py): what
    runs there would compute in another dtype than the forward pass did.
    """
    if along is None:
        along = [torch.ones_like(each) for each in of]
    found: tuple[Tensor | None, ...] = _engine_run_backward(
        tuple(of), tuple(along), keep_graph, create_graph, tuple(wanted), allow_unreachable=True, accumulate_grad=False
    )
    return found
