"""What a function such as F.cross_entropy took for targets: autograd keeps it with the function's node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

#: The functions of torch.nn.functional whose nodes keep their targets, as autograd names them, and under which name.
TARGETS = {
    **dict.fromkeys(("NllLossBackward0", "NllLoss2DBackward0"), ("target",)),
    **dict.fromkeys(("BinaryCrossEntropyBackward0", "BinaryCrossEntropyWithLogitsBackward0"), ("target",)),
    **dict.fromkeys(("MseLossBackward0", "SmoothL1LossBackward0", "HuberLossBackward0"), ("target", "self")),
    **dict.fromkeys(("MultiMarginLossBackward0", "SoftMarginLossBackward0"), ("target",)),
}
MEAN = 1  # of torch's numbers for `reduction`


def targets_of(functions: Sequence[Any]) -> torch.Tensor | None:
    """The tensor without a gradient that these functions' nodes keep as their target; None where no node keeps one, or
    they keep several. To be asked for before the backward pass, which frees it."""
    found: dict[tuple[Any, ...], torch.Tensor] = {}
    for node in functions:
        tensor = _target(node)
        if tensor is not None:
            found[tensor.data_ptr(), tuple(tensor.shape), tensor.stride()] = tensor
    return next(iter(found.values())) if len(found) == 1 else None


def is_mean(functions: Sequence[Any]) -> bool:
    """Whether they are one function, which takes the mean over its batch: what is multiplied to it is a weight."""
    return len(functions) == 1 and getattr(functions[0], "_saved_reduction", None) == MEAN


def _target(node: Any) -> torch.Tensor | None:
    for name in TARGETS.get(node.name(), ()):
        try:
            tensor = getattr(node, f"_saved_{name}")
        except (AttributeError, RuntimeError):  # it was changed since, or is gone
            return None
        if isinstance(tensor, torch.Tensor) and not tensor.requires_grad:
            return tensor.detach()
    return None
