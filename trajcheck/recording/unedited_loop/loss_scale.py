"""Which loss scaler multiplied a loss: the one whose scale is a factor of what backward() is called on.

A process may have several (one for each network of a GAN), or old ones that nobody uses, as in a notebook.
"""

from __future__ import annotations

from typing import Any

import torch

from trajcheck.recording.unedited_loop.live_objects import live

#: So many times a factor that is no scaler's is looked up: it takes a walk over all objects.
PATIENCE = 20


class ScalerSearch:
    """Looks for the scaler of backward passes among those that live."""

    def __init__(self) -> None:
        self._missed = 0

    def of(self, tensors: list[Any]) -> torch.amp.GradScaler | None:
        """The scaler that made one of these tensors by `scaler.scale(loss)`; before the backward pass."""
        for tensor in tensors:
            node = getattr(tensor, "grad_fn", None)
            if node is None or node.name() != "MulBackward0" or self._missed == PATIENCE:
                continue
            factor = node._saved_other if isinstance(node._saved_other, torch.Tensor) else None
            if factor is not None and factor.numel() == 1 and factor.is_floating_point():
                if (scaler := _with(factor)) is not None:
                    return scaler
                self._missed += 1
        return None


def _with(factor: torch.Tensor) -> torch.amp.GradScaler | None:
    """The scaler whose scale this is, or, on another device, a copy of it."""
    scales = [
        (scaler, scaler._scale)
        for scaler in live(torch.amp.GradScaler)
        if scaler.is_enabled() and scaler._scale is not None
    ]
    same = [scaler for scaler, scale in scales if scale.data_ptr() == factor.data_ptr()]
    if not same:
        same = [s for s, scale in scales if scale.device != factor.device and float(scale) == float(factor)]
    return same[0] if len(same) == 1 else None
