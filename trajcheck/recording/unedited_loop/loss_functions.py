"""What a function such as F.cross_entropy took for targets, and by what it weighed each of them.

Autograd keeps both with the function's node.
"""

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
#: Those that may weigh each example for itself, and under which names; other weights are of classes, and no data.
WEIGHTS = {
    "BinaryCrossEntropyBackward0": ("weight",),
    "BinaryCrossEntropyWithLogitsBackward0": ("weight", "pos_weight"),
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


def weights_of(functions: Sequence[Any]) -> list[torch.Tensor]:
    """The tensors by which these functions weighed each example of their targets for itself, and not each class."""
    found = []
    for node in functions:
        target = _target(node)
        for name in WEIGHTS.get(node.name(), ()):
            weight = _saved(node, name)
            if target is None or weight is None or weight.dim() != target.dim() or not target.dim():
                continue
            if weight.shape[0] == target.shape[0] and weight.stride(0):  # 0: one row that was expanded
                found.append(weight.detach())
    return found


def is_mean(functions: Sequence[Any]) -> bool:
    """Whether they are one function, which takes the mean over its batch: what is multiplied to it is a weight."""
    return len(functions) == 1 and getattr(functions[0], "_saved_reduction", None) == MEAN


def _target(node: Any) -> torch.Tensor | None:
    for name in TARGETS.get(node.name(), ()):
        tensor = _saved(node, name)
        if tensor is not None and not tensor.requires_grad:
            return tensor.detach()
    return None


def _saved(node: Any, name: str) -> torch.Tensor | None:
    try:
        tensor = getattr(node, f"_saved_{name}")
    except (AttributeError, RuntimeError):  # it was changed since, or is gone
        return None
    return tensor if isinstance(tensor, torch.Tensor) else None
